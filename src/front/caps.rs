//! Limits the number of connections: in total, so that neither file descriptors nor memory run out, and per source
//! (client address). At a limit, the longest idle connection of the source with the most connections is evicted, so
//! that the idle connections of a few sources never keep others out. Connections of unidentified callers are evicted
//! before those of programs: a program loses its connection only to another program, if programs have more than their
//! part of the connections, or if no other connection is idle.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, watch};

use super::memory;
use crate::error::{Doing, Result};
use crate::security::rate_limit::Source;

/// With room for fewer connections than this, the log says why at the start.
const FEW: usize = 8192;
/// Memory that one connection may use, in bytes.
const BYTES_PER_CONNECTION: u64 = 40 * 1024;
/// Connections may use this fraction (1/n) of the available memory.
const MEMORY_FRACTION: u64 = 4;
/// Maximum number of connections per source: enough for a company whose 1,000 devices share an address.
const PER_SOURCE_MAX: usize = 1536;
/// This fraction (1/n) of the connections is never taken by programs, so that a new caller has time to identify itself.
/// Without it, a new connection would be the first to be evicted while programs hold all the others.
const UNIDENTIFIED_FRACTION: usize = 8;
/// Descriptors reserved for the database, the log, certificates and the runtime.
const RESERVED_DESCRIPTORS: usize = 64;
/// Maximum number of plain HTTP connections beside HTTPS; at most an eighth of all connections.
const PLAIN_MAX: usize = 256;
/// Descriptors reserved for outgoing calls to sites; at most a quarter of all descriptors.
const OUTBOUND_DESCRIPTORS: usize = 256;

/// The maximum number of connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimit {
    /// In total.
    pub total: usize,
    /// Per source: an IPv4 address, or an IPv6 network with a prefix of 64 bits.
    pub per_source: usize,
}

impl ConnectionLimit {
    /// The limit that the file descriptors and the memory of this process allow. Raises the soft limit of file
    /// descriptors to the hard limit.
    ///
    /// # Errors
    /// If the soft limit cannot be raised.
    pub fn from_system() -> Result<Self> {
        let limit = getrlimit(Resource::Nofile);
        let hard_limit = limit.maximum.unwrap_or(u64::MAX);
        if limit.current.is_none_or(|current| current < hard_limit) {
            let raised = Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            };
            setrlimit(Resource::Nofile, raised).doing("raise the limit of open files")?;
        }
        let descriptors = usize::try_from(hard_limit).unwrap_or(usize::MAX);
        let memory = memory::available();
        let connections = Self::of(descriptors, memory);
        if connections.total < FEW {
            let (total, mib) = (connections.total, memory / 1024 / 1024);
            log::warn!(
                "{descriptors} open files are allowed (ulimit -n) and {mib} MiB of memory are available: at \
                 most {total} connections at once"
            );
        }
        Ok(connections)
    }

    /// The limit for this number of descriptors and bytes of memory.
    fn of(descriptors: usize, memory: u64) -> Self {
        let reserved = RESERVED_DESCRIPTORS + OUTBOUND_DESCRIPTORS.min(descriptors / 4);
        let fit_in_memory =
            usize::try_from(memory / MEMORY_FRACTION / BYTES_PER_CONNECTION).unwrap_or(usize::MAX);
        let total = descriptors.saturating_sub(reserved).min(fit_in_memory);
        let total = total.max(16);
        Self {
            total,
            per_source: PER_SOURCE_MAX.min(total.div_ceil(2)),
        }
    }

    /// Divides the limit: a large part for HTTPS, and a small one for plain HTTP, so that plain HTTP connections
    /// never displace encrypted ones.
    #[must_use]
    pub fn split_for_plain_http(self) -> (Self, Self) {
        let plain = PLAIN_MAX.min(self.total / 8);
        let https = Self {
            total: self.total - plain,
            ..self
        };
        let plain = Self {
            total: plain,
            per_source: plain.div_ceil(4),
        };
        (https, plain)
    }
}

