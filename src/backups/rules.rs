//! Names of backups, when they are too old, and which disk should be mounted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::UnixMs;

/// The names of backups begin with this.
const PREFIX: &str = "license-server-";
/// Extensions: of archives, of encrypted archives, and of the bare databases of earlier versions.
const PLAIN: &str = ".tar";
const SEALED: &str = ".tar.age";
const SUFFIXES: [&str; 3] = [SEALED, PLAIN, ".sqlite3"];
/// Without a schedule, a newest backup older than this causes a warning.
const MANUAL_AGE_MAX: Duration = Duration::from_hours(7 * 24);

/// A duration in words, without the units that are zero: `1 day 2 minutes`.
pub fn in_words(span: Duration) -> String {
    let s = span.as_secs();
    let parts = [
        (s / 86_400, "day"),
        (s / 3600 % 24, "hour"),
        (s / 60 % 60, "minute"),
        (s % 60, "second"),
    ];
    let nonzero = parts.into_iter().filter(|(count, _)| *count > 0);
    let words = nonzero.map(|(count, name)| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {name}{plural}")
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        "less than a second".to_owned()
    } else {
        words.join(" ")
    }
}

/// A date and time for file names: `20261122T140531Z`.
pub fn timestamp(at: UnixMs) -> String {
    let text = at.rfc3339();
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// The name of a backup made at `at`: `license-server-20261122T140531Z.tar`.
pub(super) fn file_name(at: UnixMs) -> String {
    format!("{PREFIX}{}{PLAIN}", timestamp(at))
}

/// The name of an encrypted backup made at `at`: `license-server-20261122T140531Z.tar.age`.
pub(super) fn encrypted_file_name(at: UnixMs) -> String {
    format!("{PREFIX}{}{SEALED}", timestamp(at))
}

/// When the backup `name` was made. `None` if this is not the name of a backup.
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
    // Accept only names that this program writes: the date must round-trip.
    (timestamp(at) == digits).then_some(at)
}

/// When the unfinished copy `name` was begun. `None` if this is not the name of one.
pub(super) fn begun_at(name: &str) -> Option<UnixMs> {
    made_at(name.strip_suffix(".part")?)
}

/// The mount point that `fstab` has for `folder`, if it is not mounted according to `mountinfo`.
pub(super) fn missing_mount(fstab: &str, mountinfo: &str, folder: &Path) -> Option<PathBuf> {
    let lines = fstab.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let points = lines.filter_map(|line| line.split_whitespace().nth(1));
    let points = points.map(unescaped).filter(|point| point.is_absolute());
    let ancestors = points.filter(|point| folder.starts_with(point));
    let nearest = ancestors.max_by_key(|point| point.components().count())?;
    let mounts = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mounted = mounts.map(unescaped).any(|mount| mount == nearest);
    (!mounted).then_some(nearest)
}

/// The path that these files write with octal escapes.
fn unescaped(text: &str) -> PathBuf {
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let text = codes
        .iter()
        .fold(text.to_owned(), |text, (code, character)| {
            text.replace(code, character)
        });
    PathBuf::from(text)
}

/// How recent the newest backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupAge {
    /// There is no backup.
    NoBackup,
    /// The newest is older than it should be.
    Old,
    /// The newest is recent enough.
    Fresh,
}

/// How recent the newest backup is, if one is made `every` so often.
pub fn age(newest: Option<UnixMs>, every: Option<Duration>, now: UnixMs) -> BackupAge {
    // A scheduled backup may be late by one interval, for example because the machine was suspended or the disk full.
    let limit = every.map_or(MANUAL_AGE_MAX, |every| every.saturating_mul(2));
    match newest {
        None => BackupAge::NoBackup,
        Some(made_at) if made_at.plus(limit) < now => BackupAge::Old,
        Some(_) => BackupAge::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_in_fstab_that_is_not_mounted_is_found() {
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
    fn only_names_of_backups_have_a_date() {
        assert_eq!(file_name(NOW), "license-server-20261122T140531Z.tar");
        assert_eq!(
            encrypted_file_name(NOW),
            "license-server-20261122T140531Z.tar.age"
        );
        for name in [
            &file_name(NOW),
            &encrypted_file_name(NOW),
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
    fn a_duration_is_formatted_in_words() {
        for (seconds, expected) in [
            (0, "less than a second"),
            (1, "1 second"),
            (120, "2 minutes"),
            (90_061, "1 day 1 hour 1 minute 1 second"),
            (7 * 86_400 + 59, "7 days 59 seconds"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_backup_is_old_after_two_intervals_or_a_week() {
        let day = Duration::from_hours(24);
        for (hours, every, expected) in [
            (47, Some(day), BackupAge::Fresh),
            (49, Some(day), BackupAge::Old),
            (167, None, BackupAge::Fresh),
            (169, None, BackupAge::Old),
        ] {
            let made_at = NOW.minus(Duration::from_hours(hours));
            assert_eq!(
                age(Some(made_at), every, NOW),
                expected,
                "{hours} {every:?}"
            );
        }
        assert_eq!(age(None, None, NOW), BackupAge::NoBackup);
    }
}
