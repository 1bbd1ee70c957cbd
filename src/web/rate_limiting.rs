//! The rate limits of the client API: which quota a call uses, and whether it is admitted.
//!
//! - Calls without a valid API key have a quota of their own per source (client address). They never use up the quota of
//!   calls with a valid key, but are refused as well while the quota of calls with a valid key is used up.
//! - Every other call uses the quota of its source. Failed attempts and unreadable requests use separate quotas, so
//!   that they do not use up the calls of other programs behind the same address.
//! - A device that holds a slot of the license that it names, and a running session whose license the call names or leaves
//!   out, have a quota of their own; so have, once a lookup has found them, a device that has its trial and an ended session.
//!   Calls beyond it may use at most half of the quota of their source.
//! - A call from a source over its limit is admitted nevertheless if it names a device that holds a slot or has a trial, or
//!   a session of its license; if only the limit of failed attempts is exceeded, an existing license is enough. A program
//!   must not be refused for the failed attempts of another one behind the same address. Finding out takes a lookup.
//!   Lookups have a quota per named device or session, which lookups of existing ones do not use up: a program that repeats
//!   one wrong key is the only one limited, and no number of wrong keys causes a right one to be refused. The number of
//!   concurrent lookups is limited, which bounds their cost; further ones wait.
//! - Unknown sessions of an existing license count against that license, not against the address, because a restored backup
//!   lacks many sessions at once.
//!
//! A license key has 120 random bits, so these limits protect the server, not the key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rocket::Request;

use crate::clock::Tick;
use crate::error::{Error, Refused, Result};
use crate::id::ProductId;
use crate::license_key::LicenseKey;
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{
    Group, HourlyQuota, Limiter, LookupResult, Rule, Source, rate_limited,
};

/// The quota of one device or session: twice as many calls as a heartbeat every second.
const OWN_QUOTA: Rule = Rule {
    per_minute: 120,
    burst: 120,
};
/// The quota of lookups of one named device or session, while the source of the call is over a limit.
const NAMED_LOOKUPS: Rule = Rule {
    per_minute: 10,
    burst: 10,
};
/// Codes that count as failed attempts.
const FAILED_ATTEMPTS: &[&str] = &["license_not_found", "session_not_found"];
/// Codes that count as unreadable requests.
const UNREADABLE: &[&str] = &[
    "malformed_json",
    "unsupported_media_type",
    "payload_too_large",
    "invalid_field",
];

/// The device or session that a call names. It identifies the caller among all programs behind the same address.
#[derive(Clone, Copy, Debug)]
pub struct NamedCaller {
    /// A digest of the product and of what the call names; no address.
    caller: Source,
    /// The license that the call names along with a session.
    license: Option<(ProductId, LicenseKey)>,
    /// Whether the caller is known to exist, without a lookup.
    is_known: bool,
    is_session: bool,
}

impl NamedCaller {
    /// A device that asks for its trial of a product, and names no license.
    pub fn trial(product: ProductId, hardware_id: &str) -> Self {
        let product = product.0.to_be_bytes();
        let parts = [b"trial ", &product[..], hardware_id.as_bytes()];
        Self {
            caller: Source::from_identifier(&parts.concat()),
            license: None,
            is_known: false,
            is_session: false,
        }
    }

    /// The device `hardware_id` of a license. The product of the program is part of the identity, so that a program of
    /// another product learns nothing about a key from the limits.
    pub fn device(product: ProductId, license_key: &[u8], hardware_id: &str) -> Self {
        let product = product.0.to_be_bytes();
        let parts = [
            b"device ",
            &product[..],
            license_key,
            hardware_id.as_bytes(),
        ];
        Self {
            caller: Source::from_identifier(&parts.concat()),
            license: None,
            is_known: false,
            is_session: false,
        }
    }

    /// A session, with the license key of the call if it has one, of a product as in [`NamedCaller::device`].
    pub fn session(product: ProductId, token: &[u8], license_key: Option<LicenseKey>) -> Self {
        let number = product.0.to_be_bytes();
        let key = license_key.as_ref().map_or(&[][..], LicenseKey::as_bytes);
        Self {
            caller: Source::from_identifier(&[b"session ", &number[..], token, key].concat()),
            license: license_key.map(|key| (product, key)),
            is_known: false,
            is_session: true,
        }
    }

    /// A digest of the license that the call names along with a session.
    fn license(&self) -> Option<Source> {
        let (product, key) = self.license.as_ref()?;
        let product = product.0.to_be_bytes();
        let text = [b"license ", &product[..], key.as_bytes()].concat();
        Some(Source::from_identifier(&text))
    }

    /// The same caller, now known to exist without a lookup: a session that runs and belongs to this license.
    #[must_use]
    pub fn known(self) -> Self {
        Self {
            is_known: true,
            ..self
        }
    }
}