/// Counts connections, and decides which one to evict.
pub(super) struct ConnectionCaps {
    limit: ConnectionLimit,
    table: Mutex<ConnectionTable>,
    /// Number of connections that have not ended yet, including evicted ones.
    open: watch::Sender<usize>,
}

/// The slot of one connection. Dropping it frees the slot.
pub(super) struct ConnectionSlot {
    caps: Arc<ConnectionCaps>,
    id: u64,
    eviction: Arc<Eviction>,
}

/// Tells a connection that it is evicted.
#[derive(Default)]
struct Eviction {
    has_happened: AtomicBool,
    notify: Notify,
}

#[derive(Default)]
struct ConnectionTable {
    last_serial: u64,
    connections: HashMap<u64, TableEntry>,
    /// Connections on which no existing license or session has been named.
    unidentified: ConnectionsBySource,
    /// The other connections, which are evicted last.
    programs: ConnectionsBySource,
}

/// One connection.
struct TableEntry {
    /// `None` for a trusted proxy. It forwards for many clients, so its connections are never evicted.
    source: Option<Source>,
    kind: Kind,
    /// The serial number at which the connection became idle; `None` while a request is in progress.
    idle_since: Option<u64>,
    eviction: Arc<Eviction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unidentified,
    Program,
}

/// The connections of one kind, by source.
#[derive(Default)]
struct ConnectionsBySource {
    sources: HashMap<Source, SourceConnections>,
    count: usize,
    /// The sources that have an idle connection. The last one is the next to lose one: the source with the most
    /// connections, and among equals the one whose connection has been idle for longest.
    eviction_order: BTreeSet<EvictionRank>,
}

type EvictionRank = (usize, Reverse<u64>, Source);

/// The connections of one source.
#[derive(Default)]
struct SourceConnections {
    count: usize,
    /// The ids of the idle connections, by the serial number at which each became idle.
    idle: BTreeMap<u64, u64>,
}

impl ConnectionCaps {
    pub(super) fn new(limit: ConnectionLimit) -> Arc<Self> {
        Arc::new(Self {
            limit,
            table: Mutex::default(),
            open: watch::Sender::new(0),
        })
    }

    /// A slot for a connection from `address`. At a limit, another connection is evicted; `None` if all of them have
    /// a request in progress.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        self.enter_from(Some(Source::from(address)))
    }

    /// A slot for a connection from a trusted proxy, which counts towards the total only.
    pub(super) fn enter_proxy(self: &Arc<Self>) -> Option<ConnectionSlot> {
        self.enter_from(None)
    }

    fn enter_from(self: &Arc<Self>, source: Option<Source>) -> Option<ConnectionSlot> {
        let mut table = self.lock();
        let source_is_full =
            source.is_some_and(|source| table.count(source) >= self.limit.per_source);
        let is_full = source_is_full || table.connections.len() >= self.limit.total;
        if is_full && !table.evict(source.filter(|_| source_is_full)) {
            return None;
        }
        let eviction = Arc::<Eviction>::default();
        let id = table.insert(source, eviction.clone());
        drop(table);
        self.open.send_modify(|open| *open += 1);
        Some(ConnectionSlot {
            caps: self.clone(),
            id,
            eviction,
        })
    }

    /// Waits until every connection has ended.
    pub(super) async fn all_ended(&self) {
        // This cannot fail, because `self` holds the sender.
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// A request is in progress: unless it was evicted before, the connection stays until it is idle again.
    pub(super) fn set_busy(&self) {
        self.caps.lock().set_busy(self.id);
    }

    /// No request is in progress any more: the connection may be evicted.
    pub(super) fn set_idle(&self) {
        self.caps.lock().set_idle(self.id);
    }

    /// Whether the connection was evicted, and must close.
    pub(super) fn is_evicted(&self) -> bool {
        self.eviction.has_happened.load(Ordering::Relaxed)
    }

    /// Marks the connection as that of a program: its caller has named an existing license or session. If programs have
    /// more than their part of the connections now, the longest idle one of them is evicted.
    pub(super) fn mark_program(&self) {
        self.caps.lock().mark_program(self.id, self.caps.limit);
    }

    /// Waits until the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.eviction.notify.notified().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.caps.lock().remove(self.id);
        self.caps.open.send_modify(|open| *open -= 1);
    }
}

