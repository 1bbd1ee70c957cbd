//! What every operation that changes something is given: the transaction, the originator and the time.

use std::borrow::Cow;

use super::Change;
use crate::clock::UnixMs;
use crate::db::Tx;
use crate::domain::Domain;
use crate::error::Result;
use crate::id::AdminId;
use crate::security::client_address::ClientAddress;

/// The originator of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An administrator in the panel.
    Administrator {
        /// The account.
        id: AdminId,
        /// Its name at the time of the action.
        name: String,
        /// The client's address.
        source: String,
        /// When a password or second factor was last accepted in the login.
        proved_at: UnixMs,
    },
    /// The person who uses the set-up link, before the account exists.
    Setup {
        /// The name of the account to be created.
        name: String,
        /// The client's address.
        source: String,
    },
    /// An operator who uses the command line as `user` of the operating system.
    CommandLine {
        /// The user of the operating system.
        user: String,
    },
    /// A customer's site.
    Site {
        /// The domain that it proved.
        domain: Domain,
        /// The address of its request.
        source: ClientAddress,
    },
    /// A program without a license, which asks for a trial. Its address is not noted: a trial belongs to no customer, so
    /// nothing would ever erase it.
    Program,
    /// The server itself.
    Server {
        /// The address whose requests caused the action, if any.
        source: Option<ClientAddress>,
    },
    /// The demo, which fills its own database.
    Demo,
}

impl Actor {
    /// The name of an operator who uses the command line.
    pub const COMMAND_LINE: &str = "command line";
    /// The name of the server itself.
    pub const SERVER: &str = "server";
    /// The first word of the name of a customer's site; its domain follows after a space.
    pub const SITE: &str = "site";
    /// The name of a program.
    pub const PROGRAM: &str = "program";
    const DEMO: &str = "demo";

    /// An operator who uses the command line as `user` of the operating system.
    pub fn command_line(user: &str) -> Self {
        Self::CommandLine {
            user: user.to_owned(),
        }
    }

    /// The server itself, for a reason of its own.
    pub const fn server() -> Self {
        Self::Server { source: None }
    }

    /// The name in the audit log. That of a site contains a space, so no administrator can have it.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Administrator { name, .. } | Self::Setup { name, .. } => name.into(),
            Self::CommandLine { .. } => Self::COMMAND_LINE.into(),
            Self::Site { domain, .. } => format!("{} {domain}", Self::SITE).into(),
            Self::Program => Self::PROGRAM.into(),
            Self::Server { .. } => Self::SERVER.into(),
            Self::Demo => Self::DEMO.into(),
        }
    }

    /// The client's address, or the user of the operating system; empty for a program, the server and the demo.
    pub fn source(&self) -> Cow<'_, str> {
        match self {
            Self::Administrator { source, .. } | Self::Setup { source, .. } => source.into(),
            Self::CommandLine { user } => user.into(),
            Self::Site { source, .. }
            | Self::Server {
                source: Some(source),
            } => source.to_string().into(),
            Self::Program | Self::Server { source: None } | Self::Demo => "".into(),
        }
    }

    /// Whether this is the administrator with the id `id`.
    pub fn is_administrator(&self, id: AdminId) -> bool {
        matches!(self, Self::Administrator { id: own, .. } if *own == id)
    }
}

/// One change by one actor: the transaction that it is part of, the actor, and the time. Operations that change
/// something take it as their first argument.
#[derive(Clone, Copy)]
pub struct Act<'a> {
    /// The transaction.
    pub tx: &'a Tx<'a>,
    /// The originator.
    pub actor: &'a Actor,
    /// The time, taken once for the whole request.
    pub now: UnixMs,
}

impl<'a> Act<'a> {
    /// An act in the transaction `tx`.
    pub const fn new(tx: &'a Tx<'a>, actor: &'a Actor, now: UnixMs) -> Self {
        Self { tx, actor, now }
    }

    /// Writes an audit entry. Sufficient if no cache holds what changed; otherwise use [`Act::changed`].
    pub fn note(&self, change: &Change<'_>) -> Result<()> {
        super::note(self.tx, self.now, self.actor, change)
    }

    /// Writes an audit entry, and invalidates every cache of this process when the transaction commits.
    pub fn changed(&self, change: &Change<'_>) -> Result<()> {
        self.note(change)?;
        self.tx.invalidate_caches();
        Ok(())
    }
}
