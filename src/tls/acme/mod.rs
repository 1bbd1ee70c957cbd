//! Certificates from an authority by ACME (RFC 8555): got, proved, kept and renewed by itself.
//!
//! The certificate that is there serves until the next one does, and is never thrown away for a failure.

mod challenges;
mod kept;
mod order;
mod plan;
mod way;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{Account, AccountCredentials, CertificateIdentifier, LetsEncrypt, NewAccount};
use rustls::sign::CertifiedKey;
use tokio::time::{sleep, timeout};

use super::Shown;
use crate::clock::UnixMs;
use crate::config::Config;
use crate::error::Result;
use crate::security::egress;
use challenges::Kind;
use kept::{AcmeAccount, CertStore, CertifiedKeyPair};
use order::{CertificateRequest, Failure, again};
use plan::{Directory, RenewalState};
use way::AcmeHttp;

pub(super) use challenges::ALPN;
pub use challenges::Challenges;
pub use plan::Life;

/// For everything between the first word to an authority and its certificate.
const TRY: Duration = Duration::from_mins(15);
/// Longest sleep: the machine's clock may be set meanwhile.
const LOOK: Duration = Duration::from_mins(1);
/// Between two questions when to renew, where the authority says nothing of it (RFC 9773 §4.3.2), and the
/// least and the most that it may say.
const ASK: Duration = Duration::from_hours(6);
const ASK_MIN: Duration = Duration::from_mins(1);
const ASK_MAX: Duration = Duration::from_hours(24);
/// From this on a failure is loud: the certificate in use is over soon.
const SOON: Duration = Duration::from_hours(7 * 24);

/// Gets certificates.
pub(super) struct Acme {
    names: Vec<String>,
    contact: Option<String>,
    directory: String,
    lets_encrypt: bool,
    /// Proofs that can be given, the better first.
    proofs: Vec<Kind>,
    shelf: CertStore,
    way: AcmeHttp,
    challenges: Arc<Challenges>,
    memory: Mutex<RenewalState>,
    pair: Mutex<Option<Arc<CertifiedKeyPair>>>,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme")
            .field("names", &self.names)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// How things stand, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who signed the certificate in use, and how long it lives; none while there is only a self-signed one.
    pub serves: Option<(String, Life)>,
    /// When it is renewed.
    pub renew_at: Option<UnixMs>,
    /// Names of the settings that it is not for.
    pub lacks: Vec<String>,
    /// Failures in a row.
    pub failures: u32,
    /// Since when.
    pub failing_since: Option<UnixMs>,
    /// What the last one was, and what to do.
    pub last_error: String,
    /// When it is tried again.
    pub next_try: Option<UnixMs>,
}

impl Standing {
    fn of(pair: Option<&CertifiedKeyPair>, memory: &RenewalState, names: &[String]) -> Self {
        Self {
            serves: pair.map(|pair| (pair.issuer.clone(), pair.life)),
            renew_at: pair.map(|pair| memory.renew_at.unwrap_or(pair.life.renew_at())),
            lacks: pair.map(|pair| pair.lacks(names)).unwrap_or_default(),
            failures: memory.failures,
            failing_since: memory.failing_since,
            last_error: memory.last_error.clone(),
            next_try: memory.next_try,
        }
    }

    /// What the files say, for a command.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn read(settings: &Config) -> Result<Self> {
        let shelf = CertStore::beside(&settings.data_folder());
        let (pair, memory) = (shelf.pair()?, shelf.memory()?);
        Ok(Self::of(pair.as_ref(), &memory, &settings.tls.names()))
    }
}