impl ConnectionTable {
    /// The number of connections of `source`.
    fn count(&self, source: Source) -> usize {
        self.unidentified.count(source) + self.programs.count(source)
    }

    fn of_kind(&mut self, kind: Kind) -> &mut ConnectionsBySource {
        match kind {
            Kind::Program => &mut self.programs,
            Kind::Unidentified => &mut self.unidentified,
        }
    }

    fn insert(&mut self, source: Option<Source>, eviction: Arc<Eviction>) -> u64 {
        let id = self.next_serial();
        let entry = TableEntry {
            source,
            kind: Kind::Unidentified,
            idle_since: None,
            eviction,
        };
        self.connections.insert(id, entry);
        if let Some(source) = source {
            self.unidentified
                .change(source, |connections| connections.count += 1);
        }
        self.set_idle(id);
        id
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    fn set_busy(&mut self, id: u64) {
        self.set_idle_since(id, None);
    }

    fn set_idle(&mut self, id: u64) {
        let now = self.next_serial();
        self.set_idle_since(id, Some(now));
    }

    fn set_idle_since(&mut self, id: u64, now: Option<u64>) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.idle_since, now);
        if let Some(source) = entry.source {
            let kind = entry.kind;
            self.of_kind(kind).change(source, |connections| {
                if let Some(since) = before {
                    connections.idle.remove(&since);
                }
                connections.idle.extend(now.map(|since| (since, id)));
            });
        }
    }

    fn mark_program(&mut self, id: u64, limit: ConnectionLimit) {
        let entry = self.connections.get_mut(&id);
        let Some(entry) = entry.filter(|entry| entry.kind != Kind::Program) else {
            return;
        };
        entry.kind = Kind::Program;
        let idle_since = entry.idle_since;
        if let Some(source) = entry.source {
            self.unidentified
                .change(source, |connections| connections.remove(idle_since));
            self.programs.change(source, |connections| {
                connections.count += 1;
                connections.idle.extend(idle_since.map(|since| (since, id)));
            });
            self.limit_programs(source, limit);
        }
    }

    /// Evicts a program if programs have more than their part of the connections of `source`, or of all.
    fn limit_programs(&mut self, source: Source, limit: ConnectionLimit) {
        let part = |max: usize| max - max / UNIDENTIFIED_FRACTION;
        if self.programs.count(source) > part(limit.per_source) {
            self.evict_connection(self.programs.longest_idle(Some(source)));
        } else if self.programs.count > part(limit.total) {
            self.evict_connection(self.programs.longest_idle(None));
        }
    }

    fn remove(&mut self, id: u64) -> Option<TableEntry> {
        let entry = self.connections.remove(&id)?;
        if let Some(source) = entry.source {
            let idle_since = entry.idle_since;
            self.of_kind(entry.kind)
                .change(source, |connections| connections.remove(idle_since));
        }
        Some(entry)
    }

    /// Evicts an idle connection, of `source` if given; returns false if there is none.
    fn evict(&mut self, source: Option<Source>) -> bool {
        let unidentified = self.unidentified.longest_idle(source);
        let longest_idle = unidentified.or_else(|| self.programs.longest_idle(source));
        self.evict_connection(longest_idle)
    }

    /// Evicts the connection `id`; returns false if there is none.
    fn evict_connection(&mut self, id: Option<u64>) -> bool {
        let entry = id.and_then(|id| self.remove(id));
        if let Some(entry) = &entry {
            entry.eviction.has_happened.store(true, Ordering::Relaxed);
            entry.eviction.notify.notify_one();
        }
        entry.is_some()
    }
}

