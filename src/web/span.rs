//! The time span of a list: one of a few words, or days.

use std::time::Duration;

use super::query;
use crate::clock::UnixMs;
use crate::error::Result;
use crate::zone::Zone;

const DAY: Duration = Duration::from_hours(24);

/// A span until now: its word in the URL, and its days, `None` for everything.
pub type Choice = (&'static str, Option<u32>);

/// The query parameters about the span of a list.
#[derive(Clone, Copy, Debug)]
pub struct SpanParams<'r> {
    /// The spans that the list offers; the first one if none is chosen.
    pub choices: &'static [Choice],
    /// The word of one of them.
    pub span: Option<&'r str>,
    /// The first day; this or `to` replaces the word.
    pub from: Option<&'r str>,
    /// The last day.
    pub to: Option<&'r str>,
}

impl<'r> SpanParams<'r> {
    /// As the query parameters of another page. The word is empty if it is the first one, and if a day replaces it.
    pub fn params(&self) -> [(&'static str, &'r str); 3] {
        let [span, from, to] = [self.span, self.from, self.to].map(query::trimmed);
        let is_implied = self.default().0 == span || !from.is_empty() || !to.is_empty();
        let span = if is_implied { "" } else { span };
        [("span", span), ("from", from), ("to", to)]
    }

    fn default(&self) -> Choice {
        self.choices.first().copied().unwrap_or(("", None))
    }

    /// The first and the last moment of the span. Days are those of `zone`.
    ///
    /// # Errors
    /// [`crate::error::Error::Invalid`] if a value cannot be read, such as a day that does not exist.
    pub fn bounds(&self, zone: &Zone, now: UnixMs) -> Result<(UnixMs, UnixMs)> {
        let known = |word: &str| {
            self.choices
                .iter()
                .copied()
                .find(|(known, _)| *known == word)
        };
        let chosen = query::parsed("span", self.span, known)?;
        let (_, days) = chosen.unwrap_or_else(|| self.default());
        let from = query::day("from", self.from, zone)?;
        let to = query::day("to", self.to, zone)?;
        let since = match (from, to) {
            (None, None) => days.map_or(UnixMs(0), |days| now.minus(DAY * days)),
            (None, Some(_)) => UnixMs(0),
            (Some(from), _) => from.start,
        };
        let until = to.map_or(UnixMs(i64::MAX), |to| UnixMs(to.end.0 - 1));
        Ok((since, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOW: UnixMs = UnixMs(100 * DAY_MS);
    const CHOICES: &[Choice] = &[("1", Some(1)), ("7", Some(7)), ("all", None)];

    fn of<'r>(span: &'r str, from: &'r str, to: &'r str) -> SpanParams<'r> {
        SpanParams {
            choices: CHOICES,
            span: Some(span),
            from: Some(from),
            to: Some(to),
        }
    }

    #[test]
    fn a_span_is_a_word_or_days_and_the_last_day_ends_before_midnight() {
        let (first, last) = (UnixMs(0), UnixMs(i64::MAX));
        let second_day = (UnixMs(DAY_MS), UnixMs(2 * DAY_MS - 1));
        for (params, word, bounds) in [
            (of("", "", ""), "", (UnixMs(99 * DAY_MS), last)),
            (of("1", "", ""), "", (UnixMs(99 * DAY_MS), last)),
            (of(" 7 ", "", ""), "7", (UnixMs(93 * DAY_MS), last)),
            (of("all", "", ""), "all", (first, last)),
            (of("7", "1970-01-02", "1970-01-02"), "", second_day),
            (of("", "1970-01-02", ""), "", (second_day.0, last)),
            (of("7", "", "1970-01-02"), "", (first, second_day.1)),
        ] {
            assert_eq!(params.params()[0], ("span", word), "{params:?}");
            assert_eq!(
                params.bounds(&Zone::default(), NOW).unwrap(),
                bounds,
                "{params:?}"
            );
        }
        for params in [of("2", "", ""), of("", "1970-02-30", ""), of("", "", "x")] {
            assert!(params.bounds(&Zone::default(), NOW).is_err(), "{params:?}");
        }
    }

    #[test]
    fn the_days_of_a_span_are_those_of_the_zone() {
        let bounds = of("", "2026-10-25", "2026-10-25").bounds(&Zone::shipped(), NOW);
        let moment = |text| UnixMs::parse(text).unwrap();
        let (first, last) = (
            moment("2026-10-24T22:00:00Z"),
            moment("2026-10-25T23:00:00Z"),
        );
        assert_eq!(bounds.unwrap(), (first, UnixMs(last.0 - 1)), "25 hours");
    }
}
