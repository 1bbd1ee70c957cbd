//! One order at an authority: from the names to the certificate (RFC 8555 §7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error as AcmeError,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::{Challenges, Kind, Proof};
use super::plan;
use crate::error::{Doing, Error};

/// How often a request is repeated whose nonce was rejected. The library repeats it twice by itself.
pub(super) const NONCES: u32 = 8;
/// For the authority to look at the proofs, and to sign.
const WAIT: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2));

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened, and what to do.
    pub(super) told: String,
    /// Whether another kind of proof may do better.
    pub(super) unproven: bool,
    /// Whether the authority does not know the account.
    pub(super) stranger: bool,
    /// Whether the authority was reached.
    pub(super) reached: bool,
}

type Done<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(super) fn new(what: &str, advice: &str) -> Self {
        Self {
            told: format!("{}: {advice}", line(what)),
            unproven: false,
            stranger: false,
            reached: true,
        }
    }
}

impl From<AcmeError> for Failure {
    fn from(error: AcmeError) -> Self {
        let kind = kind_of(&error);
        let advice = match (&error, kind) {
            (AcmeError::Api(_), kind) => plan::advice(kind),
            (AcmeError::Other(_), _) => {
                "see whether this machine reaches the authority (DNS, firewall), and trusts it \
                 (tls.directory_root)"
            }
            (AcmeError::Json(_), _) => {
                "see whether tls.directory is the address of an ACME directory"
            }
            _ => "it is tried again by itself",
        };
        Self {
            stranger: kind.ends_with(":accountDoesNotExist"),
            reached: !matches!(error, AcmeError::Other(_)),
            ..Self::new(&error.to_string(), advice)
        }
    }
}

/// What is ours to do and failed.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(&error.to_string(), "see whether the disk has room")
    }
}

/// The word of the authority for what is wrong.
fn kind_of(error: &AcmeError) -> &str {
    match error {
        AcmeError::Api(problem) => problem.r#type.as_deref().unwrap_or_default(),
        _ => "",
    }
}

/// Words from outside as one line of bearable length.
fn line(text: &str) -> String {
    const LEN_MAX: usize = 400;
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LEN_MAX).collect()
}

/// Asks again while the nonce is what is rejected: that says nothing of the request (RFC 8555 §6.5). A macro,
/// as a future that an async closure lends cannot be known to go from thread to thread.
macro_rules! again {
    ($ask:expr) => {{
        let mut left = $crate::tls::acme::order::NONCES;
        loop {
            match $ask.await {
                Err(error) if left > 0 && $crate::tls::acme::order::is_nonce(&error) => left -= 1,
                done => break done,
            }
        }
    }};
}
pub(super) use again;

pub(super) fn is_nonce(error: &AcmeError) -> bool {
    kind_of(error).ends_with(":badNonce")
}

/// Gets to know what is to be proved.
async fn fetch(order: &mut Order) -> Result<(), AcmeError> {
    let mut all = order.authorizations();
    while let Some(one) = all.next().await {
        one?;
    }
    Ok(())
}

/// What is ordered, and how it is proved.
pub(super) struct CertificateRequest<'a> {
    pub(super) names: &'a [String],
    /// The certificate that is renewed, where its authority has a word on renewals.
    pub(super) replaces: Option<CertificateIdentifier<'a>>,
    pub(super) proof: Kind,
    pub(super) challenges: &'a Arc<Challenges>,
}

impl CertificateRequest<'_> {
    /// Key and chain in PEM.
    pub(super) async fn fulfil(&self, account: &Account) -> Done<String> {
        let mut order = self.order(account).await?;
        // All of them first: where a nonce is rejected half-way, those that are known are not asked again.
        again!(fetch(&mut order))?;
        let (proofs, refused) = self.prove(&mut order).await?;
        let ready = if let Some(error) = refused {
            Err(error)
        } else {
            again!(order.poll_ready(&WAIT))
        };
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            return Err(self.unproven(order, ready).await);
        }
        drop(proofs);
        let (key, request) = self.request()?;
        again!(order.finalize_csr(&request))?;
        let chain = again!(order.poll_certificate(&WAIT))?;
        Ok(format!("{key}{chain}"))
    }

    async fn order(&self, account: &Account) -> Result<Order, AcmeError> {
        let names: Vec<_> = self.names.iter().cloned().map(Identifier::Dns).collect();
        if let Some(replaces) = self.replaces.clone() {
            let order = NewOrder::new(&names).replaces(replaces);
            match again!(account.new_order(&order)) {
                // That it is no renewal in the authority's eyes is no reason to have none.
                Err(error) => log::debug!("not taken as a renewal: {error}"),
                order => return order,
            }
        }
        let order = NewOrder::new(&names);
        again!(account.new_order(&order))
    }

    /// Shows a proof for each name that needs one, and says so; and what the authority says to that, where
    /// it is nothing good: it may have looked already.
    async fn prove(&self, order: &mut Order) -> Done<(Vec<Proof>, Option<AcmeError>)> {
        let wanted = match self.proof {
            Kind::Http => ChallengeType::Http01,
            Kind::TlsAlpn => ChallengeType::TlsAlpn01,
        };
        let mut proofs = Vec::new();
        let mut all = order.authorizations();
        while let Some(one) = all.next().await {
            let mut one = one?;
            if one.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut challenge) = one.challenge(wanted.clone()) else {
                let told = format!("the authority does not take {}", self.proof.shown());
                let failure = Failure::new(&told, "see what else it takes");
                return Err(Failure {
                    unproven: true,
                    ..failure
                });
            };
            let name = challenge.identifier().to_string();
            let answer = challenge.key_authorization();
            proofs.push(match self.proof {
                Kind::Http => self.challenges.show_page(&challenge.token, answer.as_str()),
                Kind::TlsAlpn => {
                    let digest = answer.digest();
                    self.challenges.show_certificate(&name, digest.as_ref())?
                }
            });
            match again!(challenge.set_ready()) {
                Ok(()) => {}
                Err(error @ AcmeError::Api(_)) => return Ok((proofs, Some(error))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((proofs, None))
    }

    /// What the authority has to say against the proofs.
    async fn unproven(&self, mut order: Order, ready: Result<OrderStatus, AcmeError>) -> Failure {
        let mut all = order.authorizations();
        while let Some(Ok(mut one)) = all.next().await {
            if let Err(error) = again!(one.refresh()) {
                log::debug!("a look at a failed proof failed: {error}");
                continue;
            }
            let name = one.identifier().to_string();
            let problem = one.challenges.iter().find_map(|tried| tried.error.as_ref());
            if let Some(problem) = problem {
                let detail = problem.detail.as_deref().unwrap_or("no reason given");
                let told = format!("{name} by {}: {detail}", self.proof.shown());
                let kind = problem.r#type.as_deref().unwrap_or_default();
                return Failure {
                    unproven: true,
                    ..Failure::new(&told, plan::advice(kind))
                };
            }
        }
        let failure = match ready {
            Err(error) => Failure::from(error),
            Ok(status) => {
                let told = format!("the order is {status:?} after {}", self.proof.shown());
                Failure::new(&told, "it is tried again by itself")
            }
        };
        Failure {
            unproven: true,
            ..failure
        }
    }

    /// A new key in PEM, and the request for a certificate of it in DER.
    fn request(&self) -> Result<(String, Vec<u8>), Error> {
        let params = CertificateParams::new(self.names);
        let mut params = params.doing("name a certificate")?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().doing("make a key")?;
        let request = params.serialize_request(&key);
        let request = request.doing("sign a request for a certificate")?;
        Ok((key.serialize_pem(), request.der().to_vec()))
    }
}
