//! The log: one line per message on standard error. This file holds the format of a line, the filter, and the rate
//! limit that keeps callers from filling the disk.

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

/// The target of our own messages; those of other crates have other targets.
const OWN_TARGET: &str = "license_server";
/// Suffix of the target of messages that Rocket's macros log from our modules (rocket 0.5.2, `define_log_macro!`).
const FRAMEWORK: &str = "::_";
/// Crates that are never logged, since their messages repeat what a caller sent, or can be caused by anybody who
/// connects.
const SILENCED: &[&str] = &["rocket", "hyper", "rustls"];
/// Most lines per minute from one location in the code, so that callers cannot grow the log without limit.
const LINES_A_MINUTE: u32 = 120;
const MINUTE: Duration = Duration::from_mins(1);

/// Installs the logger.
///
/// # Errors
/// If another logger is installed already.
pub fn start(settings: &Config) -> Result<()> {
    let logger = Logger {
        format: settings.format,
        clock: SystemClock::default(),
        locations: Mutex::default(),
    };
    log::set_boxed_logger(Box::new(logger)).doing("start the log")?;
    set_level(settings.level);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Sets the lowest severity that is logged.
pub fn set_level(level: LogLevel) {
    log::set_max_level(level.into());
}

/// Logs a panic as one line in the log's format; Rust's default message has several.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = location.unwrap_or_default();
    log::error!("panicked at {location}: {message}; please report this as a bug");
}