impl ConnectionsBySource {
    fn count(&self, source: Source) -> usize {
        self.sources
            .get(&source)
            .map_or(0, |connections| connections.count)
    }

    /// Changes the connections of `source`, and updates `count` and `eviction_order`.
    fn change(&mut self, source: Source, change: impl FnOnce(&mut SourceConnections)) {
        let connections = self.sources.entry(source).or_default();
        let (before, rank_before) = (connections.count, connections.rank(source));
        change(connections);
        self.count = (self.count + connections.count).saturating_sub(before);
        let rank = connections.rank(source);
        // Most changes concern another connection than the longest idle one of a source, and leave its rank as it is.
        if rank != rank_before {
            if let Some(rank) = rank_before {
                self.eviction_order.remove(&rank);
            }
            self.eviction_order.extend(rank);
        }
        if connections.count == 0 {
            self.sources.remove(&source);
        }
    }

    /// The connection that has been idle for longest: of `source`, or of the next source to lose one.
    fn longest_idle(&self, source: Option<Source>) -> Option<u64> {
        let source = source.or_else(|| self.eviction_order.last().map(|(_, _, source)| *source))?;
        let (_, id) = self.sources.get(&source)?.idle.first_key_value()?;
        Some(*id)
    }
}

impl SourceConnections {
    /// `None` if no connection is idle.
    fn rank(&self, source: Source) -> Option<EvictionRank> {
        let (longest, _) = self.idle.first_key_value()?;
        Some((self.count, Reverse(*longest), source))
    }

