//! How many connections: in all, so that descriptors never run out, and from one address, so that one
//! address never has them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Doing, Result};
use crate::security::rate_limit::Source;

/// Most connections, however many descriptors there are: each may take some 40 KiB.
const ALL_MAX: usize = 8192;
/// Most connections from one address: a company of 1,000 devices, each with one and some to spare.
const ONE_MAX: usize = 1536;
/// Descriptors kept for the database, the log, certificates and the runtime.
const RESERVED: usize = 64;
/// Most connections of plain HTTP beside HTTPS; an eighth where there are few.
const PLAIN_MAX: usize = 256;
/// Descriptors kept for calls to sites; of few there are, a quarter.
const CALLS: usize = 256;

/// How many connections there is room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In all.
    pub all: usize,
    /// From one address, or one IPv6 network of 64 bits.
    pub one: usize,
}

impl Room {
    /// Raises this process' limit of file descriptors as far as it may, and divides what that gives.
    ///
    /// # Errors
    /// When the limit cannot be raised to its own maximum.
    pub fn make() -> Result<Self> {
        let limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(u64::MAX);
        if limit.current.is_none_or(|current| current < most) {
            let raised = Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            };
            setrlimit(Resource::Nofile, raised).doing("raise the limit of open files")?;
        }
        let descriptors = usize::try_from(most).unwrap_or(usize::MAX);
        let reserved = RESERVED + CALLS.min(descriptors / 4);
        let all = descriptors.saturating_sub(reserved).clamp(16, ALL_MAX);
        if all < ALL_MAX {
            log::warn!(
                "{descriptors} open files are allowed (ulimit -n): at most {all} connections at once"
            );
        }
        Ok(Self {
            all,
            one: ONE_MAX.min(all.div_ceil(2)),
        })
    }
}

impl Room {
    /// The same in two parts: for HTTPS, and a small one for plain HTTP beside it, which so never takes a
    /// place from those who encrypt.
    #[must_use]
    pub fn divided(self) -> (Self, Self) {
        let plain = PLAIN_MAX.min(self.all / 8);
        let rest = Self {
            all: self.all - plain,
            ..self
        };
        let plain = Self {
            all: plain,
            one: plain.div_ceil(4),
        };
        (rest, plain)
    }
}

/// Connections of each source.
type Counts = HashMap<Source, usize>;

/// Counts who is here.
pub(super) struct Caps {
    room: Room,
    all: Arc<Semaphore>,
    here: Arc<Mutex<Counts>>,
}

/// One connection's place; free again when this is dropped.
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    from: Option<(Arc<Mutex<Counts>>, Source)>,
}

impl Caps {
    pub(super) fn new(room: Room) -> Self {
        let all = Arc::new(Semaphore::new(room.all));
        Self {
            room,
            all,
            here: Arc::default(),
        }
    }

    /// A place for a connection from `address`; none when there is no room. One that is exempt, a proxy,
    /// counts towards the whole only.
    pub(super) fn enter(&self, address: IpAddr, exempt: bool) -> Option<Place> {
        let all = self.all.clone().try_acquire_owned().ok()?;
        if exempt {
            return Some(Place {
                _all: all,
                from: None,
            });
        }
        let source = Source::from(address);
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let count = here.entry(source).or_insert(0);
        if *count >= self.room.one {
            return None;
        }
        *count += 1;
        Some(Place {
            _all: all,
            from: Some((self.here.clone(), source)),
        })
    }

    /// Waits until nobody is here.
    pub(super) async fn empty(&self) {
        let all = u32::try_from(self.room.all).unwrap_or(u32::MAX);
        drop(self.all.acquire_many(all).await);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((here, source)) = &self.from {
            let mut here = here.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = here.get_mut(source) {
                *count -= 1;
                if *count == 0 {
                    here.remove(source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_has_a_small_part_of_the_places() {
        for (all, rest, plain) in [(8192, 7936, 256), (128, 112, 16), (16, 14, 2)] {
            let (main, beside) = Room { all, one: 8 }.divided();
            assert_eq!((main.all, main.one, beside.all), (rest, 8, plain));
            assert!(beside.one >= 1);
        }
    }

    #[test]
    fn one_address_never_takes_every_place_and_a_place_is_free_again() {
        let caps = Caps::new(Room { all: 4, one: 2 });
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = caps.enter(one, false);
        let second = caps.enter(one, false);
        assert!(first.is_some() && second.is_some() && caps.enter(one, false).is_none());
        let third = caps.enter(other, false);
        assert!(third.is_some(), "another address");
        drop(first);
        let again = caps.enter(one, false);
        assert!(again.is_some());
        let proxy = caps.enter(one, true);
        assert!(proxy.is_some(), "a proxy speaks for many");
        assert!(caps.enter(other, false).is_none(), "four are here");
        drop((second, third, again, proxy));
        assert!(caps.here.lock().unwrap().is_empty());
    }
}
