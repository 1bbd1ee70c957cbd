//! Rate limits per source address, one for each group of calls. `security::rate_limit` applies them.

pub mod cli;
mod rules;
mod store;

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::db::Reader;
use crate::error::{Error, Resource, Result};
use crate::revision::Revision;
use crate::security::rate_limit::Rule;

/// The rate limit of a group of calls.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The group of calls.
    pub name: String,
    /// Calls per minute from one address; 0 for no limit.
    pub per_minute: u32,
    /// Calls that may come at once.
    pub burst: u32,
}

impl Limit {
    /// Identifies the content, to detect edit conflicts.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.facts())
    }

    /// The limit as JSON, for the audit log.
    fn facts(&self) -> Value {
        json!({ "name": self.name, "per_minute": self.per_minute, "burst": self.burst })
    }
}

/// The limits of all groups, for the rate limiter.
#[derive(Clone, Copy, Debug)]
pub struct GroupRules {
    /// Calls of programs.
    pub client: Rule,
    /// Failed attempts of programs.
    pub client_failures: Rule,
    /// Handshake requests of sites.
    pub site: Rule,
    /// Logins of administrators.
    pub login: Rule,
}

/// The limits of all groups. A group without a row has no limit.
pub fn group_rules(reader: &Reader<'_>) -> Result<GroupRules> {
    let limits = store::list(reader)?;
    let rule = |name: &str| {
        let limit = limits.iter().find(|limit| limit.name == name);
        let (per_minute, burst) = limit.map_or((0, 1), |limit| (limit.per_minute, limit.burst));
        Rule { per_minute, burst }
    };
    Ok(GroupRules {
        client: rule("client"),
        client_failures: rule("client_failures"),
        site: rule("site"),
        login: rule("login"),
    })
}

/// Every rate limit.
pub fn list(reader: &Reader<'_>) -> Result<Vec<Limit>> {
    store::list(reader)
}

fn find(reader: &Reader<'_>, name: &str) -> Result<Limit> {
    let mut limits = store::list(reader)?.into_iter();
    let found = limits.find(|limit| limit.name == name);
    found.ok_or_else(|| Error::not_found(Resource::RateLimit, name))
}

/// A change of a rate limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitChange {
    /// Calls per minute from one address; 0 for no limit.
    pub per_minute: u32,
    /// Calls that may come at once. `None` keeps the value.
    pub burst: Option<u32>,
}

/// Changes the rate limit of the group `name`.
///
/// # Errors
/// [`Error::NotFound`] for an unknown group, [`Error::Invalid`] for numbers out of range.
pub fn set(act: &Act<'_>, name: &str, change: LimitChange) -> Result<()> {
    let old = find(act.tx, name)?;
    replace(act, &old, change)
}

/// Changes a rate limit. `seen` is the [`Limit::revision`] that the edit is based on.
///
/// # Errors
/// `changed_meanwhile`, and the errors of [`set`].
pub fn edit(act: &Act<'_>, limit: &Limit, seen: &Revision) -> Result<()> {
    let old = find(act.tx, &limit.name)?;
    seen.check(&old.revision())?;
    let change = LimitChange {
        per_minute: limit.per_minute,
        burst: Some(limit.burst),
    };
    replace(act, &old, change)
}

fn replace(act: &Act<'_>, old: &Limit, change: LimitChange) -> Result<()> {
    let new = Limit {
        name: old.name.clone(),
        per_minute: change.per_minute,
        burst: change.burst.unwrap_or(old.burst),
    };
    rules::check(&new)?;
    store::set(act.tx, &new, act.now)?;
    act.changed(&Change {
        action: "client_config.set_limit",
        subject: &new.name,
        before: old.facts(),
        after: new.facts(),
    })
}
