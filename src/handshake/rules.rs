//! Who may have the server call whom, and what a site may do with a license.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Details, DomainBinding, Handshake, Transfer};
use crate::client_config::ProgramSettings;
use crate::clock::{Tick, UnixMs};
use crate::domain::Domain;
use crate::error::{Error, Refused};
use crate::licenses::LicenseKey;
use crate::releases::Release;
use crate::security::client_address::ClientAddress;
use crate::security::secret;

/// How long both ends hold what they hold.
pub(super) const LIFE: Duration = Duration::from_secs(30);
/// Calls to one domain, and calls with one license key to domains that are not bound yet.
const PER_MINUTE: usize = 6;
const MINUTE: Duration = Duration::from_mins(1);
/// How many of them strangers may cause; the others are for those who are known, or show a license of the
/// domain.
const STRANGERS_PER_MINUTE: usize = 3;
/// Calls to one domain that licenses may cause which it has not proved to be its own, beside those: each license one,
/// and the next when its wait is over ([`wait`]). As many as this would have to be in the hands of one attacker, at
/// the same moment, to keep the owner of a domain from registering.
const VOUCHED_PER_MINUTE: usize = 60;
/// The longest wait of a license whose calls to a domain come to nothing.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// Handshakes under way for one domain, and how many of them may be strangers'.
const OPEN: usize = 3;
const STRANGERS_OPEN: usize = 2;
/// The information of a delivery, in bytes: with what is around it, it stays below the 16 KiB of a body.
const INFORMATION_LEN: usize = 15 * 1024;
/// The news of one release, in bytes.
const NEWS_LEN: usize = 2048;

/// 256 random bits, written as 64 lower-case hexadecimal digits. Never printed: whoever has it can go on
/// with the handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct Id([u8; 32]);

impl Id {
    /// A new one from the operating system's generator.
    ///
    /// # Errors
    /// When it gives nothing.
    pub(super) fn new() -> crate::error::Result<Self> {
        secret::random().map(Self)
    }

    /// Reads the wire's form; none for any other.
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
        for (place, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = *pair else { return None };
            *place = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(bytes))
    }

    /// The wire's form, for the one domain that may know it.
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

/// What a site asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Every released version.
    Versions,
    /// How a license stands.
    License(LicenseKey),
    /// To bind a license to the domain that asks.
    Register(LicenseKey),
    /// To free a license from a domain.
    Deregister(LicenseKey, Domain),
    /// To move a license to another domain.
    Transfer(LicenseKey, Domain),
    /// To stay after all.
    CancelTransfer(LicenseKey),
}

impl Operation {
    /// The operation of a word, if `details` fit it.
    pub(super) fn of(word: &str, details: &Details) -> Option<Self> {
        let key = || LicenseKey::parse(details.license_key.as_deref()?);
        let name = |text: &Option<String>| Domain::parse(text.as_deref()?);
        match word {
            "versions" => Some(Self::Versions),
            "license" => key().map(Self::License),
            "register" => key().map(Self::Register),
            "deregister" => Some(Self::Deregister(key()?, name(&details.domain)?)),
            "transfer" => Some(Self::Transfer(key()?, name(&details.new_domain)?)),
            "cancel_transfer" => key().map(Self::CancelTransfer),
            _ => None,
        }
    }

    /// The word on the wire and in the file.
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

    /// What the audit log calls it.
    pub(super) const fn deed(&self) -> &'static str {
        match self {
            Self::Versions => "handshake.versions",
            Self::License(_) => "handshake.license",
            Self::Register(_) => "handshake.register",
            Self::Deregister(..) => "handshake.deregister",
            Self::Transfer(..) => "handshake.transfer",
            Self::CancelTransfer(_) => "handshake.cancel_transfer",
        }
    }

    /// The license that it is about.
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

impl DomainBinding {
    /// What holds at `now`: a transfer whose grace period has passed is done, whether or not anybody has
    /// written it down.
    pub(super) fn at(self, now: UnixMs) -> Self {
        match self.transfer {
            Some(transfer) if transfer.until <= now => Self {
                domain: Some(transfer.domain),
                transfer: None,
            },
            transfer => Self {
                domain: self.domain,
                transfer,
            },
        }
    }

    /// Whether the license is served on `domain`; for a bond as it is now.
    pub(super) fn serves(&self, domain: &Domain) -> bool {
        self.domain.as_ref() == Some(domain) || self.moves_to(domain)
    }

    fn moves_to(&self, domain: &Domain) -> bool {
        self.transfer
            .as_ref()
            .is_some_and(|transfer| transfer.domain == *domain)
    }
}

