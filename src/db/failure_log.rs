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

impl FailureLog {
    /// Notes that a write failed. If this is to be logged now, returns how often writes began to fail before without
    /// a log line.
    fn note_failure(&mut self, now: Tick) -> Option<u32> {
        let was_failing = std::mem::replace(&mut self.was_failing, true);
        if self.failing {
            return None;
        }
        if self.at.is_some_and(|at| now.since(at) < LOG_INTERVAL) {
            self.unlogged += u32::from(!was_failing);
            return None;
        }
        self.failing = true;
        self.at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }

    /// Notes that a write succeeded. Returns whether this is to be logged: whether the last line said that writes fail.
    fn note_success(&mut self) -> bool {
        self.was_failing = false;
        std::mem::take(&mut self.failing)
    }

    /// Logs, if it is time to, that a write failed for this reason or succeeded.
    pub(super) fn report(&mut self, failure: Option<&str>, now: Tick) {
        if let Some(reason) = failure {
            let Some(unlogged) = self.note_failure(now) else {
                return;
            };
            let before = match unlogged {
                0 => String::new(),
                1 => " (and once more in the last minute)".to_owned(),
                times => format!(" (and {times} times more in the last minute)"),
            };
            log::warn!(target: TARGET, "writes are refused until this is fixed: {reason}{before}");
        } else if self.note_success() {
            log::info!(target: TARGET, "writes are accepted again");
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
        assert!(!failure_log.note_success());
        assert_eq!(failure_log.note_failure(at(1)), Some(0));
        assert_eq!(failure_log.note_failure(at(2)), None);
        assert!(failure_log.note_success());
        for ms in (4..60_000).step_by(2) {
            let failure = failure_log.note_failure(at(ms));
            assert_eq!(failure, None, "changes within a minute are not logged");
            assert!(!failure_log.note_success());
        }
        assert_eq!(failure_log.note_failure(at(60_001)), Some(29_998));
        assert!(failure_log.note_success());
        assert!(!failure_log.note_success());
        assert_eq!(failure_log.note_failure(at(400_001)), Some(0));
    }
}
