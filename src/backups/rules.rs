//! What backups are called, and when they are too old.

use std::time::Duration;

use crate::clock::UnixMs;

const PREFIX: &str = "license-server-";
const SUFFIX: &str = ".sqlite3";
/// Without a schedule, a backup older than this is worth a warning.
const BY_HAND: Duration = Duration::from_hours(7 * 24);

/// The name of a backup made at `at`: `license-server-20261122T140531Z.sqlite3`.
pub(super) fn name_at(at: UnixMs) -> String {
    let stamp: String = at
        .rfc3339()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!("{PREFIX}{stamp}{SUFFIX}")
}

/// When the backup `name` was made; none for a file that is called otherwise.
pub(super) fn made_at(name: &str) -> Option<UnixMs> {
    let stamp = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let digits: Vec<char> = stamp.chars().collect();
    let part = |from: usize, to: usize| Some(digits.get(from..to)?.iter().collect::<String>());
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?
    );
    let at = UnixMs::parse(&text).ok()?;
    // Only what reads back the same is one of ours.
    (name_at(at) == name).then_some(at)
}

/// Whether there is a backup worth the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// There is none.
    None,
    /// The newest is older than it should be.
    Old,
    /// All is well.
    Fresh,
}

/// What the age of the newest backup means, where one is made `every` so often.
pub fn age(newest: Option<UnixMs>, every: Option<Duration>, now: UnixMs) -> Age {
    // A schedule may be late by as long as it waits: the machine slept, or the disk was full.
    let limit = every.map_or(BY_HAND, |every| every.saturating_mul(2));
    match newest {
        None => Age::None,
        Some(made_at) if made_at.plus(limit) < now => Age::Old,
        Some(_) => Age::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_356_331_000);

    #[test]
    fn a_name_says_when_and_other_names_say_nothing() {
        assert_eq!(name_at(NOW), "license-server-20261122T140531Z.sqlite3");
        assert_eq!(made_at(&name_at(NOW)), Some(NOW));
        for name in [
            "license-server-.sqlite3",
            "license-server-20261122T140531Z.sqlite3.part",
            "license-server-20261399T140531Z.sqlite3",
            "license-server-2026é122T140531Z.sqlite3",
            "license-server-20261122X140531Z.sqlite3",
            "x",
        ] {
            assert_eq!(made_at(name), None, "{name}");
        }
    }

    #[test]
    fn a_backup_is_old_after_two_turns_or_a_week() {
        let day = Duration::from_hours(24);
        for (hours, every, told) in [
            (47, Some(day), Age::Fresh),
            (49, Some(day), Age::Old),
            (167, None, Age::Fresh),
            (169, None, Age::Old),
        ] {
            let made_at = NOW.minus(Duration::from_hours(hours));
            assert_eq!(age(Some(made_at), every, NOW), told, "{hours} {every:?}");
        }
        assert_eq!(age(None, None, NOW), Age::None);
    }
}
