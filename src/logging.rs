//! The log: one line a message on standard error. What lives here is how a line looks, which lines are
//! written, and what keeps others from filling the disk with them.

use std::collections::HashMap;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, Value};

use crate::clock::{Clock, SystemClock, Tick};
use crate::config::{Log as Config, LogFormat, LogLevel};
use crate::error::{Doing, Result};

/// Our own lines; those of other crates are told apart by their target.
const OURS: &str = "license_server";
/// Ends the target of what Rocket's macros say inside our modules (rocket 0.5.2, `define_log_macro!`).
const FRAMEWORK: &str = "::_";
/// Crates whose lines repeat what a caller sent, or say what any stranger does to a connection.
const TALKATIVE: &[&str] = &["rocket", "hyper", "rustls"];
/// Lines from one place in the code within a minute: whatever others cause over and over, the log has an end.
const LINES_A_MINUTE: u32 = 120;
const MINUTE: Duration = Duration::from_mins(1);

/// Writes messages to standard error from now on.
///
/// # Errors
/// When another logger was there first.
pub fn start(settings: &Config) -> Result<()> {
    let logger = Logger {
        format: settings.format,
        clock: SystemClock::default(),
        places: Mutex::default(),
    };
    log::set_boxed_logger(Box::new(logger)).doing("start the log")?;
    set_level(settings.level);
    std::panic::set_hook(Box::new(note_panic));
    Ok(())
}

/// How much is told from now on.
pub fn set_level(level: LogLevel) {
    log::set_max_level(level.into());
}

/// A panic is one line like any other; Rust's own words would be several, in no format.
fn note_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let told = panic.payload_as_str().unwrap_or("no message");
    let place = place.unwrap_or_default();
    log::error!("panicked at {place}: {told}; please report this as a bug");
}

