//! Outbound requests to sites: one signed POST to a domain over HTTPS, to a checked address.
//!
//! The domain comes from an untrusted caller, who must not be able to direct the request to an internal address
//! (server-side request forgery). So the domain is resolved once, all its addresses are checked, and the connection
//! goes to one of exactly these.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ipnet::IpNet;
use rustls::{CertificateError, RootCertStore};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout};

use super::address;
use super::https::{self, Addresses, HttpsClient, Limits, ResponseBody};
use crate::error::{Doing, Result};

/// Time limits of the steps.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the whole request.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for reading the response's body, which is discarded.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);
/// How much of the response's body is read, in bytes.
const DRAIN_LEN_MAX: usize = 8 * 1024;
/// Maximum concurrent requests. Further ones are rejected, not queued, so that slow sites do not delay others.
const CALLS_MAX: usize = 256;
/// Maximum concurrent name lookups: each one that a name server does not answer blocks a thread.
const LOOKUPS_MAX: usize = 64;

/// How many of the slots the requests that a caller causes may use. Untrusted callers may name any domain, including many
/// that never respond, so half of the slots is reserved for trusted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// For trusted callers: all slots.
    High,
    /// For untrusted callers: at most half of the slots.
    Low,
}

/// Limits concurrent requests, or lookups: each occupies a slot.
#[derive(Debug)]
struct CallSlots {
    all: Arc<Semaphore>,
    half: Arc<Semaphore>,
}

/// An occupied slot, released when dropped.
type CallSlot = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl CallSlots {
    fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            half: Arc::new(Semaphore::new(count / 2)),
        }
    }

    fn try_take(&self, priority: Priority) -> Result<CallSlot, TryAcquireError> {
        let half = match priority {
            Priority::High => None,
            Priority::Low => Some(self.half.clone().try_acquire_owned()?),
        };
        Ok((self.all.clone().try_acquire_owned()?, half))
    }

    async fn take(&self, priority: Priority) -> Result<CallSlot, AcquireError> {
        let half = match priority {
            Priority::High => None,
            Priority::Low => Some(self.half.clone().acquire_owned().await?),
        };
        Ok((self.all.clone().acquire_owned().await?, half))
    }
}

/// Resolves domain names. Tests replace it.
pub trait Resolver: Send + Sync {
    /// Every address of `name`.
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        priority: Priority,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

/// The machine's resolver.
#[derive(Debug)]
pub struct SystemResolver(CallSlots);

impl Default for SystemResolver {
    fn default() -> Self {
        Self(CallSlots::new(LOOKUPS_MAX))
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        priority: Priority,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            // RFC 6761, 6.3: names under localhost always mean this machine, whatever a name server answers.
            if name.ends_with(".localhost") {
                return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
            }
            let slot = self.0.take(priority).await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let found = tokio::task::spawn_blocking(move || {
                let found = (name.as_str(), 0).to_socket_addrs();
                // Release the slot only now: the blocking lookup occupies its thread even after the caller's timeout.
                drop(slot);
                found.map(|all| all.map(|address| address.ip()).collect())
            });
            found.await.map_err(io::Error::other)?
        })
    }
}

/// Why a request to a site got no response. Shown to the operator, never to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// All slots are occupied.
    Busy,
    /// The domain could not be resolved in time.
    NoAddress,
    /// The domain has an address that the server must not connect to.
    Forbidden,
    /// No connection in time.
    NoConnection,
    /// The server does not speak TLS, or the handshake took too long.
    NoTls,
    /// The server aborted the TLS handshake.
    TlsRefused,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not valid yet.
    CertificateNotYetValid,
    /// The certificate is for other names.
    CertificateOtherName,
    /// The certificate is not signed by a trusted authority, or intermediate certificates were not sent.
    CertificateUntrusted,
    /// Something else is wrong with the certificate.
    CertificateUnusable,
    /// No HTTP response in time.
    NoAnswer,
}

impl Failure {
    /// The code in the handshake log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoAddress => "no_address",
            Self::Forbidden => "forbidden_address",
            Self::NoConnection => "no_connection",
            Self::NoTls => "no_tls",
            Self::TlsRefused => "tls_refused",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateOtherName => "certificate_other_name",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificateUnusable => "certificate_unusable",
            Self::NoAnswer => "no_answer",
        }
    }

    /// The reason why a TLS handshake failed.
    pub fn from_handshake_error(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(rustls::Error::InvalidCertificate(fault)) => Self::from_certificate_error(fault),
            // Not TLS at all, mostly plain HTTP.
            Some(rustls::Error::InvalidMessage(_)) => Self::NoTls,
            Some(_) => Self::TlsRefused,
            None => match error.kind() {
                io::ErrorKind::TimedOut => Self::NoTls,
                _ => Self::TlsRefused,
            },
        }
    }

    const fn from_certificate_error(fault: &CertificateError) -> Self {
        match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Self::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::CertificateNotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::CertificateOtherName
            }
            // BadSignature: an authority with the same name is trusted, but did not sign this certificate.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::CertificateUntrusted
            }
            _ => Self::CertificateUnusable,
        }
    }

    /// Logs the cause at debug level.
    fn logged(self, cause: impl std::fmt::Display) -> Self {
        log::debug!("a request to a site failed, {}: {cause}", self.as_str());
        self
    }
}

