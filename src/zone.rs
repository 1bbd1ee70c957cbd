//! Time zones: what clocks somewhere show at a moment, and when their days begin. No other module computes with zones.

use jiff::civil::Date;
use jiff::tz::{self, TimeZone};
use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset};

use crate::clock::UnixMs;

/// The zone of a shop that has not set one.
const SHIPPED: &str = "Europe/Berlin";
/// The first parts of the names that are offered for a choice, such as `Europe/Berlin`. The database also has old names,
/// such as `CET` and `US/Pacific`, which are understood.
const AREAS: [&str; 10] = [
    "Africa",
    "America",
    "Antarctica",
    "Arctic",
    "Asia",
    "Atlantic",
    "Australia",
    "Europe",
    "Indian",
    "Pacific",
];

/// A time zone of the IANA database, which is part of this program. UTC by default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

/// A day somewhere: 24 hours, or 23 or 25 when clocks change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Its first moment.
    pub start: UnixMs,
    /// The first moment of the next one.
    pub end: UnixMs,
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// The zone with this name, such as `Europe/Berlin` or `UTC`, in any case; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        let zone = TimeZone::get(name).ok().map(Self);
        zone.filter(|zone| zone.0.iana_name().is_some())
    }

    /// The zone of a shop that has not set one.
    pub fn shipped() -> Self {
        Self::named(SHIPPED).unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The names to choose from, in alphabetical order; UTC is the last one.
    pub fn names() -> Vec<String> {
        let all = tz::db().available().map(|name| name.as_str().to_owned());
        let is_offered = |name: &String| {
            let area = name.split_once('/').map(|(area, _)| area);
            area.is_some_and(|area| AREAS.contains(&area))
        };
        let mut names: Vec<String> = all.filter(is_offered).collect();
        names.sort_unstable();
        names.push("UTC".to_owned());
        names
    }

    /// The date and time that clocks in this zone show.
    pub fn local(&self, at: UnixMs) -> OffsetDateTime {
        let offset = self.0.to_offset(timestamp(at)).seconds();
        let offset = UtcOffset::from_whole_seconds(offset).unwrap_or(UtcOffset::UTC);
        let utc = OffsetDateTime::from_unix_timestamp(timestamp(at).as_second());
        let utc = utc.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        utc.checked_to_offset(offset).unwrap_or(utc)
    }

    /// The date of `at`, as in date fields: `2026-11-22`.
    pub fn date(&self, at: UnixMs) -> String {
        self.civil(at).to_string()
    }

    /// The day of `at` as a number: that of its date, counted from 1970-01-01.
    pub fn day_number(&self, at: UnixMs) -> i64 {
        let since = self
            .civil(at)
            .since((Unit::Day, Date::constant(1970, 1, 1)));
        since.map_or(0, |since| i64::from(since.get_days()))
    }

    /// The day of `at`.
    pub fn day(&self, at: UnixMs) -> Day {
        self.day_of(self.civil(at))
    }

    /// The day of a date like `2026-11-22`; `None` if `text` is no date.
    pub fn parse_day(&self, text: &str) -> Option<Day> {
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10);
        date.map(|date| self.day_of(date))
    }

    /// The last `count` days until that of `now`, the latest first.
    pub fn last_days(&self, now: UnixMs, count: u32) -> Vec<Day> {
        let mut date = self.civil(now);
        let mut days = Vec::new();
        for _ in 0..count {
            days.push(self.day_of(date));
            date = date.yesterday().unwrap_or(date);
        }
        days
    }

    fn civil(&self, at: UnixMs) -> Date {
        self.0.to_datetime(timestamp(at)).date()
    }

    fn day_of(&self, date: Date) -> Day {
        let next = date.tomorrow().ok();
        Day {
            start: self.start_of(date),
            end: next.map_or(UnixMs(i64::MAX), |next| self.start_of(next)),
        }
    }

    /// Where clocks skip midnight, the day begins when they have skipped it. Years that cannot be computed with begin at the
    /// ends of time.
    fn start_of(&self, date: Date) -> UnixMs {
        match date.to_zoned_datetime(self.0.clone()) {
            Ok(start) => UnixMs(start.timestamp().as_millisecond()),
            Err(_) if date.year() < 0 => UnixMs(i64::MIN),
            Err(_) => UnixMs(i64::MAX),
        }
    }
}

/// As near as `at` is to the years that can be computed with.
fn timestamp(at: UnixMs) -> Timestamp {
    let end = if at.0 < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_millisecond(at.0).unwrap_or(end)
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| unknown(&name))
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