struct Logger {
    format: LogFormat,
    clock: SystemClock,
    /// Lines of each place in the code.
    places: Mutex<HashMap<(&'static str, u32), Count>>,
}

/// Lines of one place within a minute.
#[derive(Clone, Copy, Debug)]
struct Count {
    since: Tick,
    lines: u32,
}

impl Count {
    /// Whether one more line may be written; and how many were left out in the minute that is over.
    fn one_more(&mut self, now: Tick) -> (bool, u32) {
        let mut left_out = 0;
        if now.since(self.since) >= MINUTE {
            left_out = self.lines.saturating_sub(LINES_A_MINUTE);
            *self = Self {
                since: now,
                lines: 0,
            };
        }
        self.lines = self.lines.saturating_add(1);
        (self.lines <= LINES_A_MINUTE, left_out)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        wanted(metadata.target(), metadata.level(), log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let target = record.target();
        if let Some(module) = target.strip_suffix(FRAMEWORK) {
            let said = record.args().to_string();
            if let Some(text) = without_values(&said) {
                self.write(Level::Debug, module, text);
            }
            return;
        }
        let (may, left_out) = self.one_more(record);
        if left_out > 0 {
            let place = format!(
                "{}:{}",
                record.file().unwrap_or_default(),
                record.line().unwrap_or(0)
            );
            let text = format!(
                "lines like the next one that were left out within a minute: {left_out} ({place})"
            );
            self.write(record.level(), target, &text);
        }
        if may {
            self.write(record.level(), target, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn one_more(&self, record: &Record<'_>) -> (bool, u32) {
        // Who asks for these wants all of them.
        let place = record.file_static().zip(record.line());
        let Some(place) = place.filter(|_| record.level() <= Level::Info) else {
            return (true, 0);
        };
        let now = self.clock.tick();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Count {
            since: now,
            lines: 0,
        };
        places.entry(place).or_insert(fresh).one_more(now)
    }

    /// Writes a line; that nobody reads it is no error.
    fn write(&self, level: Level, target: &str, text: &str) {
        let line = match self.format {
            LogFormat::Json => json_line(level, target, text, &Value::Null),
            LogFormat::Text => text_line(level, text),
        };
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    }
}

/// Whether a line is written at all.
fn wanted(target: &str, level: Level, most: LevelFilter) -> bool {
    let ours = target == OURS
        || target
            .strip_prefix(OURS)
            .is_some_and(|rest| rest.starts_with("::"));
    if ours && !target.ends_with(FRAMEWORK) {
        return level <= most;
    }
    if ours {
        return most >= LevelFilter::Debug;
    }
    // Addresses of requests with everything that stands in them: for no log at all.
    let talkative = TALKATIVE.iter().any(|name| target.starts_with(name));
    let least = if most >= LevelFilter::Debug {
        Level::Warn
    } else {
        Level::Error
    };
    !talkative && level <= least && level <= most
}

/// What Rocket's macros say, up to the value that a caller sent; `None` if it is nothing but that value.
fn without_values(said: &str) -> Option<&str> {
    ["is forwarding", "failed"].iter().find_map(|word| {
        let end = said.find(word)? + word.len();
        said.get(..end)
    })
}

fn now() -> String {
    SystemClock::default().wall().rfc3339()
}

fn text_line(level: Level, text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("{} {level:5} {text}\n", now())
}

/// One line with the members of `more` at its end.
fn json_line(level: Level, target: &str, text: &str, more: &Value) -> String {
    let mut line = Map::new();
    line.insert("time".to_owned(), now().into());
    line.insert("level".to_owned(), level.as_str().into());
    line.insert("target".to_owned(), target.into());
    line.insert("message".to_owned(), text.into());
    let more = more.as_object().into_iter().flatten();
    line.extend(more.map(|(name, value)| (name.clone(), value.clone())));
    format!("{}\n", Value::Object(line))
}

/// A line of the log in JSON with the members of `more`, for standard output.
pub fn start_line(text: &str, more: &Value) -> String {
    json_line(Level::Info, "license_server::server", text, more)
}

/// Lets one line through in a span of time, and counts the others: for what strangers cause.
#[derive(Debug)]
pub struct RateLimitedLine {
    span: Duration,
    clock: SystemClock,
    state: Mutex<(Option<Tick>, u64)>,
}

impl RateLimitedLine {
    /// One line each `span`.
    pub fn each(span: Duration) -> Self {
        Self {
            span,
            clock: SystemClock::default(),
            state: Mutex::new((None, 0)),
        }
    }

    /// `None` while it is too early for another line; otherwise what to put at its end, which says how many
    /// were left out since the last one.
    pub fn due(&self) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = *state;
        let now = self.clock.tick();
        if last.is_some_and(|last| now.since(last) < self.span) {
            state.1 = left_out.saturating_add(1);
            return None;
        }
        *state = (Some(now), 0);
        Some(match left_out {
            0 => String::new(),
            more => format!(" (and {more} more since the last such line)"),
        })
    }
}

/// `1 session`, `2 sessions`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    let word = if count == 1 { one } else { many };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framework_speaks_at_debug_only_and_what_repeats_a_request_never_does() {
        use Level::{Debug, Error, Info, Trace, Warn};
        for (target, level, quiet, loud) in [
            ("license_server", Info, true, true),
            ("license_server::admins::panel", Info, true, true),
            ("license_server::web::client", Debug, false, true),
            ("license_server::admins::panel::_", Error, false, true),
            ("license_server::monitor::_", Warn, false, true),
            ("license_servers", Warn, false, true),
            ("r2d2", Error, true, true),
            ("r2d2", Warn, false, true),
            ("r2d2", Info, false, false),
            ("rocket::server", Error, false, false),
            ("rocket", Error, false, false),
            ("rustls::conn", Warn, false, false),
            ("license_server::db", Trace, false, false),
        ] {
            let at = |most| wanted(target, level, most);
            assert_eq!(at(LevelFilter::Info), quiet, "{target} {level}");
            assert_eq!(at(LevelFilter::Debug), loud, "{target} {level}");
            assert!(!at(LevelFilter::Off), "{target} {level}");
        }
        assert!(!wanted("r2d2", Warn, LevelFilter::Error));
    }

    #[test]
    fn the_framework_says_which_guard_refused_and_not_what_was_sent() {
        for (said, left) in [
            (
                "Request guard `Watcher` is forwarding.",
                Some("Request guard `Watcher` is forwarding"),
            ),
            (
                "Parameter guard `id: i64` is forwarding: \"KEY\".",
                Some("Parameter guard `id: i64` is forwarding"),
            ),
            (
                "Data guard `Form` failed: ().",
                Some("Data guard `Form` failed"),
            ),
            ("invalid value: \"KEY\"", None),
        ] {
            assert_eq!(without_values(said), left, "{said}");
        }
    }

    #[test]
    fn one_place_in_the_code_writes_so_many_lines_a_minute_and_says_how_many_it_left_out() {
        let begin = Tick::START;
        let mut count = Count {
            since: begin,
            lines: 0,
        };
        for _ in 0..LINES_A_MINUTE {
            assert_eq!(count.one_more(begin), (true, 0));
        }
        for _ in 0..5 {
            assert_eq!(count.one_more(begin), (false, 0));
        }
        assert_eq!(count.one_more(Tick(MINUTE)), (true, 5));
        assert_eq!(count.one_more(Tick(MINUTE)), (true, 0));
        assert_eq!(count.one_more(Tick(MINUTE * 3)), (true, 0));
    }

    #[test]
    fn what_strangers_cause_is_told_once_in_a_while_with_a_count() {
        let seldom = RateLimitedLine::each(Duration::from_hours(1));
        assert_eq!(seldom.due().as_deref(), Some(""));
        assert_eq!(seldom.due(), None);
        let always = RateLimitedLine::each(Duration::ZERO);
        assert_eq!(always.due().as_deref(), Some(""));
        always.state.lock().unwrap().1 = 3;
        assert_eq!(
            always.due().as_deref(),
            Some(" (and 3 more since the last such line)")
        );
    }

    #[test]
    fn one_thing_is_no_things() {
        let told = [0, 1, 2].map(|count| counted(count, "session", "sessions"));
        assert_eq!(told, ["0 sessions", "1 session", "2 sessions"]);
    }
}
