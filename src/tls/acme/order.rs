//! One order at an authority: from the names to the certificate (RFC 8555 §7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error as AcmeError,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::{Challenges, Kind, Proof};
use super::plan::{self, Reach};
use crate::error::{Doing, Error};

/// How often a request is repeated if its nonce was rejected, in addition to two repeats by the library.
pub(super) const NONCE_RETRIES: u32 = 8;
/// How long to wait for the authority to validate the challenges, and to issue the certificate.
const WAIT: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2));

/// Why no certificate was issued.
#[derive(Debug)]
pub(super) struct Failure {
    /// What happened, and what to do.
    pub(super) message: String,
    /// Whether the challenge failed, so that another kind of challenge may succeed.
    pub(super) challenge_failed: bool,
    /// Whether the authority does not know the account.
    pub(super) unknown_account: bool,
    pub(super) reach: Reach,
}

type OrderResult<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(super) fn new(what: &str, advice: &str) -> Self {
        Self {
            message: format!("{}: {advice}", line(what)),
            challenge_failed: false,
            unknown_account: false,
            reach: Reach::Reached,
        }
    }
}

impl From<AcmeError> for Failure {
    fn from(error: AcmeError) -> Self {
        let kind = kind_of(&error);
        let advice = match (&error, kind) {
            (AcmeError::Api(_), kind) => plan::advice(kind),
            (AcmeError::Other(_), _) => {
                "check that this machine reaches the authority (DNS, firewall) and trusts it \
                 (tls.directory_root)"
            }
            (AcmeError::Json(_), _) => {
                "check that tls.directory is the address of an ACME directory"
            }
            _ => "it will be tried again automatically",
        };
        Self {
            unknown_account: kind.ends_with(":accountDoesNotExist"),
            reach: match error {
                AcmeError::Other(_) => Reach::Unreached,
                _ => Reach::Reached,
            },
            ..Self::new(&error.to_string(), advice)
        }
    }
}

/// An error on this server's side.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(&error.to_string(), "check that the disk is not full")
    }
}

/// The type of the problem that the authority reports; empty for other errors.
fn kind_of(error: &AcmeError) -> &str {
    match error {
        AcmeError::Api(problem) => problem.r#type.as_deref().unwrap_or_default(),
        _ => "",
    }
}

/// A text of the authority as one line of limited length.
fn line(text: &str) -> String {
    const LEN_MAX: usize = 400;
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LEN_MAX).collect()
}

/// Repeats a request while the authority rejects its nonce, which is no fault of the request (RFC 8555 §6.5). It is a
/// macro because the future of a borrowing async closure is not known to be `Send`.
macro_rules! retry_nonce {
    ($request:expr) => {{
        let mut left = $crate::tls::acme::order::NONCE_RETRIES;
        loop {
            match $request.await {
                Err(error) if left > 0 && $crate::tls::acme::order::is_nonce(&error) => left -= 1,
                result => break result,
            }
        }
    }};
}
pub(super) use retry_nonce;

pub(super) fn is_nonce(error: &AcmeError) -> bool {
    kind_of(error).ends_with(":badNonce")
}

/// Fetches the authorizations of an order.
async fn fetch(order: &mut Order) -> Result<(), AcmeError> {
    let mut all = order.authorizations();
    while let Some(one) = all.next().await {
        one?;
    }
    Ok(())
}

/// A certificate to order, and the kind of challenge to use.
pub(super) struct CertificateRequest<'a> {
    pub(super) names: &'a [String],
    /// The certificate that is renewed, if the authority supports renewal information.
    pub(super) replaces: Option<CertificateIdentifier<'a>>,
    pub(super) challenge: Kind,
    pub(super) challenges: &'a Arc<Challenges>,
}