/// The limits for calls from one source.
#[derive(Clone, Copy, Debug)]
pub struct CallRules {
    /// For calls.
    pub calls: Rule,
    /// For failed attempts.
    pub failures: Rule,
    /// For new trials: how many within an hour; 0 for no limit.
    pub trials_per_hour: u32,
}

/// The rate limits that apply to one call of the client API.
#[derive(Debug)]
pub struct RateLimitContext {
    limiter: Arc<Limiter>,
    source: Source,
    rules: CallRules,
    now: Tick,
    /// Whether the call has been counted against the quota of its source.
    is_charged: AtomicBool,
    named: OnceLock<NamedCaller>,
}

/// A limit that a call exceeds: one of its source, or that of unknown sessions of the license that it names.
struct OverLimit {
    /// After how many seconds to try again.
    wait_s: u32,
    /// Whether it is enough for admission that the license exists, even if the device or session does not: only if just the
    /// limit of failed attempts is exceeded.
    license_is_enough: bool,
}

/// Whether a call is admitted.
enum Admission {
    Admitted,
    /// Only if a lookup finds what the call names.
    NeedsLookup(OverLimit),
}

impl RateLimitContext {
    /// Attaches to `request` the limits for a call from its address.
    pub fn attach(
        request: &Request<'_>,
        limiter: Arc<Limiter>,
        rules: CallRules,
        now: Tick,
    ) -> Arc<Self> {
        let context = Arc::new(Self {
            limiter,
            source: ClientAddress::of(request).into(),
            rules,
            now,
            is_charged: AtomicBool::new(false),
            named: OnceLock::new(),
        });
        let attached = request.local_cache(|| Some(context.clone()));
        attached.clone().unwrap_or(context)
    }

    /// The limits attached to `request`; `None` if it is not a call of the client API.
    pub fn of(request: &Request<'_>) -> Option<Arc<Self>> {
        request.local_cache(|| None::<Arc<Self>>).clone()
    }

