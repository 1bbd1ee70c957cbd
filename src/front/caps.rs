//! How many connections: in all, so that neither descriptors nor memory run out, and from one address. Where
//! there is no place left, the longest idle connection of the source with most of them gives way, so that
//! idle connections of a few never keep others out. Strangers' go before those of programs, but for a small part
//! of the places.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, watch};

use super::memory;
use crate::error::{Doing, Result};
use crate::security::rate_limit::Source;

/// Most connections, however many descriptors there are.
const ALL_MAX: usize = 8192;
/// What one connection may take, in bytes.
const ONE_TAKES: u64 = 40 * 1024;
/// The part of the machine's memory that connections may take: one of so many.
const MEMORY_PART: u64 = 4;
/// Most connections from one address: a company of 1,000 devices, each with one and some to spare.
const ONE_MAX: usize = 1536;
/// The part of the places, one of so many, that strangers keep beside programs: what is new and about to greet
/// must not be the first to go where few addresses hold the rest.
const STRANGERS_PART: usize = 8;
/// Descriptors kept for the database, the log, certificates and the runtime.
const RESERVED: usize = 64;
/// Most connections of plain HTTP beside HTTPS; an eighth where there are few.
const PLAIN_MAX: usize = 256;
/// Descriptors kept for calls to sites; of few there are, a quarter.
const CALLS: usize = 256;

/// How many connections there is room for.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimit {
    /// In all.
    pub all: usize,
    /// From one address, or one IPv6 network of 64 bits.
    pub one: usize,
}

impl ConnectionLimit {
    /// Raises this process' limit of file descriptors as far as it may, and divides what that and the
    /// machine's memory give.
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
        let memory = memory::available();
        let room = Self::of(descriptors, memory);
        if room.all < ALL_MAX {
            let (all, mib) = (room.all, memory / 1024 / 1024);
            log::warn!(
                "{descriptors} open files are allowed (ulimit -n), {mib} MiB of memory are there: at most \
                 {all} connections at once"
            );
        }
        Ok(room)
    }

    /// The room that so many descriptors and bytes of memory give.
    fn of(descriptors: usize, memory: u64) -> Self {
        let reserved = RESERVED + CALLS.min(descriptors / 4);
        let fits = usize::try_from(memory / MEMORY_PART / ONE_TAKES).unwrap_or(usize::MAX);
        let all = descriptors.saturating_sub(reserved).min(fits);
        let all = all.clamp(16, ALL_MAX);
        Self {
            all,
            one: ONE_MAX.min(all.div_ceil(2)),
        }
    }

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

/// Counts connections, and says which gives way.
pub(super) struct ConnectionCaps {
    room: ConnectionLimit,
    places: Mutex<ConnectionTable>,
    /// Connections that have not ended yet, those that were told to give way too.
    open: watch::Sender<usize>,
}

/// One connection's place; free again when this is dropped.
pub(super) struct ConnectionSlot {
    caps: Arc<ConnectionCaps>,
    id: u64,
    gives_way: Arc<Notify>,
}

#[derive(Default)]
struct ConnectionTable {
    next: u64,
    taken: HashMap<u64, Taken>,
    /// Connections on which no license or session that exists was named.
    strangers: Crowd,
    /// The others: the last to go.
    programs: Crowd,
}

/// What is known of one connection.
struct Taken {
    /// A proxy has none: it speaks for many, and never gives way.
    source: Option<Source>,
    is_program: bool,
    /// Since when, in order, no request is under way; none while one is.
    idle: Option<u64>,
    gives_way: Arc<Notify>,
}

/// Connections of one kind, by source.
#[derive(Default)]
struct Crowd {
    sources: HashMap<Source, Group>,
    count: usize,
    /// Sources with an idle connection: the one with most connections is the last, and among equals the one
    /// whose connection is idle for longest.
    order: BTreeSet<Rank>,
}

type Rank = (usize, Reverse<u64>, Source);

