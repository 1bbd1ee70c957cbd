//! What backups are called, and when they are too old.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::UnixMs;

const PREFIX: &str = "license-server-";
/// How names end: of archives, of encrypted ones, and of the bare databases of earlier versions.
const PLAIN: &str = ".tar";
const SEALED: &str = ".tar.age";
const SUFFIXES: [&str; 3] = [SEALED, PLAIN, ".sqlite3"];
/// Without a schedule, a backup older than this is worth a warning.
const BY_HAND: Duration = Duration::from_hours(7 * 24);

/// A span in words: its largest part, and those below it that are not nothing.
pub(super) fn words(span: Duration) -> String {
    let s = span.as_secs();
    let parts = [
        (s / 86_400, "day"),
        (s / 3600 % 24, "hour"),
        (s / 60 % 60, "minute"),
        (s % 60, "second"),
    ];
    let told = parts.into_iter().filter(|(count, _)| *count > 0);
    let told = told.map(|(count, name)| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {name}{plural}")
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() {
        "less than a second".to_owned()
    } else {
        told.join(" ")
    }
}

/// A moment as it can stand in the name of a file: `20261122T140531Z`.
pub fn stamp(at: UnixMs) -> String {
    let text = at.rfc3339();
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// The name of a backup made at `at`: `license-server-20261122T140531Z.tar`, with `.age` where it is encrypted.
pub(super) fn name_at(at: UnixMs, encrypted: bool) -> String {
    let suffix = if encrypted { SEALED } else { PLAIN };
    format!("{PREFIX}{}{suffix}", stamp(at))
}

/// When the backup `name` was made; none for a file that is called otherwise.
pub(super) fn made_at(name: &str) -> Option<UnixMs> {
    let rest = name.strip_prefix(PREFIX)?;
    let digits = SUFFIXES
        .iter()
        .find_map(|suffix| rest.strip_suffix(suffix))?;
    let part = |from: usize, to: usize| digits.get(from..to);
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
    (stamp(at) == digits).then_some(at)
}

/// When the copy was begun of which `name` is what there is so far, or was when it broke off.
pub(super) fn begun_at(name: &str) -> Option<UnixMs> {
    made_at(name.strip_suffix(".part")?)
}

/// Where the disk belongs that `fstab` has for `folder`, if it is not among the mounts of `mountinfo`.
pub(super) fn missing_mount(fstab: &str, mountinfo: &str, folder: &Path) -> Option<PathBuf> {
    let lines = fstab.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let places = lines.filter_map(|line| line.split_whitespace().nth(1));
    let places = places.map(place).filter(|place| place.is_absolute());
    let above = places.filter(|place| folder.starts_with(place));
    let nearest = above.max_by_key(|place| place.components().count())?;
    let mounts = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mounted = mounts.map(place).any(|mount| mount == nearest);
    (!mounted).then_some(nearest)
}

/// A path as these files write it.
fn place(text: &str) -> PathBuf {
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let text = codes
        .iter()
        .fold(text.to_owned(), |text, (code, is)| text.replace(code, is));
    PathBuf::from(text)
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

    #[test]
    fn a_disk_that_is_to_be_mounted_and_is_not_is_missed() {
        const FSTAB: &str = "# /dev/sdz1 /srv ext4\n/dev/sda1 / ext4 defaults 0 1\n\nUUID=1 /mnt/backup ext4 nofail 0 2\n\
             nas:/x /mnt/with\\040space/ nfs noauto 0 0\n/dev/sdb none swap sw 0 0\n/dev/sdc /mnt/backup/deep ext4\n";
        const ROOT: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
        const DISK: &str = "2 1 8:2 / /mnt/backup rw - ext4 /dev/sdb1 rw\n";
        for (mounts, folder, missing) in [
            (ROOT, "/mnt/backup", "/mnt/backup"),
            (ROOT, "/mnt/backup/copies/of", "/mnt/backup"),
            (ROOT, "/mnt/backups", ""),
            (ROOT, "/mnt/with space/copies", "/mnt/with space"),
            (ROOT, "/var/backups", ""),
            (ROOT, "/srv/copies", ""),
            (&[ROOT, DISK].concat(), "/mnt/backup/copies", ""),
            (
                &[ROOT, DISK].concat(),
                "/mnt/backup/deep/copies",
                "/mnt/backup/deep",
            ),
        ] {
            let found = missing_mount(FSTAB, mounts, Path::new(folder));
            let expected = Some(PathBuf::from(missing)).filter(|_| !missing.is_empty());
            assert_eq!(found, expected, "{folder}");
        }
        assert_eq!(missing_mount("", ROOT, Path::new("/mnt/backup")), None);
    }

    const NOW: UnixMs = UnixMs(1_795_356_331_000);

    #[test]
    fn a_name_says_when_and_other_names_say_nothing() {
        assert_eq!(name_at(NOW, false), "license-server-20261122T140531Z.tar");
        assert_eq!(
            name_at(NOW, true),
            "license-server-20261122T140531Z.tar.age"
        );
        for name in [
            &name_at(NOW, false),
            &name_at(NOW, true),
            "license-server-20261122T140531Z.sqlite3",
        ] {
            assert_eq!(made_at(name), Some(NOW), "{name}");
            assert_eq!(begun_at(&format!("{name}.part")), Some(NOW), "{name}");
        }
        for name in [
            "license-server-.sqlite3",
            "license-server-20261122T140531Z.tar.part",
            "license-server-20261122T140531Z",
            "license-server-20261399T140531Z.sqlite3",
            "license-server-2026é122T140531Z.sqlite3",
            "license-server-20261122X140531Z.sqlite3",
            "x",
        ] {
            assert_eq!(made_at(name), None, "{name}");
        }
    }

    #[test]
    fn a_span_is_told_in_words() {
        for (seconds, told) in [
            (0, "less than a second"),
            (1, "1 second"),
            (120, "2 minutes"),
            (90_061, "1 day 1 hour 1 minute 1 second"),
            (7 * 86_400 + 59, "7 days 59 seconds"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), told);
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
