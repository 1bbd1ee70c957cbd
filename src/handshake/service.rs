//! Runs handshakes: receives the two messages of a site, and sends the two to its domain.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::budget::Caller;
use super::log::log_finished;
use super::messages::{self, Information};
use super::open_handshakes::{
    CHALLENGE_TIMEOUT, ChallengeState, NewHandshake, OpenHandshakes, PendingChallenge,
    RedeemedHandshake,
};
use super::{
    Handshake, OneTimeId, Operation, Outcome, RequestMessage, SiteOperation, check_request,
};
use crate::audit::{Act, Actor};
use crate::clock::{Now, TrustedClock};
use crate::db::{Db, Reader, Tx};
use crate::domains::{self, TransferGrace};
use crate::error::Result;
use crate::metrics::RefusalCounter;
use crate::net::egress::{Egress, Failure, OutboundRequest, Priority};
use crate::products::ProgramSettingsCache;
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{Group, Limiter, rate_limited};
use crate::security::signing::Signer;

/// Pause between a response and the call that follows it, so that the response time does not reveal the call.
const DELAY_AFTER_RESPONSE: Duration = Duration::from_millis(10);

/// Why a call to a site failed.
#[derive(Clone, Copy, Debug)]
enum CallFailure {
    /// The site responded, with a status other than 2xx.
    Status(u16),
    /// There was no response.
    NoResponse(Failure),
}

impl CallFailure {
    /// The reason as a code, for the handshake log.
    fn reason(self) -> String {
        match self {
            Self::Status(status) => format!("status_{status}"),
            Self::NoResponse(failure) => failure.as_str().to_owned(),
        }
    }
}

/// The open handshakes, and what is needed to run them.
pub struct Handshakes {
    open_handshakes: OpenHandshakes,
    dependencies: Dependencies,
}

/// The parts of the server that handshakes use.
pub struct Dependencies {
    /// The database.
    pub db: Db,
    /// The server's clock.
    pub trusted_clock: TrustedClock,
    /// The versions that sites may read, and the rate limit for sites.
    pub program_settings: Arc<ProgramSettingsCache>,
    /// Rate limits by source address.
    pub limiter: Arc<Limiter>,
    /// Makes the calls to sites.
    pub egress: Egress,
    /// Signs the messages to sites.
    pub signer: Arc<Signer>,
    /// The path on every site that receives the server's calls.
    pub callback_path: String,
    /// The grace period of a transfer, in which the old and the new domain are both served.
    pub grace: TransferGrace,
    /// Counts handshakes that fail.
    pub refusals: Arc<RefusalCounter>,
}

impl Handshakes {
    /// Starts without any open handshake.
    pub fn new(dependencies: Dependencies) -> Self {
        Self {
            open_handshakes: OpenHandshakes::default(),
            dependencies,
        }
    }

    /// The grace period of a transfer, in which the old and the new domain are both served.
    pub fn grace(&self) -> TransferGrace {
        self.dependencies.grace
    }

    /// Handles the first message; a challenge follows, after the response, unless it is refused.
    pub async fn handle_request(
        self: &Arc<Self>,
        request: RequestMessage,
        source: ClientAddress,
        now: Now,
    ) -> Result<bool> {
        let parts = &self.dependencies;
        let limit = parts.program_settings.shared(&parts.db).await?.limits.site;
        let rate_limit = parts
            .limiter
            .take(Group::Site, source.into(), limit, now.tick);
        let network = source.network();
        let (domain, request_id) = (request.domain.clone(), request.request_id.clone());
        // Queried even if the rate limit is exceeded, so that every response takes the same time.
        let eligibility = parts
            .db
            .read(move |reader| {
                // A caller whose network is unknown is never a known source; the query runs anyway, for the same
                // reason.
                let network = network.as_deref().unwrap_or_default();
                check_request(reader, &request, network, now.wall)
            })
            .await;
        rate_limit.map_err(rate_limited)?;
        let eligibility = eligibility?;
        let new = NewHandshake {
            domain,
            source,
            request_id,
            eligibility,
        };
        let opened = self.open_handshakes.open(new, now)?;
        let challenge = opened.ok_or(domains::Refusal::TooManyCalls)?;
        let this = self.clone();
        tokio::spawn(async move { this.send_challenge(challenge).await });
        Ok(true)
    }

