//! Closed-loop load: a number of connections, each with one request in progress at any time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::Method;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::connection::{Connection, Target};
use crate::process::processor_time;
use crate::report::Line;

/// Time before anything is counted, to warm both sides up.
const WARM_UP: Duration = Duration::from_millis(250);

/// What each connection does repeatedly; the bodies are divided among the connections.
#[derive(Clone)]
pub enum Work {
    /// `POST` requests to this path, with each body in turn.
    Post(&'static str, Arc<Vec<Bytes>>),
    /// The same, each on a connection of its own with a full handshake.
    PostAnew(&'static str, Arc<Vec<Bytes>>),
    /// `GET` requests for this path.
    Get(&'static str),
    /// Starts and ends a session with each body, one per license.
    StartAndEnd(Arc<Vec<Bytes>>),
}

impl Work {
    /// The bodies of connection `first` of `of`, with their places among all: every `of`-th one from `first` on, and for
    /// starts from another one in each round, since the server limits how often a license is started.
    pub fn share(&self, first: usize, of: usize) -> Vec<(usize, Bytes)> {
        match self {
            Self::Get(_) => vec![(first, Bytes::new())],
            Self::Post(_, bodies) | Self::PostAnew(_, bodies) => share(bodies, first, of),
            Self::StartAndEnd(bodies) => {
                let mut own = share(bodies, first, of);
                if !own.is_empty() {
                    let begin = rand::random_range(0..own.len());
                    own.rotate_left(begin);
                }
                own
            }
        }
    }
}

fn share(bodies: &[Bytes], first: usize, of: usize) -> Vec<(usize, Bytes)> {
    let bodies = bodies.iter().cloned().enumerate();
    bodies.skip(first).step_by(of).collect()
}

/// When a round ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After this time, not counting the warm-up.
    Passed(Duration),
    /// Once every body has been sent.
    AllSent,
}

/// The result of one round.
pub struct Round {
    /// Microseconds from request to response.
    latencies: Histogram<u64>,
    /// Responses other than 2xx, including the warm-up.
    refused: u64,
    /// One of them.
    refusal: Option<String>,
    /// The counted time.
    elapsed: Duration,
    /// CPU time of the server during the counted time.
    processor: Duration,
}

impl Round {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of some seconds are far below 2^53"
    )]
    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// All rounds of a row.
#[derive(Default)]
pub struct Rounds(Vec<Round>);

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of some seconds are far below 2^53"
)]
impl Rounds {
    pub fn add(&mut self, round: Round) {
        self.0.push(round);
    }

    /// The line of the table, without what is wanted. `base` are the rounds in turn with these.
    pub fn line(&self, what: &str, base: Option<&Self>) -> Line {
        let rates: Vec<f64> = self.0.iter().map(Round::per_second).collect();
        let ratios = base.map(|base| {
            let pairs = self.0.iter().zip(&base.0);
            median(pairs.map(|(own, base)| own.per_second() / base.per_second()))
        });
        let (least, most) = rates
            .iter()
            .fold((f64::MAX, 0.0), |(least, most): (f64, f64), rate| {
                (least.min(*rate), most.max(*rate))
            });
        let middle = median(rates.iter().copied());
        let mut latencies = Histogram::<u64>::new(3).unwrap();
        for round in &self.0 {
            latencies.add(&round.latencies).unwrap();
        }
        let processor: Duration = self.0.iter().map(|round| round.processor).sum();
        Line {
            per_second: Some(middle),
            ratio: ratios,
            spread_percent: (rates.len() > 1).then_some((most - least) / middle * 100.0),
            p50_ms: Some(quantile_ms(&latencies, 0.5)),
            p99_ms: Some(quantile_ms(&latencies, 0.99)),
            processor_us: Some(processor.as_secs_f64() * 1e6 / latencies.len() as f64),
            refused: self.0.iter().map(|round| round.refused).sum(),
            note: self
                .0
                .iter()
                .find_map(|round| round.refusal.clone())
                .unwrap_or_default(),
            ..Line::new(what)
        }
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The latency at this quantile, in milliseconds, of a histogram of microseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of some seconds are far below 2^53"
)]
pub fn quantile_ms(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1000.0
}

