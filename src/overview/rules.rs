//! Rules: what needs the attention of an administrator. No database, no clock, no HTTP.

/// How far the system clock may be off before a notice appears, in milliseconds.
const DRIFT_MS: i64 = 120_000;
/// For how many days a certificate may fail to be renewed before a notice appears: an authority may be down for a day.
const CERTIFICATE_DAYS: i64 = 2;
/// How many failed logins on one day are no mere typing errors.
const MANY_LOGINS: u32 = 10;

/// For how many products at most a notice appears.
const PRODUCTS_MAX: usize = 10;

/// The facts that notices are made from.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one thing"
)]
pub(super) struct Facts {
    /// Licenses that expire within 30 days.
    pub(super) expiring: u32,
    /// How often programs were refused today, for the reasons that can be acted on.
    pub(super) refused: Refused,
    /// Failed logins today.
    pub(super) failed_logins: u32,
    /// The products in use.
    pub(super) products: Vec<ProductFacts>,
    /// Owners without a second factor.
    pub(super) owners_without_totp: u32,
    /// Whether the newest backup is older than it should be.
    pub(super) backup_overdue: bool,
    /// Whether the database file is damaged.
    pub(super) damaged: bool,
    /// Whether the backup folder is missing because its disk is not mounted.
    pub(super) backup_folder_away: bool,
    /// The system clock minus the trusted clock, in milliseconds.
    pub(super) drift_ms: i64,
    /// Whether only programs on this machine can reach the server and trust its certificate.
    pub(super) only_here: bool,
    /// For how many days the certificate could not be renewed.
    pub(super) certificate_days: i64,
}

/// What notices say of a product.
#[derive(Clone, Debug, Default)]
pub(super) struct ProductFacts {
    /// How notices name it; `None` if it is the only one.
    pub(super) named: Option<NamedProduct>,
    /// Whether its minimum version is above its current version.
    pub(super) minimum_above_current: bool,
    /// Whether no administrator has reviewed its settings yet.
    pub(super) unreviewed: bool,
}

/// A product as a notice names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProduct {
    /// Its name in addresses.
    pub slug: String,
    /// Its name for people.
    pub name: String,
}

/// How often programs were refused today, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) suspended: u32,
    pub(super) expired: u32,
    pub(super) too_old: u32,
    pub(super) not_covered: u32,
    pub(super) no_slot: u32,
    pub(super) bad_api_key: u32,
}

/// A notice about something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How urgent: `bad`, `warn` or `info`.
    pub tone: &'static str,
    /// Its text is `[overview] notice_<name>`.
    pub name: &'static str,
    /// The number in its text.
    pub n: i64,
    /// Whether only owners can resolve it.
    pub for_owners: bool,
    /// The product that it is about, if there are several.
    pub product: Option<NamedProduct>,
}

/// The notices for these facts, most urgent first.
pub(super) fn notices(facts: &Facts) -> Vec<Notice> {
    let Facts { refused, .. } = facts;
    let many_logins = facts.failed_logins >= MANY_LOGINS;
    let logins = if many_logins { "warn" } else { "info" };
    let as_count = |yes: bool| i64::from(yes);
    let shown_drift = Some(facts.drift_ms.abs()).filter(|ms| *ms > DRIFT_MS);
    let certificate_days = Some(facts.certificate_days).filter(|days| *days >= CERTIFICATE_DAYS);
    let all = [
        ("bad", "damage", as_count(facts.damaged)),
        ("bad", "clock", shown_drift.unwrap_or(0) / 60_000),
        ("bad", "certificate", certificate_days.unwrap_or(0)),
        ("bad", "minimum", facts.count(|it| it.minimum_above_current)),
        ("bad", "api_key", refused.bad_api_key.into()),
        ("bad", "backup_folder", as_count(facts.backup_folder_away)),
        ("warn", "backup", as_count(facts.backup_overdue)),
        (logins, "logins", facts.failed_logins.into()),
        ("warn", "expired", refused.expired.into()),
        ("warn", "suspended", refused.suspended.into()),
        ("warn", "too_old", refused.too_old.into()),
        ("warn", "not_covered", refused.not_covered.into()),
        ("warn", "no_slot", refused.no_slot.into()),
        ("warn", "expiring", facts.expiring.into()),
        ("info", "owners", facts.owners_without_totp.into()),
        ("info", "unreviewed", facts.count(|it| it.unreviewed)),
        ("info", "only_here", as_count(facts.only_here)),
    ];
    let due = all.into_iter().filter(|(_, _, n)| *n > 0);
    let due = due.map(|(tone, name, n)| Notice {
        tone,
        name,
        n,
        for_owners: matches!(name, "backup" | "backup_folder" | "owners"),
        product: None,
    });
    due.flat_map(|notice| facts.by_product(notice)).collect()
}

