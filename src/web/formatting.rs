//! Formats times and numbers for pages, in the language of the page.

use std::collections::HashMap;

use serde_json::Value;
use tera::Tera;

use crate::clock::UnixMs;
use crate::config::Language;
use crate::i18n::{day, moment, moment_in_utc};
use crate::zone::Zone;

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 60 * MINUTE_S;
const DAY_S: i64 = 24 * HOUR_S;
/// From this distance on, `ago` prints a date instead of a number of days.
const LONG_AGO_S: i64 = 45 * DAY_S;

/// Registers the filters `date`, `day`, `moment`, `ago`, `hour` and `short_date` (for charts), `number` and `bytes`. Times are
/// Unix milliseconds. All but `date` need `zone=`, the name of the time zone; `ago` needs `now=`, too.
pub(super) fn register(tera: &mut Tera, language: Language) {
    for (name, style) in [
        ("date", TimeStyle::Date),
        ("day", TimeStyle::Day),
        ("moment", TimeStyle::DateAndTime),
        ("ago", TimeStyle::Ago),
        ("hour", TimeStyle::Hour),
        ("short_date", TimeStyle::ShortDate),
    ] {
        tera.register_filter(name, TimeFilter { language, style });
    }
    let number = |value: &Value| {
        value
            .as_i64()
            .ok_or_else(|| tera::Error::msg("not a number"))
    };
    tera.register_filter(
        "number",
        move |value: &Value, _: &HashMap<String, Value>| {
            Ok(grouped(number(value)?, language).into())
        },
    );
    tera.register_filter("bytes", move |value: &Value, _: &HashMap<String, Value>| {
        let kib = number(value)?.div_euclid(1024).max(1);
        Ok(format!("{} KiB", grouped(kib, language)).into())
    });
}

#[derive(Clone, Copy)]
enum TimeStyle {
    /// A date on which a license begins or ends, which is the same in every zone.
    Date,
    /// The day of a moment.
    Day,
    DateAndTime,
    /// Relative to the argument `now`.
    Ago,
    /// The time of day alone, as plain text.
    Hour,
    /// Day and month, as plain text.
    ShortDate,
}

/// A filter that writes a time as a `<time>` element. A moment has UTC in its title. Writes a dash for null.
struct TimeFilter {
    language: Language,
    style: TimeStyle,
}

impl tera::Filter for TimeFilter {
    fn filter(&self, value: &Value, args: &HashMap<String, Value>) -> tera::Result<Value> {
        if value.is_null() {
            return Ok("–".into());
        }
        let at = value.as_i64().map(UnixMs);
        let at = at.ok_or_else(|| tera::Error::msg("not a time"))?;
        let utc = Zone::default();
        if matches!(self.style, TimeStyle::Date) {
            let (date, text) = (at.day(), day(at, &utc, self.language));
            return Ok(format!("<time datetime=\"{date}\">{text}</time>").into());
        }
        let zone = args.get("zone").and_then(Value::as_str).map(Zone::named);
        let zone = zone
            .flatten()
            .ok_or_else(|| tera::Error::msg("needs zone="))?;
        match self.style {
            TimeStyle::Hour => return Ok(hour(at, &zone, self.language).into()),
            TimeStyle::ShortDate => return Ok(short_date(at, &zone, self.language).into()),
            _ => {}
        }
        let (text, title) = self.text_and_title(at, &zone, args)?;
        let datetime = at.rfc3339();
        Ok(format!("<time datetime=\"{datetime}\" title=\"{title}\">{text}</time>").into())
    }

    fn is_safe(&self) -> bool {
        true
    }
}

/// The time of day, of [`moment`]: `14:05`.
fn hour(at: UnixMs, zone: &Zone, language: Language) -> String {
    let moment = moment(at, zone, language);
    moment.split(", ").nth(1).unwrap_or_default().to_owned()
}

/// Day and month, of [`day`]: `25.11.`, `25 Nov`.
fn short_date(at: UnixMs, zone: &Zone, language: Language) -> String {
    let day = day(at, zone, language);
    day.trim_end_matches(|c: char| c.is_ascii_digit())
        .trim_end()
        .to_owned()
}

impl TimeFilter {
    fn text_and_title(
        &self,
        at: UnixMs,
        zone: &Zone,
        args: &HashMap<String, Value>,
    ) -> tera::Result<(String, String)> {
        let (said, utc) = (moment(at, zone, self.language), moment_in_utc(at));
        Ok(match self.style {
            TimeStyle::DateAndTime => (said, utc),
            TimeStyle::Ago => {
                let now = args.get("now").and_then(Value::as_i64).map(UnixMs);
                let now = now.ok_or_else(|| tera::Error::msg("`ago` needs now="))?;
                let ago = ago(at, now, self.language);
                let ago = ago.unwrap_or_else(|| day(at, zone, self.language));
                (ago, format!("{said} · {utc}"))
            }
            _ => (day(at, zone, self.language), utc),
        })
    }
}

