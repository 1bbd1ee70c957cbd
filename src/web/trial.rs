//! What a call of a program counts against, and whether it is let in.
//!
//! - A call without the API key counts against its own source only, and apart from calls that have it.
//! - A call counts against its source. What it got wrong is counted apart, so that it uses up no calls:
//!   what cannot be read, and what looks like guessing.
//! - A device that holds a slot of the license that it names, and a session with its own key, have a share
//!   of their own. What they ask beyond it leaves half of the source's calls to others.
//! - A source that is over a limit is heard all the same where it names something that exists, since its
//!   neighbours behind the same address are no guessers. That takes a lookup, and no rate bounds lookups but
//!   that of what is named, which what exists does not use up: a copy that repeats one wrong key stays
//!   limited by itself, and no number of wrong keys refuses a right one. What lookups cost in all is bounded
//!   by how many run at once; the others wait in line.
//!
//! A license key has 120 random bits: limits protect the machine, not the key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rocket::Request;

use crate::clock::Tick;
use crate::error::{Error, Refused, Result};
use crate::security::rate_limit::{Group, Limiter, Rule, Source, Standing, rate_limited};

/// Calls of one device or session that no neighbour uses up: a heartbeat a second, and as much again.
const SHARE: Rule = Rule {
    per_minute: 120,
    burst: 120,
};
/// Lookups of one thing that is named and does not exist, while its source is over a limit.
const NAMED_LOOKUPS: Rule = Rule {
    per_minute: 10,
    burst: 10,
};
/// Codes that are given for what looks like guessing.
const GUESSES: &[&str] = &["license_not_found", "session_not_found"];
/// Codes that are given for what cannot be read.
const UNREADABLE: &[&str] = &[
    "malformed_json",
    "unsupported_media_type",
    "payload_too_large",
    "invalid_field",
];

/// What a call names, so that it need not answer for its neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    caller: Source,
    /// Of a session: the license that it is said to be of.
    license: Option<Source>,
    /// Whether it is known to exist.
    known: bool,
    session: bool,
}

impl Named {
    /// A device of a license.
    pub fn device(license_key: &[u8], hardware_id: &str) -> Self {
        Self {
            caller: Source::named(&[b"device ", license_key, hardware_id.as_bytes()].concat()),
            license: None,
            known: false,
            session: false,
        }
    }

    /// A session, with the license key where one came with it; `known` where both belong together.
    pub fn session(token: &[u8], license_key: Option<&[u8]>, known: bool) -> Self {
        let key = license_key.unwrap_or_default();
        Self {
            caller: Source::named(&[b"session ", token, key].concat()),
            license: license_key.map(Source::named),
            known,
            session: true,
        }
    }
}

/// One call of a program, and what it counts against.
#[derive(Debug)]
pub struct RateLimitContext {
    limiter: Arc<Limiter>,
    source: Source,
    calls: Rule,
    failures: Rule,
    now: Tick,
    /// Whether one of the source's calls was taken for it.
    charged: AtomicBool,
    named: OnceLock<Named>,
}

/// A source that is over a limit, and what may be said of it after a lookup.
struct Over {
    wait_s: u32,
    /// Whether a license that exists is enough.
    license_is_enough: bool,
}

/// Who is let in at once, and who after a lookup only.
enum Entry {
    In,
    LookUp(Over),
}

impl RateLimitContext {
    /// This request comes from `source`; what it may do is said by `calls` and `failures`.
    pub fn begin(
        request: &Request<'_>,
        limiter: Arc<Limiter>,
        source: Source,
        (calls, failures): (Rule, Rule),
        now: Tick,
    ) -> Arc<Self> {
        let begun = Arc::new(Self {
            limiter,
            source,
            calls,
            failures,
            now,
            charged: AtomicBool::new(false),
            named: OnceLock::new(),
        });
        let kept = request.local_cache(|| Some(begun.clone()));
        kept.clone().unwrap_or(begun)
    }

    /// The trial of `request`; none where it is no call of a program.
    pub fn of(request: &Request<'_>) -> Option<Arc<Self>> {
        request.local_cache(|| None::<Arc<Self>>).clone()
    }

