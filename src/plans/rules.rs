//! What a plan may be, why an operation on it is refused, and what it makes of a license.

use std::time::Duration;

use super::{Days, PlanTerms, TermStart};
use crate::clock::UnixMs;
use crate::error::{Error, Faults, RefusalKind, Refused, Result};
use crate::licenses::{Kind, License, Term};
use crate::text;

const DAY: Duration = Duration::from_hours(24);
const NAME_MAX: usize = 100;
const DEVICES_MAX: u32 = 100_000;
/// A hundred years.
const DAYS_MAX: u32 = 36_500;
/// The term of a trial plan that names none, as of a trial that is issued without a plan.
const TRIAL_DAYS: u32 = 30;

/// Why an operation on a plan is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The product has a plan with this code, archived or not.
    Exists(String),
    /// The plan with this code is archived.
    Archived(String),
    /// The product issues its trials by the plan with this code.
    OffersTrials(String),
}

impl Refusal {
    /// The code of the refusal, which never changes.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Exists(_) => "plan_exists",
            Self::Archived(_) => "plan_archived",
            Self::OffersTrials(_) => "plan_offers_trials",
        }
    }

    /// The kind of refusal.
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::Exists(_) | Self::Archived(_) | Self::OffersTrials(_) => RefusalKind::Conflict,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let refused = Self::new(refusal.kind(), refusal.code());
        let refused = match refusal {
            Refusal::Exists(_) => refused.about("code"),
            Refusal::Archived(_) => refused.about("plan"),
            Refusal::OffersTrials(_) => refused.about("kind"),
        };
        let (Refusal::Exists(plan) | Refusal::Archived(plan) | Refusal::OffersTrials(plan)) =
            refusal;
        refused.with("plan", plan)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Refused::from(refusal).into()
    }
}

/// Whether a plan may have this code.
pub(super) fn check_code(code: &str) -> Result<()> {
    if text::is_slug(code) {
        return Ok(());
    }
    let max = text::SLUG_MAX;
    let problem = format!(
        "must be 1..{max} characters a-z, 0-9 and hyphens, the first of them no hyphen, such as pro-yearly"
    );
    Err(Error::invalid("code", problem))
}

/// The terms as they are stored: with a composed name, and with a term for trials.
pub(super) fn normalized(terms: &PlanTerms) -> PlanTerms {
    PlanTerms {
        name: text::clean_input(&terms.name),
        term_days: match (terms.term_days, terms.kind) {
            (None, Kind::Trial) => Some(TRIAL_DAYS),
            (days, _) => days,
        },
        ..terms.clone()
    }
}

/// Whether a plan may have these terms, as they are stored.
pub(super) fn check(terms: &PlanTerms) -> Result<()> {
    let (name, mut faults) = (&terms.name, Faults::default());
    if !(1..=NAME_MAX).contains(&name.chars().count()) || name.contains(char::is_control) {
        let problem = format!("must be 1..{NAME_MAX} characters without control characters");
        faults.add(Error::invalid("name", problem));
    }
    if !(1..=DEVICES_MAX).contains(&terms.device_limit) {
        let problem = format!("must be 1..{DEVICES_MAX}");
        faults.add(Error::invalid("device_limit", problem));
    }
    faults.keep(check_days("term_days", terms.term_days));
    faults.keep(check_days("updates_days", terms.updates_days));
    if terms.term_days.is_none() && terms.term_starts == TermStart::FirstActivation {
        let problem = "must be a number of days if the term starts with the first activation";
        faults.add(Error::invalid("term_days", problem));
    }
    faults.finish()
}

fn check_days(field: &'static str, days: Option<u32>) -> Result<()> {
    match days {
        Some(days) if !(1..=DAYS_MAX).contains(&days) => {
            Err(Error::invalid(field, format!("must be 1..{DAYS_MAX}")))
        }
        _ => Ok(()),
    }
}

/// The term of a license that is issued at `now`.
pub(super) fn term(terms: &PlanTerms, now: UnixMs) -> Term {
    match (terms.term_days, terms.term_starts) {
        (None, _) => Term::Default,
        (Some(days), TermStart::Issue) => Term::Until(now.plus(DAY * days)),
        (Some(days), TermStart::FirstActivation) => Term::DaysFromActivation(days),
    }
}

