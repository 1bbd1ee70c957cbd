//! The log lines about writes that fail.

use super::disk::LOG_INTERVAL;
use crate::clock::Tick;

/// The target of these lines in the JSON log.
const TARGET: &str = "license_server::db::writer";

/// Logs that writes fail, and that they work again. The log may be on the same full disk, so failures are logged
/// at most once a minute, however often they begin and end.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    /// Whether the last log line said that writes fail.
    failing: bool,
    at: Option<Tick>,
    /// How often writes began to fail without a log line.
    unlogged: u32,
    was_failing: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum LogLine {
    /// Writes fail; they began to fail this many times before without a log line.
    Failing(u32),
    Recovered,
}

impl FailureLog {
    /// The log line that is due after a write has failed or succeeded, if any.
    fn note(&mut self, fails: bool, now: Tick) -> Option<LogLine> {
        let began = fails && !self.was_failing;
        self.was_failing = fails;
        if fails == self.failing {
            return None;
        }
        if !fails {
            self.failing = false;
            return Some(LogLine::Recovered);
        }
        if self.at.is_some_and(|at| now.since(at) < LOG_INTERVAL) {
            self.unlogged += u32::from(began);
            return None;
        }
        self.failing = true;
        self.at = Some(now);
        Some(LogLine::Failing(std::mem::take(&mut self.unlogged)))
    }

    /// Logs, if it is time to, that a write failed for this reason or succeeded.
    pub(super) fn report(&mut self, failure: Option<&str>, now: Tick) {
        match (self.note(failure.is_some(), now), failure) {
            (Some(LogLine::Failing(unlogged)), Some(reason)) => {
                let before = match unlogged {
                    0 => String::new(),
                    1 => " (and once more in the last minute)".to_owned(),
                    times => format!(" (and {times} times more in the last minute)"),
                };
                log::warn!(target: TARGET, "writes are refused until this is fixed: {reason}{before}");
            }
            (Some(LogLine::Recovered), _) => {
                log::info!(target: TARGET, "writes are accepted again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn failing_writes_are_logged_at_most_once_a_minute() {
        let mut failure_log = FailureLog::default();
        let at = |ms: u64| Tick(Duration::from_millis(ms));
        assert_eq!(failure_log.note(false, at(0)), None);
        assert_eq!(failure_log.note(true, at(1)), Some(LogLine::Failing(0)));
        assert_eq!(failure_log.note(true, at(2)), None);
        assert_eq!(failure_log.note(false, at(3)), Some(LogLine::Recovered));
        let lines: Vec<LogLine> = (4..60_000)
            .filter_map(|ms| failure_log.note(ms % 2 == 0, at(ms)))
            .collect();
        assert_eq!(lines, [], "changes within a minute are not logged");
        assert_eq!(
            failure_log.note(true, at(60_001)),
            Some(LogLine::Failing(29_998))
        );
        assert_eq!(
            failure_log.note(false, at(60_002)),
            Some(LogLine::Recovered)
        );
        assert_eq!(failure_log.note(false, at(400_000)), None);
        assert_eq!(
            failure_log.note(true, at(400_001)),
            Some(LogLine::Failing(0))
        );
    }
}