impl Acme {
    /// What is kept of earlier runs, for the names of the settings.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] when `tls.directory_root` cannot be used.
    pub(super) fn open(settings: &Config, now: UnixMs) -> Result<Self> {
        let (tls, shelf) = (&settings.tls, CertStore::beside(&settings.data_folder()));
        let roots = egress::roots(tls.directory_root.as_deref(), "tls.directory_root")?;
        // What cannot be read is got anew; it is not deleted, and the certificate of our own serves meanwhile.
        let pair = shelf.pair().unwrap_or_else(|error| {
            log::error!("{error}: another certificate is asked for");
            None
        });
        let memory = shelf.memory().unwrap_or_else(|error| {
            log::warn!("{error}");
            RenewalState::default()
        });
        let names = tls.names();
        let asked = format!("{} {}", tls.authority(), names.join(" "));
        let by_page = (tls.http_port > 0).then_some(Kind::Http);
        Ok(Self {
            contact: tls.contact.clone(),
            directory: tls.authority().to_owned(),
            lets_encrypt: tls.is_lets_encrypt(),
            proofs: by_page.into_iter().chain([Kind::TlsAlpn]).collect(),
            way: AcmeHttp::open(roots)?,
            challenges: Arc::default(),
            memory: Mutex::new(memory.at_start(&asked, now)),
            pair: Mutex::new(pair.map(Arc::new)),
            names,
            shelf,
        })
    }

    /// The certificate that is there.
    pub(super) fn certified(&self) -> Option<CertifiedKey> {
        self.pair().map(|pair| pair.certified.clone())
    }

    pub(super) fn challenges(&self) -> Arc<Challenges> {
        self.challenges.clone()
    }

    pub(super) fn standing(&self) -> Standing {
        Standing::of(self.pair().as_deref(), &self.memory(), &self.names)
    }

    fn pair(&self) -> Option<Arc<CertifiedKeyPair>> {
        let pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        pair.clone()
    }

    /// The certificate that is there, if it is what the settings ask for.
    fn fitting(&self) -> Option<Arc<CertifiedKeyPair>> {
        let from = self.memory().from;
        // Where it is from is not known after its note was lost: that is no reason to ask for another one.
        let ours = from.is_empty() || from == self.directory;
        self.pair()
            .filter(|pair| ours && pair.lacks(&self.names).is_empty())
    }

    fn memory(&self) -> RenewalState {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.clone()
    }

