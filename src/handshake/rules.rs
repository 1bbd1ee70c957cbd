//! How often callers may make the server call a domain, and what an operation does to the binding of a license.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Handshake, OperationDetails};
use crate::clock::{Tick, UnixMs};
use crate::domain::Domain;
use crate::domains::{DomainBinding, Transfer, TransferGrace};
use crate::licenses::LicenseKey;
use crate::products::ProgramSettings;
use crate::releases::Release;
use crate::security::client_address::ClientAddress;
use crate::security::secret;

/// How long the site has to send the third message, and how long a request id is remembered as used.
pub(super) const ID_LIFETIME: Duration = Duration::from_secs(30);
/// Calls to one domain, not counting those by [`Caller::Unconfirmed`]; also calls with one license key to domains that
/// have not confirmed it.
const CALLS_PER_MINUTE: usize = 6;
const MINUTE: Duration = Duration::from_mins(1);
/// How many of them [`Caller::Untrusted`] may cause; the rest is reserved for trusted callers.
const UNTRUSTED_CALLS_PER_MINUTE: usize = 3;
/// Calls to one domain by [`Caller::Unconfirmed`], in addition to [`CALLS_PER_MINUTE`]. Every license causes one, and
/// the next after its [`retry_delay`]. To keep the owner of a domain from registering, an attacker would have to own
/// this many licenses and use all of them within a minute.
const UNCONFIRMED_CALLS_PER_MINUTE: usize = 60;
/// Upper limit of [`retry_delay`].
const RETRY_DELAY_MAX: Duration = Duration::from_hours(1);
/// Open handshakes for one domain.
const OPEN_PER_DOMAIN: usize = 3;
/// How many of them [`Caller::Untrusted`] may have.
const UNTRUSTED_OPEN_PER_DOMAIN: usize = 2;
/// Bytes of the information in a delivery, so that the whole body stays below 16 KiB.
const INFORMATION_LEN_MAX: usize = 15 * 1024;
/// Bytes of the release notes of one version; longer ones are cut off.
const NOTES_LEN_MAX: usize = 2048;

/// A request id or a transaction id: 256 random bits, written as 64 lower-case hexadecimal digits. `Debug` hides it,
/// because the id is all that is needed to continue the handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct Id([u8; 32]);

impl Id {
    /// A new id from the operating system's random number generator.
    pub(super) fn new() -> crate::error::Result<Self> {
        secret::random().map(Self)
    }

    /// Parses 64 lower-case hexadecimal digits; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = *pair else { return None };
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(bytes))
    }

    /// The hexadecimal digits, for messages to the domain of the handshake.
    pub(super) fn reveal(&self) -> String {
        secret::hex(&self.0)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Id(…)")
    }
}

/// The operation that a site asks for in the third message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// List the released versions.
    Versions,
    /// Show the state of a license.
    License(LicenseKey),
    /// Bind a license to the site's domain, or confirm a transfer to it.
    Register(LicenseKey),
    /// Unbind a license from the named domain, which may be another one than the site's.
    Deregister(LicenseKey, Domain),
    /// Start the transfer of a license to another domain.
    Transfer(LicenseKey, Domain),
    /// Cancel a transfer in progress.
    CancelTransfer(LicenseKey),
}

impl Operation {
    /// Parses the name of an operation; `None` if it is unknown or a parameter is missing or malformed.
    pub(super) fn parse(name: &str, details: &OperationDetails) -> Option<Self> {
        let key = || LicenseKey::parse(details.license_key.as_deref()?);
        let domain = |text: &Option<String>| Domain::parse(text.as_deref()?);
        match name {
            "versions" => Some(Self::Versions),
            "license" => key().map(Self::License),
            "register" => key().map(Self::Register),
            "deregister" => Some(Self::Deregister(key()?, domain(&details.domain)?)),
            "transfer" => Some(Self::Transfer(key()?, domain(&details.new_domain)?)),
            "cancel_transfer" => key().map(Self::CancelTransfer),
            _ => None,
        }
    }

    /// Its name in messages and in the database.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Versions => "versions",
            Self::License(_) => "license",
            Self::Register(_) => "register",
            Self::Deregister(..) => "deregister",
            Self::Transfer(..) => "transfer",
            Self::CancelTransfer(_) => "cancel_transfer",
        }
    }

    /// The action in the audit log.
    pub(super) const fn audit_action(&self) -> &'static str {
        match self {
            Self::Versions => "handshake.versions",
            Self::License(_) => "handshake.license",
            Self::Register(_) => "handshake.register",
            Self::Deregister(..) => "handshake.deregister",
            Self::Transfer(..) => "handshake.transfer",
            Self::CancelTransfer(_) => "handshake.cancel_transfer",
        }
    }

    /// The license that the operation is about.
    pub(super) const fn key(&self) -> Option<&LicenseKey> {
        match self {
            Self::Versions => None,
            Self::License(key)
            | Self::Register(key)
            | Self::Deregister(key, _)
            | Self::Transfer(key, _)
            | Self::CancelTransfer(key) => Some(key),
        }
    }
}

