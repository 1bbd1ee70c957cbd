//! Dates as people write them, in both languages, and the moments in the texts of refusals.

use serde_json::{Map, Value};
use time::macros::format_description;

use crate::clock::UnixMs;
use crate::config::Language;
use crate::zone::Zone;

const SECOND_MS: i64 = 1000;
const DAY_MS: i64 = 86_400_000;

/// Members of refusals that are moments (RFC 3339), and the millisecond of a UTC day for which the date alone says all:
/// something begins with its first second, or ends with its last.
const MOMENTS: &[(&str, i64)] = &[
    ("valid_from", 0),
    ("valid_until", DAY_MS - SECOND_MS),
    ("updates_until", DAY_MS - SECOND_MS),
];

/// `members` with their moments as sentences say them: `31.12.2026`, or `31.12.2026, 14:05 UTC` within a day.
pub(super) fn for_people(members: &Map<String, Value>, language: Language) -> Map<String, Value> {
    let mut members = members.clone();
    for (name, whole_day) in MOMENTS {
        let Some(value) = members.get_mut(*name) else {
            continue;
        };
        let at = value.as_str().and_then(|text| UnixMs::parse(text).ok());
        if let Some(at) = at {
            let is_whole_day = at.0.rem_euclid(DAY_MS) == *whole_day;
            let utc = Zone::default();
            let text = if is_whole_day {
                day(at, &utc, language)
            } else {
                format!("{} UTC", moment(at, &utc, language))
            };
            *value = Value::from(text);
        }
    }
    members
}

/// The date in `zone`: `25.11.2026`, `25 Nov 2026`.
pub fn day(at: UnixMs, zone: &Zone, language: Language) -> String {
    let local = zone.local(at);
    let written = match language {
        Language::De => local.format(format_description!("[day].[month].[year]")),
        Language::En => local.format(format_description!(
            "[day padding:none] [month repr:short] [year]"
        )),
    };
    written.unwrap_or_default()
}

/// The date and time in `zone`: `25.11.2026, 14:05`.
pub fn moment(at: UnixMs, zone: &Zone, language: Language) -> String {
    let local = zone.local(at);
    let time = local.format(format_description!("[hour]:[minute]"));
    let time = time.unwrap_or_default();
    format!("{}, {time}", day(at, zone, language))
}

/// The date and time in UTC to the second: `2026-11-25 14:05:31 UTC`.
pub fn moment_in_utc(at: UnixMs) -> String {
    let text = at.rfc3339();
    format!("{} UTC", text.trim_end_matches('Z').replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_356_331_000); // 2026-11-22T14:05:31Z

    #[test]
    fn dates_are_written_as_usual_in_the_language() {
        let zone = Zone::shipped();
        assert_eq!(day(NOW, &zone, Language::De), "22.11.2026");
        assert_eq!(day(NOW, &zone, Language::En), "22 Nov 2026");
        assert_eq!(moment(NOW, &zone, Language::De), "22.11.2026, 15:05");
        let far = Zone::named("Pacific/Kiritimati").unwrap();
        assert_eq!(moment(NOW, &far, Language::En), "23 Nov 2026, 04:05");
        assert_eq!(moment_in_utc(NOW), "2026-11-22 14:05:31 UTC");
    }

    #[test]
    fn a_moment_has_a_time_unless_the_date_alone_says_it() {
        for (name, moment, text) in [
            ("valid_until", "2026-12-31T23:59:59Z", "31.12.2026"),
            (
                "valid_until",
                "2026-12-31T00:00:00Z",
                "31.12.2026, 00:00 UTC",
            ),
            ("updates_until", "2026-12-31T23:59:59Z", "31.12.2026"),
            ("valid_from", "2026-12-01T00:00:00Z", "01.12.2026"),
            (
                "valid_from",
                "2026-12-01T23:59:59Z",
                "01.12.2026, 23:59 UTC",
            ),
            ("valid_until", "no date", "no date"),
            ("note", "2026-12-31T23:59:59Z", "2026-12-31T23:59:59Z"),
        ] {
            let members = Map::from_iter([(name.to_owned(), Value::from(moment))]);
            let members = for_people(&members, Language::De);
            assert_eq!(members[name], text, "{name} {moment}");
        }
    }
}
