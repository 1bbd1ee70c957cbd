//! Applies a plan to the licenses that were issued by it: copies kind, device limit, features and updates that last
//! longer, and the term of those whose first activation has not begun it. Revoked licenses stay as they are.

use serde_json::{Value, json};

use super::{Plan, get, rules, store};
use crate::audit::{Act, Change};
use crate::db::Reader;
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
use crate::licenses::{self, License, LicenseRow, PlanRange};
use crate::product_state;
use crate::revision::Revision;

/// Most licenses that one call changes, so that other writes do not wait long for it.
const BATCH: u32 = 1000;

/// Most skipped licenses that a preview names.
const NAMED_MAX: u32 = 20;

/// The licenses that a plan would be applied to.
#[derive(Clone, Debug)]
pub struct ApplyPreview {
    /// How many they are.
    pub licenses: u32,
    /// How many of them would be skipped.
    pub skipped: u32,
    /// The first twenty of those.
    pub first_skipped: Vec<SkippedLicense>,
}

/// The licenses that a plan would be applied to.
pub fn apply_preview(reader: &Reader<'_>, plan: &Plan) -> Result<ApplyPreview> {
    let (licenses, skipped) = store::count_licenses(reader, plan)?;
    let range = PlanRange {
        after: LicenseId(0),
        limit: NAMED_MAX,
        more_devices_than: Some(plan.terms.device_limit),
    };
    let first_skipped = licenses::of_plan(reader, plan.id, &range)?;
    Ok(ApplyPreview {
        licenses,
        skipped,
        first_skipped: first_skipped.into_iter().map(SkippedLicense::of).collect(),
    })
}

/// A license that stays as it is, since more of its devices hold a slot than the plan allows.
#[derive(Clone, Debug)]
pub struct SkippedLicense {
    /// The license.
    pub license: License,
    /// How many devices hold a slot.
    pub taken: u32,
}

impl SkippedLicense {
    fn of(row: LicenseRow) -> Self {
        Self {
            license: row.license,
            taken: row.taken,
        }
    }
}

/// Where a call begins, and on which state of the plan it is based.
#[derive(Clone, Debug)]
pub struct ApplyStep {
    /// Only licenses after this one; 0 for all.
    pub after: LicenseId,
    /// The [`Plan::revision`] that all steps apply; a step is refused if the plan has another one.
    pub seen: Revision,
}

impl ApplyStep {
    /// The first call.
    pub const fn first(seen: Revision) -> Self {
        Self {
            after: LicenseId(0),
            seen,
        }
    }
}

/// What a call did, or several in a row.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// How many licenses it changed.
    pub changed: u32,
    /// How many had nothing to change.
    pub unchanged: u32,
    /// How many of the changed and unchanged ones keep updates that last longer than the plan's.
    pub longer_updates: u32,
    /// Licenses that stay as they are.
    pub skipped: Vec<SkippedLicense>,
    /// The license after which the next call begins; `None` if the plan is applied to all.
    pub next: Option<LicenseId>,
}

impl Applied {
    /// Adds what the call after this one did.
    pub fn add(&mut self, later: Self) {
        self.changed = self.changed.saturating_add(later.changed);
        self.unchanged = self.unchanged.saturating_add(later.unchanged);
        self.longer_updates = self.longer_updates.saturating_add(later.longer_updates);
        self.skipped.extend(later.skipped);
        self.next = later.next;
    }

    /// Applies `plan` to one license.
    fn apply_to(&mut self, act: &Act<'_>, plan: &Plan, row: LicenseRow) -> Result<()> {
        let new = rules::applied(&plan.terms, &row.license);
        let is_unchanged = new.revision() == row.license.revision();
        if !is_unchanged && new.device_limit < row.taken {
            self.skipped.push(SkippedLicense::of(row));
            return Ok(());
        }
        self.longer_updates += u32::from(rules::has_longer_updates(&plan.terms, &row.license));
        if is_unchanged {
            self.unchanged += 1;
        } else {
            licenses::change_terms(act, &row.license, &new)?;
            self.changed += 1;
        }
        Ok(())
    }
}

/// Applies a plan to the next licenses of its own, at most a thousand; [`Applied::next`] says where to go on.
///
/// # Errors
/// [`Error::NotFound`](crate::error::Error::NotFound), `changed_meanwhile`, and `product_archived`.
pub fn apply(act: &Act<'_>, product: ProductId, code: &str, step: &ApplyStep) -> Result<Applied> {
    product_state::check_in_use(act.tx, product)?;
    let plan = get(act.tx, product, code)?;
    step.seen.check(&plan.revision())?;
    let range = PlanRange {
        after: step.after,
        limit: BATCH,
        more_devices_than: None,
    };
    let rows = licenses::of_plan(act.tx, plan.id, &range)?;
    let is_full = rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
    let mut applied = Applied {
        next: rows.last().map(|row| row.license.id).filter(|_| is_full),
        ..Applied::default()
    };
    for row in rows {
        applied.apply_to(act, &plan, row)?;
    }
    let skipped = applied.skipped.iter();
    let skipped: Vec<LicenseId> = skipped.map(|skipped| skipped.license.id).collect();
    act.changed(&Change {
        action: "plans.apply",
        subject: &product_state::audit_subject(act.tx, product, code)?,
        before: Value::Null,
        after: json!({ "licenses_changed": applied.changed, "licenses_skipped": skipped }),
    })?;
    Ok(applied)
}