impl CertificateRequest<'_> {
    /// Orders the certificate; returns key and chain in PEM.
    pub(super) async fn obtain(&self, account: &Account) -> OrderResult<String> {
        let mut order = self.order(account).await?;
        // All authorizations are fetched first, so that a rejected nonce does not repeat the challenges.
        retry_nonce!(fetch(&mut order))?;
        let (proofs, refused) = self.publish(&mut order).await?;
        let ready = if let Some(error) = refused {
            Err(error)
        } else {
            retry_nonce!(order.poll_ready(&WAIT))
        };
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            return Err(self.challenge_failure(order, ready).await);
        }
        drop(proofs);
        let (key, request) = self.signing_request()?;
        retry_nonce!(order.finalize_csr(&request))?;
        let chain = retry_nonce!(order.poll_certificate(&WAIT))?;
        Ok(format!("{key}{chain}"))
    }

    async fn order(&self, account: &Account) -> Result<Order, AcmeError> {
        let names: Vec<_> = self.names.iter().cloned().map(Identifier::Dns).collect();
        if let Some(replaces) = self.replaces.clone() {
            let order = NewOrder::new(&names).replaces(replaces);
            match retry_nonce!(account.new_order(&order)) {
                // If the authority does not accept it as a renewal, it is ordered as a new certificate.
                Err(error) => log::debug!("not accepted as a renewal: {error}"),
                order => return order,
            }
        }
        let order = NewOrder::new(&names);
        retry_nonce!(account.new_order(&order))
    }

    /// Publishes the response to the challenge of each name and tells the authority. The second value is the error if
    /// the authority refuses that, because it may have validated the response already.
    async fn publish(&self, order: &mut Order) -> OrderResult<(Vec<Proof>, Option<AcmeError>)> {
        let wanted = match self.challenge {
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
                let message = format!("the authority does not offer {}", self.challenge.label());
                let failure = Failure::new(&message, "check which challenges it offers");
                return Err(Failure {
                    challenge_failed: true,
                    ..failure
                });
            };
            let name = challenge.identifier().to_string();
            let answer = challenge.key_authorization();
            proofs.push(match self.challenge {
                Kind::Http => self
                    .challenges
                    .publish_page(&challenge.token, answer.as_str()),
                Kind::TlsAlpn => {
                    let digest = answer.digest();
                    self.challenges
                        .publish_certificate(&name, digest.as_ref())?
                }
            });
            match retry_nonce!(challenge.set_ready()) {
                Ok(()) => {}
                Err(error @ AcmeError::Api(_)) => return Ok((proofs, Some(error))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((proofs, None))
    }

    /// Why the challenges failed, as the authority reports it.
    async fn challenge_failure(
        &self,
        mut order: Order,
        ready: Result<OrderStatus, AcmeError>,
    ) -> Failure {
        let mut all = order.authorizations();
        while let Some(Ok(mut one)) = all.next().await {
            if let Err(error) = retry_nonce!(one.refresh()) {
                log::debug!("a failed challenge could not be read: {error}");
                continue;
            }
            let name = one.identifier().to_string();
            let problem = one.challenges.iter().find_map(|tried| tried.error.as_ref());
            if let Some(problem) = problem {
                let detail = problem.detail.as_deref().unwrap_or("no reason given");
                let message = format!("{name} by {}: {detail}", self.challenge.label());
                let kind = problem.r#type.as_deref().unwrap_or_default();
                return Failure {
                    challenge_failed: true,
                    ..Failure::new(&message, plan::advice(kind))
                };
            }
        }
        let failure = match ready {
            Err(error) => Failure::from(error),
            Ok(status) => {
                let message = format!("the order is {status:?} after {}", self.challenge.label());
                Failure::new(&message, "it will be tried again automatically")
            }
        };
        Failure {
            challenge_failed: true,
            ..failure
        }
    }

    /// A new key in PEM, and a certificate signing request for it in DER.
    fn signing_request(&self) -> Result<(String, Vec<u8>), Error> {
        let params = CertificateParams::new(self.names);
        let mut params = params.doing("name a certificate")?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().doing("make a key")?;
        let request = params.serialize_request(&key);
        let request = request.doing("sign a request for a certificate")?;
        Ok((key.serialize_pem(), request.der().to_vec()))
    }
}
