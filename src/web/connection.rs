//! What [`front`](crate::front), which accepts connections, and the guards share about a request: its body, which is read
//! only when a guard asks for it, and what the guards found out about the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;
use rocket::Request;
use rocket::tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use rocket::tokio::time::{Instant, timeout_at};

use crate::error::{Error, RefusalKind, Refused, Result};

/// Time limit for receiving a whole body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of all bodies and heads in progress together, in bytes, not counting the [`UNCOUNTED_LEN`] of each.
pub const BODIES_LEN_MAX: usize = 16 * 1024 * 1024;
/// How many bytes of each body, and of each head, do not count towards [`BODIES_LEN_MAX`]. More than any call of a
/// licensed program needs, so that large bodies from other callers never cause such a call to be refused.
pub const UNCOUNTED_LEN: usize = 2 * 1024;
/// The most bytes that [`BodyBudget::reserve_up_to`] reserves. The longest head has this length, and hyper buffers about as
/// much of a body that is discarded.
const RESERVED_LEN_MAX: u64 = 16 * 1024;
/// Maximum number of bytes of an unwanted body that are read and discarded.
const DRAIN_LEN_MAX: u64 = 8 * 1024 * 1024;

/// The budget of bytes that all bodies and heads in progress share.
#[derive(Clone)]
pub struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Reserves what a head or body of `len` bytes counts, all but [`UNCOUNTED_LEN`], with `len` limited to
    /// [`RESERVED_LEN_MAX`]; until the result is dropped. An error if the budget is used up.
    pub fn reserve_up_to(&self, len: u64) -> Result<ReservedBytes, TryAcquireError> {
        let counted = len
            .min(RESERVED_LEN_MAX)
            .saturating_sub(UNCOUNTED_LEN as u64);
        self.take(counted).map(|permit| ReservedBytes(Some(permit)))
    }

    /// Changes `reserved` to what `len` bytes count; false if the budget is used up, and then `reserved` is as it was.
    pub fn resize(&self, reserved: &mut ReservedBytes, len: u64) -> bool {
        let (wanted, before) = (len.saturating_sub(UNCOUNTED_LEN as u64), reserved.len());
        if wanted < before {
            let released = usize::try_from(before - wanted).unwrap_or(usize::MAX);
            let permit = reserved.0.as_mut();
            drop(permit.and_then(|permit| permit.split(released)));
        }
        if wanted <= before {
            return true;
        }
        let Ok(more) = self.take(wanted - before) else {
            return false;
        };
        match &mut reserved.0 {
            Some(permit) => permit.merge(more),
            permit => *permit = Some(more),
        }
        true
    }

    fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(bytes)
    }
}

/// Reserved bytes, released on drop.
#[derive(Default)]
#[must_use]
pub struct ReservedBytes(Option<OwnedSemaphorePermit>);

impl ReservedBytes {
    /// How many counted bytes are reserved.
    fn len(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |permit| permit.num_permits() as u64)
    }
}

/// The body of a request and facts about its caller, shared by the front and the guards.
#[derive(Clone)]
pub struct RequestContext(Arc<Shared>);

struct Shared {
    body: Mutex<BodyReader>,
    body_is_incomplete: AtomicBool,
    /// How long the caller may wait before its next request, in milliseconds; 0 if no guard has set it.
    max_idle_ms: AtomicU64,
    caller_is_identified: AtomicBool,
}

/// A body and the part of it that has been read.
struct BodyReader {
    /// The unread rest; `None` after its end.
    rest: Option<UnsyncBoxBody<Bytes, hyper::Error>>,
    read: Bytes,
    /// Whether `read` and `rest` together are the whole body, so that reading can continue.
    is_intact: bool,
    deadline: Instant,
    budget: BodyBudget,
    /// The bytes taken from `budget`. Released when the request has been answered.
    permit: Option<OwnedSemaphorePermit>,
    /// Whether the rest stays unread because the budget is used up: even reading and discarding it would take memory.
    is_over_budget: bool,
}

