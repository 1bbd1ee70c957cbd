//! Certificates from an ACME authority (RFC 8555): requested, validated, stored and renewed automatically.
//!
//! The present certificate stays in use until the next one is issued; a failure never removes it.

mod cert_store;
mod challenges;
mod http;
mod order;
mod plan;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{Account, AccountCredentials, CertificateIdentifier, LetsEncrypt, NewAccount};
use rustls::sign::CertifiedKey;
use tokio::time::{sleep, timeout};

use super::ServedCertificates;
use crate::clock::UnixMs;
use crate::config::Config;
use crate::error::Result;
use crate::net::https;
use cert_store::{AcmeAccount, CertStore, CertifiedKeyPair};
use challenges::Kind;
use http::AcmeHttp;
use order::{CertificateRequest, Failure, retry_nonce};
use plan::{Directory, Reach, RenewalState, Staging};

pub(super) use challenges::ALPN;
pub use challenges::Challenges;
pub use plan::Validity;

/// Timeout of one attempt to get a certificate.
const ATTEMPT_MAX: Duration = Duration::from_mins(15);
/// Longest sleep, because the system clock may be set in the meantime.
const SLEEP_MAX: Duration = Duration::from_mins(1);
/// How often the authority's renewal information is read (RFC 9773 §4.3.2), unless the authority sets an interval
/// between the two below.
const RENEWAL_INFO_INTERVAL: Duration = Duration::from_hours(6);
const RENEWAL_INFO_INTERVAL_MIN: Duration = Duration::from_mins(1);
const RENEWAL_INFO_INTERVAL_MAX: Duration = Duration::from_hours(24);
/// How long before the certificate in use expires a failure is logged as an error.
const URGENT_BEFORE_EXPIRY: Duration = Duration::from_hours(7 * 24);

/// Requests and renews certificates.
pub(super) struct Acme {
    names: Vec<String>,
    contact: Option<String>,
    directory: String,
    staging: Staging,
    /// The possible kinds of challenges, the preferred one first.
    kinds: Vec<Kind>,
    store: CertStore,
    http: AcmeHttp,
    challenges: Arc<Challenges>,
    state: Mutex<RenewalState>,
    certificate: Mutex<Option<Arc<CertifiedKeyPair>>>,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme")
            .field("names", &self.names)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// The state of the ACME certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeStatus {
    /// The name of the authority that issued the certificate in use, and its validity; `None` while the certificate is
    /// self-signed.
    pub certificate: Option<(String, Validity)>,
    /// When the certificate will be renewed.
    pub renew_at: Option<UnixMs>,
    /// Names in the settings that the certificate is not for.
    pub missing_names: Vec<String>,
    /// Consecutive failures.
    pub failures: u32,
    /// Time of the first of them.
    pub failing_since: Option<UnixMs>,
    /// The last failure, and what to do.
    pub last_error: String,
    /// Time of the next attempt.
    pub next_try: Option<UnixMs>,
}

impl AcmeStatus {
    fn new(certificate: Option<&CertifiedKeyPair>, state: &RenewalState, names: &[String]) -> Self {
        Self {
            certificate: certificate.map(|it| (it.issuer.clone(), it.validity)),
            renew_at: certificate.map(|it| state.renew_at.unwrap_or(it.validity.renew_at())),
            missing_names: certificate
                .map(|it| it.missing_names(names))
                .unwrap_or_default(),
            failures: state.failures,
            failing_since: state.failing_since,
            last_error: state.last_error.clone(),
            next_try: state.next_try,
        }
    }

    /// Reads the state from the files, for a command.
    pub fn read(settings: &Config) -> Result<Self> {
        let store = CertStore::in_data_folder(&settings.data_folder());
        let (certificate, state) = (store.certificate()?, store.state()?);
        Ok(Self::new(
            certificate.as_ref(),
            &state,
            &settings.tls.names(),
        ))
    }
}

