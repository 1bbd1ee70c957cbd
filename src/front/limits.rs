//! How long a connection may take for what. One place, so that a test can have them short.

use std::time::Duration;

/// Spans of a connection's life.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a head to its last; for the first head, from the handshake on.
    pub head: Duration,
    /// How long a write may wait for a reader that does not read.
    pub stalled: Duration,
    /// Between two requests of a stranger.
    pub idle: Duration,
    /// Between two requests of a program or a proxy at least: longer than proxies keep connections.
    pub program_idle: Duration,
    /// What a program has beyond the silence that the server itself asks for: a slow line, a late timer.
    pub late: Duration,
    /// After so long, the next answer is the last one. Between two answers no connection is ended for its age.
    pub life: Duration,
    /// What a request under way is given when the server stops.
    pub last_words: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            stalled: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            program_idle: Duration::from_secs(75),
            late: Duration::from_secs(15),
            life: Duration::from_hours(1),
            last_words: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// How long the connection of a program may be idle which is to call again after `silence` at the latest.
    pub(super) fn idle_of_program(&self, silence: Duration) -> Duration {
        silence.saturating_add(self.late).max(self.program_idle)
    }

    /// What a program is told of that: so much less that one which keeps to it never meets the end of the
    /// connection.
    pub(super) fn told(idle: Duration) -> u64 {
        let secs = idle.as_secs();
        secs.saturating_sub(5).max(secs / 2)
    }

    /// A whole life, a little shorter by chance: connections that began together do not end together.
    pub(super) fn some_life(&self) -> Duration {
        self.life.mul_f64(rand::random_range(0.9..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_longer_than_the_server_asks_it_to_wait_and_is_told_a_little_less() {
        let limits = Limits::default();
        for (timeout_s, idle_s, told_s) in [
            (2, 75, 70),
            (60, 75, 70),
            (61, 76, 71),
            (600, 615, 610),
            (86_400, 86_415, 86_410),
        ] {
            let idle = limits.idle_of_program(Duration::from_secs(timeout_s));
            assert_eq!((idle.as_secs(), Limits::told(idle)), (idle_s, told_s));
            assert!(
                Limits::told(idle) > timeout_s,
                "it never hears that it has less than it must wait"
            );
        }
        for _ in 0..1000 {
            let life = limits.some_life().as_secs();
            assert!((3240..=3600).contains(&life), "{life}");
        }
    }
}