    /// Counts a call without a valid API key.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn count_without_api_key(&self) -> Result<(), Refused> {
        self.check(Group::Client, self.rules.calls)
            .map_err(rate_limited)?;
        self.take(Group::WithoutApiKey, self.rules.failures)
            .map_err(rate_limited)
    }

    /// Counts a call that names neither a device nor a session. The devices behind one address cannot be told apart by such
    /// calls, so once the quota of the source is used up, such calls have a second one of the same size.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn count_unnamed(&self) -> Result<(), Refused> {
        self.charge(self.rules.calls)
            .or_else(|_| self.take(Group::Unnamed, self.rules.calls))
            .map_err(rate_limited)
    }

    /// Counts a call, and decides whether to admit it. `named` is the device or session that it names; `None` if no such
    /// one can exist, as with a malformed key. `look_up` finds out whether it exists, and is called only if the source is
    /// over a limit.
    ///
    /// # Errors
    /// `rate_limited`, and the errors of `look_up`.
    pub async fn admit<F>(
        &self,
        named: Option<NamedCaller>,
        look_up: impl FnOnce() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<LookupResult>>,
    {
        match self.admit_without_lookup(named).map_err(rate_limited)? {
            Admission::Admitted => Ok(()),
            Admission::NeedsLookup(limit) => {
                let permit = self.limiter.lookup_permit().await;
                let found = look_up().await?;
                drop(permit);
                self.admit_after_lookup(found, &limit)
                    .map_err(rate_limited)?;
                Ok(())
            }
        }
    }

    fn admit_without_lookup(&self, named: Option<NamedCaller>) -> Result<Admission, u32> {
        if let Some(named) = named {
            self.named.get_or_init(|| named);
            if named.is_known || self.limiter.remembers(named.caller, self.now) {
                return self.take_own_call(named).map(|()| Admission::Admitted);
            }
        }
        let calls = self.check(Group::Client, self.rules.calls);
        let failures = self.check(Group::ClientFailures, self.rules.failures);
        let unknown_sessions = named.and_then(|named| named.license()).map(|license| {
            let group = Group::UnknownSessions;
            self.limiter
                .check(group, license, self.rules.failures, self.now)
        });
        let unknown_sessions = unknown_sessions.unwrap_or(Ok(()));
        let Err(wait_s) = calls.and(failures).and(unknown_sessions) else {
            return self.charge(self.rules.calls).map(|()| Admission::Admitted);
        };
        let named = named.ok_or(wait_s)?;
        let group = Group::NamedLookups;
        self.limiter
            .take(group, named.caller, NAMED_LOOKUPS, self.now)?;
        let license_is_enough = calls.is_ok() && unknown_sessions.is_ok();
        Ok(Admission::NeedsLookup(OverLimit {
            wait_s,
            license_is_enough,
        }))
    }

    fn admit_after_lookup(&self, found: LookupResult, limit: &OverLimit) -> Result<(), u32> {
        match (found, self.named.get()) {
            (LookupResult::Caller, Some(named)) => {
                self.refund_lookup(*named);
                self.remember_device();
                self.take_own_call(*named)
            }
            (LookupResult::License, Some(named)) if limit.license_is_enough => {
                self.refund_lookup(*named);
                self.charge(self.rules.calls)
            }
            _ => Err(limit.wait_s),
        }
    }

    /// Returns the lookup to the quota: a device or session that exists must not use it up, even if the limiter has no
    /// room to remember it.
    fn refund_lookup(&self, named: NamedCaller) {
        let group = Group::NamedLookups;
        self.limiter
            .put_back(group, named.caller, NAMED_LOOKUPS, self.now);
    }

    /// Uses one call of the caller's own quota; once that is used up, one of the source's quota, of which such calls may use
    /// half.
    fn take_own_call(&self, named: NamedCaller) -> Result<(), u32> {
        if self.rules.calls.per_minute == 0 {
            // The operator has turned this limit off.
            return Ok(());
        }
        let own_call = self
            .limiter
            .take(Group::NamedCaller, named.caller, OWN_QUOTA, self.now);
        own_call.or_else(|_| self.charge(self.rules.calls.half()))
    }

    /// Limits how many new trials start at the source of the call.
    pub fn trial_quota(&self) -> HourlyQuota {
        let bucket = (Group::Trials, self.source);
        HourlyQuota::new(self.limiter.clone(), bucket, self.rules.trials_per_hour)
    }

    /// Whether the call names a device or session that can exist.
    pub fn names_caller(&self) -> bool {
        self.named.get().is_some()
    }

    /// Remembers that the named device holds a slot of its license, or has its trial. Does nothing for a session: the module
    /// `sessions` knows which ones run.
    pub fn remember_device(&self) {
        if let Some(named) = self.named.get().filter(|named| !named.is_session) {
            self.limiter.remember(named.caller, self.now);
        }
    }

    /// Counts the call as a failed attempt, instead of as a call.
    pub fn count_failure(&self) {
        self.refund();
        self.limiter.record_failure(
            Group::ClientFailures,
            self.source,
            self.rules.failures,
            self.now,
        );
    }

    /// Counts the call according to the `error` with which it is answered. Returns the error to send: `error` itself, or
    /// `rate_limited` if there were too many unreadable requests.
    pub fn count_error(&self, error: Error) -> Error {
        let code = match &error {
            Error::Refused(refused) => refused.code,
            Error::Invalid { .. } => "invalid_field",
            _ => return error,
        };
        if UNREADABLE.contains(&code) {
            return self.count_unreadable().map_or_else(Error::from, |()| error);
        }
        if FAILED_ATTEMPTS.contains(&code) {
            let license = self.named.get().and_then(NamedCaller::license);
            match license.filter(|_| code == "session_not_found") {
                // The license exists, and the session may have been lost by restoring a backup. Many programs are
                // affected then, so this does not count against their address.
                Some(license) => {
                    self.refund();
                    let group = Group::UnknownSessions;
                    self.limiter
                        .record_failure(group, license, self.rules.failures, self.now);
                }
                None => self.count_failure(),
            }
        }
        error
    }

    /// Counts an unreadable request, instead of a call. A source over any of its limits gets `rate_limited`, like any
    /// other call.
    fn count_unreadable(&self) -> Result<(), Refused> {
        self.refund();
        let within_limits = self.check(Group::Client, self.rules.calls);
        let within_limits =
            within_limits.and_then(|()| self.check(Group::ClientFailures, self.rules.failures));
        within_limits
            .and_then(|()| self.take(Group::Unreadable, self.rules.calls))
            .map_err(rate_limited)
    }

    /// Uses one call of the source's quota `rule`. If none is left, the error is the number of seconds to wait, as in the
    /// functions below.
    fn charge(&self, rule: Rule) -> Result<(), u32> {
        self.take(Group::Client, rule)?;
        self.is_charged.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the call that [`Self::charge`] has used, if any.
    fn refund(&self) {
        if self.is_charged.swap(false, Ordering::Relaxed) {
            let group = Group::Client;
            self.limiter
                .put_back(group, self.source, self.rules.calls, self.now);
        }
    }

    fn take(&self, group: Group, rule: Rule) -> Result<(), u32> {
        self.limiter.take(group, self.source, rule, self.now)
    }

    fn check(&self, group: Group, rule: Rule) -> Result<(), u32> {
        self.limiter.check(group, self.source, rule, self.now)
    }
}