/// Until when released versions are covered by a license that was issued at `issued`; `None` if all are.
pub(super) fn updates_until(terms: &PlanTerms, issued: UnixMs) -> Option<UnixMs> {
    terms.updates_days.map(|days| issued.plus(DAY * days))
}

/// Why a trial plan cannot be without an end, if somebody says that it is.
///
/// # Errors
/// [`Error::Invalid`] for `term_days`.
pub(super) fn check_chosen_term(kind: Kind, chosen: Option<Days>) -> Result<()> {
    match (kind, chosen) {
        (Kind::Trial, Some(Days::Unlimited)) => {
            let problem = "must be a number of days: a trial always ends";
            Err(Error::invalid("term_days", problem))
        }
        _ => Ok(()),
    }
}

/// The later of two ends of updates; `None`: never.
fn later(one: Option<UnixMs>, other: Option<UnixMs>) -> Option<UnixMs> {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// Whether the updates of `license` last longer than those of its plan.
pub(super) fn has_longer_updates(terms: &PlanTerms, license: &License) -> bool {
    let planned = updates_until(terms, license.created_at);
    planned.is_some() && later(planned, license.updates_until) != planned
}

/// `license` after the plan was applied to it. A term that has begun stays, as does one whose days the plan does not
/// have; updates are never shortened, since they were paid for: a trial that was bought counts them from its sale, and
/// an administrator may have agreed on more. A license without a customer stays a trial.
pub(super) fn applied(terms: &PlanTerms, license: &License) -> License {
    let from_activation = terms
        .term_days
        .filter(|_| terms.term_starts == TermStart::FirstActivation);
    License {
        kind: match license.customer_id {
            Some(_) => terms.kind,
            None => Kind::Trial,
        },
        device_limit: terms.device_limit,
        pending_days: license
            .pending_days
            .map(|days| from_activation.unwrap_or(days)),
        features: terms.features.clone(),
        updates_until: later(
            updates_until(terms, license.created_at),
            license.updates_until,
        ),
        ..license.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Features;
    use crate::id::{CustomerId, LicenseId, ProductId};
    use crate::licenses::{LicenseKey, LicenseState};

    fn terms() -> PlanTerms {
        PlanTerms {
            name: "Pro".to_owned(),
            kind: Kind::Full,
            device_limit: 3,
            term_days: None,
            term_starts: TermStart::Issue,
            features: Features::from_input("export").unwrap(),
            updates_days: None,
        }
    }

    #[test]
    fn the_invalid_field_of_a_plan_is_named() {
        type Change = fn(&mut PlanTerms);
        let table: [(Change, Option<&str>); 11] = [
            (|_| {}, None),
            (|terms| terms.name = String::new(), Some("name")),
            (|terms| terms.name = "a\u{7}".to_owned(), Some("name")),
            (|terms| terms.name = "\u{fc}".repeat(NAME_MAX), None),
            (|terms| terms.name = "a".repeat(NAME_MAX + 1), Some("name")),
            (|terms| terms.device_limit = 0, Some("device_limit")),
            (
                |terms| terms.device_limit = DEVICES_MAX + 1,
                Some("device_limit"),
            ),
            (|terms| terms.term_days = Some(0), Some("term_days")),
            (|terms| terms.term_days = Some(DAYS_MAX), None),
            (
                |terms| terms.updates_days = Some(DAYS_MAX + 1),
                Some("updates_days"),
            ),
            (
                |terms| terms.term_starts = TermStart::FirstActivation,
                Some("term_days"),
            ),
        ];
        for (change, expected) in table {
            let mut terms = terms();
            change(&mut terms);
            let invalid = match check(&terms) {
                Ok(()) => None,
                Err(Error::Invalid { field, .. }) => Some(field),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(invalid, expected, "{terms:?}");
        }
    }

    #[test]
    fn the_form_of_a_code_is_checked() {
        for code in ["pro", "pro-2", "2"] {
            assert!(check_code(code).is_ok(), "{code}");
        }
        for code in ["", "Pro", "-pro", "pro_2", "gr\u{fc}n", &"a".repeat(41)] {
            assert!(check_code(code).is_err(), "{code}");
        }
    }

    #[test]
    fn a_trial_plan_always_ends() {
        let trial = PlanTerms {
            kind: Kind::Trial,
            ..terms()
        };
        assert_eq!(normalized(&trial).term_days, Some(TRIAL_DAYS));
        let named = PlanTerms {
            term_days: Some(14),
            ..trial
        };
        assert_eq!(normalized(&named).term_days, Some(14));
        assert_eq!(normalized(&terms()).term_days, None);
        for (kind, chosen, is_allowed) in [
            (Kind::Trial, Some(Days::Unlimited), false),
            (Kind::Trial, Some(Days::Limited(1)), true),
            (Kind::Trial, None, true),
            (Kind::Full, Some(Days::Unlimited), true),
        ] {
            let checked = check_chosen_term(kind, chosen);
            assert_eq!(checked.is_ok(), is_allowed, "{kind:?} {chosen:?}");
        }
    }

    #[test]
    fn the_term_begins_with_the_issue_or_with_the_first_activation() {
        let year = PlanTerms {
            term_days: Some(365),
            ..terms()
        };
        let now = UnixMs(1_000);
        let end = now.plus(DAY * 365);
        assert_eq!(term(&terms(), now), Term::Default);
        assert_eq!(term(&year, now), Term::Until(end));
        let pending = PlanTerms {
            term_starts: TermStart::FirstActivation,
            ..year
        };
        assert_eq!(term(&pending, now), Term::DaysFromActivation(365));
        assert_eq!(updates_until(&terms(), now), None);
        let updates = PlanTerms {
            updates_days: Some(365),
            ..terms()
        };
        assert_eq!(updates_until(&updates, now), Some(end));
    }

    /// A license that was issued by a plan.
    fn license(pending_days: Option<u32>, valid_until: Option<UnixMs>) -> License {
        License {
            id: LicenseId(1),
            key: LicenseKey::new().unwrap(),
            product: ProductId::FIRST,
            plan: Some("pro".to_owned()),
            customer_id: Some(CustomerId(1)),
            customer: String::new(),
            kind: Kind::Trial,
            state: LicenseState::Active,
            device_limit: 1,
            valid_from: UnixMs(500),
            valid_until,
            pending_days,
            features: Features::default(),
            updates_until: Some(UnixMs(600)),
            domain: None,
            note: "note".to_owned(),
            created_at: UnixMs(500),
        }
    }

    #[test]
    fn a_plan_never_shortens_updates() {
        let end = UnixMs(500).plus(DAY * 10);
        let (before, after) = (UnixMs(600), end.plus(DAY));
        for (days, present, expected, is_longer) in [
            (Some(10), Some(before), Some(end), false),
            (Some(10), Some(end), Some(end), false),
            (Some(10), Some(after), Some(after), true),
            (Some(10), None, None, true),
            (None, Some(after), None, false),
            (None, None, None, false),
        ] {
            let terms = PlanTerms {
                updates_days: days,
                ..terms()
            };
            let license = License {
                updates_until: present,
                ..license(None, None)
            };
            assert_eq!(applied(&terms, &license).updates_until, expected);
            let longer = has_longer_updates(&terms, &license);
            assert_eq!(longer, is_longer, "{days:?} {present:?}");
        }
    }

    #[test]
    fn a_plan_changes_no_term_that_has_begun() {
        let plan = PlanTerms {
            term_days: Some(30),
            term_starts: TermStart::FirstActivation,
            updates_days: Some(10),
            ..terms()
        };
        let begun = applied(&plan, &license(None, Some(UnixMs(900))));
        assert_eq!(
            (begun.valid_until, begun.pending_days),
            (Some(UnixMs(900)), None)
        );
        assert_eq!(begun.kind, Kind::Full);
        assert_eq!(begun.device_limit, 3);
        assert_eq!(begun.features.stored(), "export");
        assert_eq!(begun.updates_until, Some(UnixMs(500).plus(DAY * 10)));
        assert_eq!(begun.note, "note");
        assert_eq!(
            applied(&plan, &license(Some(365), None)).pending_days,
            Some(30)
        );
        // The plan has no days that the first activation could begin.
        assert_eq!(
            applied(&terms(), &license(Some(365), None)).pending_days,
            Some(365)
        );
        let unowned = License {
            customer_id: None,
            ..license(None, None)
        };
        assert_eq!(applied(&plan, &unowned).kind, Kind::Trial);
    }
}
