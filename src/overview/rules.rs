//! What of all that the rooms know needs somebody's attention. No database, no clock, no HTTP.

/// How far the machine's clock may be off before somebody should know, in milliseconds.
const DRIFT_MS: i64 = 120_000;
/// For how many days no certificate may come before somebody should know: an authority has its bad days.
const CERTIFICATE_DAYS: i64 = 2;
/// Failed logins of a day that are more than somebody's typing.
const MANY_LOGINS: u32 = 10;

/// What there is to judge.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, none excludes another"
)]
pub(super) struct Facts {
    /// Licenses that are over within 30 days.
    pub(super) expiring: u32,
    /// How often programs were refused today, by what could be done about it.
    pub(super) refused: Refused,
    /// How often somebody failed to log in today.
    pub(super) failed_logins: u32,
    /// Whether programs must be newer than what they are told is the newest.
    pub(super) minimum_above_current: bool,
    /// Whether nobody has looked through the client configuration yet.
    pub(super) unreviewed: bool,
    /// Owners who log in with a password alone.
    pub(super) bare_owners: u32,
    /// Whether no backup is as young as it should be.
    pub(super) backup_overdue: bool,
    /// Whether the database does not give back what was written.
    pub(super) damaged: bool,
    /// Whether the folder for backups is away, with the disk that it is on.
    pub(super) backup_folder_away: bool,
    /// How far the machine's clock is from the house's date.
    pub(super) drift_ms: i64,
    /// Whether programs elsewhere cannot know the certificate, nor the address.
    pub(super) only_here: bool,
    /// Days for which no new certificate has come, though one was asked for.
    pub(super) certificate_days: i64,
}

/// How often programs were refused today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) suspended: u32,
    pub(super) expired: u32,
    pub(super) too_old: u32,
    pub(super) no_slot: u32,
    pub(super) bad_api_key: u32,
}

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Notice {
    /// How urgent: `bad`, `warn` or `info`.
    pub tone: &'static str,
    /// Its text is `[overview] notice_<name>`.
    pub name: &'static str,
    /// How many, for the text.
    pub n: i64,
    /// Where something can be done about it.
    pub link: &'static str,
    /// Whether only owners can.
    pub for_owners: bool,
}

/// What needs attention, the most urgent first.
pub(super) fn notices(facts: &Facts) -> Vec<Notice> {
    const LICENSES: &str = "/lizenzserver/licenses";
    const CONFIG: &str = "/lizenzserver/config";
    const BACKUPS: &str = "/lizenzserver/backups";
    const INTEGRATE: &str = "/lizenzserver/integrate";
    const PROFILE: &str = "/lizenzserver/profile";
    const STOPPED: &str = "/lizenzserver/licenses?state=stopped";
    const EXPIRED: &str = "/lizenzserver/licenses?state=expired";
    const EXPIRING: &str = "/lizenzserver/licenses?state=expiring";
    let Facts { refused, .. } = facts;
    let logins = if facts.failed_logins >= MANY_LOGINS {
        "warn"
    } else {
        "info"
    };
    let once = |yes: bool| i64::from(yes);
    let drift = Some(facts.drift_ms.abs()).filter(|ms| *ms > DRIFT_MS);
    let certificate = Some(facts.certificate_days).filter(|days| *days >= CERTIFICATE_DAYS);
    let all = [
        ("bad", "damage", once(facts.damaged), BACKUPS),
        ("bad", "clock", drift.unwrap_or(0) / 60_000, INTEGRATE),
        ("bad", "certificate", certificate.unwrap_or(0), INTEGRATE),
        ("bad", "minimum", once(facts.minimum_above_current), CONFIG),
        ("bad", "api_key", refused.bad_api_key.into(), CONFIG),
        (
            "bad",
            "backup_folder",
            once(facts.backup_folder_away),
            BACKUPS,
        ),
        ("warn", "backup", once(facts.backup_overdue), BACKUPS),
        (logins, "logins", facts.failed_logins.into(), PROFILE),
        ("warn", "expired", refused.expired.into(), EXPIRED),
        ("warn", "suspended", refused.suspended.into(), STOPPED),
        ("warn", "too_old", refused.too_old.into(), CONFIG),
        ("warn", "no_slot", refused.no_slot.into(), LICENSES),
        ("warn", "expiring", facts.expiring.into(), EXPIRING),
        (
            "info",
            "owners",
            facts.bare_owners.into(),
            "/lizenzserver/admins",
        ),
        ("info", "unreviewed", once(facts.unreviewed), CONFIG),
        ("info", "only_here", once(facts.only_here), INTEGRATE),
    ];
    let due = all.into_iter().filter(|(_, _, n, _)| *n > 0);
    due.map(|(tone, name, n, link)| Notice {
        tone,
        name,
        n,
        link,
        for_owners: matches!(name, "backup" | "backup_folder" | "owners"),
    })
    .collect()
}

/// How often programs were refused, where something can be done about it.
pub(super) fn refused(by_code: &[(String, u32)]) -> Refused {
    let of = |code: &str| {
        let found = by_code.iter().find(|(known, _)| known == code);
        found.map_or(0, |(_, count)| *count)
    };
    Refused {
        suspended: of("license_suspended"),
        expired: of("license_expired"),
        too_old: of("version_too_old"),
        no_slot: of("device_limit_reached"),
        bad_api_key: of("invalid_api_key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_attention_is_said_once_and_the_most_urgent_first() {
        let quiet = Facts::default();
        let by_code = [("license_suspended".to_owned(), 3), ("other".to_owned(), 9)];
        for (facts, expected) in [
            (quiet, vec![]),
            (
                Facts {
                    expiring: 2,
                    minimum_above_current: true,
                    refused: refused(&by_code),
                    ..quiet
                },
                vec![("minimum", 1), ("suspended", 3), ("expiring", 2)],
            ),
            (
                Facts {
                    drift_ms: -181_000,
                    bare_owners: 1,
                    backup_overdue: true,
                    ..quiet
                },
                vec![("clock", 3), ("backup", 1), ("owners", 1)],
            ),
            (
                Facts {
                    certificate_days: 3,
                    minimum_above_current: true,
                    damaged: true,
                    ..quiet
                },
                vec![("damage", 1), ("certificate", 3), ("minimum", 1)],
            ),
            (
                Facts {
                    drift_ms: DRIFT_MS,
                    certificate_days: 1,
                    only_here: true,
                    unreviewed: true,
                    ..quiet
                },
                vec![("unreviewed", 1), ("only_here", 1)],
            ),
        ] {
            let said: Vec<_> = notices(&facts).iter().map(|it| (it.name, it.n)).collect();
            assert_eq!(said, expected, "{facts:?}");
        }
    }
}