/// What becomes of the bond of a license by `operation`; none where the license and the visitor do not fit
/// it. `binding` is as it is at `now`.
pub(super) fn judge(
    operation: &Operation,
    visit: &Handshake,
    binding: &DomainBinding,
    now: UnixMs,
    grace: Duration,
) -> Option<DomainBinding> {
    let visitor = &visit.domain;
    let binding = binding.clone();
    // A domain that is not bound yet may do one thing.
    if visit.unbound && !matches!(operation, Operation::Register(_)) {
        return None;
    }
    match operation {
        Operation::Versions => Some(binding),
        Operation::License(_) => binding.serves(visitor).then_some(binding),
        Operation::Register(_) => register(binding, visitor, now),
        Operation::Deregister(_, domain) => free(binding, domain),
        Operation::Transfer(_, to) => {
            let own = binding.domain.as_ref() == Some(visitor);
            own.then(|| start_transfer(binding, to, now, grace))
                .flatten()
        }
        Operation::CancelTransfer(_) => binding.serves(visitor).then(|| stay(binding)).flatten(),
    }
}

/// `domain` takes the license, or confirms that it has it.
fn register(binding: DomainBinding, domain: &Domain, now: UnixMs) -> Option<DomainBinding> {
    match (&binding.domain, binding.transfer.clone()) {
        (None, _) => Some(DomainBinding {
            domain: Some(domain.clone()),
            transfer: None,
        }),
        (_, Some(transfer)) if transfer.domain == *domain => {
            let confirmed_at = transfer.confirmed_at.or(Some(now));
            Some(DomainBinding {
                transfer: Some(Transfer {
                    confirmed_at,
                    ..transfer
                }),
                ..binding
            })
        }
        (Some(own), _) if own == domain => Some(binding),
        _ => None,
    }
}

/// The license leaves `domain`: for good, for the domain that it was moving to, or instead of moving there.
pub(super) fn free(binding: DomainBinding, domain: &Domain) -> Option<DomainBinding> {
    if binding.domain.as_ref() == Some(domain) {
        return Some(DomainBinding {
            domain: binding.transfer.map(|transfer| transfer.domain),
            transfer: None,
        });
    }
    binding.moves_to(domain).then_some(DomainBinding {
        transfer: None,
        ..binding
    })
}

/// The license begins to move to `to`. Said once more, it changes nothing; to another domain, it must be
/// called off first.
pub(super) fn start_transfer(
    binding: DomainBinding,
    to: &Domain,
    now: UnixMs,
    grace: Duration,
) -> Option<DomainBinding> {
    match (&binding.domain, &binding.transfer) {
        (Some(own), None) if own != to => Some(DomainBinding {
            transfer: Some(Transfer {
                domain: to.clone(),
                until: now.plus(grace),
                confirmed_at: None,
            }),
            ..binding
        }),
        (_, Some(transfer)) if transfer.domain == *to => Some(binding),
        _ => None,
    }
}

/// The license stays where it is.
pub(super) fn stay(binding: DomainBinding) -> Option<DomainBinding> {
    binding.transfer.is_some().then_some(DomainBinding {
        transfer: None,
        ..binding
    })
}

/// Why an administrator's deed on a domain is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The license has another domain.
    DomainBound,
    /// The license has no domain.
    NoDomain,
    /// The license is not moving.
    NoTransfer,
    /// The license is where it is to go, or on its way to another domain.
    TransferImpossible,
}

impl Refusal {
    /// The word for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::DomainBound => "domain_bound",
            Self::NoDomain => "no_domain",
            Self::NoTransfer => "no_transfer",
            Self::TransferImpossible => "transfer_impossible",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::plain(refusal.code()).into()
    }
}

/// A call that was caused, and the kind of caller that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) at: Tick,
    pub(super) caller: Caller,
}

/// Handshakes under way, without those of [`Caller::Vouched`]: these are bounded by their calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnderWay {
    pub(super) all: usize,
    pub(super) strangers: usize,
}

/// Who causes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody who completed a handshake for the domain lately, or showed a license of it.
    Known,
    /// A license that the domain has not proved to be its own: it is on no domain yet, or another site moved it here.
    /// The owner of a new domain comes like this, and so does every buyer of a license.
    Vouched,
    /// The same license again, before its wait is over.
    VouchedAgain,
    /// Anybody else.
    Stranger,
}

/// Forgets calls that no longer count.
pub(super) fn counts(called: Called, now: Tick) -> bool {
    now.since(called.at) < MINUTE
}

/// Whether there is a call left. `lately` holds what [`counts`] lets. What [`Caller::Vouched`] causes is counted by
/// itself: however many licenses name a domain, they take nothing from callers that are known.
pub(super) fn may_call(lately: &[Called], open: UnderWay, caller: Caller) -> bool {
    let by = |kind| lately.iter().filter(|it| it.caller == kind).count();
    let (vouched, strangers) = (by(Caller::Vouched), by(Caller::Stranger));
    let others = lately.len() - vouched;
    match caller {
        Caller::Vouched => vouched < VOUCHED_PER_MINUTE,
        Caller::Known => others < PER_MINUTE && open.all < OPEN,
        Caller::VouchedAgain => others < STRANGERS_PER_MINUTE && open.all < STRANGERS_OPEN,
        Caller::Stranger => {
            others < PER_MINUTE
                && open.all < OPEN
                && strangers < STRANGERS_PER_MINUTE
                && open.strangers < STRANGERS_OPEN
        }
    }
}

