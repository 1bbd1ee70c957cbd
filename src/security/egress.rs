//! The only way out to the network: one signed POST to a name, over HTTPS, to an address that was checked.
//!
//! Whoever names a site must not be able to send us anywhere else. So the name is resolved once, every
//! address that it has is checked, and the connection goes to one of exactly these. No redirect is
//! followed, no proxy is taken from the environment, nothing is decompressed, and everything has an end.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{address, pem};
use crate::error::{Doing, Error, Result};

const RESOLVE: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(3);
const TLS: Duration = Duration::from_secs(5);
/// A call, whole.
const CALL: Duration = Duration::from_secs(10);
/// For the body of an answer, which nobody needs.
const DRAIN: Duration = Duration::from_millis(250);
/// The head of an answer, in bytes.
const HEAD_LEN: usize = 16 * 1024;
/// How much of its body is read, in bytes.
const BODY_LEN: usize = 8 * 1024;
/// Calls at once. A call more is refused, not queued: whoever is called slowly must not hold up others.
const CALLS_MAX: usize = 256;
/// Names that are being resolved at once: a name server that does not answer costs a thread each.
const LOOKUPS_MAX: usize = 64;
/// Addresses of a name that are tried.
const TRIES: usize = 4;

/// How many of the places somebody's calls may take. Strangers name whom they like, also domains that never
/// answer: what they leave is for those who are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Every place.
    Whole,
    /// At most half of them.
    Half,
}

/// Places of a kind: a call takes one.
#[derive(Debug)]
struct CallSlots {
    all: Arc<Semaphore>,
    half: Arc<Semaphore>,
}

/// What is given back when the call is over.
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
            Priority::Whole => None,
            Priority::Half => Some(self.half.clone().try_acquire_owned()?),
        };
        Ok((self.all.clone().try_acquire_owned()?, half))
    }

    async fn take(&self, priority: Priority) -> Result<CallSlot, AcquireError> {
        let half = match priority {
            Priority::Whole => None,
            Priority::Half => Some(self.half.clone().acquire_owned().await?),
        };
        Ok((self.all.clone().acquire_owned().await?, half))
    }
}

/// What the names of others mean: the outside world.
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
            // RFC 6761, 6.3: names under localhost are this machine's, whatever a name server says.
            if name.ends_with(".localhost") {
                return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
            }
            let place = self.0.take(priority).await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let found = tokio::task::spawn_blocking(move || {
                let found = (name.as_str(), 0).to_socket_addrs();
                // Only now: the thread is busy however soon the caller lost patience.
                drop(place);
                found.map(|all| all.map(|address| address.ip()).collect())
            });
            found.await.map_err(io::Error::other)?
        })
    }
}

/// Why a call did not come to an answer. For the operator; the one who asked never hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Too many calls at once.
    Busy,
    /// No name server knew it in time.
    NoAddress,
    /// It has an address that must not be called.
    Forbidden,
    /// Nobody took the connection in time.
    NoConnection,
    /// No TLS, or not in time.
    NoTls,
    /// The other end broke off the handshake.
    TlsRefused,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not valid yet.
    CertificateNotYetValid,
    /// The certificate is for other names.
    CertificateOtherName,
    /// No authority that we trust vouches for it, or the certificates in between were not sent.
    CertificateUntrusted,
    /// Something else is wrong with the certificate.
    CertificateUnusable,
    /// No answer of HTTP in time.
    NoAnswer,
}

impl Failure {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
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

    /// What a handshake that failed says of the other end.
    pub fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(rustls::Error::InvalidCertificate(fault)) => Self::of_certificate(fault),
            // What is no TLS at all, plain HTTP mostly.
            Some(rustls::Error::InvalidMessage(_)) => Self::NoTls,
            Some(_) => Self::TlsRefused,
            None => match error.kind() {
                io::ErrorKind::TimedOut => Self::NoTls,
                _ => Self::TlsRefused,
            },
        }
    }

    const fn of_certificate(fault: &CertificateError) -> Self {
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
            // The second: an authority of the same name is known, and did not sign it.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::CertificateUntrusted
            }
            _ => Self::CertificateUnusable,
        }
    }

    /// The same, with a line in the loudest log that says what it came from.
    fn because(self, cause: impl std::fmt::Display) -> Self {
        log::debug!("a call to a site ended, {}: {cause}", self.word());
        self
    }
}