/// The distance from `now`: `vor 3 Min.`, `in 6 Tagen`; `None` if that is 45 days or more.
fn ago(at: UnixMs, now: UnixMs, language: Language) -> Option<String> {
    let elapsed = now.0.saturating_sub(at.0).div_euclid(1000);
    let span = elapsed.abs();
    if span >= LONG_AGO_S {
        return None;
    }
    if span < 10 {
        let now = match language {
            Language::De => "gerade eben",
            Language::En => "just now",
        };
        return Some(now.to_owned());
    }
    let (count, one, other) = match (language, span) {
        (Language::De, s) if s < MINUTE_S => (s, "Sek.", "Sek."),
        (Language::En, s) if s < MINUTE_S => (s, "s", "s"),
        (Language::De, s) if s < HOUR_S => (s / MINUTE_S, "Min.", "Min."),
        (Language::En, s) if s < HOUR_S => (s / MINUTE_S, "min", "min"),
        (Language::De, s) if s < DAY_S => (s / HOUR_S, "Std.", "Std."),
        (Language::En, s) if s < DAY_S => (s / HOUR_S, "h", "h"),
        (Language::De, s) => (s / DAY_S, "Tag", "Tagen"),
        (Language::En, s) => (s / DAY_S, "day", "days"),
    };
    let unit = if count == 1 { one } else { other };
    Some(match (language, elapsed > 0) {
        (Language::De, true) => format!("vor {count} {unit}"),
        (Language::En, true) => format!("{count} {unit} ago"),
        (_, false) => format!("in {count} {unit}"),
    })
}

/// `number` with a separator at every thousand: `1.234.567`, `1,234,567`.
pub fn grouped(number: i64, language: Language) -> String {
    let separator = match language {
        Language::De => '.',
        Language::En => ',',
    };
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    if number < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_356_331_000); // 2026-11-22T14:05:31Z

    #[test]
    fn durations_are_written_in_one_unit() {
        for (seconds, german, english) in [
            (0, "gerade eben", "just now"),
            (59, "vor 59 Sek.", "59 s ago"),
            (120, "vor 2 Min.", "2 min ago"),
            (7200, "vor 2 Std.", "2 h ago"),
            (86_400, "vor 1 Tag", "1 day ago"),
            (6 * 86_400, "vor 6 Tagen", "6 days ago"),
            (-6 * 86_400, "in 6 Tagen", "in 6 days"),
        ] {
            let at = UnixMs(NOW.0 - seconds * 1000);
            assert_eq!(ago(at, NOW, Language::De).as_deref(), Some(german));
            assert_eq!(ago(at, NOW, Language::En).as_deref(), Some(english));
        }
    }

    #[test]
    fn times_are_those_of_the_zone_and_have_utc_in_their_title() {
        let zone = "America/New_York";
        for (style, at, written) in [
            (
                TimeStyle::DateAndTime,
                NOW,
                "<time datetime=\"2026-11-22T14:05:31Z\" title=\"2026-11-22 14:05:31 UTC\">22 Nov 2026, 09:05</time>",
            ),
            (
                TimeStyle::Day,
                UnixMs(NOW.0 - 10 * 3_600_000),
                "<time datetime=\"2026-11-22T04:05:31Z\" title=\"2026-11-22 04:05:31 UTC\">21 Nov 2026</time>",
            ),
            (
                TimeStyle::Ago,
                UnixMs(NOW.0 - 3_600_000),
                "<time datetime=\"2026-11-22T13:05:31Z\" title=\"22 Nov 2026, 08:05 · 2026-11-22 13:05:31 UTC\">1 h ago</time>",
            ),
            (
                TimeStyle::Ago,
                UnixMs(NOW.0 - 100 * 86_400_000),
                "<time datetime=\"2026-08-14T14:05:31Z\" title=\"14 Aug 2026, 10:05 · 2026-08-14 14:05:31 UTC\">14 Aug 2026</time>",
            ),
            (
                TimeStyle::Date,
                UnixMs(1_798_761_599_000),
                "<time datetime=\"2026-12-31\">31 Dec 2026</time>",
            ),
        ] {
            let filter = TimeFilter {
                language: Language::En,
                style,
            };
            let args = [("zone", Value::from(zone)), ("now", NOW.0.into())];
            let args = args.map(|(name, value)| (name.to_owned(), value)).into();
            let found = tera::Filter::filter(&filter, &at.0.into(), &args).unwrap();
            assert_eq!(found, written);
        }
    }

    #[test]
    fn labels_of_charts_are_short() {
        for (language, expected) in [(Language::De, "22.11."), (Language::En, "22 Nov")] {
            let zone = Zone::named("Asia/Tokyo").unwrap();
            assert_eq!(short_date(NOW, &Zone::default(), language), expected);
            assert_eq!(hour(NOW, &zone, language), "23:05");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.000"),
            (-1_234_567, "-1.234.567"),
        ] {
            assert_eq!(grouped(number, Language::De), text);
        }
    }
}