/// The binding of a license after `operation`; `None` if the site must not do that with this license. `binding` is the
/// one at `now`.
pub(super) fn binding_after(
    operation: &Operation,
    handshake: &Handshake,
    binding: &DomainBinding,
    now: UnixMs,
    grace: TransferGrace,
) -> Option<DomainBinding> {
    let site = &handshake.domain;
    let binding = binding.clone();
    // An unbound domain may only register.
    if handshake.unbound && !matches!(operation, Operation::Register(_)) {
        return None;
    }
    match operation {
        Operation::Versions => Some(binding),
        Operation::License(_) => binding.serves(site).then_some(binding),
        Operation::Register(_) => binding.register(site, now),
        Operation::Deregister(_, domain) => binding.unbind(domain),
        Operation::Transfer(_, to) => {
            let is_bound_here = binding.domain.as_ref() == Some(site);
            is_bound_here
                .then(|| binding.start_transfer(to, grace.end(now)))
                .flatten()
        }
        Operation::CancelTransfer(_) => binding
            .serves(site)
            .then(|| binding.cancel_transfer())
            .flatten(),
    }
}

/// When a call was caused, and by which kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CausedCall {
    pub(super) at: Tick,
    pub(super) caller: Caller,
}

/// Open handshakes of one budget, without those of [`Caller::Unconfirmed`], which are limited by their calls alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenCounts {
    pub(super) all: usize,
    pub(super) untrusted: usize,
}

/// How far the caller who causes a call is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Its network completed a handshake for the domain lately, or it sent the key of a license that the domain has
    /// confirmed.
    Trusted,
    /// It sent the key of a license that the domain has not confirmed: a license that is bound to no domain, or one
    /// that another site transfers to this domain. The owner of a new domain starts like this, but any buyer of a
    /// license can do the same with the domain of a stranger.
    Unconfirmed,
    /// As [`Unconfirmed`](Self::Unconfirmed), before the [`retry_delay`] of this license has passed.
    UnconfirmedRetry,
    /// It sent no key, and its network is not known.
    Untrusted,
}

/// Whether a call still counts against the limits per minute.
pub(super) fn is_recent(call: CausedCall, now: Tick) -> bool {
    now.since(call.at) < MINUTE
}

/// Whether `caller` may cause a call. `recent` holds the calls that are [recent](is_recent). Calls by
/// [`Caller::Unconfirmed`] are counted apart, so that they never use up the calls of trusted callers.
pub(super) fn may_call(recent: &[CausedCall], open: OpenCounts, caller: Caller) -> bool {
    let by = |kind| recent.iter().filter(|call| call.caller == kind).count();
    let (unconfirmed, untrusted) = (by(Caller::Unconfirmed), by(Caller::Untrusted));
    let others = recent.len() - unconfirmed;
    match caller {
        Caller::Unconfirmed => unconfirmed < UNCONFIRMED_CALLS_PER_MINUTE,
        Caller::Trusted => others < CALLS_PER_MINUTE && open.all < OPEN_PER_DOMAIN,
        Caller::UnconfirmedRetry => {
            others < UNTRUSTED_CALLS_PER_MINUTE && open.all < UNTRUSTED_OPEN_PER_DOMAIN
        }
        Caller::Untrusted => {
            others < CALLS_PER_MINUTE
                && open.all < OPEN_PER_DOMAIN
                && untrusted < UNTRUSTED_CALLS_PER_MINUTE
                && open.untrusted < UNTRUSTED_OPEN_PER_DOMAIN
        }
    }
}

/// How long a license waits before it may cause another call as [`Caller::Unconfirmed`], if the domain did not send the
/// third message after the last `unanswered` calls: one minute, doubled with every further call.
pub(super) fn retry_delay(unanswered: u32) -> Duration {
    let doublings = unanswered.saturating_sub(1).min(6);
    (MINUTE * 2_u32.pow(doublings)).min(RETRY_DELAY_MAX)
}

/// How far a caller who sends the key of a license with this `binding` is trusted for `domain`; `None` if the license
/// is bound to another domain. A transfer to `domain` counts only after `domain` has confirmed it, because another site
/// started it.
pub(super) fn caller_with_license(binding: &DomainBinding, domain: &Domain) -> Option<Caller> {
    let confirmed = |to: &Transfer| to.domain == *domain && to.confirmed_at.is_some();
    if binding.domain.as_ref() == Some(domain) || binding.transfer.as_ref().is_some_and(confirmed) {
        return Some(Caller::Trusted);
    }
    (binding.domain.is_none() || binding.moves_to(domain)).then_some(Caller::Unconfirmed)
}