/// What is sent: the header lines and the body of a POST.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    /// Beside `Host`, `Content-Type` and `User-Agent`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// Where calls may go.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Special-purpose networks that may be called all the same.
    pub allow_networks: Vec<IpNet>,
    /// The port of every site.
    pub port: u16,
}

/// Calls sites.
pub struct Egress {
    rules: Rules,
    resolver: Box<dyn Resolver>,
    tls: TlsConnector,
    calls: CallSlots,
}

impl Egress {
    /// A way out that trusts the machine's authorities (`SSL_CERT_FILE` is respected) and `extra_root`, a
    /// PEM file.
    ///
    /// # Errors
    /// [`Error::Usage`] when `extra_root` cannot be used.
    pub fn open(rules: Rules, extra_root: Option<&Path>) -> Result<Self> {
        let roots = roots(extra_root, "handshake.extra_root")?;
        Self::with(rules, roots, Box::new(SystemResolver::default()))
    }

    fn with(rules: Rules, roots: RootCertStore, resolver: Box<dyn Resolver>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("set up TLS to sites")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            rules,
            resolver,
            tls: TlsConnector::from(Arc::new(config)),
            calls: CallSlots::new(CALLS_MAX),
        })
    }

    /// The address of `path` at `domain`, as it is signed.
    pub fn target(&self, domain: &str, path: &str) -> String {
        format!("{}{path}", origin(domain, self.rules.port))
    }

    /// Posts `letter` to `path` at `domain`; the status of the answer, whose body is read and forgotten.
    ///
    /// # Errors
    /// The [`Failure`]; it comes within 10 seconds.
    pub async fn post(
        &self,
        domain: &str,
        path: &str,
        letter: OutboundRequest,
        priority: Priority,
    ) -> Result<u16, Failure> {
        let place = self.calls.try_take(priority);
        let _place = place.map_err(|full| Failure::Busy.because(full))?;
        let end = Instant::now() + CALL;
        let stream = timeout_at(end, self.reach(domain, priority)).await;
        let stream = stream.unwrap_or(Err(Failure::NoConnection))?;
        let tls = timeout_at(end.min(Instant::now() + TLS), self.encrypt(domain, stream)).await;
        let tls = tls.unwrap_or(Err(Failure::NoTls))?;
        let request = self.request(domain, path, letter);
        let request = request.map_err(|cause| Failure::NoAnswer.because(cause))?;
        let answered = timeout_at(end, exchange(tls, request)).await;
        answered.unwrap_or(Err(Failure::NoAnswer))
    }

    /// Every address of `domain`, each of them checked.
    async fn addresses(&self, domain: &str, priority: Priority) -> Result<Vec<IpAddr>, Failure> {
        let found = timeout(RESOLVE, self.resolver.resolve(domain, priority)).await;
        let found = found.map_or(Err(Failure::NoAddress), |found| {
            found.map_err(|cause| Failure::NoAddress.because(cause))
        })?;
        if found.is_empty() {
            return Err(Failure::NoAddress);
        }
        let allowed = &self.rules.allow_networks;
        // One wrong address is enough: a name that points at us and elsewhere is not to be believed.
        if found
            .iter()
            .all(|one| address::may_be_called(*one, allowed))
        {
            Ok(found)
        } else {
            Err(Failure::Forbidden)
        }
    }

    /// A connection to one of the checked addresses: the name is not asked again.
    async fn reach(&self, domain: &str, priority: Priority) -> Result<TcpStream, Failure> {
        let addresses = self.addresses(domain, priority).await?;
        let end = Instant::now() + CONNECT;
        let count = addresses.len().min(TRIES);
        for (tried, address) in addresses.into_iter().take(count).enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let priority = left / u32::try_from(count - tried).unwrap_or(1);
            let to = SocketAddr::new(address, self.rules.port);
            if let Ok(Ok(stream)) = timeout(priority, TcpStream::connect(to)).await
                && stream.set_nodelay(true).is_ok()
            {
                return Ok(stream);
            }
        }
        Err(Failure::NoConnection)
    }

    async fn encrypt(
        &self,
        domain: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = ServerName::try_from(domain.to_owned());
        let name = name.map_err(|cause| Failure::NoTls.because(cause))?;
        let tls = self.tls.connect(name, stream).await;
        tls.map_err(|cause| Failure::of_handshake(&cause).because(cause))
    }

    fn request(
        &self,
        domain: &str,
        path: &str,
        letter: OutboundRequest,
    ) -> Result<Request<Full<Bytes>>> {
        let host = match self.rules.port {
            443 => domain.to_owned(),
            port => format!("{domain}:{port}"),
        };
        let mut request = Request::post(path)
            .header("host", host)
            .header("content-type", "application/json")
            .header("user-agent", "license-server")
            .header("connection", "close");
        for (name, value) in letter.headers {
            request = request.header(name, value);
        }
        let body = Full::new(letter.body.into());
        request.body(body).doing("write a letter to a site")
    }
}