impl Acme {
    /// Opens what earlier runs have stored, for the names in the settings.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] if `tls.directory_root` cannot be used.
    pub(super) fn open(settings: &Config, now: UnixMs) -> Result<Self> {
        let tls = &settings.tls;
        let store = CertStore::in_data_folder(&settings.data_folder());
        let roots = https::root_store(tls.directory_root.as_deref(), "tls.directory_root")?;
        // If the certificate cannot be read, a new one is requested, and a self-signed one serves in the meantime. The
        // file is not deleted.
        let certificate = store.certificate().unwrap_or_else(|error| {
            log::error!("{error}: requesting a new certificate");
            None
        });
        let state = store.state().unwrap_or_else(|error| {
            log::warn!("{error}");
            RenewalState::default()
        });
        let names = tls.names();
        let asked = format!("{} {}", tls.authority(), names.join(" "));
        let http_challenge = (tls.http_port > 0).then_some(Kind::Http);
        Ok(Self {
            contact: tls.contact.clone(),
            directory: tls.authority().to_owned(),
            staging: if tls.is_lets_encrypt() {
                Staging::Exists
            } else {
                Staging::None
            },
            kinds: http_challenge.into_iter().chain([Kind::TlsAlpn]).collect(),
            http: AcmeHttp::open(roots)?,
            challenges: Arc::default(),
            state: Mutex::new(state.at_start(&asked, now)),
            certificate: Mutex::new(certificate.map(Arc::new)),
            names,
            store,
        })
    }

    /// The present certificate.
    pub(super) fn certified(&self) -> Option<CertifiedKey> {
        self.certificate().map(|it| it.certified.clone())
    }

    pub(super) fn challenges(&self) -> Arc<Challenges> {
        self.challenges.clone()
    }

    pub(super) fn status(&self) -> AcmeStatus {
        AcmeStatus::new(self.certificate().as_deref(), &self.state(), &self.names)
    }

    fn certificate(&self) -> Option<Arc<CertifiedKeyPair>> {
        let certificate = self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        certificate.clone()
    }

    /// The present certificate, if it fits the settings.
    fn fitting_certificate(&self) -> Option<Arc<CertifiedKeyPair>> {
        let from = self.state().from;
        // If the state file was lost, the authority is unknown; that is no reason to replace the certificate.
        let same_authority = from.is_empty() || from == self.directory;
        self.certificate()
            .filter(|it| same_authority && it.missing_names(&self.names).is_empty())
    }