/// The network of a client: its IPv4 address, or its IPv6 /64, which usually belongs to one customer. `None` for
/// unknown clients behind a proxy, because one of them says nothing about the others.
pub(super) fn client_network(address: ClientAddress) -> Option<String> {
    Some(match address.ip()?.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let network = Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64);
            format!("{network}/64")
        }
    })
}

/// The information about versions that is delivered to a site: every release, newest first, with the notes of the
/// newest ones as far as they fit into [`INFORMATION_LEN_MAX`]. If the releases alone do not fit, the oldest are left
/// out.
pub(super) fn versions(settings: &ProgramSettings) -> Value {
    let config = &settings.config;
    let mut listed = Vec::new();
    let mut left = INFORMATION_LEN_MAX;
    for release in &settings.released {
        let without_notes = version(release, 0);
        let length = without_notes.to_string().len() + 1;
        if length > left {
            break;
        }
        left -= length;
        listed.push(without_notes);
    }
    for (release, entry) in settings.released.iter().zip(&mut listed) {
        let with_notes = version(release, NOTES_LEN_MAX);
        let more = with_notes
            .to_string()
            .len()
            .saturating_sub(entry.to_string().len());
        if more <= left {
            left -= more;
            *entry = with_notes;
        }
    }
    json!({
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "versions": listed,
    })
}