struct Logger {
    format: LogFormat,
    clock: SystemClock,
    /// Lines of each location in the code.
    locations: Mutex<HashMap<(&'static str, u32), Count>>,
}

/// Lines of one location within a minute.
#[derive(Clone, Copy, Debug)]
struct Count {
    since: Tick,
    lines: u32,
}

impl Count {
    /// Counts a line. Returns whether it may be written, and how many were omitted in the minute before.
    fn count_line(&mut self, now: Tick) -> (bool, u32) {
        let mut omitted = 0;
        if now.since(self.since) >= MINUTE {
            omitted = self.lines.saturating_sub(LINES_A_MINUTE);
            *self = Self {
                since: now,
                lines: 0,
            };
        }
        self.lines = self.lines.saturating_add(1);
        (self.lines <= LINES_A_MINUTE, omitted)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_enabled(metadata.target(), metadata.level(), log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let target = record.target();
        if let Some(module) = target.strip_suffix(FRAMEWORK) {
            let text = record.args().to_string();
            if let Some(text) = without_value(&text) {
                self.write(Level::Debug, module, text);
            }
            return;
        }
        let (allowed, omitted) = self.count_line(record);
        if omitted > 0 {
            let location = format!(
                "{}:{}",
                record.file().unwrap_or_default(),
                record.line().unwrap_or(0)
            );
            let text = format!(
                "lines like the next one that were omitted within a minute: {omitted} ({location})"
            );
            self.write(record.level(), target, &text);
        }
        if allowed {
            self.write(record.level(), target, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn count_line(&self, record: &Record<'_>) -> (bool, u32) {
        // Debug levels are not limited: an operator who sets them wants every line.
        let location = record.file_static().zip(record.line());
        let Some(location) = location.filter(|_| record.level() <= Level::Info) else {
            return (true, 0);
        };
        let now = self.clock.tick();
        let mut locations = self
            .locations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fresh = Count {
            since: now,
            lines: 0,
        };
        locations.entry(location).or_insert(fresh).count_line(now)
    }

    /// Writes a line, ignoring errors of standard error.
    fn write(&self, level: Level, target: &str, text: &str) {
        let line = match self.format {
            LogFormat::Json => json_line(level, target, text, &Value::Null),
            LogFormat::Text => text_line(level, text),
        };
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    }
}

/// Whether a message is logged at the level `max`.
fn is_enabled(target: &str, level: Level, max: LevelFilter) -> bool {
    let own = target == OWN_TARGET
        || target
            .strip_prefix(OWN_TARGET)
            .is_some_and(|rest| rest.starts_with("::"));
    if own && !target.ends_with(FRAMEWORK) {
        return level <= max;
    }
    if own {
        return max >= LevelFilter::Debug;
    }
    // These crates log request addresses with their contents, which must never reach the log.
    let silenced = SILENCED.iter().any(|name| target.starts_with(name));
    let least = if max >= LevelFilter::Debug {
        Level::Warn
    } else {
        Level::Error
    };
    !silenced && level <= least && level <= max
}

/// A message of Rocket's macros up to the value that a caller sent; `None` if it is only that value.
fn without_value(text: &str) -> Option<&str> {
    ["is forwarding", "failed"].iter().find_map(|word| {
        let end = text.find(word)? + word.len();
        text.get(..end)
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

/// One JSON line, with the members of `extra` appended.
fn json_line(level: Level, target: &str, text: &str, extra: &Value) -> String {
    let mut line = Map::new();
    line.insert("time".to_owned(), now().into());
    line.insert("level".to_owned(), level.as_str().into());
    line.insert("target".to_owned(), target.into());
    line.insert("message".to_owned(), text.into());
    let extra = extra.as_object().into_iter().flatten();
    line.extend(extra.map(|(name, value)| (name.clone(), value.clone())));
    format!("{}\n", Value::Object(line))
}

/// A JSON log line with the members of `extra`, for standard output.
pub fn start_line(text: &str, extra: &Value) -> String {
    json_line(Level::Info, "license_server::server", text, extra)
}

/// Rate limit for one kind of log line, which counts the omitted ones; for lines that any caller can cause.
#[derive(Debug)]
pub struct RateLimitedLine {
    span: Duration,
    clock: SystemClock,
    state: Mutex<(Option<Tick>, u64)>,
}

impl RateLimitedLine {
    /// At most one line per `span`.
    pub fn each(span: Duration) -> Self {
        Self {
            span,
            clock: SystemClock::default(),
            state: Mutex::new((None, 0)),
        }
    }

    /// `None` while it is too early for another line; otherwise a suffix for the line, which says how many were
    /// omitted since the last one.
    pub fn due(&self) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, omitted) = *state;
        let now = self.clock.tick();
        if last.is_some_and(|last| now.since(last) < self.span) {
            state.1 = omitted.saturating_add(1);
            return None;
        }
        *state = (Some(now), 0);
        Some(match omitted {
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
    fn the_framework_is_logged_at_debug_only_and_request_contents_never() {
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
            let at = |max| is_enabled(target, level, max);
            assert_eq!(at(LevelFilter::Info), quiet, "{target} {level}");
            assert_eq!(at(LevelFilter::Debug), loud, "{target} {level}");
            assert!(!at(LevelFilter::Off), "{target} {level}");
        }
        assert!(!is_enabled("r2d2", Warn, LevelFilter::Error));
    }

    #[test]
    fn a_framework_message_keeps_the_guard_and_drops_the_value() {
        for (text, expected) in [
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
            assert_eq!(without_value(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_of_one_location_are_limited_per_minute_and_the_omitted_ones_counted() {
        let begin = Tick::START;
        let mut count = Count {
            since: begin,
            lines: 0,
        };
        for _ in 0..LINES_A_MINUTE {
            assert_eq!(count.count_line(begin), (true, 0));
        }
        for _ in 0..5 {
            assert_eq!(count.count_line(begin), (false, 0));
        }
        assert_eq!(count.count_line(Tick(MINUTE)), (true, 5));
        assert_eq!(count.count_line(Tick(MINUTE)), (true, 0));
        assert_eq!(count.count_line(Tick(MINUTE * 3)), (true, 0));
    }

    #[test]
    fn a_rate_limited_line_is_due_once_per_span_with_a_count() {
        let hourly = RateLimitedLine::each(Duration::from_hours(1));
        assert_eq!(hourly.due().as_deref(), Some(""));
        assert_eq!(hourly.due(), None);
        let always = RateLimitedLine::each(Duration::ZERO);
        assert_eq!(always.due().as_deref(), Some(""));
        always.state.lock().unwrap().1 = 3;
        assert_eq!(
            always.due().as_deref(),
            Some(" (and 3 more since the last such line)")
        );
    }

    #[test]
    fn a_count_of_one_is_singular() {
        let texts = [0, 1, 2].map(|count| counted(count, "session", "sessions"));
        assert_eq!(texts, ["0 sessions", "1 session", "2 sessions"]);
    }
}