/// Why a body is not available.
enum BodyError {
    TooLong,
    /// The budget of all bodies is used up.
    OverBudget,
    /// The connection failed, or the body did not arrive in time.
    Incomplete,
}

impl RequestContext {
    /// For a request whose body can be read from `body`, within `budget`.
    pub fn new<B>(body: B, budget: BodyBudget) -> Self
    where
        B: Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
    {
        let is_empty = body.is_end_stream();
        Self(Arc::new(Shared {
            body: Mutex::new(BodyReader {
                rest: (!is_empty).then(|| UnsyncBoxBody::new(body)),
                read: Bytes::new(),
                is_intact: true,
                deadline: Instant::now() + BODY_TIMEOUT,
                budget,
                permit: None,
                is_over_budget: false,
            }),
            body_is_incomplete: AtomicBool::new(false),
            max_idle_ms: AtomicU64::new(0),
            caller_is_identified: AtomicBool::new(false),
        }))
    }

    /// Makes this available to the guards of `request`.
    pub fn attach(&self, request: &Request<'_>) {
        request.local_cache(|| Some(self.clone()));
    }

    fn of<'r>(request: &'r Request<'_>) -> Option<&'r Self> {
        request.local_cache(|| None::<Self>).as_ref()
    }

    /// The whole body, of at most `max` bytes.
    ///
    /// # Errors
    /// `payload_too_large`, and [`Error::Unavailable`] if the budget of all bodies is used up or the body is
    /// incomplete.
    pub async fn body(request: &Request<'_>, max: usize) -> Result<Bytes> {
        let Some(context) = Self::of(request) else {
            return Ok(Bytes::new());
        };
        context.read(max).await.map_err(|error| match error {
            BodyError::TooLong => Refused::new(RefusalKind::TooLarge, "payload_too_large").into(),
            BodyError::OverBudget => Error::Unavailable {
                reason: "too many request bodies are in progress".to_owned(),
            },
            BodyError::Incomplete => Error::Unavailable {
                reason: "a request body is incomplete".to_owned(),
            },
        })
    }

    /// Whether the body of `request` was incomplete. The response cannot reach the caller then.
    pub fn has_incomplete_body(request: &Request<'_>) -> bool {
        Self::of(request).is_some_and(Self::body_is_incomplete)
    }

    /// Tells the front to keep the connection of `request` open, because the caller may wait for `max_idle` before its
    /// next request. For guards that have identified the caller.
    pub fn keep_open_for(request: &Request<'_>, max_idle: Duration) {
        if let Some(Self(shared)) = Self::of(request) {
            let max_idle = u64::try_from(max_idle.as_millis()).unwrap_or(u64::MAX);
            shared.max_idle_ms.store(max_idle, Ordering::Relaxed);
        }
    }