/// Puts load on `target`.
pub async fn drive(target: &Target, work: &Work, connections: usize, until: Until) -> Round {
    let ready = Arc::new(Barrier::new(connections + 1));
    let mut all = JoinSet::new();
    for number in 0..connections {
        let (target, work, ready) = (target.clone(), work.clone(), ready.clone());
        all.spawn(async move {
            let connection = Connection::open_number(&target, number).await;
            ready.wait().await;
            let client = Client::new(target, connection, until);
            client.run(&work, (number, connections)).await
        });
    }
    ready.wait().await;
    let begun = Instant::now();
    if let Until::Passed(_) = until {
        tokio::time::sleep(WARM_UP).await;
    }
    let (counted_from, before) = (Instant::now(), processor_time(target.pid));
    if let Until::Passed(span) = until {
        tokio::time::sleep_until((begun + WARM_UP + span).into()).await;
    }
    let (mut elapsed, mut after) = (counted_from.elapsed(), processor_time(target.pid));
    let (mut latencies, mut refused, mut refusal) = (Histogram::new(3).unwrap(), 0, None);
    while let Some(client) = all.join_next().await {
        let client = client.unwrap();
        refused += client.refused;
        refusal = refusal.or(client.refusal);
        for latency in client.latencies {
            latencies.record(latency.into()).unwrap();
        }
    }
    if let Until::AllSent = until {
        (elapsed, after) = (counted_from.elapsed(), processor_time(target.pid));
    }
    Round {
        latencies,
        refused,
        refusal,
        elapsed,
        processor: after.saturating_sub(before),
    }
}

/// One connection and its results.
struct Client {
    target: Target,
    connection: Connection,
    counted: (Instant, Option<Instant>),
    latencies: Vec<u32>,
    refused: u64,
    refusal: Option<String>,
}

impl Client {
    fn new(target: Target, connection: Connection, until: Until) -> Self {
        let now = Instant::now();
        let counted = match until {
            Until::Passed(span) => (now + WARM_UP, Some(now + WARM_UP + span)),
            Until::AllSent => (now, None),
        };
        Self {
            target,
            connection,
            counted,
            latencies: Vec::with_capacity(1024),
            refused: 0,
            refusal: None,
        }
    }

    /// Works through every `of`-th body from `first` on.
    async fn run(mut self, work: &Work, (first, of): (usize, usize)) -> Self {
        let own = work.share(first, of);
        // With little data (`LICENSE_BENCH_DIVIDE`) there are more connections than bodies.
        while !own.is_empty() {
            for (place, body) in &own {
                self.connection.choose_api_key(*place);
                let begun = Instant::now();
                match work {
                    Work::Get(path) => drop(self.send(Method::GET, path, Bytes::new()).await),
                    Work::Post(path, _) => drop(self.post(path, body.clone()).await),
                    Work::PostAnew(path, _) => {
                        // Not from one address for all: the server limits the connections of each.
                        self.connection = Connection::open_number(&self.target, first).await;
                        let (status, answer) =
                            self.connection.send(Method::POST, path, body.clone()).await;
                        self.count(begun, status, &answer);
                    }
                    Work::StartAndEnd(_) => self.start_and_end(body).await,
                }
                if self.counted.1.is_some_and(|end| Instant::now() >= end) {
                    return self;
                }
            }
            if self.counted.1.is_none() {
                return self;
            }
        }
        self
    }

    async fn start_and_end(&mut self, identity: &Bytes) {
        let started = self.post(START, identity.clone()).await;
        if let Some(answer) = started {
            self.post(END, end_of(&answer)).await;
        }
    }

    /// The response's body, if the status is 2xx.
    async fn post(&mut self, path: &'static str, body: Bytes) -> Option<Bytes> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&mut self, method: Method, path: &'static str, body: Bytes) -> Option<Bytes> {
        let sent = Instant::now();
        let (status, answer) = self.connection.send(method, path, body).await;
        self.count(sent, status, &answer).then_some(answer)
    }

    /// Counts a request that was begun then; whether its status is 2xx.
    fn count(&mut self, begun: Instant, status: u16, answer: &Bytes) -> bool {
        let answered = Instant::now();
        if answered >= self.counted.0 && self.counted.1.is_none_or(|end| answered < end) {
            let micros = answered.duration_since(begun).as_micros();
            self.latencies.push(u32::try_from(micros).unwrap());
        }
        let is_good = (200..300).contains(&status);
        if !is_good {
            self.refused += 1;
            let refusal = || format!("{status} {}", String::from_utf8_lossy(answer));
            self.refusal.get_or_insert_with(refusal);
        }
        is_good
    }
}

pub const START: &str = "/api/license/session/start";
pub const END: &str = "/api/license/session/end";

/// The body that ends the session of this answer to a start.
pub fn end_of(answer: &Bytes) -> Bytes {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
    let token = answer["session_token"].as_str().unwrap();
    format!(r#"{{"session_token":"{token}"}}"#).into()
}