/// The connections of one source.
#[derive(Default)]
struct Group {
    count: usize,
    /// Connections without a request under way, the longest idle first.
    idle: BTreeMap<u64, u64>,
}

impl ConnectionCaps {
    pub(super) fn new(room: ConnectionLimit) -> Arc<Self> {
        Arc::new(Self {
            room,
            places: Mutex::default(),
            open: watch::Sender::new(0),
        })
    }

    /// A place for a connection from `address`, if need be that of another one; none when every other one has
    /// a request under way. One that is exempt, a proxy, counts towards the whole only.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, exempt: bool) -> Option<ConnectionSlot> {
        let source = (!exempt).then(|| Source::from(address));
        let mut places = self.lock();
        let crowded = source.is_some_and(|source| places.count(source) >= self.room.one);
        let full = crowded || places.taken.len() >= self.room.all;
        if full && !places.make_room(source.filter(|_| crowded), self.room) {
            return None;
        }
        let gives_way = Arc::<Notify>::default();
        let id = places.enter(source, gives_way.clone());
        drop(places);
        self.open.send_modify(|open| *open += 1);
        Some(ConnectionSlot {
            caps: self.clone(),
            id,
            gives_way,
        })
    }

    /// Waits until every connection has ended.
    pub(super) async fn empty(&self) {
        // The sender is here: it cannot be closed.
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionTable> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// A request is under way: this connection does not give way, unless it was told to already.
    pub(super) fn busy(&self) {
        self.caps.lock().set_idle(self.id, false);
    }

    /// No request is under way any more.
    pub(super) fn rests(&self) {
        self.caps.lock().set_idle(self.id, true);
    }

    /// Whether it was not told to give way.
    pub(super) fn is_kept(&self) -> bool {
        self.caps.lock().taken.contains_key(&self.id)
    }

    /// A program that named a license or session that exists speaks here.
    pub(super) fn of_a_program(&self) {
        self.caps.lock().promote(self.id);
    }

    /// Waits until it must give way.
    pub(super) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.caps.lock().leave(self.id);
        self.caps.open.send_modify(|open| *open -= 1);
    }
}

impl ConnectionTable {
    /// Connections of `source`.
    fn count(&self, source: Source) -> usize {
        self.strangers.count(source) + self.programs.count(source)
    }

    fn crowd(&mut self, is_program: bool) -> &mut Crowd {
        if is_program {
            &mut self.programs
        } else {
            &mut self.strangers
        }
    }

    fn enter(&mut self, source: Option<Source>, gives_way: Arc<Notify>) -> u64 {
        let id = self.serial();
        let taken = Taken {
            source,
            is_program: false,
            idle: None,
            gives_way,
        };
        self.taken.insert(id, taken);
        if let Some(source) = source {
            self.strangers.change(source, |group| group.count += 1);
        }
        self.set_idle(id, true);
        id
    }

    fn serial(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn set_idle(&mut self, id: u64, idle: bool) {
        let now = idle.then(|| self.serial());
        let Some(taken) = self.taken.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut taken.idle, now);
        if let Some(source) = taken.source {
            let is_program = taken.is_program;
            self.crowd(is_program).change(source, |group| {
                if let Some(since) = before {
                    group.idle.remove(&since);
                }
                group.idle.extend(now.map(|since| (since, id)));
            });
        }
    }

    fn promote(&mut self, id: u64) {
        let Some(taken) = self.taken.get_mut(&id).filter(|taken| !taken.is_program) else {
            return;
        };
        taken.is_program = true;
        let idle = taken.idle;
        if let Some(source) = taken.source {
            self.strangers.change(source, |group| group.lose(idle));
            self.programs.change(source, |group| {
                group.count += 1;
                group.idle.extend(idle.map(|since| (since, id)));
            });
        }
    }

    fn leave(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        if let Some(source) = taken.source {
            let idle = taken.idle;
            self.crowd(taken.is_program)
                .change(source, |group| group.lose(idle));
        }
        Some(taken)
    }

