//! Open-loop load: requests begin at moments that are fixed beforehand, and the latency counts from that moment, so
//! that a server that pauses delays every request that was due meanwhile ("coordinated omission").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::Method;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::calls::first_heartbeats;
use crate::connection::{Connection, Target};
use crate::data::Shop;
use crate::drive::{END, START, Work, end_of, quantile_ms};
use crate::process::processor_time;
use crate::report::Line;
use crate::{Bench, HEARTBEAT};

/// The rates of the part `paced`: calls a second.
const HEARTBEATS: u32 = 2_000;
const STARTS: u32 = 1_000;
const CONNECTIONS: usize = 64;
/// Seconds of each rate, as a multiple of a cell of the table.
const CELLS: f64 = 2.0;

/// Requests at a steady rate.
pub struct Lane {
    pub work: Work,
    pub per_second: u32,
    pub connections: usize,
}

/// The results of a lane.
pub struct Paced {
    /// When each request was due, and the microseconds from then to its response.
    samples: Vec<(Instant, u32)>,
    pub refused: u64,
}

impl Paced {
    /// The line of the requests that were due in a span of time.
    pub fn line(&self, what: &str, (from, to): (Instant, Instant)) -> Line {
        let mut latencies = Histogram::<u64>::new(3).unwrap();
        for (due, micros) in &self.samples {
            if (from..to).contains(due) {
                latencies.record(u64::from(*micros)).unwrap();
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
        let count = latencies.len() as f64;
        Line {
            per_second: Some(count / (to - from).as_secs_f64()),
            p50_ms: Some(quantile_ms(&latencies, 0.5)),
            p99_ms: Some(quantile_ms(&latencies, 0.99)),
            refused: self.refused,
            ..Line::new(what)
        }
    }
}

/// Lanes in progress.
pub struct Running {
    is_over: Arc<AtomicBool>,
    lanes: Vec<JoinSet<Paced>>,
}

impl Running {
    /// Opens the connections of each lane, and begins.
    pub async fn begin(target: &Target, lanes: &[Lane]) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let mut running = Vec::new();
        for lane in lanes {
            let (mut tasks, mut senders) = (JoinSet::new(), Vec::new());
            for number in 0..lane.connections {
                let (sender, due) = unbounded_channel();
                let connection = Connection::open_number(target, number).await;
                let bodies = lane.work.share(number, lane.connections);
                let bodies = bodies.into_iter().map(|(_, body)| body).collect();
                let calls = Calls {
                    work: lane.work.clone(),
                    bodies,
                    is_over: is_over.clone(),
                };
                tasks.spawn(calls.serve(connection, due));
                senders.push(sender);
            }
            let (rate, is_over) = (lane.per_second, is_over.clone());
            // A thread, since the runtime's timers are no finer than a millisecond.
            thread::spawn(move || pace(rate, &senders, &is_over));
            running.push(tasks);
        }
        Self {
            is_over,
            lanes: running,
        }
    }

    /// Ends all lanes, and returns their results in the same order.
    pub async fn end(self) -> Vec<Paced> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for mut tasks in self.lanes {
            let mut lane = Paced {
                samples: Vec::new(),
                refused: 0,
            };
            while let Some(one) = tasks.join_next().await {
                let one = one.unwrap();
                lane.samples.extend(one.samples);
                lane.refused += one.refused;
            }
            all.push(lane);
        }
        all
    }
}

/// Passes the moments at which requests are due to the connections in turn.
fn pace(per_second: u32, connections: &[UnboundedSender<Instant>], is_over: &AtomicBool) {
    let (begun, gap) = (Instant::now(), Duration::from_secs(1) / per_second);
    for (number, connection) in (0..).zip(connections.iter().cycle()) {
        let due = begun + gap * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if is_over.load(Ordering::Relaxed) || connection.send(due).is_err() {
            return;
        }
    }
}

/// What one connection of a lane sends.
struct Calls {
    work: Work,
    bodies: Vec<Bytes>,
    is_over: Arc<AtomicBool>,
}

impl Calls {
    /// Sends a request whenever one is due. What is still due at the end is not sent any more, but counts with the time
    /// that it has waited.
    async fn serve(self, mut connection: Connection, mut due: UnboundedReceiver<Instant>) -> Paced {
        let mut paced = Paced {
            samples: Vec::new(),
            refused: 0,
        };
        let (path, is_start) = match self.work {
            Work::StartAndEnd(_) => (START, true),
            Work::Post(path, _) => (path, false),
            Work::PostAnew(..) | Work::Get(_) => return paced,
        };
        let mut next = self.bodies.iter().cycle();
        while let (Some(due), Some(body)) = (due.recv().await, next.next()) {
            let mut sent = None;
            if !self.is_over.load(Ordering::Relaxed) {
                sent = Some(connection.send(Method::POST, path, body.clone()).await);
            }
            let micros = due.elapsed().as_micros();
            paced.samples.push((due, u32::try_from(micros).unwrap()));
            let Some((status, answer)) = sent else {
                continue;
            };
            if !(200..300).contains(&status) {
                paced.refused += 1;
            } else if is_start {
                // Not counted, but part of the load.
                connection.post(END, end_of(&answer)).await;
            }
        }
        paced
    }
}

/// Measures heartbeats and starts at steady rates, one after the other.
pub fn measure(bench: &mut Bench) {
    let installation = bench.usual();
    let shop = Shop::read(&installation);
    let span = Duration::from_secs_f64(bench.seconds * CELLS);
    let runtime = bench.runtime.clone();
    runtime.block_on(async {
        let server = installation.serve();
        server.wait_until_ready(crate::VERSION).await;
        // The first one after a start is checked in the database.
        first_heartbeats(bench, &server, &shop).await;
        let target = server.target(&shop.api_key);
        for (what, rate, work, wanted_ms) in [
            (
                "heartbeat",
                HEARTBEATS,
                Work::Post(HEARTBEAT, shop.heartbeats.clone()),
                5.0,
            ),
            ("start", STARTS, Work::StartAndEnd(shop.starts.clone()), 7.0),
        ] {
            let lane = Lane {
                work,
                per_second: rate,
                connections: CONNECTIONS,
            };
            let running = Running::begin(&target, &[lane]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (from, before) = (Instant::now(), processor_time(target.pid));
            tokio::time::sleep(span).await;
            let (to, used) = (
                Instant::now(),
                processor_time(target.pid).saturating_sub(before),
            );
            let paced = running.end().await.remove(0);
            let calls = span.as_secs_f64() * f64::from(rate);
            bench.report.add(Line {
                connections: Some(CONNECTIONS),
                p99_wanted_ms: Some(wanted_ms),
                processor_us: Some(used.as_secs_f64() * 1e6 / calls),
                ..paced.line(&format!("{what}, {rate} a second"), (from, to))
            });
        }
        server.stop();
    });
}
