//! The limits of connections, in one struct, so that tests can use smaller ones.

use std::time::Duration;

use super::memory;

/// Responses that are not read may take this fraction (1/n) of the available memory.
const UNREAD_FRACTION: u64 = 16;

/// The limits of connections: times of each one, and memory of all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request head to its last; for the first head, from the end of the handshake.
    pub head: Duration,
    /// How long a write may wait for a client that does not read.
    pub write_stall: Duration,
    /// How long a connection is idle before the memory for its next request is freed: hyper keeps two buffers of 8 KiB.
    pub rest: Duration,
    /// Between two requests of an unidentified caller.
    pub idle: Duration,
    /// Between two requests of a program or a proxy, at least. Longer than proxies usually keep idle connections.
    pub program_idle: Duration,
    /// How much later than at the interval set by the server a program may call, because of a slow network or a late
    /// timer.
    pub program_grace: Duration,
    /// Maximum age of a connection. The first response after this is its last one; an idle connection is not closed
    /// because of its age.
    pub max_age: Duration,
    /// How long a request in progress may take when the server stops.
    pub stop_grace: Duration,
    /// How many bytes of memory all responses may take that wait for their clients to read them.
    pub unread_len: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            rest: Duration::from_secs(1),
            idle: Duration::from_secs(30),
            program_idle: Duration::from_secs(75),
            program_grace: Duration::from_secs(15),
            max_age: Duration::from_hours(1),
            stop_grace: Duration::from_secs(20),
            unread_len: 24 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// [`Limits::unread_len`], or less on a machine with little memory.
    pub(super) fn unread_len(&self) -> u64 {
        self.unread_len.min(memory::available() / UNREAD_FRACTION)
    }

    /// How long the connection of a program may be idle, if the program may wait for `max_idle` before its next call.
    pub(super) fn idle_of_program(&self, max_idle: Duration) -> Duration {
        max_idle
            .saturating_add(self.program_grace)
            .max(self.program_idle)
    }

    /// The value of `Keep-Alive: timeout=` in seconds: a little less than `idle`, so that a program that keeps to it
    /// never uses a connection that is just being closed.
    pub(super) fn announced_idle_s(idle: Duration) -> u64 {
        let secs = idle.as_secs();
        secs.saturating_sub(5).max(secs / 2)
    }

    /// `max_age` with random jitter, so that connections opened together are not closed together.
    pub(super) fn jittered_max_age(&self) -> Duration {
        self.max_age.mul_f64(rand::random_range(0.9..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_idle_for_longer_than_its_interval_and_a_little_less_is_announced() {
        let limits = Limits::default();
        for (timeout_s, idle_s, announced_s) in [
            (2, 75, 70),
            (60, 75, 70),
            (61, 76, 71),
            (600, 615, 610),
            (86_400, 86_415, 86_410),
        ] {
            let idle = limits.idle_of_program(Duration::from_secs(timeout_s));
            assert_eq!(
                (idle.as_secs(), Limits::announced_idle_s(idle)),
                (idle_s, announced_s)
            );
            assert!(
                Limits::announced_idle_s(idle) > timeout_s,
                "the announced time is longer than the interval of the program"
            );
        }
        for _ in 0..1000 {
            let max_age = limits.jittered_max_age().as_secs();
            assert!((3240..=3600).contains(&max_age), "{max_age}");
        }
    }
}