    fn state(&self) -> RenewalState {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// Changes the renewal state, also in its file.
    fn update_state(&self, change: impl FnOnce(&mut RenewalState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if let Err(error) = self.store.save_state(&state) {
            log::error!("the renewal state of the certificate could not be saved: {error}");
        }
    }

    /// Requests, renews and serves certificates, as long as this future is polled.
    pub(super) async fn run(&self, served: &ServedCertificates, machine: impl Fn() -> UnixMs) {
        let mut info_at = machine();
        loop {
            let now = machine();
            let validity = self.fitting_certificate().map(|it| it.validity);
            let due = self.state().due(validity, now);
            if due <= now {
                self.attempt(served, &machine).await;
                info_at = machine();
                continue;
            }
            info_at = info_at.min(now.plus(RENEWAL_INFO_INTERVAL_MAX));
            if info_at <= now {
                info_at = now.plus(self.read_renewal_info().await);
                continue;
            }
            let wait = due.min(info_at).0.saturating_sub(now.0);
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
            sleep(wait.min(SLEEP_MAX)).await;
        }
    }

    /// Reads when the authority suggests to renew the certificate; returns the time until the next read.
    async fn read_renewal_info(&self) -> Duration {
        let Some(certificate) = self.fitting_certificate() else {
            return RENEWAL_INFO_INTERVAL;
        };
        match timeout(ATTEMPT_MAX, self.update_renewal_time(&certificate)).await {
            Ok(Ok(next)) => next.clamp(RENEWAL_INFO_INTERVAL_MIN, RENEWAL_INFO_INTERVAL_MAX),
            Ok(Err(failure)) => {
                log::debug!("no renewal information: {}", failure.message);
                RENEWAL_INFO_INTERVAL
            }
            Err(_late) => RENEWAL_INFO_INTERVAL,
        }
    }

    /// Sets the renewal time as RFC 9773 §4.2 requires: a random time in the window that the authority suggests, which
    /// stays the same as long as it is within the window.
    async fn update_renewal_time(
        &self,
        certificate: &CertifiedKeyPair,
    ) -> std::result::Result<Duration, Failure> {
        let Some(stored) = self.store.account(&self.directory)? else {
            return Ok(RENEWAL_INFO_INTERVAL);
        };
        let account = self.load_account(stored.credentials).await?;
        let id = identifier(certificate)
            .map_err(|message| Failure::new(&message, "nothing needs to be done"))?;
        let (info, next) = account.renewal_info(&id).await?;
        let at =
            |moment: time::OffsetDateTime| UnixMs(moment.unix_timestamp().saturating_mul(1000));
        let (start, end) = (
            at(info.suggested_window.start),
            at(info.suggested_window.end),
        );
        let in_window = |at: &UnixMs| (start..=end).contains(at);
        let known = self.state().renew_at.filter(in_window);
        let suggested = known.unwrap_or_else(|| {
            let span = end.0.saturating_sub(start.0).max(0);
            UnixMs(start.0.saturating_add(rand::random_range(0..=span)))
        });
        let renew_at = certificate.validity.renew_at_suggestion(suggested);
        if self.state().renew_at != Some(renew_at) {
            let why = info.explanation_url.unwrap_or_default();
            log::info!(
                "the certificate will be renewed at {}, as its authority suggests {why}",
                renew_at.rfc3339()
            );
            self.update_state(|state| state.renew_at = Some(renew_at));
        }
        Ok(next)
    }

    /// Tries once to get a certificate.
    async fn attempt(&self, served: &ServedCertificates, machine: impl Fn() -> UnixMs) {
        let directory = self.state().directory(self.staging);
        let url = match directory {
            Directory::Configured => self.directory.as_str(),
            Directory::Staging => LetsEncrypt::Staging.url(),
        };
        log::info!(
            "requesting a certificate for {} from {url}",
            self.names.join(", ")
        );
        let result = timeout(ATTEMPT_MAX, self.obtain(url, directory)).await;
        let result = result.unwrap_or_else(|_late| {
            Err(Failure::new(
                "the authority took too long",
                "it will be tried again automatically",
            ))
        });
        let result = result.and_then(|(pem, kind)| Ok((self.check(&pem, &machine)?, pem, kind)));
        match result {
            Err(failure) => self.note_failure(failure, machine()),
            Ok(_) if directory == Directory::Staging => {
                log::info!("the staging directory issued a certificate: trying production again");
                self.update_state(|state| state.note_staging_success(machine()));
            }
            Ok((certificate, pem, kind)) => {
                // It is served even if it cannot be saved: the disk may be full.
                if let Err(error) = self.store.save_certificate(&pem) {
                    log::error!(
                        "the new certificate could not be saved and is lost at the next stop: {error}"
                    );
                }
                let validity = certificate.validity;
                self.serve(served, certificate);
                self.update_state(|state| {
                    state.note_success(&self.directory, kind, validity, machine());
                });
            }
        }
    }

    /// Parses a new certificate and checks that it fits the settings and has not expired.
    fn check(
        &self,
        pem: &str,
        machine: impl Fn() -> UnixMs,
    ) -> std::result::Result<CertifiedKeyPair, Failure> {
        let certificate = CertifiedKeyPair::parse(pem)?;
        let missing = certificate.missing_names(&self.names);
        if !missing.is_empty() {
            let message = format!("the certificate is not for {}", missing.join(", "));
            return Err(Failure::new(&message, "ask the authority"));
        }
        if certificate.validity.ends <= machine() {
            return Err(Failure::new(
                "the certificate has expired already",
                "set this machine's clock",
            ));
        }
        Ok(certificate)
    }

    fn serve(&self, served: &ServedCertificates, certificate: CertifiedKeyPair) {
        let (names, issuer) = (self.names.join(", "), certificate.issuer.clone());
        let validity = certificate.validity;
        let (ends, next) = (validity.ends.rfc3339(), validity.renew_at().rfc3339());
        served.replace(certificate.certified.clone());
        *self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certificate));
        log::info!(
            "a certificate for {names} by {issuer} is in use: it expires {ends} and is renewed about {next}"
        );
    }

