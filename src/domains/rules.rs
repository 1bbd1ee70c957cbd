//! Which changes of a binding are possible, and what the binding is afterwards.

use super::{BindingChange, DomainBinding, Transfer};
use crate::clock::UnixMs;
use crate::domain::Domain;
use crate::error::{Error, RefusalKind, Refused};

impl DomainBinding {
    /// The binding at `now`: a transfer whose grace period has passed counts as completed, even if that is not stored
    /// yet.
    #[must_use]
    pub fn at(self, now: UnixMs) -> Self {
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

    /// Whether the license may be used on `domain`. Call it on the result of [`at`](Self::at).
    pub fn serves(&self, domain: &Domain) -> bool {
        self.domain.as_ref() == Some(domain) || self.moves_to(domain)
    }

    /// Whether the license is being transferred to `domain`.
    pub fn moves_to(&self, domain: &Domain) -> bool {
        self.transfer
            .as_ref()
            .is_some_and(|transfer| transfer.domain == *domain)
    }

    /// Binds the license to `domain`, or confirms its transfer to `domain`; `None` if it is bound to another domain.
    pub fn register(self, domain: &Domain, now: UnixMs) -> Option<Self> {
        match (&self.domain, self.transfer.clone()) {
            (None, _) => Some(Self {
                domain: Some(domain.clone()),
                transfer: None,
            }),
            (_, Some(transfer)) if transfer.domain == *domain => {
                let confirmed_at = transfer.confirmed_at.or(Some(now));
                Some(Self {
                    transfer: Some(Transfer {
                        confirmed_at,
                        ..transfer
                    }),
                    ..self
                })
            }
            (Some(own), _) if own == domain => Some(self),
            _ => None,
        }
    }

    /// Unbinds the license from `domain`; `None` if it is not bound to it. If a transfer is in progress, the license
    /// stays on the other of the two domains.
    pub fn unbind(self, domain: &Domain) -> Option<Self> {
        if self.domain.as_ref() == Some(domain) {
            return Some(Self {
                domain: self.transfer.map(|transfer| transfer.domain),
                transfer: None,
            });
        }
        self.moves_to(domain).then_some(Self {
            transfer: None,
            ..self
        })
    }

    /// Starts a transfer to `to` whose grace period ends at `until`. Repeating it changes nothing. `None` if the license
    /// is not bound, is bound to `to` already, or has a transfer to another domain in progress.
    pub fn start_transfer(self, to: &Domain, until: UnixMs) -> Option<Self> {
        match (&self.domain, &self.transfer) {
            (Some(own), None) if own != to => Some(Self {
                transfer: Some(Transfer {
                    domain: to.clone(),
                    until,
                    confirmed_at: None,
                }),
                ..self
            }),
            (_, Some(transfer)) if transfer.domain == *to => Some(self),
            _ => None,
        }
    }

    /// Cancels the transfer; `None` if there is none.
    pub fn cancel_transfer(self) -> Option<Self> {
        self.transfer.is_some().then_some(Self {
            transfer: None,
            ..self
        })
    }
}

impl BindingChange {
    /// Whether the license gets a domain, now or at the end of a transfer.
    pub(super) const fn gives_domain(&self) -> bool {
        matches!(self, Self::Bind(_) | Self::Transfer { .. })
    }

    /// The action in the audit log.
    pub(super) const fn audit_action(&self) -> &'static str {
        match self {
            Self::Bind(_) => "handshake.bind",
            Self::Unbind => "handshake.free",
            Self::Transfer { .. } => "handshake.transfer",
            Self::CancelTransfer => "handshake.cancel_transfer",
        }
    }

    /// The binding after this change. `binding` is the present one, at `now`.
    pub(super) fn apply(
        &self,
        binding: DomainBinding,
        now: UnixMs,
    ) -> Result<DomainBinding, Refusal> {
        match self {
            Self::Bind(domain) => {
                let bound = DomainBinding {
                    domain: Some(domain.clone()),
                    transfer: None,
                };
                let is_possible = binding.domain.is_none() || binding == bound;
                is_possible.then_some(bound).ok_or(Refusal::DomainBound)
            }
            Self::Unbind | Self::Transfer { .. } if binding.domain.is_none() => {
                Err(Refusal::NoDomain)
            }
            Self::Unbind => Ok(DomainBinding::default()),
            Self::Transfer { to, grace } => {
                let started = binding.start_transfer(to, grace.end(now));
                started.ok_or(Refusal::TransferImpossible)
            }
            Self::CancelTransfer => binding.cancel_transfer().ok_or(Refusal::NoTransfer),
        }
    }
}

