//! Whether time synchronization confirms the system clock.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{SLEW, UnixMs, since_boot, turns};

/// The file that systemd-timesyncd touches when it has set the clock, and how old that may be: it synchronizes at
/// least every 34 minutes.
const SYNCHRONIZED_FILE: &str = "/run/systemd/timesync/synchronized";
const SYNCHRONIZED_MAX_AGE: Duration = Duration::from_mins(70);
/// Has systemd ask the kernel (`adjtimex`), which knows it from whatever keeps the clock: chrony, ntpd, timesyncd.
/// To ask the kernel here would need unsafe code.
const QUESTION: [&str; 4] = [
    "timedatectl",
    "show",
    "--property=NTPSynchronized",
    "--value",
];
/// Between two questions of a process that waits for its clock to be confirmed.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer is valid: the clock may be changed after the question.
const ANSWER_MAX_AGE: Duration = Duration::from_secs(10);

/// What time synchronization says, asked at most once in [`INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct Synchronization {
    question: Mutex<Question>,
}

#[derive(Debug, Default)]
struct Question {
    /// When it was asked last, as time since the boot.
    asked_at: Option<Duration>,
    /// Where its answer arrives.
    answer: Option<Receiver<bool>>,
}

impl Synchronization {
    /// Whether it confirms the system clock, which says `now`. Waits at most `patience` for an answer; one that
    /// arrives later is for the next call.
    pub(super) fn confirms(&self, now: UnixMs, patience: Duration) -> bool {
        is_file_fresh(now) || self.kernel_confirms(patience)
    }

    fn kernel_confirms(&self, patience: Duration) -> bool {
        let mut question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        let age = question
            .asked_at
            .map(|asked| since_boot().saturating_sub(asked));
        if question.answer.is_none() && age.is_none_or(|age| age >= INTERVAL) {
            *question = Question {
                asked_at: Some(since_boot()),
                answer: Some(ask(&QUESTION)),
            };
        }
        let Some(answer) = question.answer.take() else {
            return false;
        };
        let mut received = Err(RecvTimeoutError::Timeout);
        for turn in turns(patience) {
            received = answer.recv_timeout(turn);
            if received != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        match received {
            Ok(confirmed) => confirmed && question.is_fresh(),
            Err(RecvTimeoutError::Timeout) => {
                question.answer = Some(answer);
                false
            }
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

impl Question {
    fn is_fresh(&self) -> bool {
        self.asked_at
            .is_some_and(|asked| since_boot().saturating_sub(asked) <= ANSWER_MAX_AGE)
    }
}

/// Whether systemd-timesyncd has set the clock lately. A file from the future, or an old one, confirms nothing: it
/// may be from another clock, or from before the clock was changed.
fn is_file_fresh(now: UnixMs) -> bool {
    rustix::fs::stat(SYNCHRONIZED_FILE).is_ok_and(|stat| {
        let at = UnixMs(stat.st_mtime.saturating_mul(1000));
        now <= at.plus(SYNCHRONIZED_MAX_AGE) && at <= now.plus(SLEW)
    })
}

/// Runs a program that prints `yes` or `no`, in a thread, since it may take long. Without an answer nothing is
/// confirmed: the program may be missing, as in most containers.
fn ask(question: &'static [&'static str]) -> Receiver<bool> {
    let (send, answer) = sync_channel(1);
    let thread = std::thread::Builder::new().name("synchronization".to_owned());
    let asked = thread.spawn(move || {
        // The caller may be gone.
        send.send(is_yes(question)).unwrap_or_default();
    });
    if let Err(error) = asked {
        log::debug!("the kernel is not asked whether the clock is synchronized: {error}");
    }
    answer
}

fn is_yes(question: &[&str]) -> bool {
    let Some((program, arguments)) = question.split_first() else {
        return false;
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) => output.status.success() && output.stdout.trim_ascii() == b"yes",
        Err(error) => {
            log::debug!("{program} cannot be run: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_prints_yes_and_succeeds_confirms_the_clock() {
        assert!(is_yes(&["echo", "yes"]));
        assert!(!is_yes(&["echo", "no"]));
        assert!(!is_yes(&["sh", "-c", "echo yes; exit 1"]));
        assert!(!is_yes(&["a-program-that-does-not-exist"]));
    }

    #[test]
    fn an_answer_that_arrives_late_is_for_the_next_call_and_valid_for_a_moment() {
        let asked = |age: Duration| {
            let (send, answer) = sync_channel(1);
            let asked = Synchronization {
                question: Mutex::new(Question {
                    asked_at: Some(since_boot().saturating_sub(age)),
                    answer: Some(answer),
                }),
            };
            (send, asked)
        };
        let (send, fresh) = asked(Duration::ZERO);
        assert!(!fresh.kernel_confirms(Duration::ZERO), "no answer yet");
        send.send(true).unwrap();
        assert!(fresh.kernel_confirms(Duration::ZERO));
        assert!(!fresh.kernel_confirms(Duration::ZERO), "used once");
        let (send, old) = asked(ANSWER_MAX_AGE + Duration::from_secs(1));
        send.send(true).unwrap();
        assert!(!old.kernel_confirms(Duration::ZERO), "too old");
    }
}