/// How long a license waits for its next call as [`Caller::Vouched`] to a domain that never came back from its last
/// `tries` calls: a minute, then twice as long each time.
pub(super) fn wait(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(6);
    (MINUTE * 2_u32.pow(doublings)).min(WAIT_MAX)
}

/// As what a license that `binding` belongs to lets its bearer ask for `domain`; `None` where it belongs elsewhere. That
/// another site moves a license to a domain proves nothing until the domain itself confirms it.
pub(super) fn shown(binding: &DomainBinding, domain: &Domain) -> Option<Caller> {
    let confirmed = |to: &Transfer| to.domain == *domain && to.confirmed_at.is_some();
    if binding.domain.as_ref() == Some(domain) || binding.transfer.as_ref().is_some_and(confirmed) {
        return Some(Caller::Known);
    }
    (binding.domain.is_none() || binding.moves_to(domain)).then_some(Caller::Vouched)
}

/// Where a request comes from, as it is remembered: the holder of an IPv6 network has all of it. `None` for
/// strangers behind a proxy: what one of them did says nothing of the others.
pub(super) fn client_network(address: ClientAddress) -> Option<String> {
    Some(match address.known()?.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let network = Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64);
            format!("{network}/64")
        }
    })
}

/// What a site is told of versions: every release, newest first, then the news of as many as fit, from the
/// newest on; of very many releases the oldest are left out.
pub(super) fn versions(settings: &ProgramSettings) -> Value {
    let config = &settings.config;
    let mut told = Vec::new();
    let mut left = INFORMATION_LEN;
    for release in &settings.released {
        let brief = version(release, 0);
        let length = brief.to_string().len() + 1;
        if length > left {
            break;
        }
        left -= length;
        told.push(brief);
    }
    for (release, told) in settings.released.iter().zip(&mut told) {
        let whole = version(release, NEWS_LEN);
        let more = whole
            .to_string()
            .len()
            .saturating_sub(told.to_string().len());
        if more <= left {
            left -= more;
            *told = whole;
        }
    }
    json!({
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "versions": told,
    })
}