/// Why an administrator's change of a binding is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The license is bound to another domain.
    DomainBound,
    /// The license is not bound to a domain.
    NoDomain,
    /// The license has no transfer in progress.
    NoTransfer,
    /// The license is bound to that domain already, or has a transfer to another domain in progress.
    TransferImpossible,
    /// No usable license is bound to the domain of a website that sent no license key.
    NotLicensed,
    /// The server may not call the domain now: it did so too often, or the request is repeated.
    TooManyCalls,
}

impl Refusal {
    /// The error code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::DomainBound => "domain_bound",
            Self::NoDomain => "no_domain",
            Self::NoTransfer => "no_transfer",
            Self::TransferImpossible => "transfer_impossible",
            Self::NotLicensed => "domain_not_licensed",
            Self::TooManyCalls => "domain_called_too_often",
        }
    }

    /// The kind of refusal.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::DomainBound | Self::NoDomain | Self::NoTransfer | Self::TransferImpossible => {
                RefusalKind::Conflict
            }
            Self::NotLicensed => RefusalKind::NotFound,
            Self::TooManyCalls => RefusalKind::TooMany,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let refused = Refused::new(refusal.kind(), refusal.code());
        match refusal {
            Refusal::DomainBound => refused.about("domain").into(),
            _ => refused.into(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domains::TransferGrace;

    const NOW: UnixMs = UnixMs(1_000_000);

    pub(crate) fn example_domain(label: &str) -> Domain {
        Domain::parse(&format!("{label}.example")).unwrap()
    }

    pub(crate) fn example_binding(domain: Option<&str>, to: Option<(&str, i64)>) -> DomainBinding {
        DomainBinding {
            domain: domain.map(example_domain),
            transfer: to.map(|(to, until)| Transfer {
                domain: example_domain(to),
                until: UnixMs(until),
                confirmed_at: None,
            }),
        }
    }

    /// `binding` after the new domain has confirmed its transfer.
    pub(crate) fn confirmed_binding(binding: &DomainBinding, at: UnixMs) -> DomainBinding {
        let mut confirmed = binding.clone();
        confirmed.transfer.as_mut().unwrap().confirmed_at = Some(at);
        confirmed
    }

    #[test]
    fn a_transfer_is_complete_at_the_end_of_its_grace_period_even_if_not_stored() {
        let moving = example_binding(Some("old"), Some(("new", NOW.0 + 1)));
        let (before, after) = (moving.clone().at(NOW), moving.at(UnixMs(NOW.0 + 1)));
        let served = |binding: &DomainBinding| {
            ["old", "new", "third"].map(|label| binding.serves(&example_domain(label)))
        };
        assert_eq!(served(&before), [true, true, false]);
        assert_eq!(served(&after), [false, true, false]);
        assert_eq!(after, example_binding(Some("new"), None));
    }

    #[test]
    fn a_change_by_an_administrator_is_possible_or_refused() {
        let grace = TransferGrace::days(1);
        let (none, bound) = (
            example_binding(None, None),
            example_binding(Some("old"), None),
        );
        let moving = example_binding(Some("old"), Some(("new", grace.end(NOW).0)));
        let bind = |label| BindingChange::Bind(example_domain(label));
        let transfer = |label| BindingChange::Transfer {
            to: example_domain(label),
            grace,
        };
        let (unbind, cancel) = (BindingChange::Unbind, BindingChange::CancelTransfer);
        for (change, binding, expected) in [
            (&bind("old"), &none, Ok(&bound)),
            (&bind("old"), &bound, Ok(&bound)),
            (&bind("new"), &bound, Err(Refusal::DomainBound)),
            (&bind("old"), &moving, Err(Refusal::DomainBound)),
            (&unbind, &bound, Ok(&none)),
            (&unbind, &moving, Ok(&none)),
            (&unbind, &none, Err(Refusal::NoDomain)),
            (&transfer("new"), &bound, Ok(&moving)),
            (&transfer("new"), &moving, Ok(&moving)),
            (&transfer("old"), &bound, Err(Refusal::TransferImpossible)),
            (
                &transfer("third"),
                &moving,
                Err(Refusal::TransferImpossible),
            ),
            (&transfer("new"), &none, Err(Refusal::NoDomain)),
            (&cancel, &moving, Ok(&bound)),
            (&cancel, &bound, Err(Refusal::NoTransfer)),
        ] {
            let changed = change.apply(binding.clone(), NOW);
            assert_eq!(
                changed.as_ref(),
                expected.as_ref().map(|binding| *binding),
                "{change:?} of {binding:?}"
            );
        }
    }
}