impl Facts {
    /// How many products a notice concerns.
    fn count(&self, concerned: fn(&ProductFacts) -> bool) -> i64 {
        let products = self.products.iter();
        let count = products.filter(|product| concerned(product)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// One notice about each product that `notice` concerns; `notice` itself if it is about the server.
    fn by_product(&self, notice: Notice) -> Vec<Notice> {
        match notice.name {
            "minimum" => self.for_each(&notice, |it| it.minimum_above_current),
            "unreviewed" => self.for_each(&notice, |it| it.unreviewed),
            _ => vec![notice],
        }
    }

    /// A notice about each product that it concerns.
    fn for_each(&self, notice: &Notice, concerned: fn(&ProductFacts) -> bool) -> Vec<Notice> {
        let products = self.products.iter();
        let concerned = products.filter(|product| concerned(product));
        let notices = concerned.take(PRODUCTS_MAX).map(|product| Notice {
            n: 1,
            product: product.named.clone(),
            ..notice.clone()
        });
        notices.collect()
    }
}

/// Picks the refusals for which there is a notice.
pub(super) fn refused(by_code: &[(String, u32)]) -> Refused {
    let of = |code: &str| {
        let found = by_code.iter().find(|(known, _)| known == code);
        found.map_or(0, |(_, count)| *count)
    };
    Refused {
        suspended: of("license_suspended"),
        expired: of("license_expired"),
        too_old: of("version_too_old"),
        not_covered: of("version_not_covered"),
        no_slot: of("device_limit_reached"),
        bad_api_key: of("invalid_api_key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(minimum_above_current: bool, unreviewed: bool) -> ProductFacts {
        ProductFacts {
            named: None,
            minimum_above_current,
            unreviewed,
        }
    }

    #[test]
    fn each_notice_appears_once_and_the_most_urgent_comes_first() {
        let by_code = [
            ("license_suspended".to_owned(), 3),
            ("version_not_covered".to_owned(), 4),
            ("other".to_owned(), 9),
        ];
        for (facts, expected) in [
            (Facts::default(), vec![]),
            (
                Facts {
                    products: vec![product(false, false)],
                    ..Facts::default()
                },
                vec![],
            ),
            (
                Facts {
                    expiring: 2,
                    products: vec![product(true, false)],
                    refused: refused(&by_code),
                    ..Facts::default()
                },
                vec![
                    ("minimum", 1),
                    ("suspended", 3),
                    ("not_covered", 4),
                    ("expiring", 2),
                ],
            ),
            (
                Facts {
                    drift_ms: -181_000,
                    owners_without_totp: 1,
                    backup_overdue: true,
                    ..Facts::default()
                },
                vec![("clock", 3), ("backup", 1), ("owners", 1)],
            ),
            (
                Facts {
                    certificate_days: 3,
                    products: vec![product(true, false)],
                    damaged: true,
                    ..Facts::default()
                },
                vec![("damage", 1), ("certificate", 3), ("minimum", 1)],
            ),
            (
                Facts {
                    drift_ms: DRIFT_MS,
                    certificate_days: 1,
                    only_here: true,
                    products: vec![product(false, true)],
                    ..Facts::default()
                },
                vec![("unreviewed", 1), ("only_here", 1)],
            ),
        ] {
            let found: Vec<_> = notices(&facts).iter().map(|it| (it.name, it.n)).collect();
            assert_eq!(found, expected, "{facts:?}");
        }
    }

    #[test]
    fn each_product_has_its_own_notice_up_to_a_limit() {
        let named = |number: usize| NamedProduct {
            slug: format!("p{number}"),
            name: format!("Product {number}"),
        };
        let products = (0..=PRODUCTS_MAX).map(|number| ProductFacts {
            named: Some(named(number)),
            ..product(true, number == 7)
        });
        let facts = Facts {
            products: products.collect(),
            ..Facts::default()
        };
        let found = notices(&facts);
        let named_in = |name: &str| -> Vec<_> {
            let found = found.iter().filter(|notice| notice.name == name);
            found.filter_map(|notice| notice.product.clone()).collect()
        };
        let first: Vec<_> = (0..PRODUCTS_MAX).map(named).collect();
        assert_eq!(named_in("minimum"), first);
        assert_eq!(named_in("unreviewed"), [named(7)]);
    }
}