    /// Records that the caller of `request` named an existing license or session. The API key alone proves
    /// nothing, because every copy of the program contains it.
    pub fn mark_caller_identified(request: &Request<'_>) {
        if let Some(Self(shared)) = Self::of(request) {
            shared.caller_is_identified.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the caller named an existing license or session.
    pub fn caller_is_identified(&self) -> bool {
        self.0.caller_is_identified.load(Ordering::Relaxed)
    }

    /// How long the caller may wait before its next request; `None` if no guard has set it.
    pub fn max_idle(&self) -> Option<Duration> {
        let max_idle = self.0.max_idle_ms.load(Ordering::Relaxed);
        (max_idle > 0).then(|| Duration::from_millis(max_idle))
    }

    /// Whether the body is incomplete: the connection failed, or it did not arrive in time.
    pub fn body_is_incomplete(&self) -> bool {
        self.0.body_is_incomplete.load(Ordering::Relaxed)
    }

    async fn read(&self, max: usize) -> Result<Bytes, BodyError> {
        let mut reader = self.0.body.lock().await;
        let body = reader.read_in_time(max).await;
        if matches!(body, Err(BodyError::Incomplete)) {
            self.0.body_is_incomplete.store(true, Ordering::Relaxed);
        }
        body
    }

    /// The whole body, for use after the guards have run; `None` if it is incomplete or longer than `max` bytes.
    pub async fn whole_body(&self, max: usize) -> Option<Bytes> {
        self.read(max).await.ok()
    }

    /// Reads and discards the rest of the body, up to a limit; returns whether its end was reached. A client that
    /// is still sending when the connection closes would see a reset instead of the response.
    pub async fn drain(&self) -> bool {
        let mut reader = self.0.body.lock().await;
        let deadline = reader.deadline;
        if reader.is_over_budget {
            return false;
        }
        let Some(rest) = reader.rest.take() else {
            return !self.body_is_incomplete();
        };
        // The memory that hyper needs while the rest is read.
        let Ok(_reserved) = reader.budget.reserve_up_to(rest.size_hint().lower()) else {
            return false;
        };
        matches!(timeout_at(deadline, discard_body(rest)).await, Ok(true))
    }
}

impl BodyReader {
    async fn read_in_time(&mut self, max: usize) -> Result<Bytes, BodyError> {
        let deadline = self.deadline;
        if let Ok(body) = timeout_at(deadline, self.read_all(max)).await {
            return body;
        }
        self.is_intact = false;
        Err(BodyError::Incomplete)
    }

    async fn read_all(&mut self, max: usize) -> Result<Bytes, BodyError> {
        if !self.is_intact {
            // An earlier read failed and reported why. The only later one is for `whole_body`, which ignores the kind.
            return Err(BodyError::TooLong);
        }
        let announced = self
            .rest
            .as_ref()
            .map_or(0, |rest| rest.size_hint().lower());
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced.saturating_add(self.read.len()) > max {
            return Err(BodyError::TooLong);
        }
        let mut read = Vec::from(std::mem::take(&mut self.read));
        while let Some(rest) = &mut self.rest {
            let Some(frame) = rest.frame().await else {
                self.rest = None;
                break;
            };
            let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
                self.rest = None;
                self.is_intact = false;
                return Err(BodyError::Incomplete);
            };
            if read.len() + data.len() > max {
                self.is_intact = false;
                return Err(BodyError::TooLong);
            }
            if let Err(error) = self.reserve(read.len() + data.len()) {
                self.is_intact = false;
                self.is_over_budget = true;
                self.rest = None;
                self.permit = None;
                return Err(error);
            }
            read.extend_from_slice(&data);
        }
        self.read = read.into();
        Ok(self.read.clone())
    }

    /// Takes from the budget what a body of `len` bytes needs.
    fn reserve(&mut self, len: usize) -> Result<(), BodyError> {
        let reserved = UNCOUNTED_LEN
            + self
                .permit
                .as_ref()
                .map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = len.checked_sub(reserved).filter(|more| *more > 0) else {
            return Ok(());
        };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(more) = self.budget.0.clone().try_acquire_many_owned(more) else {
            return Err(BodyError::OverBudget);
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            permit => *permit = Some(more),
        }
        Ok(())
    }
}

/// Reads and discards a body; returns false if it is incomplete, or longer than [`DRAIN_LEN_MAX`].
pub async fn discard_body<B>(mut body: B) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = DRAIN_LEN_MAX;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_grows_and_shrinks_within_the_budget() {
        let free = UNCOUNTED_LEN as u64;
        let budget = BodyBudget::new(10);
        let left = || budget.0.available_permits();
        let (mut one, mut other) = (ReservedBytes::default(), ReservedBytes::default());
        assert!(budget.resize(&mut one, free) && left() == 10);
        assert!(budget.resize(&mut one, free + 6) && left() == 4);
        assert!(!budget.resize(&mut other, free + 5) && left() == 4);
        assert!(budget.resize(&mut one, free + 2) && left() == 8);
        assert!(budget.resize(&mut other, free + 8) && left() == 0);
        assert!(!budget.resize(&mut one, free + 3) && one.len() == 2);
        drop(other);
        assert!(budget.resize(&mut one, 0) && left() == 10);
    }
}
