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
    /// How many are allowed.
    pub rate: Rate,
}

/// How many calls of a group are allowed from one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Calls, which are refilled all the time.
    PerMinute {
        /// Calls per minute; 0 for no limit.
        calls: u32,
        /// Calls that may come at once.
        burst: u32,
    },
    /// New trials: at most so many within any hour.
    PerHour {
        /// Trials per hour; 0 for no limit.
        trials: u32,
    },
}

/// The group of the new trials, which is the one that is limited per hour.
pub const TRIALS: &str = "trials";

impl Limit {
    /// Identifies the content, to detect edit conflicts.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.facts())
    }

    /// The limit as JSON, for the audit log.
    fn facts(&self) -> Value {
        match self.rate {
            Rate::PerMinute { calls, burst } => {
                json!({ "name": self.name, "per_minute": calls, "burst": burst })
            }
            Rate::PerHour { trials } => json!({ "name": self.name, "per_hour": trials }),
        }
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
    /// New trials within an hour; 0 for no limit.
    pub trials_per_hour: u32,
}

/// The limits of all groups. A group without a row has no limit.
pub fn group_rules(reader: &Reader<'_>) -> Result<GroupRules> {
    let limits = store::list(reader)?;
    let rate = |name: &str| {
        let limit = limits.iter().find(|limit| limit.name == name);
        limit.map(|limit| limit.rate)
    };
    let rule = |name: &str| match rate(name) {
        Some(Rate::PerMinute { calls, burst }) => Rule {
            per_minute: calls,
            burst,
        },
        Some(Rate::PerHour { .. }) | None => Rule {
            per_minute: 0,
            burst: 1,
        },
    };
    Ok(GroupRules {
        client: rule("client"),
        client_failures: rule("client_failures"),
        site: rule("site"),
        login: rule("login"),
        trials_per_hour: match rate(TRIALS) {
            Some(Rate::PerHour { trials }) => trials,
            Some(Rate::PerMinute { .. }) | None => 0,
        },
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
pub enum LimitChange {
    /// Of calls.
    PerMinute {
        /// Calls per minute from one address; 0 for no limit.
        calls: u32,
        /// Calls that may come at once. `None` keeps the value.
        burst: Option<u32>,
    },
    /// Of new trials.
    PerHour {
        /// Trials per hour from one address; 0 for no limit.
        trials: u32,
    },
}

impl LimitChange {
    /// What the limit is after the change of `old`.
    fn applied_to(self, old: Rate) -> Result<Rate> {
        match (self, old) {
            (Self::PerMinute { calls, burst }, Rate::PerMinute { burst: old, .. }) => {
                let burst = burst.unwrap_or(old);
                Ok(Rate::PerMinute { calls, burst })
            }
            (Self::PerHour { trials }, Rate::PerHour { .. }) => Ok(Rate::PerHour { trials }),
            (Self::PerMinute { .. }, Rate::PerHour { .. }) => {
                let problem = "does not apply to trials, which are limited with per-hour";
                Err(Error::invalid("per-minute", problem))
            }
            (Self::PerHour { .. }, Rate::PerMinute { .. }) => {
                let problem = "applies to trials only; calls are limited with per-minute and burst";
                Err(Error::invalid("per-hour", problem))
            }
        }
    }
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
    let change = match limit.rate {
        Rate::PerMinute { calls, burst } => LimitChange::PerMinute {
            calls,
            burst: Some(burst),
        },
        Rate::PerHour { trials } => LimitChange::PerHour { trials },
    };
    replace(act, &old, change)
}

fn replace(act: &Act<'_>, old: &Limit, change: LimitChange) -> Result<()> {
    let new = Limit {
        name: old.name.clone(),
        rate: change.applied_to(old.rate)?,
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