    fn note_failure(&self, failure: Failure, now: UnixMs) {
        self.update_state(|state| state.note_failure(failure.message, failure.reach, now));
        let state = self.state();
        let ends = self.certificate().map(|it| it.validity.ends);
        let present = match ends {
            None => "a self-signed one is in use".to_owned(),
            Some(ends) if ends < now => format!("the old one expired {}", ends.rfc3339()),
            Some(ends) => format!("the old one is valid until {}", ends.rfc3339()),
        };
        let urgent = ends.is_some_and(|ends| ends < now.plus(URGENT_BEFORE_EXPIRY));
        let level = if urgent {
            log::Level::Error
        } else {
            log::Level::Warn
        };
        let next = state.next_try.unwrap_or(now).rfc3339();
        log::log!(
            level,
            "no new certificate (failure {}): {}; {present}, next attempt {next}",
            state.failures,
            state.last_error,
        );
    }

    /// Orders a certificate; returns it with its key in PEM, and the kind of challenge that succeeded. A lost account
    /// is replaced.
    async fn obtain(
        &self,
        url: &str,
        directory: Directory,
    ) -> std::result::Result<(String, Kind), Failure> {
        let account = self.account(url).await?;
        let mut result = self.order(&account, directory).await;
        if matches!(&result, Err(failure) if failure.unknown_account) {
            log::warn!("{url} no longer knows this server's account: creating a new one");
            let account = self.create_account(url).await?;
            result = self.order(&account, directory).await;
        }
        result
    }

    async fn order(
        &self,
        account: &Account,
        directory: Directory,
    ) -> std::result::Result<(String, Kind), Failure> {
        let state = self.state();
        let renewed = self
            .certificate()
            .filter(|_| directory == Directory::Configured && state.renew_at.is_some());
        let replaces = renewed.as_deref().and_then(|it| identifier(it).ok());
        let mut kinds = self.kinds.clone();
        // The kind that succeeded the last time is tried first.
        kinds.sort_by_key(|kind| Some(*kind) != state.proved_by);
        let mut messages = Vec::new();
        for kind in kinds {
            let request = CertificateRequest {
                names: &self.names,
                replaces: replaces.clone(),
                challenge: kind,
                challenges: &self.challenges,
            };
            match request.obtain(account).await {
                Ok(pem) => return Ok((pem, kind)),
                Err(failure) if failure.challenge_failed => {
                    log::warn!("challenge failed: {}", failure.message);
                    messages.push(failure.message);
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure {
            message: messages.join("; "),
            challenge_failed: true,
            unknown_account: false,
            reach: Reach::Reached,
        })
    }

    /// The account at `directory`, created if missing.
    async fn account(&self, directory: &str) -> std::result::Result<Account, Failure> {
        let Some(stored) = self.store.account(directory)? else {
            return self.create_account(directory).await;
        };
        let AcmeAccount {
            contact,
            credentials,
        } = stored;
        if contact == self.contact {
            return self.load_account(credentials).await;
        }
        let account = self.load_account(credentials).await?;
        let contacts: Vec<&str> = self.contact.as_deref().into_iter().collect();
        retry_nonce!(account.update_contacts(&contacts))?;
        if let Some(stored) = self.store.account(directory)? {
            self.save_account(directory, stored.credentials)?;
        }
        Ok(account)
    }

    async fn load_account(
        &self,
        credentials: AccountCredentials,
    ) -> std::result::Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        Ok(builder.from_credentials(credentials).await?)
    }

    /// Creates an account at `directory`.
    async fn create_account(&self, directory: &str) -> std::result::Result<Account, Failure> {
        let contacts: Vec<&str> = self.contact.as_deref().into_iter().collect();
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = || Account::builder_with_http(Box::new(self.http.clone()));
        let created = retry_nonce!(builder().create(&new, directory.to_owned(), None));
        let (account, credentials) = created?;
        self.save_account(directory, credentials)?;
        log::info!("created an account at {directory}");
        Ok(account)
    }

    fn save_account(&self, directory: &str, credentials: AccountCredentials) -> Result<()> {
        let contact = self.contact.clone();
        let account = AcmeAccount {
            contact,
            credentials,
        };
        self.store.save_account(directory, &account)
    }
}

/// The identifier of a certificate for renewal information.
fn identifier(
    certificate: &CertifiedKeyPair,
) -> std::result::Result<CertificateIdentifier<'static>, String> {
    let own = certificate.certified.cert.first().ok_or("an empty chain")?;
    CertificateIdentifier::try_from(own).map(CertificateIdentifier::into_owned)
}