    /// Sends the second message, which gives the transaction id to the site at the domain.
    async fn send_challenge(&self, challenge: PendingChallenge) {
        sleep(DELAY_AFTER_RESPONSE).await;
        let PendingChallenge {
            transaction_id,
            request_id,
            handshake,
            state,
        } = challenge;
        let body = messages::challenge(&request_id, &transaction_id);
        let result = self.call(&handshake, &body).await;
        let tick = self.dependencies.trusted_clock.now().tick;
        if result.is_ok() {
            self.open_handshakes.restart_lifetime(&transaction_id, tick);
            state.send_replace(ChallengeState::Accepted);
        } else {
            // The third message may have redeemed it already; then the state stops the delivery.
            self.open_handshakes.close(&transaction_id);
            state.send_replace(ChallengeState::Failed);
        }
        if let Err(failure) = result {
            // A site that responds with an error status is reachable.
            if let CallFailure::NoResponse(_) = failure {
                self.open_handshakes
                    .mark_unreachable(&handshake.domain, tick);
            }
            self.log_outcome(&handshake, None, Outcome::ChallengeFailed, failure.reason())
                .await;
        }
    }

    /// Handles the third message; returns whether a delivery follows. Uses up the transaction id even if the operation is
    /// invalid (`None`) or refused.
    pub async fn redeem(
        self: &Arc<Self>,
        id: &OneTimeId,
        operation: Option<Operation>,
        now: Now,
    ) -> Result<bool> {
        let Some(redeemed) = self.open_handshakes.take(id, now.tick) else {
            return Ok(false);
        };
        self.open_handshakes
            .forget_unanswered_calls(&redeemed.handshake);
        let Some(operation) = operation else {
            self.log_refusal_later(redeemed.handshake, None);
            return Ok(false);
        };
        let name = operation.as_str();
        let requested = SiteOperation {
            operation,
            handshake: redeemed.handshake.clone(),
            grace: self.dependencies.grace,
        };
        let checked = requested.clone();
        let check = move |reader: &Reader<'_>| checked.decide(reader, now.wall);
        if self.dependencies.db.read(check).await?.is_none() {
            self.log_refusal_later(redeemed.handshake, Some(name));
            return Ok(false);
        }
        let this = self.clone();
        tokio::spawn(async move { this.deliver(redeemed, requested).await });
        Ok(true)
    }

    /// Logs a refusal after the response, so that the response time does not reveal it.
    fn log_refusal_later(self: &Arc<Self>, handshake: Handshake, operation: Option<&'static str>) {
        let this = self.clone();
        tokio::spawn(async move {
            sleep(DELAY_AFTER_RESPONSE).await;
            this.log_outcome(&handshake, operation, Outcome::Refused, String::new())
                .await;
        });
    }

    /// Runs the operation and sends the fourth message, with its result, to the domain that received the challenge. It
    /// is sent once, without a retry.
    async fn deliver(&self, redeemed: RedeemedHandshake, requested: SiteOperation) {
        sleep(DELAY_AFTER_RESPONSE).await;
        let RedeemedHandshake {
            transaction_id,
            handshake,
            mut challenge,
        } = redeemed;
        // A site may send the third message before it has responded to the challenge.
        let is_complete = |state: &ChallengeState| *state != ChallengeState::Pending;
        let completion = timeout(CHALLENGE_TIMEOUT, challenge.wait_for(is_complete));
        if !matches!(completion.await, Ok(Ok(state)) if *state == ChallengeState::Accepted) {
            return;
        }
        let name = requested.operation.as_str();
        let information = match self.run_operation(requested).await {
            Ok(Some(information)) => information,
            Ok(None) => {
                return self
                    .log_outcome(&handshake, Some(name), Outcome::Refused, String::new())
                    .await;
            }
            Err(error) => {
                log::warn!("a handshake with {} failed: {error}", handshake.domain);
                return;
            }
        };
        let body = messages::delivery(&transaction_id, name, &information);
        let (outcome, reason) = match self.call(&handshake, &body).await {
            Ok(()) => (Outcome::Delivered, String::new()),
            Err(failure) => (Outcome::Undelivered, failure.reason()),
        };
        self.log_outcome(&handshake, Some(name), outcome, reason)
            .await;
    }

