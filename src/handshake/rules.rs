//! The ids and operations of handshakes, and what an operation does to the binding of a license.

use std::time::Duration;

use super::SiteOperation;
use crate::clock::UnixMs;
use crate::domain::Domain;
use crate::domains::DomainBinding;
use crate::licenses::LicenseKey;
use crate::security::secret;

/// How long the site has to send the third message, and the least time for which a used request id is remembered, so
/// that it is not accepted again.
pub(super) const ID_LIFETIME: Duration = Duration::from_secs(30);

/// A request id or a transaction id: 256 random bits, written as 64 lower-case hexadecimal digits. `Debug` hides it,
/// because the id is all that is needed to continue the handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeId([u8; 32]);

impl OneTimeId {
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

impl std::fmt::Debug for OneTimeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneTimeId(…)")
    }
}

/// The operation that a site asks for in the third message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// List the released versions of the product with this slug, or of the product of the domain's oldest license.
    Versions(Option<String>),
    /// Show the state of a license.
    License(LicenseKey),
    /// Bind a license to the site's domain, or confirm a transfer to it.
    Register(LicenseKey),
    /// Unbind a license from the named domain, which need not be the site's own.
    Deregister(LicenseKey, Domain),
    /// Start the transfer of a license to another domain.
    Transfer(LicenseKey, Domain),
    /// Cancel a transfer in progress.
    CancelTransfer(LicenseKey),
}

impl Operation {
    /// Its name in messages and in the database.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Versions(_) => "versions",
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
            Self::Versions(_) => "handshake.versions",
            Self::License(_) => "handshake.license",
            Self::Register(_) => "handshake.register",
            Self::Deregister(..) => "handshake.deregister",
            Self::Transfer(..) => "handshake.transfer",
            Self::CancelTransfer(_) => "handshake.cancel_transfer",
        }
    }

    /// The slug of the product that the operation names.
    pub(super) fn product(&self) -> Option<&str> {
        match self {
            Self::Versions(slug) => slug.as_deref(),
            _ => None,
        }
    }

    /// The key of the license that the operation is about.
    pub(super) const fn key(&self) -> Option<&LicenseKey> {
        match self {
            Self::Versions(_) => None,
            Self::License(key)
            | Self::Register(key)
            | Self::Deregister(key, _)
            | Self::Transfer(key, _)
            | Self::CancelTransfer(key) => Some(key),
        }
    }
}

/// The binding of a license after the requested operation; `None` if the site may not perform it. `binding` is the
/// present one, at `now`.
pub(super) fn binding_after(
    requested: &SiteOperation,
    binding: DomainBinding,
    now: UnixMs,
) -> Option<DomainBinding> {
    let (operation, handshake) = (&requested.operation, &requested.handshake);
    let site = &handshake.domain;
    // A site on an unbound domain may only register.
    if handshake.domain_is_unbound && !matches!(operation, Operation::Register(_)) {
        return None;
    }
    match operation {
        Operation::Versions(_) => Some(binding),
        Operation::License(_) => binding.serves(site).then_some(binding),
        Operation::Register(_) => binding.register(site, now),
        Operation::Deregister(_, domain) => binding.unbind(domain),
        Operation::Transfer(_, to) if binding.domain.as_ref() == Some(site) => {
            binding.start_transfer(to, requested.grace.end(now))
        }
        Operation::CancelTransfer(_) if binding.serves(site) => binding.cancel_transfer(),
        Operation::Transfer(..) | Operation::CancelTransfer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::{TransferGrace, confirmed_binding, example_binding, example_domain};
    use crate::handshake::Handshake;
    use crate::handshake::budget::Caller;
    use crate::security::client_address::ClientAddress;

    const NOW: UnixMs = UnixMs(1_000_000);
    const GRACE: TransferGrace = TransferGrace::days(1);

    fn handshake_by(domain: &str) -> Handshake {
        Handshake {
            domain: example_domain(domain),
            source: ClientAddress::Direct([192, 0, 2, 1].into()),
            caller: Caller::Trusted,
            domain_is_unbound: false,
            license: None,
            budgeted_license: None,
            at: NOW,
        }
    }
    #[test]
    fn ids_have_one_spelling() {
        let id = OneTimeId::new().unwrap();
        let text = id.reveal();
        assert!(OneTimeId::parse(&text) == Some(id.clone()) && text.len() == 64);
        for wrong in [
            "",
            "0",
            &text
                .to_uppercase()
                .replace(|c: char| c.is_ascii_digit(), "A"),
            &format!("{text}0"),
            &text.replace(text.chars().next().unwrap(), "g"),
        ] {
            assert_eq!(OneTimeId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{id:?}"), "OneTimeId(…)");
    }
    #[test]
    fn every_operation_changes_the_binding_or_is_refused() {
        let key = LicenseKey::new().unwrap();
        let later = NOW.0 + 86_400_000;
        let (none, bound) = (
            example_binding(None, None),
            example_binding(Some("old"), None),
        );
        let moving = example_binding(Some("old"), Some(("new", later)));
        let moved = example_binding(Some("new"), None);
        let confirmed = confirmed_binding(&moving, NOW);
        let deregister = |domain: &str| Operation::Deregister(key, example_domain(domain));
        let transfer = |domain: &str| Operation::Transfer(key, example_domain(domain));
        let (show, register) = (Operation::License(key), Operation::Register(key));
        let cancel = Operation::CancelTransfer(key);
        for (operation, site, binding, expected) in [
            (&Operation::Versions(None), "any", &none, Some(&none)),
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
            (&deregister("old"), "any", &moving, Some(&moved)),
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
            let after = |handshake| {
                let requested = SiteOperation {
                    operation: operation.clone(),
                    handshake,
                    grace: GRACE,
                };
                binding_after(&requested, binding.clone(), NOW)
            };
            let case = format!("{operation:?} by {site} on {binding:?}");
            let changed = after(handshake_by(site));
            assert_eq!(changed.as_ref(), expected, "{case}");
            let unbound = Handshake {
                domain_is_unbound: true,
                ..handshake_by(site)
            };
            let changed = after(unbound);
            assert!(changed.is_none() || *operation == register, "{operation:?}");
        }
    }
}