fn version(release: &Release, notes_len: usize) -> Value {
    let end = release.notes.floor_char_boundary(notes_len);
    json!({
        "version": release.version,
        "channel": release.channel,
        "released_at": release.released_at.rfc3339(),
        "whats_new": release.notes.get(..end),
        "download_url": release.download_url,
        "sha256": release.sha256,
        "size": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);
    const GRACE: TransferGrace = TransferGrace::days(1);

    fn name(label: &str) -> Domain {
        Domain::parse(&format!("{label}.example")).unwrap()
    }

    fn on(domain: Option<&str>, to: Option<(&str, i64)>) -> DomainBinding {
        DomainBinding {
            domain: domain.map(name),
            transfer: to.map(|(to, until)| Transfer {
                domain: name(to),
                until: UnixMs(until),
                confirmed_at: None,
            }),
        }
    }

    fn by(domain: &str) -> Handshake {
        Handshake {
            domain: name(domain),
            source: ClientAddress::Direct([192, 0, 2, 1].into()),
            caller: Caller::Trusted,
            unbound: false,
            key_digest: None,
            at: NOW,
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let id = Id::new().unwrap();
        let text = id.reveal();
        assert!(Id::parse(&text) == Some(id.clone()) && text.len() == 64);
        for wrong in [
            "",
            "0",
            &text
                .to_uppercase()
                .replace(|c: char| c.is_ascii_digit(), "A"),
            &format!("{text}0"),
            &text.replace(text.chars().next().unwrap(), "g"),
        ] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{id:?}"), "Id(…)");
    }

    #[test]
    fn every_operation_changes_the_binding_or_is_refused() {
        let key = LicenseKey::new().unwrap();
        let later = NOW.0 + 86_400_000;
        let (none, bound) = (on(None, None), on(Some("old"), None));
        let moving = on(Some("old"), Some(("new", later)));
        let confirmed = {
            let mut confirmed = moving.clone();
            confirmed.transfer.as_mut().unwrap().confirmed_at = Some(NOW);
            confirmed
        };
        let deregister = |domain: &str| Operation::Deregister(key, name(domain));
        let transfer = |domain: &str| Operation::Transfer(key, name(domain));
        let (show, register) = (Operation::License(key), Operation::Register(key));
        let cancel = Operation::CancelTransfer(key);
        for (operation, site, binding, expected) in [
            (&Operation::Versions, "any", &none, Some(&none)),
            (&show, "old", &bound, Some(&bound)),
            (&show, "new", &moving, Some(&moving)),
            (&show, "any", &bound, None),
            (&show, "any", &none, None),
            (&register, "old", &none, Some(&bound)),
            (&register, "old", &bound, Some(&bound)),
            (&register, "old", &moving, Some(&moving)),
            (&register, "new", &moving, Some(&confirmed)),
            (&register, "any", &bound, None),
            (&register, "any", &moving, None),
            (&deregister("old"), "any", &bound, Some(&none)),
            (
                &deregister("old"),
                "any",
                &moving,
                Some(&on(Some("new"), None)),
            ),
            (&deregister("new"), "any", &moving, Some(&bound)),
            (&deregister("any"), "any", &bound, None),
            (&deregister("old"), "any", &none, None),
            (&transfer("new"), "old", &bound, Some(&moving)),
            (&transfer("new"), "old", &moving, Some(&moving)),
            (&transfer("old"), "old", &bound, None),
            (&transfer("third"), "old", &moving, None),
            (&transfer("new"), "any", &bound, None),
            (&transfer("third"), "new", &moving, None),
            (&transfer("new"), "old", &none, None),
            (&cancel, "old", &moving, Some(&bound)),
            (&cancel, "new", &moving, Some(&bound)),
            (&cancel, "any", &moving, None),
            (&cancel, "old", &bound, None),
        ] {
            let changed = binding_after(operation, &by(site), binding, NOW, GRACE);
            assert_eq!(
                changed.as_ref(),
                expected,
                "{operation:?} by {site} on {binding:?}"
            );
            let unbound = Handshake {
                unbound: true,
                ..by(site)
            };
            let changed = binding_after(operation, &unbound, binding, NOW, GRACE);
            assert!(changed.is_none() || *operation == register, "{operation:?}");
        }
    }

    #[test]
    fn untrusted_callers_never_use_up_the_calls_of_trusted_ones() {
        let at = |second| Tick(Duration::from_secs(second));
        let calls = |counts: [usize; 3]| {
            let kinds = [Caller::Untrusted, Caller::Trusted, Caller::Unconfirmed];
            let all = kinds.into_iter().zip(counts);
            let all = all.flat_map(|(caller, count)| std::iter::repeat_n(caller, count));
            all.map(|caller| CausedCall { at: at(0), caller })
                .collect::<Vec<_>>()
        };
        let open = |all, untrusted| OpenCounts { all, untrusted };
        // Recent calls by untrusted, trusted and unconfirmed callers; then the open handshakes.
        for (recent, open_now, caller, expected) in [
            ([0, 0, 0], open(0, 0), Caller::Untrusted, true),
            ([2, 3, 0], open(1, 1), Caller::Untrusted, true),
            ([3, 0, 0], open(0, 0), Caller::Untrusted, false),
            ([0, 0, 0], open(2, 2), Caller::Untrusted, false),
            ([0, 0, 59], open(0, 0), Caller::Untrusted, true),
            ([3, 2, 59], open(2, 2), Caller::Trusted, true),
            ([3, 3, 0], open(0, 0), Caller::Trusted, false),
            ([0, 0, 0], open(3, 0), Caller::Trusted, false),
            // Only 60 calls with other licenses can keep a license from its first call.
            ([3, 3, 59], open(3, 2), Caller::Unconfirmed, true),
            ([0, 0, 60], open(0, 0), Caller::Unconfirmed, false),
            ([0, 2, 59], open(1, 0), Caller::UnconfirmedRetry, true),
            ([0, 3, 0], open(0, 0), Caller::UnconfirmedRetry, false),
            ([0, 0, 0], open(2, 0), Caller::UnconfirmedRetry, false),
        ] {
            let allowed = may_call(&calls(recent), open_now, caller);
            assert_eq!(allowed, expected, "{recent:?} {open_now:?} {caller:?}");
        }
        let earlier = CausedCall {
            at: at(5),
            caller: Caller::Untrusted,
        };
        assert!(is_recent(earlier, at(64)) && !is_recent(earlier, at(65)));
    }

    #[test]
    fn the_retry_delay_of_an_unconfirmed_license_doubles_up_to_an_hour() {
        let minutes = |unanswered| retry_delay(unanswered).as_secs() / 60;
        let delays: Vec<u64> = (0..9).map(minutes).collect();
        assert_eq!(delays, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(minutes(u32::MAX), 60);
    }

    #[test]
    fn a_license_makes_its_caller_trusted_only_for_a_domain_that_confirmed_it() {
        let later = NOW.0 + 86_400_000;
        let moving = on(Some("old"), Some(("new", later)));
        let mut confirmed = moving.clone();
        if let Some(transfer) = &mut confirmed.transfer {
            transfer.confirmed_at = Some(NOW);
        }
        for (binding, domain, caller) in [
            (&on(Some("old"), None), "old", Some(Caller::Trusted)),
            (&on(Some("old"), None), "any", None),
            (&on(None, None), "any", Some(Caller::Unconfirmed)),
            (&moving, "old", Some(Caller::Trusted)),
            (&moving, "new", Some(Caller::Unconfirmed)),
            (&moving, "any", None),
            (&confirmed, "new", Some(Caller::Trusted)),
        ] {
            assert_eq!(
                caller_with_license(binding, &name(domain)),
                caller,
                "{domain} of {binding:?}"
            );
        }
    }

    #[test]
    fn a_client_network_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        for (text, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            let address = text.parse().unwrap();
            let network = client_network(ClientAddress::UntrustedProxy(address));
            assert_eq!(network.as_deref(), Some(expected));
            assert_eq!(client_network(ClientAddress::Unidentified(address)), None);
        }
    }
}