    /// Counts a call without a valid API key.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn without_api_key(&self) -> Result<(), Refused> {
        self.look(Group::Client, self.calls).map_err(rate_limited)?;
        self.take(Group::WithoutApiKey, self.failures)
            .map_err(rate_limited)
    }

    /// Counts a call that names nothing, and that anybody with the API key may make. It tells a device from
    /// nobody else, so it is refused only where the source makes very many of the same kind.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn enter_unnamed(&self) -> Result<(), Refused> {
        let charged = self.charge(self.calls);
        charged
            .or_else(|_| self.take(Group::Unnamed, self.calls))
            .map_err(rate_limited)
    }

    /// Lets a call in by what it `named`: none for what cannot exist. `look_up` says how it stands.
    ///
    /// # Errors
    /// `rate_limited`, and what `look_up` fails with.
    pub async fn enter<F>(&self, named: Option<Named>, look_up: impl FnOnce() -> F) -> Result<()>
    where
        F: Future<Output = Result<Standing>>,
    {
        match self.knock(named).map_err(rate_limited)? {
            Entry::In => Ok(()),
            Entry::LookUp(over) => {
                let turn = self.limiter.turn_to_look_up().await;
                let standing = look_up().await?;
                drop(turn);
                self.settle(standing, &over).map_err(rate_limited)?;
                Ok(())
            }
        }
    }

    fn knock(&self, named: Option<Named>) -> Result<Entry, u32> {
        if let Some(named) = named {
            self.named.get_or_init(|| named);
            if named.known || self.limiter.remembers(named.caller, self.now) {
                return self.take_share(named).map(|()| Entry::In);
            }
        }
        let calls = self.look(Group::Client, self.calls);
        let failing = self.look(Group::ClientFailures, self.failures);
        let lost = named.and_then(|named| named.license).map(|license| {
            let group = Group::LostSessions;
            self.limiter.look(group, license, self.failures, self.now)
        });
        let lost = lost.unwrap_or(Ok(()));
        let Err(wait_s) = calls.and(failing).and(lost) else {
            return self.charge(self.calls).map(|()| Entry::In);
        };
        let named = named.ok_or(wait_s)?;
        let group = Group::NamedLookups;
        self.limiter
            .take(group, named.caller, NAMED_LOOKUPS, self.now)?;
        let license_is_enough = calls.is_ok() && lost.is_ok();
        Ok(Entry::LookUp(Over {
            wait_s,
            license_is_enough,
        }))
    }

    fn settle(&self, standing: Standing, over: &Over) -> Result<(), u32> {
        match (standing, self.named.get()) {
            (Standing::Own, Some(named)) => {
                self.give_back_lookup(*named);
                self.remember();
                self.take_share(*named)
            }
            (Standing::License, Some(named)) if over.license_is_enough => {
                self.give_back_lookup(*named);
                self.charge(self.calls)
            }
            _ => Err(over.wait_s),
        }
    }

    /// What exists uses up no lookups, however seldom there is room to remember it.
    fn give_back_lookup(&self, named: Named) {
        let group = Group::NamedLookups;
        self.limiter
            .give_back(group, named.caller, NAMED_LOOKUPS, self.now);
    }

    /// One call of the share of its own; beyond it, one of the source's that others can spare.
    fn take_share(&self, named: Named) -> Result<(), u32> {
        if self.calls.per_minute == 0 {
            // Switched off by the operator.
            return Ok(());
        }
        let share = self
            .limiter
            .take(Group::Device, named.caller, SHARE, self.now);
        share.or_else(|_| self.charge(self.calls.half()))
    }

    /// Whether the call names something that can exist.
    pub fn names(&self) -> bool {
        self.named.get().is_some()
    }

    /// Remembers that the device that was named holds its slot. Sessions are remembered elsewhere.
    pub fn remember(&self) {
        if let Some(named) = self.named.get().filter(|named| !named.session) {
            self.limiter.remember(named.caller, self.now);
        }
    }

    /// The call looks like guessing.
    pub fn guessed(&self) {
        self.give_back();
        self.limiter
            .failed(Group::ClientFailures, self.source, self.failures, self.now);
    }

    /// What `error`, the answer to this call, says of it; another one, where it asked too often for this
    /// one too.
    pub fn judge(&self, error: Error) -> Error {
        let code = match &error {
            Error::Refused(refused) => refused.code,
            Error::Invalid { .. } => "invalid_field",
            _ => return error,
        };
        if UNREADABLE.contains(&code) {
            return self.unreadable().map_or_else(Error::from, |()| error);
        }
        if GUESSES.contains(&code) {
            let license = self.named.get().and_then(|named| named.license);
            match license.filter(|_| code == "session_not_found") {
                // The license exists: a restore may have forgotten the session.
                Some(license) => {
                    self.give_back();
                    let group = Group::LostSessions;
                    self.limiter.failed(group, license, self.failures, self.now);
                }
                None => self.guessed(),
            }
        }
        error
    }

    /// Counts a call that could not be read. The limits stand before whatever else is wrong with it.
    fn unreadable(&self) -> Result<(), Refused> {
        self.give_back();
        let looked = self.look(Group::Client, self.calls);
        let looked = looked.and_then(|()| self.look(Group::ClientFailures, self.failures));
        looked
            .and_then(|()| self.take(Group::Unreadable, self.calls))
            .map_err(rate_limited)
    }

    fn charge(&self, rule: Rule) -> Result<(), u32> {
        self.take(Group::Client, rule)?;
        self.charged.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self) {
        if self.charged.swap(false, Ordering::Relaxed) {
            let group = Group::Client;
            self.limiter
                .give_back(group, self.source, self.calls, self.now);
        }
    }

    fn take(&self, group: Group, rule: Rule) -> Result<(), u32> {
        self.limiter.take(group, self.source, rule, self.now)
    }

    fn look(&self, group: Group, rule: Rule) -> Result<(), u32> {
        self.limiter.look(group, self.source, rule, self.now)
    }
}
