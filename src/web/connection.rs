//! What the front hands to the guards of a request beside its head: the body, which is read only when a guard
//! asks for it, and a word about the connection, which a guard may give.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;
use rocket::Request;
use rocket::tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use rocket::tokio::time::{Instant, timeout_at};

use crate::error::{Error, Refused, Result};

/// For a whole body.
pub const BODY: Duration = Duration::from_secs(10);
/// Bytes of all bodies under way together, beyond those that each has anyway.
pub const BODIES_LEN_MAX: usize = 32 * 1024 * 1024;
/// What each body has anyway, in bytes: more than any call of a program needs, so that large bodies of
/// strangers never have a program refused.
const OWN_LEN: usize = 2 * 1024;
/// How much of a body that is not wanted is read and forgotten.
const DRAINED_LEN: u64 = 8 * 1024 * 1024;

/// Room for all bodies under way.
#[derive(Clone)]
pub struct Bodies(Arc<Semaphore>);

impl Bodies {
    /// Room for `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }
}

/// A request's body and connection. Kept with the request by the front.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    body: Mutex<Reading>,
    broken: AtomicBool,
    /// How long the caller may be silent, in milliseconds; 0 where no guard has said so.
    silence_ms: AtomicU64,
    named: AtomicBool,
}

/// A body, as far as it has been read.
struct Reading {
    /// What has not come yet; none once its end has.
    left: Option<UnsyncBoxBody<Bytes, hyper::Error>>,
    read: Bytes,
    /// Whether everything before what is left is in `read`.
    whole: bool,
    ends: Instant,
    bodies: Bodies,
    /// Given back when the request is answered.
    held: Option<OwnedSemaphorePermit>,
}

/// Why a body is not there.
enum Missing {
    TooLong,
    NoRoom,
    BrokenOff,
}

impl Connection {
    /// Of a request whose body is to be read from `body`.
    pub fn new<B>(body: B, bodies: Bodies) -> Self
    where
        B: Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
    {
        let empty = body.is_end_stream();
        Self(Arc::new(Shared {
            body: Mutex::new(Reading {
                left: (!empty).then(|| UnsyncBoxBody::new(body)),
                read: Bytes::new(),
                whole: true,
                ends: Instant::now() + BODY,
                bodies,
                held: None,
            }),
            broken: AtomicBool::new(false),
            silence_ms: AtomicU64::new(0),
            named: AtomicBool::new(false),
        }))
    }

    /// From now on guards of `request` find it.
    pub fn attach(&self, request: &Request<'_>) {
        request.local_cache(|| Some(self.clone()));
    }

    fn of<'r>(request: &'r Request<'_>) -> Option<&'r Self> {
        request.local_cache(|| None::<Self>).as_ref()
    }

    /// The whole body, if it has at most `max` bytes.
    ///
    /// # Errors
    /// `payload_too_large`, and [`Error::Unavailable`] while there is no room for it, or when it breaks off.
    pub async fn body(request: &Request<'_>, max: usize) -> Result<Bytes> {
        let Some(connection) = Self::of(request) else {
            return Ok(Bytes::new());
        };
        connection.read(max).await.map_err(|missing| match missing {
            Missing::TooLong => Refused::plain("payload_too_large").into(),
            Missing::NoRoom => Error::Unavailable {
                reason: "too many bodies are under way".to_owned(),
            },
            Missing::BrokenOff => Error::Unavailable {
                reason: "a body broke off".to_owned(),
            },
        })
    }

    /// Whether the body of `request` broke off: nobody hears an answer.
    pub fn broke_off(request: &Request<'_>) -> bool {
        Self::of(request).is_some_and(Self::is_broken)
    }

    /// The caller of `request` may be silent for so long before the next one, and is to find the connection
    /// open then. For guards that know the caller.
    pub fn stays_open(request: &Request<'_>, silence: Duration) {
        if let Some(Self(shared)) = Self::of(request) {
            let silence = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            shared.silence_ms.store(silence, Ordering::Relaxed);
        }
    }

    /// The caller of `request` named a license or session that exists. The API key alone proves nothing: each
    /// copy of the program has it.
    pub fn named_what_exists(request: &Request<'_>) {
        if let Some(Self(shared)) = Self::of(request) {
            shared.named.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the caller named a license or session that exists.
    pub fn has_named(&self) -> bool {
        self.0.named.load(Ordering::Relaxed)
    }

    /// How long the caller may be silent, where a guard has said so.
    pub fn silence(&self) -> Option<Duration> {
        let silence = self.0.silence_ms.load(Ordering::Relaxed);
        (silence > 0).then(|| Duration::from_millis(silence))
    }

    /// Whether the body broke off, or did not come in time.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    async fn read(&self, max: usize) -> Result<Bytes, Missing> {
        let mut reading = self.0.body.lock().await;
        let told = reading.up_to(max).await;
        if matches!(told, Err(Missing::BrokenOff)) {
            self.0.broken.store(true, Ordering::Relaxed);
        }
        told
    }

    /// The whole body, for those who look at it after the guards have; none where it is not known, or longer
    /// than `max`.
    pub async fn known(&self, max: usize) -> Option<Bytes> {
        self.read(max).await.ok()
    }

    /// Reads what is left and forgets it, up to a bound: a client that is still sending when the connection
    /// closes would be told of a reset instead of the answer. Whether the end was reached.
    pub async fn drain(&self) -> bool {
        let mut reading = self.0.body.lock().await;
        let ends = reading.ends;
        match reading.left.take() {
            None => !self.is_broken(),
            Some(body) => matches!(timeout_at(ends, drained(body)).await, Ok(true)),
        }
    }
}

impl Reading {
    async fn up_to(&mut self, max: usize) -> Result<Bytes, Missing> {
        let ends = self.ends;
        if let Ok(told) = timeout_at(ends, self.fill(max)).await {
            return told;
        }
        self.whole = false;
        Err(Missing::BrokenOff)
    }

    async fn fill(&mut self, max: usize) -> Result<Bytes, Missing> {
        if !self.whole {
            return Err(Missing::TooLong);
        }
        let announced = self
            .left
            .as_ref()
            .map_or(0, |left| left.size_hint().lower());
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced.saturating_add(self.read.len()) > max {
            return Err(Missing::TooLong);
        }
        let mut read = Vec::from(std::mem::take(&mut self.read));
        while let Some(left) = &mut self.left {
            let Some(frame) = left.frame().await else {
                self.left = None;
                break;
            };
            let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
                self.left = None;
                self.whole = false;
                return Err(Missing::BrokenOff);
            };
            if read.len() + data.len() > max {
                self.whole = false;
                return Err(Missing::TooLong);
            }
            if let Err(missing) = self.hold(read.len() + data.len()) {
                self.whole = false;
                return Err(missing);
            }
            read.extend_from_slice(&data);
        }
        self.read = read.into();
        Ok(self.read.clone())
    }

    /// Takes the room that a body of so many bytes needs.
    fn hold(&mut self, len: usize) -> Result<(), Missing> {
        let has = OWN_LEN
            + self
                .held
                .as_ref()
                .map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = len.checked_sub(has).filter(|more| *more > 0) else {
            return Ok(());
        };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(more) = self.bodies.0.clone().try_acquire_many_owned(more) else {
            return Err(Missing::NoRoom);
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        Ok(())
    }
}

/// Reads a body to its end and forgets it; false where it breaks off, or is too long for that.
pub async fn drained<B>(mut body: B) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = DRAINED_LEN;
    if body.size_hint().lower() > left {
        return false;
    }
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let len = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(len as u64);
        if left == 0 {
            return false;
        }
    }
    true
}