    /// Has one connection give way, of `source` where one is named; false when there is none that may.
    fn make_room(&mut self, source: Option<Source>, room: ConnectionLimit) -> bool {
        let places = source.map_or(room.all, |_| room.one);
        let few = self.strangers.size(source) < places / STRANGERS_PART;
        let hoard = self.programs.most(source) >= self.strangers.most(source);
        let mut crowds = [&self.strangers, &self.programs];
        if few && hoard {
            crowds.reverse();
        }
        let longest = crowds
            .into_iter()
            .find_map(|crowd| crowd.longest_idle(source));
        let taken = longest.and_then(|id| self.leave(id));
        if let Some(taken) = &taken {
            taken.gives_way.notify_one();
        }
        taken.is_some()
    }
}

impl Crowd {
    fn count(&self, source: Source) -> usize {
        self.sources.get(&source).map_or(0, |group| group.count)
    }

    /// Connections of `source`, or of all.
    fn size(&self, source: Option<Source>) -> usize {
        source.map_or(self.count, |source| self.count(source))
    }

    /// Connections of `source`, or of the source with most of them that has an idle one.
    fn most(&self, source: Option<Source>) -> usize {
        let most = || self.order.last().map_or(0, |(count, _, _)| *count);
        source.map_or_else(most, |source| self.count(source))
    }

    /// Changes the group of `source`, and keeps the order of groups.
    fn change(&mut self, source: Source, how: impl FnOnce(&mut Group)) {
        let group = self.sources.entry(source).or_default();
        if let Some(rank) = group.rank(source) {
            self.order.remove(&rank);
        }
        let before = group.count;
        how(group);
        self.count = (self.count + group.count).saturating_sub(before);
        self.order.extend(group.rank(source));
        if group.count == 0 {
            self.sources.remove(&source);
        }
    }

    /// The connection that is idle for longest: of `source`, or of the source with most connections.
    fn longest_idle(&self, source: Option<Source>) -> Option<u64> {
        let source = source.or_else(|| self.order.last().map(|(_, _, source)| *source))?;
        let (_, id) = self.sources.get(&source)?.idle.first_key_value()?;
        Some(*id)
    }
}

impl Group {
    fn rank(&self, source: Source) -> Option<Rank> {
        let (longest, _) = self.idle.first_key_value()?;
        Some((self.count, Reverse(*longest), source))
    }