impl From<https::Failure> for Failure {
    fn from(failure: https::Failure) -> Self {
        let reason = match &failure {
            https::Failure::NoConnection(_) => Self::NoConnection,
            https::Failure::NoTls(Some(error)) => Self::from_handshake_error(error),
            https::Failure::NotHttps | https::Failure::NoTls(None) => Self::NoTls,
            https::Failure::NoResponse(_) => Self::NoAnswer,
        };
        reason.logged(failure)
    }
}

/// Headers and body of a POST request.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    /// In addition to `Host`, `Content-Type` and `User-Agent`.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: String,
}

/// Where requests may go.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Special-purpose networks that are allowed nevertheless.
    pub allow_networks: Vec<IpNet>,
    /// The port of all sites.
    pub port: u16,
}

/// The client for requests to sites.
pub struct Egress {
    rules: Rules,
    resolver: Box<dyn Resolver>,
    https: HttpsClient,
    calls: CallSlots,
}

impl Egress {
    /// A client that trusts the certificate authorities of the machine (or of `SSL_CERT_FILE`) and those in
    /// `extra_root`, a PEM file.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] if `extra_root` cannot be used.
    pub fn open(rules: Rules, extra_root: Option<&Path>) -> Result<Self> {
        let roots = https::root_store(extra_root, "handshake.extra_root")?;
        Self::with_resolver(rules, roots, Box::new(SystemResolver::default()))
    }

    fn with_resolver(
        rules: Rules,
        roots: RootCertStore,
        resolver: Box<dyn Resolver>,
    ) -> Result<Self> {
        let limits = Limits {
            connect: CONNECT_TIMEOUT,
            tls: TLS_TIMEOUT,
            exchange: CALL_TIMEOUT,
            body: ResponseBody::Discard {
                max: DRAIN_LEN_MAX,
                within: DRAIN_TIMEOUT,
            },
        };
        Ok(Self {
            rules,
            resolver,
            https: HttpsClient::new(roots, limits)?,
            calls: CallSlots::new(CALLS_MAX),
        })
    }

    /// The URL of `path` at `domain`, in the form that is signed.
    pub fn url(&self, domain: &str, path: &str) -> String {
        format!("{}{path}", origin(domain, self.rules.port))
    }

    /// Posts `outbound` to `path` at `domain` and returns the status of the response. Its body is discarded.
    ///
    /// # Errors
    /// The [`Failure`], within 10 seconds.
    pub async fn post(
        &self,
        domain: &str,
        path: &str,
        outbound: OutboundRequest,
        priority: Priority,
    ) -> Result<u16, Failure> {
        let slot = self.calls.try_take(priority);
        let _slot = slot.map_err(|full| Failure::Busy.logged(full))?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        let addresses = Addresses::Only(self.addresses(domain, priority).await?);
        let request = self.request(domain, path, outbound);
        let request = request.map_err(|cause| Failure::NoAnswer.logged(cause))?;
        let response = self.https.send(request, addresses, deadline).await?;
        Ok(response.status().as_u16())
    }

    /// All addresses of `domain`, each of them checked.
    async fn addresses(&self, domain: &str, priority: Priority) -> Result<Vec<IpAddr>, Failure> {
        let found = timeout(RESOLVE_TIMEOUT, self.resolver.resolve(domain, priority)).await;
        let found = found.map_or(Err(Failure::NoAddress), |found| {
            found.map_err(|cause| Failure::NoAddress.logged(cause))
        })?;
        if found.is_empty() {
            return Err(Failure::NoAddress);
        }
        let allowed = &self.rules.allow_networks;
        // One forbidden address is enough: a domain that also resolves to an internal address is suspicious.
        if found
            .iter()
            .all(|address| address::may_be_called(*address, allowed))
        {
            Ok(found)
        } else {
            Err(Failure::Forbidden)
        }
    }

    fn request(
        &self,
        domain: &str,
        path: &str,
        outbound: OutboundRequest,
    ) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::post(self.url(domain, path))
            .header("content-type", "application/json")
            .header("user-agent", "license-server");
        for (name, value) in outbound.headers {
            request = request.header(name, value);
        }
        let body = Full::new(outbound.body.into());
        request.body(body).doing("build a request to a site")
    }
}