    /// Changes what is remembered, in the file too.
    fn remember(&self, change: impl FnOnce(&mut RenewalState)) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut memory);
        if let Err(error) = self.shelf.keep_memory(&memory) {
            log::error!("what became of a certificate could not be written down: {error}");
        }
    }

    /// Gets and renews certificates and shows them, as long as this is polled.
    pub(super) async fn keep(&self, shown: &Shown, machine: impl Fn() -> UnixMs) {
        let mut ask_at = machine();
        loop {
            let now = machine();
            let life = self.fitting().map(|pair| pair.life);
            let due = self.memory().due(life, now);
            if due <= now {
                self.turn(shown, &machine).await;
                ask_at = machine();
                continue;
            }
            ask_at = ask_at.min(now.plus(ASK_MAX));
            if ask_at <= now {
                ask_at = now.plus(self.ask_when().await);
                continue;
            }
            let wait = due.min(ask_at).0.saturating_sub(now.0);
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
            sleep(wait.min(LOOK)).await;
        }
    }

    /// Asks the authority when the certificate is to be renewed; how long until the next question.
    async fn ask_when(&self) -> Duration {
        let Some(pair) = self.fitting() else {
            return ASK;
        };
        match timeout(TRY, self.wished(&pair)).await {
            Ok(Ok(next)) => next.clamp(ASK_MIN, ASK_MAX),
            Ok(Err(failure)) => {
                log::debug!("when to renew is decided here: {}", failure.told);
                ASK
            }
            Err(_late) => ASK,
        }
    }

    /// Notes when the authority wishes the certificate to be renewed (RFC 9773 §4.2): a moment by chance
    /// in its window, and the same one as long as it is in it.
    async fn wished(&self, pair: &CertifiedKeyPair) -> std::result::Result<Duration, Failure> {
        let Some(membership) = self.shelf.membership(&self.directory)? else {
            return Ok(ASK);
        };
        let account = self.enter(membership.credentials).await?;
        let id = identifier(pair).map_err(|told| Failure::new(&told, "nothing is to be done"))?;
        let (info, next) = account.renewal_info(&id).await?;
        let at =
            |moment: time::OffsetDateTime| UnixMs(moment.unix_timestamp().saturating_mul(1000));
        let (start, end) = (
            at(info.suggested_window.start),
            at(info.suggested_window.end),
        );
        let inside = |wish: &UnixMs| (start..=end).contains(wish);
        let known = self.memory().renew_at.filter(inside);
        let wish = known.unwrap_or_else(|| {
            let span = end.0.saturating_sub(start.0).max(0);
            UnixMs(start.0.saturating_add(rand::random_range(0..=span)))
        });
        let wish = pair.life.renew_at_wish(wish);
        if self.memory().renew_at != Some(wish) {
            let why = info.explanation_url.unwrap_or_default();
            log::info!(
                "the certificate is renewed at {}, as its authority wishes {why}",
                wish.rfc3339()
            );
            self.remember(|memory| memory.renew_at = Some(wish));
        }
        Ok(next)
    }

    /// One try.
    async fn turn(&self, shown: &Shown, machine: impl Fn() -> UnixMs) {
        let place = self.memory().place(self.lets_encrypt);
        let directory = match place {
            Directory::Asked => self.directory.as_str(),
            Directory::Staging => LetsEncrypt::Staging.url(),
        };
        log::info!(
            "a certificate for {} is asked for at {directory}",
            self.names.join(", ")
        );
        let tried = timeout(TRY, self.obtain(directory, place)).await;
        let tried = tried.unwrap_or_else(|_late| {
            Err(Failure::new(
                "the authority took too long",
                "it is tried again by itself",
            ))
        });
        let tried = tried.and_then(|(pem, proof)| Ok((self.checked(&pem, &machine)?, pem, proof)));
        match tried {
            Err(failure) => self.failed(failure, machine()),
            Ok(_) if place == Directory::Staging => {
                log::info!("the staging directory gave a certificate: production is asked again");
                self.remember(|memory| memory.staged(machine()));
            }
            Ok((pair, pem, proof)) => {
                // It serves even where it cannot be kept: the disk may be full.
                if let Err(error) = self.shelf.keep_pair(&pem) {
                    log::error!("the new certificate is lost at the next stop: {error}");
                }
                let life = pair.life;
                self.show(shown, pair);
                self.remember(|memory| {
                    memory.succeeded(&self.directory, proof, life, machine());
                });
            }
        }
    }

    /// A certificate that is worth to be shown.
    fn checked(
        &self,
        pem: &str,
        machine: impl Fn() -> UnixMs,
    ) -> std::result::Result<CertifiedKeyPair, Failure> {
        let pair = CertifiedKeyPair::parse(pem)?;
        let lacks = pair.lacks(&self.names);
        if !lacks.is_empty() {
            let told = format!("the certificate is not for {}", lacks.join(", "));
            return Err(Failure::new(&told, "ask the authority"));
        }
        if pair.life.ends <= machine() {
            return Err(Failure::new(
                "the certificate has ended already",
                "set this machine's clock",
            ));
        }
        Ok(pair)
    }

    fn show(&self, shown: &Shown, pair: CertifiedKeyPair) {
        let (names, by) = (self.names.join(", "), pair.issuer.clone());
        let (ends, next) = (pair.life.ends.rfc3339(), pair.life.renew_at().rfc3339());
        shown.show(pair.certified.clone());
        *self.pair.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(pair));
        log::info!(
            "a certificate for {names} by {by} is in use: it ends {ends} and is renewed about {next}"
        );
    }

    fn failed(&self, failure: Failure, now: UnixMs) {
        self.remember(|memory| memory.failed(failure.told, failure.reached, now));
        let memory = self.memory();
        let serves = self.pair().map(|pair| pair.life.ends);
        let meanwhile = match serves {
            None => "a self-signed one serves meanwhile".to_owned(),
            Some(ends) if ends < now => format!("the old one has ended {}", ends.rfc3339()),
            Some(ends) => format!("the old one serves until {}", ends.rfc3339()),
        };
        let urgent = serves.is_some_and(|ends| ends < now.plus(SOON));
        let level = if urgent {
            log::Level::Error
        } else {
            log::Level::Warn
        };
        let next = memory.next_try.unwrap_or(now).rfc3339();
        log::log!(
            level,
            "no new certificate (failure {}): {}; {meanwhile}, next try {next}",
            memory.failures,
            memory.last_error,
        );
    }

    /// A certificate with its key, by one proof or the other; and which.
    async fn obtain(
        &self,
        directory: &str,
        place: Directory,
    ) -> std::result::Result<(String, Kind), Failure> {
        let account = self.account(directory).await?;
        let mut done = self.order(&account, place).await;
        if matches!(&done, Err(failure) if failure.stranger) {
            log::warn!("{directory} does not know our account any more: another one is made");
            let account = self.join(directory).await?;
            done = self.order(&account, place).await;
        }
        done
    }

    async fn order(
        &self,
        account: &Account,
        place: Directory,
    ) -> std::result::Result<(String, Kind), Failure> {
        let memory = self.memory();
        let renewed = self
            .pair()
            .filter(|_| place == Directory::Asked && memory.renew_at.is_some());
        let replaces = renewed.as_deref().and_then(|pair| identifier(pair).ok());
        let mut proofs = self.proofs.clone();
        // What worked the last time is tried first.
        proofs.sort_by_key(|proof| Some(*proof) != memory.proved_by);
        let mut told = Vec::new();
        for proof in proofs {
            let wish = CertificateRequest {
                names: &self.names,
                replaces: replaces.clone(),
                proof,
                challenges: &self.challenges,
            };
            match wish.fulfil(account).await {
                Ok(pem) => return Ok((pem, proof)),
                Err(failure) if failure.unproven => {
                    log::warn!("not proved: {}", failure.told);
                    told.push(failure.told);
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure {
            told: told.join("; "),
            unproven: true,
            stranger: false,
            reached: true,
        })
    }

    /// The account at `directory`; made where there is none.
    async fn account(&self, directory: &str) -> std::result::Result<Account, Failure> {
        let Some(membership) = self.shelf.membership(directory)? else {
            return self.join(directory).await;
        };
        let AcmeAccount {
            contact,
            credentials,
        } = membership;
        if contact == self.contact {
            return self.enter(credentials).await;
        }
        let account = self.enter(credentials).await?;
        let contacts: Vec<&str> = self.contact.as_deref().into_iter().collect();
        again!(account.update_contacts(&contacts))?;
        if let Some(membership) = self.shelf.membership(directory)? {
            self.keep_membership(directory, membership.credentials)?;
        }
        Ok(account)
    }

    async fn enter(
        &self,
        credentials: AccountCredentials,
    ) -> std::result::Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.way.clone()));
        Ok(builder.from_credentials(credentials).await?)
    }

    /// A new account at `directory`.
    async fn join(&self, directory: &str) -> std::result::Result<Account, Failure> {
        let contacts: Vec<&str> = self.contact.as_deref().into_iter().collect();
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = || Account::builder_with_http(Box::new(self.way.clone()));
        let made = again!(builder().create(&new, directory.to_owned(), None));
        let (account, credentials) = made?;
        self.keep_membership(directory, credentials)?;
        log::info!("an account was made at {directory}");
        Ok(account)
    }

    fn keep_membership(&self, directory: &str, credentials: AccountCredentials) -> Result<()> {
        let contact = self.contact.clone();
        let membership = AcmeAccount {
            contact,
            credentials,
        };
        self.shelf.keep_membership(directory, &membership)
    }
}

/// How authorities name a certificate when they speak of its renewal.
fn identifier(
    pair: &CertifiedKeyPair,
) -> std::result::Result<CertificateIdentifier<'static>, String> {
    let own = pair.certified.cert.first().ok_or("an empty chain")?;
    CertificateIdentifier::try_from(own).map(CertificateIdentifier::into_owned)
}