    /// Runs the operation; `None` if it is no longer allowed.
    async fn run_operation(&self, requested: SiteOperation) -> Result<Option<Information>> {
        let now = self.dependencies.trusted_clock.now().wall;
        let settings = self.dependencies.program_settings.clone();
        let run = move |tx: &Tx<'_>| {
            let actor = requested.handshake.actor();
            requested.run(&Act::new(tx, &actor, now), &settings)
        };
        self.dependencies.db.write("handshake.run", run).await
    }

    /// Calls the domain of a handshake.
    async fn call(&self, handshake: &Handshake, body: &Value) -> Result<(), CallFailure> {
        let parts = &self.dependencies;
        let (egress, callback_path) = (&parts.egress, &parts.callback_path);
        let (domain, body) = (handshake.domain.as_str(), body.to_string());
        let priority = match handshake.caller {
            Caller::Trusted | Caller::Unconfirmed => Priority::High,
            Caller::UnconfirmedRetry | Caller::Untrusted => Priority::Low,
        };
        let url = egress.url(domain, callback_path);
        // With the date of the system clock, because the site compares it with that of its own system clock.
        let keys = parts.signer.key_pair();
        let headers = keys.post_headers(&url, &body, parts.trusted_clock.system_date());
        let outbound = OutboundRequest { headers, body };
        let response = egress.post(domain, callback_path, outbound, priority).await;
        match response.map_err(CallFailure::NoResponse)? {
            200..=299 => Ok(()),
            status => Err(CallFailure::Status(status)),
        }
    }

    /// Writes the outcome to the handshake log. An error is not passed on, since it does not affect the site.
    async fn log_outcome(
        &self,
        handshake: &Handshake,
        operation: Option<&'static str>,
        outcome: Outcome,
        reason: String,
    ) {
        let finished = handshake.to_finished(operation, outcome, reason);
        let (source, now) = (handshake.source, self.dependencies.trusted_clock.now().wall);
        let log = move |tx: &Tx<'_>| log_finished(tx, &finished, source, now);
        match self.dependencies.db.write("handshake.log", log).await {
            Ok(refused) => self.dependencies.refusals.count_all(refused),
            Err(error) => log::debug!("the outcome of a handshake was not recorded: {error}"),
        }
    }

    /// Logs abandoned handshakes and completes transfers whose grace period has passed. Call it every few seconds. If the
    /// write fails, the transfers are completed by the next call, and only the log entries are lost.
    pub async fn sweep(&self) -> Result<()> {
        let db = &self.dependencies.db;
        let now = self.dependencies.trusted_clock.now();
        let abandoned = self.open_handshakes.sweep(now.tick);
        let ended_transfers = db
            .read(move |reader| domains::ended_transfers(reader, now.wall))
            .await?;
        if abandoned.is_empty() && ended_transfers.is_empty() {
            return Ok(());
        }
        let written = db.write("handshake.sweep", move |tx| {
            let mut refused = Vec::new();
            for handshake in abandoned {
                let finished = handshake.to_finished(None, Outcome::Abandoned, String::new());
                refused.extend(log_finished(tx, &finished, handshake.source, now.wall)?);
            }
            domains::end_transfers(&Act::new(tx, &Actor::server(), now.wall))?;
            Ok(refused)
        });
        self.dependencies.refusals.count_all(written.await?);
        Ok(())
    }
}