/// The origin of a site. The default port is omitted (RFC 6454, 6.1).
pub fn origin(domain: &str, port: u16) -> String {
    match port {
        443 => format!("https://{domain}"),
        port => format!("https://{domain}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A resolver that returns the next of its answers for each lookup.
    struct Scripted {
        answers: Mutex<VecDeque<Vec<IpAddr>>>,
        lookups: Arc<AtomicUsize>,
    }

    impl Resolver for Scripted {
        fn resolve<'a>(
            &'a self,
            _: &'a str,
            _: Priority,
        ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
            self.lookups.fetch_add(1, Ordering::SeqCst);
            let next = self.answers.lock().unwrap().pop_front();
            Box::pin(async move { next.ok_or_else(|| io::Error::other("no such name")) })
        }
    }

    /// A resolver that never answers.
    struct Silent;

    impl Resolver for Silent {
        fn resolve<'a>(
            &'a self,
            _: &'a str,
            _: Priority,
        ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
            Box::pin(std::future::pending())
        }
    }

    fn client(port: u16, allowed: &[&str], resolver: Box<dyn Resolver>) -> Egress {
        let rules = Rules {
            allow_networks: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            port,
        };
        Egress::with_resolver(rules, RootCertStore::empty(), resolver).unwrap()
    }

    fn scripted(answers: &[&[&str]]) -> (Box<dyn Resolver>, Arc<AtomicUsize>) {
        let lookups = Arc::<AtomicUsize>::default();
        let address = |text: &&str| text.parse().unwrap();
        let answers = answers.iter().map(|all| all.iter().map(address).collect());
        let answers = Mutex::new(answers.collect());
        (
            Box::new(Scripted {
                answers,
                lookups: lookups.clone(),
            }),
            lookups,
        )
    }

    async fn call(client: &Egress) -> Result<u16, Failure> {
        let outbound = OutboundRequest {
            headers: Vec::new(),
            body: "{}".to_owned(),
        };
        client
            .post("shop.example", "/callback", outbound, Priority::High)
            .await
    }

    #[tokio::test]
    async fn one_forbidden_address_is_enough_to_refuse_a_domain() {
        for addresses in [
            &["127.0.0.1"][..],
            &["1.1.1.1", "127.0.0.1"],
            &["1.1.1.1", "::1"],
            &["2606:4700::1111", "fd00::1"],
            &["64:ff9b::7f00:1"],
            &["169.254.169.254"],
            &["::ffff:10.0.0.1"],
        ] {
            let (resolver, _) = scripted(&[addresses]);
            assert_eq!(
                call(&client(443, &[], resolver)).await,
                Err(Failure::Forbidden),
                "{addresses:?}"
            );
        }
        let (resolver, _) = scripted(&[&[]]);
        assert_eq!(
            call(&client(443, &[], resolver)).await,
            Err(Failure::NoAddress)
        );
        let (resolver, _) = scripted(&[]);
        assert_eq!(
            call(&client(443, &[], resolver)).await,
            Err(Failure::NoAddress)
        );
    }

    #[tokio::test]
    async fn a_domain_that_resolves_differently_after_the_check_reaches_no_other_address() {
        // Nothing listens on this port of the checked address, but something does on that of the second answer.
        let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = trap.local_addr().unwrap().port();
        trap.set_nonblocking(true).unwrap();
        for round in 0..200 {
            let (resolver, lookups) = scripted(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.1"]]);
            let client = client(port, &["127.0.0.2/32"], resolver);
            assert_eq!(call(&client).await, Err(Failure::NoConnection), "{round}");
            assert_eq!(
                lookups.load(Ordering::SeqCst),
                1,
                "the name is resolved once"
            );
            assert_eq!(call(&client).await, Err(Failure::Forbidden), "{round}");
        }
        assert!(trap.accept().is_err(), "no connection was made");
    }

    #[tokio::test]
    async fn a_lookup_without_an_answer_fails_after_three_seconds() {
        let begun = Instant::now();
        assert_eq!(
            call(&client(443, &[], Box::new(Silent))).await,
            Err(Failure::NoAddress)
        );
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test]
    async fn names_under_localhost_mean_this_machine_and_are_refused() {
        let resolver = SystemResolver::default();
        let found = resolver
            .resolve("shop.localhost", Priority::Low)
            .await
            .unwrap();
        assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
        let outbound = OutboundRequest {
            headers: Vec::new(),
            body: String::new(),
        };
        let result = client(443, &[], Box::new(resolver))
            .post("shop.localhost", "/", outbound, Priority::High)
            .await;
        assert_eq!(result, Err(Failure::Forbidden));
    }

    #[tokio::test]
    async fn a_request_is_refused_at_once_if_all_slots_are_occupied() {
        let client = client(443, &[], Box::new(Silent));
        let all = client
            .calls
            .all
            .acquire_many(u32::try_from(CALLS_MAX).unwrap())
            .await
            .unwrap();
        assert_eq!(call(&client).await, Err(Failure::Busy));
        drop(all);
    }

    #[test]
    fn the_signed_url_has_a_port_only_if_it_is_not_the_default_port() {
        let url = |port| client(port, &[], Box::new(Silent)).url("shop.example", "/x");
        assert_eq!(url(443), "https://shop.example/x");
        assert_eq!(url(8443), "https://shop.example:8443/x");
    }
}