/// Where a site is: the usual port is not named (RFC 6454, 6.1).
pub fn origin(domain: &str, port: u16) -> String {
    match port {
        443 => format!("https://{domain}"),
        port => format!("https://{domain}:{port}"),
    }
}

/// The machine's authorities, and those in the PEM file that the setting `key` names.
///
/// # Errors
/// [`Error::Usage`] when that file cannot be used.
pub fn roots(extra_root: Option<&Path>, key: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        log::warn!("an authority of this machine cannot be read: {error}");
    }
    let (taken, _) = roots.add_parsable_certificates(native.certs);
    if taken == 0 && extra_root.is_none() {
        log::warn!(
            "this machine trusts no authority: nobody can be called; install ca-certificates"
        );
    }
    let Some(path) = extra_root else {
        return Ok(roots);
    };
    let unusable = |told: &str| Error::Usage(format!("{key}: {} {told}", path.display()));
    for certificate in pem::certificates(path).map_err(|told| unusable(&told))? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(&format!("holds no authority ({error})")))?;
    }
    Ok(roots)
}

/// One request and its answer; the connection ends with this.
async fn exchange(
    tls: TlsStream<TcpStream>,
    request: Request<Full<Bytes>>,
) -> Result<u16, Failure> {
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_LEN);
    let (mut send, line) = http
        .handshake(TokioIo::new(tls))
        .await
        .map_err(|cause| Failure::NoAnswer.because(cause))?;
    let asked = async {
        let answer = send.send_request(request).await;
        let answer = answer.map_err(|cause| Failure::NoAnswer.because(cause))?;
        let status = answer.status().as_u16();
        // Where it takes long or does not end, the connection is cut: the status is all that counts.
        if timeout(DRAIN, drain(answer)).await.is_err() {
            log::debug!("a site's answer was not read to its end");
        }
        Ok(status)
    };
    tokio::pin!(asked);
    tokio::pin!(line);
    tokio::select! {
        biased;
        answered = &mut asked => answered,
        _ = &mut line => asked.await,
    }
}