    /// Removes one connection; `idle_since` is `None` if it was busy.
    fn remove(&mut self, idle_since: Option<u64>) {
        self.count = self.count.saturating_sub(1);
        if let Some(since) = idle_since {
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

    #[test]
    fn plain_http_has_a_small_part_of_the_connections() {
        for (total, https, plain) in [(8192, 7936, 256), (128, 112, 16), (16, 14, 2)] {
            let (main, secondary) = ConnectionLimit {
                total,
                per_source: 8,
            }
            .split_for_plain_http();
            assert_eq!(
                (main.total, main.per_source, secondary.total),
                (https, 8, plain)
            );
            assert!(secondary.per_source >= 1);
        }
    }

    #[test]
    fn descriptors_and_memory_limit_the_connections() {
        const MIB: u64 = 1024 * 1024;
        for (descriptors, memory, total, per_source) in [
            (1_048_576, 24 * 1024 * MIB, 157_286, 1536),
            (1_048_576, 4096 * MIB, 26_214, 1536),
            (4096, 4096 * MIB, 3776, 1536),
            (1_048_576, 512 * MIB, 3276, 1536),
            (1_048_576, 256 * MIB, 1638, 819),
            (256, 4096 * MIB, 128, 64),
            (64, 4096 * MIB, 16, 8),
        ] {
            let limit = ConnectionLimit::of(descriptors, memory);
            assert_eq!(
                (limit.total, limit.per_source),
                (total, per_source),
                "{descriptors} {memory}"
            );
        }
    }

    #[test]
    fn a_source_at_its_limit_loses_its_own_longest_idle_connection() {
        let caps = ConnectionCaps::new(ConnectionLimit {
            total: 4,
            per_source: 2,
        });
        let other = caps.enter(address(2)).unwrap();
        let first = caps.enter(address(1)).unwrap();
        let second = caps.enter(address(1)).unwrap();
        first.set_busy();
        first.set_idle();
        let third = caps.enter(address(1)).unwrap();
        assert!(
            second.is_evicted() && !first.is_evicted(),
            "the second has been idle for longer"
        );
        first.set_busy();
        third.set_busy();
        assert!(caps.enter(address(1)).is_none(), "requests are in progress");
        let proxy = caps.enter_proxy().unwrap();
        assert!(
            !other.is_evicted() && !proxy.is_evicted(),
            "a proxy is exempt"
        );
        drop((other, first, second, third, proxy));
        let table = caps.lock();
        assert!(table.connections.is_empty() && table.unidentified.sources.is_empty());
        assert!(table.unidentified.eviction_order.is_empty() && *caps.open.borrow() == 0);
    }

    fn count_evicted(slots: &[ConnectionSlot]) -> usize {
        slots.iter().filter(|slot| slot.is_evicted()).count()
    }

    #[test]
    fn no_stranger_evicts_a_program_while_another_stranger_is_idle() {
        let caps = ConnectionCaps::new(ConnectionLimit {
            total: 16,
            per_source: 16,
        });
        let enter = |last| caps.enter(address(last)).unwrap();
        // From one address, which has by far the most connections.
        let company: Vec<_> = (0..14).map(|_| enter(1)).collect();
        company.iter().for_each(ConnectionSlot::mark_program);
        let strangers: Vec<_> = (2..40).map(enter).collect();
        assert_eq!(count_evicted(&company), 0);
        assert_eq!(
            count_evicted(&strangers),
            strangers.len() - 2,
            "all but the last two"
        );
    }

    #[test]
    fn programs_leave_a_part_of_the_connections_to_new_callers() {
        let caps = ConnectionCaps::new(ConnectionLimit {
            total: 16,
            per_source: 8,
        });
        let enter_program = |last| {
            let slot = caps.enter(address(last)).unwrap();
            slot.mark_program();
            slot
        };
        let single = enter_program(9);
        let programs: Vec<_> = (0..15)
            .map(|number| enter_program(1 + number % 3))
            .collect();
        // Two of sixteen are left, so that the next callers can identify themselves.
        assert!(count_evicted(&programs) == 2 && !single.is_evicted());
        let newcomers = [4, 5].map(|last| caps.enter(address(last)).unwrap());
        assert_eq!(count_evicted(&newcomers), 0);
        let table = caps.lock();
        assert_eq!((table.unidentified.count, table.programs.count), (2, 14));
    }

    #[test]
    fn programs_of_one_source_leave_a_part_of_its_connections_to_new_callers() {
        let caps = ConnectionCaps::new(ConnectionLimit {
            total: 64,
            per_source: 16,
        });
        let enter = || caps.enter(address(1)).unwrap();
        let company: Vec<_> = (0..16).map(|_| enter()).collect();
        company[0].set_busy();
        company.iter().for_each(ConnectionSlot::mark_program);
        assert!(count_evicted(&company) == 2 && !company[0].is_evicted());
        let newcomers: Vec<_> = (0..3).map(|_| enter()).collect();
        assert!(newcomers[0].is_evicted() && !newcomers[1].is_evicted());
        assert_eq!(count_evicted(&company), 2);
    }

    #[test]
    fn the_source_with_most_connections_loses_one_and_programs_are_last() {
        let caps = ConnectionCaps::new(ConnectionLimit {
            total: 6,
            per_source: 4,
        });
        let enter = |last| caps.enter(address(last)).unwrap();
        let company: Vec<_> = (0..3).map(|_| enter(1)).collect();
        for program in &company {
            program.set_busy();
            program.mark_program();
            program.set_idle();
        }
        let single = enter(2);
        let pair = [enter(3), enter(3)];
        let new = enter(4);
        assert!(
            pair[0].is_evicted() && !single.is_evicted(),
            "one of the two from the same source, although another one has been idle for longer"
        );
        let newer = enter(5);
        assert!(
            single.is_evicted() && !pair[1].is_evicted(),
            "among equals, the longest idle one"
        );
        for slot in [&pair[1], &new, &newer] {
            slot.set_busy();
        }
        assert!(company.iter().all(|program| !program.is_evicted()));
        let last = enter(6);
        assert!(company[0].is_evicted(), "no other connection is idle");
        last.set_busy();
        company[1].set_busy();
        company[2].set_busy();
        assert!(caps.enter(address(7)).is_none(), "all are busy");
    }
}