    /// One connection less, which was idle or not.
    fn lose(&mut self, idle: Option<u64>) {
        self.count = self.count.saturating_sub(1);
        if let Some(since) = idle {
            self.idle.remove(&since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn gone(place: &ConnectionSlot) -> bool {
        !place.is_kept()
    }

    #[test]
    fn plain_http_has_a_small_part_of_the_places() {
        for (all, rest, plain) in [(8192, 7936, 256), (128, 112, 16), (16, 14, 2)] {
            let (main, beside) = ConnectionLimit { all, one: 8 }.divided();
            assert_eq!((main.all, main.one, beside.all), (rest, 8, plain));
            assert!(beside.one >= 1);
        }
    }

    #[test]
    fn descriptors_and_memory_bound_the_places() {
        const MIB: u64 = 1024 * 1024;
        for (descriptors, memory, all, one) in [
            (1_048_576, 4096 * MIB, 8192, 1536),
            (1_048_576, 512 * MIB, 3276, 1536),
            (1_048_576, 256 * MIB, 1638, 819),
            (256, 4096 * MIB, 128, 64),
            (64, 4096 * MIB, 16, 8),
        ] {
            let room = ConnectionLimit::of(descriptors, memory);
            assert_eq!((room.all, room.one), (all, one), "{descriptors} {memory}");
        }
    }

    #[test]
    fn a_full_address_gives_up_its_own_longest_idle_connection_only() {
        let caps = ConnectionCaps::new(ConnectionLimit { all: 4, one: 2 });
        let other = caps.enter(address(2), false).unwrap();
        let first = caps.enter(address(1), false).unwrap();
        let second = caps.enter(address(1), false).unwrap();
        first.busy();
        first.rests();
        let third = caps.enter(address(1), false).unwrap();
        assert!(
            gone(&second) && !gone(&first),
            "the second is idle for longer"
        );
        first.busy();
        third.busy();
        assert!(
            caps.enter(address(1), false).is_none(),
            "requests are under way"
        );
        let proxy = caps.enter(address(1), true).unwrap();
        assert!(!gone(&other) && !gone(&proxy), "a proxy speaks for many");
        drop((other, first, second, third, proxy));
        let places = caps.lock();
        assert!(places.taken.is_empty() && places.strangers.sources.is_empty());
        assert!(places.strangers.order.is_empty() && *caps.open.borrow() == 0);
    }

    #[test]
    fn what_has_just_come_does_not_give_way_for_what_a_few_hoard() {
        let caps = ConnectionCaps::new(ConnectionLimit { all: 16, one: 8 });
        let enter = |last| caps.enter(address(last), false).unwrap();
        let as_program = |last| {
            let place = enter(last);
            place.of_a_program();
            place
        };
        let single = as_program(9);
        let hoards: Vec<_> = (0..15).map(|number| as_program(1 + number % 3)).collect();
        // Two parts of sixteen are the strangers': they come one after another, and none goes for the next.
        let newcomers = [enter(4), enter(5)];
        assert!(newcomers.iter().all(|place| !gone(place)) && !gone(&single));
        assert_eq!(hoards.iter().filter(|place| gone(place)).count(), 2);
        // Beyond that, programs are the last to go.
        let _third = enter(6);
        assert!(gone(&newcomers[0]) && !gone(&newcomers[1]) && !gone(&single));
        assert_eq!(hoards.iter().filter(|place| gone(place)).count(), 2);
        let places = caps.lock();
        assert_eq!((places.strangers.count, places.programs.count), (2, 14));
    }

    #[test]
    fn behind_a_full_address_what_has_just_come_is_not_the_first_to_go() {
        let caps = ConnectionCaps::new(ConnectionLimit { all: 64, one: 16 });
        let enter = || caps.enter(address(1), false).unwrap();
        let company: Vec<_> = (0..16).map(|_| enter()).collect();
        company.iter().for_each(ConnectionSlot::of_a_program);
        let newcomers = [enter(), enter()];
        assert!(newcomers.iter().all(|place| !gone(place)));
        assert_eq!(company.iter().filter(|place| gone(place)).count(), 2);
        let _third = enter();
        assert!(gone(&newcomers[0]) && !gone(&newcomers[1]));
    }

    #[test]
    fn the_source_with_most_connections_gives_way_and_programs_are_the_last_to_go() {
        let caps = ConnectionCaps::new(ConnectionLimit { all: 6, one: 4 });
        let enter = |last| caps.enter(address(last), false).unwrap();
        let company: Vec<_> = (0..3).map(|_| enter(1)).collect();
        for program in &company {
            program.busy();
            program.of_a_program();
            program.rests();
        }
        let single = enter(2);
        let crowd = [enter(3), enter(3)];
        let new = enter(4);
        assert!(
            gone(&crowd[0]) && !gone(&single),
            "the crowd's, although another is idle for longer"
        );
        let newer = enter(5);
        assert!(
            gone(&single) && !gone(&crowd[1]),
            "among equals the longest idle one"
        );
        for busy in [&crowd[1], &new, &newer] {
            busy.busy();
        }
        assert!(company.iter().all(|program| !gone(program)));
        let last = enter(6);
        assert!(gone(&company[0]), "no stranger is left");
        last.busy();
        company[1].busy();
        company[2].busy();
        assert!(caps.enter(address(7), false).is_none(), "all are at work");
    }
}