async fn drain(mut answer: Response<Incoming>) {
    let mut left = BODY_LEN;
    while let Some(Ok(frame)) = answer.body_mut().frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(rest) if rest > 0 => left = rest,
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A name server that answers each question with the next of its answers.
    struct Scripted {
        answers: Mutex<VecDeque<Vec<IpAddr>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Resolver for Scripted {
        fn resolve<'a>(
            &'a self,
            _: &'a str,
            _: Priority,
        ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let next = self.answers.lock().unwrap().pop_front();
            Box::pin(async move { next.ok_or_else(|| io::Error::other("no such name")) })
        }
    }

    /// One that never answers.
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

    fn way(port: u16, allowed: &[&str], resolver: Box<dyn Resolver>) -> Egress {
        let rules = Rules {
            allow_networks: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            port,
        };
        Egress::with(rules, RootCertStore::empty(), resolver).unwrap()
    }

    fn scripted(answers: &[&[&str]]) -> (Box<dyn Resolver>, Arc<AtomicUsize>) {
        let asked = Arc::<AtomicUsize>::default();
        let address = |text: &&str| text.parse().unwrap();
        let answers = answers.iter().map(|all| all.iter().map(address).collect());
        let answers = Mutex::new(answers.collect());
        (
            Box::new(Scripted {
                answers,
                asked: asked.clone(),
            }),
            asked,
        )
    }

    async fn call(way: &Egress) -> Result<u16, Failure> {
        let letter = OutboundRequest {
            headers: Vec::new(),
            body: "{}".to_owned(),
        };
        way.post("shop.example", "/callback", letter, Priority::Whole)
            .await
    }

    #[tokio::test]
    async fn one_address_that_must_not_be_called_is_enough_to_stop() {
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
                call(&way(443, &[], resolver)).await,
                Err(Failure::Forbidden),
                "{addresses:?}"
            );
        }
        let (resolver, _) = scripted(&[&[]]);
        assert_eq!(
            call(&way(443, &[], resolver)).await,
            Err(Failure::NoAddress)
        );
        let (resolver, _) = scripted(&[]);
        assert_eq!(
            call(&way(443, &[], resolver)).await,
            Err(Failure::NoAddress)
        );
    }

    #[tokio::test]
    async fn a_name_that_changes_between_look_and_call_reaches_nobody_else() {
        // The address that was checked has nobody on this port; the second answer would have somebody.
        let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = trap.local_addr().unwrap().port();
        trap.set_nonblocking(true).unwrap();
        for round in 0..200 {
            let (resolver, asked) = scripted(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.1"]]);
            let way = way(port, &["127.0.0.2/32"], resolver);
            assert_eq!(call(&way).await, Err(Failure::NoConnection), "{round}");
            assert_eq!(asked.load(Ordering::SeqCst), 1, "the name is asked once");
            assert_eq!(call(&way).await, Err(Failure::Forbidden), "{round}");
        }
        assert!(trap.accept().is_err(), "nobody came");
    }

    #[tokio::test]
    async fn a_name_server_that_does_not_answer_costs_three_seconds() {
        let begun = Instant::now();
        assert_eq!(
            call(&way(443, &[], Box::new(Silent))).await,
            Err(Failure::NoAddress)
        );
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test]
    async fn names_under_localhost_are_this_machines_and_refused_like_any() {
        let resolver = SystemResolver::default();
        let found = resolver
            .resolve("shop.localhost", Priority::Half)
            .await
            .unwrap();
        assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
        let letter = OutboundRequest {
            headers: Vec::new(),
            body: String::new(),
        };
        let told = way(443, &[], Box::new(resolver))
            .post("shop.localhost", "/", letter, Priority::Whole)
            .await;
        assert_eq!(told, Err(Failure::Forbidden));
    }

    #[tokio::test]
    async fn a_call_more_than_there_is_room_for_is_refused_at_once() {
        let way = way(443, &[], Box::new(Silent));
        let all = way
            .calls
            .all
            .acquire_many(u32::try_from(CALLS_MAX).unwrap())
            .await
            .unwrap();
        assert_eq!(call(&way).await, Err(Failure::Busy));
        drop(all);
    }

    #[test]
    fn the_address_that_is_signed_has_a_port_only_where_it_is_not_the_usual_one() {
        let target = |port| way(port, &[], Box::new(Silent)).target("shop.example", "/x");
        assert_eq!(target(443), "https://shop.example/x");
        assert_eq!(target(8443), "https://shop.example:8443/x");
    }
}