/// What is wrong with a name that no zone has, and what is right.
fn unknown(name: &str) -> String {
    let city = name.rsplit('/').next().unwrap_or_default();
    let city = city.trim().replace(' ', "_");
    let is_city = |known: &&String| {
        let known = known.rsplit('/').next().unwrap_or_default();
        known.eq_ignore_ascii_case(&city)
    };
    match Zone::names().iter().find(is_city) {
        Some(meant) => format!("there is no time zone {name:?}; did you mean {meant:?}?"),
        None => format!(
            "there is no time zone {name:?}; names are those of the IANA database, such as \"Europe/Berlin\", \
             \"America/New_York\" or \"UTC\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn zone(name: &str) -> Zone {
        Zone::named(name).unwrap()
    }

    fn at(text: &str) -> UnixMs {
        UnixMs::parse(text).unwrap()
    }

    #[test]
    fn days_begin_at_midnight_of_the_zone_and_have_23_or_25_hours_when_clocks_change() {
        for (name, date, start, hours) in [
            ("Europe/Berlin", "2026-11-22", "2026-11-21T23:00:00Z", 24),
            ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", 23),
            ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", 25),
            ("America/New_York", "2026-03-08", "2026-03-08T05:00:00Z", 23),
            (
                "Pacific/Kiritimati",
                "2026-11-22",
                "2026-11-21T10:00:00Z",
                24,
            ),
            (
                "Pacific/Pago_Pago",
                "2026-11-22",
                "2026-11-22T11:00:00Z",
                24,
            ),
            ("Asia/Kathmandu", "2026-11-22", "2026-11-21T18:15:00Z", 24),
            // Clocks go from 00:00 to 01:00.
            ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z", 23),
            // And from 01:00 back to 00:00: the first of the two is the beginning.
            ("America/Havana", "2024-11-03", "2024-11-03T04:00:00Z", 25),
            ("UTC", "2026-11-22", "2026-11-22T00:00:00Z", 24),
        ] {
            let zone = zone(name);
            let day = zone.parse_day(date).unwrap();
            assert_eq!(day.start, at(start), "{name} {date}");
            assert_eq!(day.end.0 - day.start.0, hours * HOUR_MS, "{name} {date}");
            for moment in [day.start, UnixMs(day.end.0 - 1)] {
                assert_eq!(
                    (zone.date(moment).as_str(), zone.day(moment)),
                    (date, day),
                    "{name}"
                );
            }
            let before = UnixMs(day.start.0 - 1);
            assert_eq!(
                zone.day_number(before),
                zone.day_number(day.start) - 1,
                "{name}"
            );
            assert_eq!(
                zone.last_days(day.start, 2),
                [day, zone.day(before)],
                "{name}"
            );
        }
    }

    #[test]
    fn clocks_show_what_the_zone_says() {
        let now = at("2026-11-22T14:05:31Z");
        for (name, shown) in [
            ("Europe/Berlin", "2026-11-22 15:05:31.0 +01:00:00"),
            ("Asia/Kolkata", "2026-11-22 19:35:31.0 +05:30:00"),
            ("Pacific/Kiritimati", "2026-11-23 4:05:31.0 +14:00:00"),
            ("UTC", "2026-11-22 14:05:31.0 +00:00:00"),
        ] {
            assert_eq!(zone(name).local(now).to_string(), shown, "{name}");
        }
        let summer = at("2026-07-01T22:30:00Z");
        assert_eq!(zone("Europe/Berlin").date(summer), "2026-07-02");
    }

    #[test]
    fn moments_at_the_end_of_time_are_no_error() {
        let zone = zone("Pacific/Kiritimati");
        for at in [UnixMs(i64::MAX), UnixMs(i64::MIN), UnixMs(0)] {
            let day = zone.day(at);
            assert!(day.start < day.end, "{at:?}");
            assert!(
                !zone.date(at).is_empty() && zone.local(at).year() != 1,
                "{at:?}"
            );
        }
        assert_eq!(zone.parse_day("9999-12-31").unwrap().end, UnixMs(i64::MAX));
    }

    #[test]
    fn what_is_no_date_is_no_day() {
        for text in [
            "2026-02-30",
            "22.11.2026",
            "2026-11-22T00:00:00",
            "+002026-11",
            "",
        ] {
            assert_eq!(zone("UTC").parse_day(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_understood_in_any_case_and_offered_without_old_ones() {
        assert_eq!(Zone::shipped().name(), "Europe/Berlin");
        assert_eq!(Zone::default().name(), "UTC");
        assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
        assert_eq!(zone("utc").name(), "UTC");
        let names = Zone::names();
        assert!(names.len() > 300, "{}", names.len());
        for name in &names {
            assert_eq!(zone(name).name(), name);
        }
        assert!(!names.iter().any(|name| name == "US/Pacific"));
        for name in [
            "",
            "Berlin",
            "Europe/Berln",
            "CET-1CEST",
            "../Europe/Berlin",
            "+01:00",
        ] {
            assert_eq!(Zone::named(name), None, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_what_is_right() {
        for (name, right) in [
            ("Berlin", "did you mean \"Europe/Berlin\"?"),
            ("America/new york", "did you mean \"America/New_York\"?"),
            ("Europe/Berln", "such as \"Europe/Berlin\""),
            ("", "such as \"Europe/Berlin\""),
        ] {
            let message = Zone::try_from(name.to_owned()).unwrap_err();
            assert!(message.contains(right), "{message}");
        }
    }
}