fn version(release: &Release, news_len: usize) -> Value {
    let end = release.notes.floor_char_boundary(news_len);
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
    const GRACE: Duration = Duration::from_secs(100);

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
            caller: Caller::Known,
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
    fn a_transfer_is_over_at_the_end_of_its_grace_period_whoever_wrote_it_down() {
        let moving = on(Some("old"), Some(("new", NOW.0 + 1)));
        let (before, after) = (moving.clone().at(NOW), moving.at(UnixMs(NOW.0 + 1)));
        let served = |binding: &DomainBinding| {
            ["old", "new", "third"].map(|label| binding.serves(&name(label)))
        };
        assert_eq!(served(&before), [true, true, false]);
        assert_eq!(served(&after), [false, true, false]);
        assert_eq!(after, on(Some("new"), None));
    }

    #[test]
    fn each_operation_fits_the_domains_that_it_is_for() {
        let key = LicenseKey::new().unwrap();
        let later = NOW.0 + 100_000;
        let (free, bound) = (on(None, None), on(Some("old"), None));
        let moving = on(Some("old"), Some(("new", later)));
        let confirmed = {
            let mut there = moving.clone();
            there.transfer.as_mut().unwrap().confirmed_at = Some(NOW);
            there
        };
        let off = |domain: &str| Operation::Deregister(key, name(domain));
        let to = |domain: &str| Operation::Transfer(key, name(domain));
        let (look, take) = (Operation::License(key), Operation::Register(key));
        let stay = Operation::CancelTransfer(key);
        for (operation, visitor, binding, becomes) in [
            (&Operation::Versions, "any", &free, Some(&free)),
            (&look, "old", &bound, Some(&bound)),
            (&look, "new", &moving, Some(&moving)),
            (&look, "any", &bound, None),
            (&look, "any", &free, None),
            (&take, "old", &free, Some(&bound)),
            (&take, "old", &bound, Some(&bound)),
            (&take, "old", &moving, Some(&moving)),
            (&take, "new", &moving, Some(&confirmed)),
            (&take, "any", &bound, None),
            (&take, "any", &moving, None),
            (&off("old"), "any", &bound, Some(&free)),
            (&off("old"), "any", &moving, Some(&on(Some("new"), None))),
            (&off("new"), "any", &moving, Some(&bound)),
            (&off("any"), "any", &bound, None),
            (&off("old"), "any", &free, None),
            (&to("new"), "old", &bound, Some(&moving)),
            (&to("new"), "old", &moving, Some(&moving)),
            (&to("old"), "old", &bound, None),
            (&to("third"), "old", &moving, None),
            (&to("new"), "any", &bound, None),
            (&to("third"), "new", &moving, None),
            (&to("new"), "old", &free, None),
            (&stay, "old", &moving, Some(&bound)),
            (&stay, "new", &moving, Some(&bound)),
            (&stay, "any", &moving, None),
            (&stay, "old", &bound, None),
        ] {
            let judged = judge(operation, &by(visitor), binding, NOW, GRACE);
            assert_eq!(
                judged.as_ref(),
                becomes,
                "{operation:?} by {visitor} on {binding:?}"
            );
            let stranger = Handshake {
                unbound: true,
                ..by(visitor)
            };
            let judged = judge(operation, &stranger, binding, NOW, GRACE);
            assert!(judged.is_none() || *operation == take, "{operation:?}");
        }
    }

    #[test]
    fn strangers_never_use_up_what_is_kept_for_those_who_are_known() {
        let at = |second| Tick(Duration::from_secs(second));
        let calls = |counts: [usize; 3]| {
            let kinds = [Caller::Stranger, Caller::Known, Caller::Vouched];
            let all = kinds.into_iter().zip(counts);
            let all = all.flat_map(|(caller, count)| std::iter::repeat_n(caller, count));
            all.map(|caller| Called { at: at(0), caller })
                .collect::<Vec<_>>()
        };
        let open = |all, strangers| UnderWay { all, strangers };
        // Calls by strangers, by known callers, by licenses; then what is under way.
        for (lately, under_way, caller, may) in [
            ([0, 0, 0], open(0, 0), Caller::Stranger, true),
            ([2, 3, 0], open(1, 1), Caller::Stranger, true),
            ([3, 0, 0], open(0, 0), Caller::Stranger, false),
            ([0, 0, 0], open(2, 2), Caller::Stranger, false),
            ([0, 0, 59], open(0, 0), Caller::Stranger, true),
            ([3, 2, 59], open(2, 2), Caller::Known, true),
            ([3, 3, 0], open(0, 0), Caller::Known, false),
            ([0, 0, 0], open(3, 0), Caller::Known, false),
            // Nothing that others do takes a license's first call from it, but 60 more licenses.
            ([3, 3, 59], open(3, 2), Caller::Vouched, true),
            ([0, 0, 60], open(0, 0), Caller::Vouched, false),
            ([0, 2, 59], open(1, 0), Caller::VouchedAgain, true),
            ([0, 3, 0], open(0, 0), Caller::VouchedAgain, false),
            ([0, 0, 0], open(2, 0), Caller::VouchedAgain, false),
        ] {
            let told = may_call(&calls(lately), under_way, caller);
            assert_eq!(told, may, "{lately:?} {under_way:?} {caller:?}");
        }
        let earlier = Called {
            at: at(5),
            caller: Caller::Stranger,
        };
        assert!(counts(earlier, at(64)) && !counts(earlier, at(65)));
    }

    #[test]
    fn a_license_whose_calls_come_to_nothing_waits_longer_each_time() {
        let minutes = |tries| wait(tries).as_secs() / 60;
        let told: Vec<u64> = (0..9).map(minutes).collect();
        assert_eq!(told, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(minutes(u32::MAX), 60);
    }

    #[test]
    fn a_license_is_no_proof_of_a_domain_that_has_not_confirmed_it() {
        let later = NOW.0 + 100_000;
        let moving = on(Some("old"), Some(("new", later)));
        let mut confirmed = moving.clone();
        if let Some(transfer) = &mut confirmed.transfer {
            transfer.confirmed_at = Some(NOW);
        }
        for (binding, domain, caller) in [
            (&on(Some("old"), None), "old", Some(Caller::Known)),
            (&on(Some("old"), None), "any", None),
            (&on(None, None), "any", Some(Caller::Vouched)),
            (&moving, "old", Some(Caller::Known)),
            (&moving, "new", Some(Caller::Vouched)),
            (&moving, "any", None),
            (&confirmed, "new", Some(Caller::Known)),
        ] {
            assert_eq!(
                shown(binding, &name(domain)),
                caller,
                "{domain} of {binding:?}"
            );
        }
    }

    #[test]
    fn a_neighbourhood_is_an_address_or_a_network_of_64_bits() {
        for (text, place) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            let address = text.parse().unwrap();
            let known = client_network(ClientAddress::Relayed(address));
            assert_eq!(known.as_deref(), Some(place));
            assert_eq!(client_network(ClientAddress::Stranger(address)), None);
        }
    }
}
