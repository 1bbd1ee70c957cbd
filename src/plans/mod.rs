//! Plans: what a shop sells. A license that is issued by a plan gets the values of the plan; changes of the plan reach
//! sold licenses only if it is applied to them.

mod apply;
pub mod cli;
mod json;
pub mod panel;
mod rules;
mod sale;
mod store;

pub use apply::{Applied, ApplyPreview, ApplyStep, SkippedLicense, apply, apply_preview};
pub use rules::Refusal;
pub use sale::{Sale, order, order_by_code, sell};

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Faults, Resource, Result};
use crate::features::Features;
use crate::id::{PlanId, ProductId};
use crate::licenses::Kind;
use crate::paging::{Direction, Page, PageRequest, SortPosition, Total};
use crate::product_state;
use crate::revision::Revision;
use crate::text;

/// Most plans of a product that are listed.
pub const LISTED_MAX: u32 = 10_000;
/// Most plans that a form offers.
const OFFERED_MAX: u32 = 200;

/// When the term of a license begins that is issued by a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TermStart {
    /// When it is issued.
    Issue,
    /// When its first device is activated.
    FirstActivation,
}

impl TermStart {
    /// Both, in the order of forms.
    pub const ALL: [Self; 2] = [Self::Issue, Self::FirstActivation];

    /// The word in the database, in JSON and in forms.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::FirstActivation => "first_activation",
        }
    }

    /// The start for a word; `None` if unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|start| start.as_str() == text)
    }
}

/// A number of days that may be unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// For ever.
    Unlimited,
    /// So many days.
    Limited(u32),
}

impl Days {
    /// The number; `None` if unlimited.
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::Unlimited => None,
            Self::Limited(days) => Some(days),
        }
    }
}

/// What a plan gives: everything that can be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanTerms {
    /// Its name for people; 1 to 100 characters.
    pub name: String,
    /// Full or trial.
    pub kind: Kind,
    /// How many devices of each license may hold a slot.
    pub device_limit: u32,
    /// The days of the term, 1 to 36500; `None` if its licenses do not expire.
    pub term_days: Option<u32>,
    /// When the term begins.
    pub term_starts: TermStart,
    /// What its licenses allow a program to do.
    pub features: Features,
    /// The days, from the issue of a license, in which released versions are covered; `None` if all are.
    pub updates_days: Option<u32>,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The id.
    pub id: PlanId,
    /// The product that it sells.
    pub product: ProductId,
    /// Its name in addresses and commands, which never changes; unique in its product.
    pub code: String,
    /// What it gives.
    pub terms: PlanTerms,
    /// When it was added.
    pub created_at: UnixMs,
    /// When it was archived; `None` while it may be sold.
    pub archived_at: Option<UnixMs>,
}

impl Plan {
    /// Identifies what can be edited, to detect edit conflicts.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.terms.facts())
    }

    /// Fails if it is archived.
    ///
    /// # Errors
    /// [`Refusal::Archived`].
    pub fn check_for_sale(&self) -> Result<()> {
        match self.archived_at {
            None => Ok(()),
            Some(_) => Err(Refusal::Archived(self.code.clone()).into()),
        }
    }
}

/// A plan as a row of a list.
#[derive(Clone, Debug)]
pub struct PlanRow {
    /// The plan.
    pub plan: Plan,
    /// How many licenses were issued by it.
    pub licenses: u32,
}

/// Which plans a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanFilter {
    /// All of them.
    #[default]
    All,
    /// Those that may be sold.
    ForSale,
    /// Those that are archived.
    Archived,
}

impl PlanFilter {
    /// Every filter, in the order of the panel.
    pub const ALL: [Self; 3] = [Self::All, Self::ForSale, Self::Archived];

    /// The word in URLs and SQL queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::ForSale => "for_sale",
            Self::Archived => "archived",
        }
    }

    /// The filter for a word; `None` if unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.as_str() == text)
    }
}

/// The plan of a product with this code, archived or not.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn get(reader: &Reader<'_>, product: ProductId, code: &str) -> Result<Plan> {
    store::by_code(reader, product, code)?.ok_or_else(|| Error::not_found(Resource::Plan, code))
}

/// The plan with this id, archived or not.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn by_id(reader: &Reader<'_>, id: PlanId) -> Result<Plan> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found(Resource::Plan, id))
}

/// A column by which the list of plans can be sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanColumn {
    /// When it was added.
    #[default]
    Added,
    /// The name.
    Name,
    /// The code.
    Code,
    /// The kind of license.
    Kind,
    /// How many devices may hold a slot.
    Devices,
    /// How long licenses last, the unlimited ones last.
    Term,
    /// For how long updates are covered, the unlimited ones last.
    Updates,
    /// How many licenses were issued by it.
    Licenses,
}

impl PlanColumn {
    /// Every column.
    pub const ALL: [Self; 8] = [
        Self::Added,
        Self::Name,
        Self::Code,
        Self::Kind,
        Self::Devices,
        Self::Term,
        Self::Updates,
        Self::Licenses,
    ];

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Name => "name",
            Self::Code => "code",
            Self::Kind => "kind",
            Self::Devices => "devices",
            Self::Term => "term",
            Self::Updates => "updates",
            Self::Licenses => "licenses",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

impl PlanRow {
    /// The position in a list sorted by `column`.
    pub fn position(&self, column: PlanColumn) -> SortPosition {
        let (plan, id) = (&self.plan, self.plan.id.0);
        let days = |days: Option<u32>| SortPosition::number(days.map_or(i64::MAX, i64::from), id);
        let value = match column {
            PlanColumn::Added => String::new(),
            PlanColumn::Name => text::sort_key(&plan.terms.name),
            PlanColumn::Code => plan.code.clone(),
            PlanColumn::Devices => {
                return SortPosition::number(plan.terms.device_limit.into(), id);
            }
            PlanColumn::Kind => plan.terms.kind.as_str().to_owned(),
            PlanColumn::Term => return days(plan.terms.term_days),
            PlanColumn::Updates => return days(plan.terms.updates_days),
            PlanColumn::Licenses => return SortPosition::number(self.licenses.into(), id),
        };
        SortPosition { value, id }
    }
}

/// Which plans to list.
#[derive(Clone, Copy, Debug)]
pub struct PlanQuery {
    /// Of this product.
    pub product: ProductId,
    /// Which of them.
    pub filter: PlanFilter,
    /// The column by which they are sorted, and in which direction.
    pub order: (PlanColumn, Direction),
}

/// A page of the plans of a product, each with the number of licenses that were issued by it, and how many there are: no
/// more than the first [`LISTED_MAX`].
pub fn page(
    reader: &Reader<'_>,
    query: &PlanQuery,
    request: &PageRequest<SortPosition>,
) -> Result<(Page<PlanRow>, Total)> {
    let rows = store::list(reader, query.product, query.filter, LISTED_MAX)?;
    let total = Total::Exactly(u32::try_from(rows.len()).unwrap_or(u32::MAX));
    let (column, direction) = query.order;
    let page = request.cut(rows, direction, |row| row.position(column));
    Ok((page, total))
}

/// The plans of a product that may be sold, by name, for forms.
pub fn for_sale(reader: &Reader<'_>, product: ProductId) -> Result<Vec<Plan>> {
    store::for_sale(reader, product, OFFERED_MAX)
}

/// Adds a plan to a product. Its code is never used again in that product.
///
/// # Errors
/// [`Error::Invalid`] for an invalid field, [`Refusal::Exists`], `product_archived`.
pub fn add(act: &Act<'_>, product: ProductId, code: &str, terms: &PlanTerms) -> Result<Plan> {
    product_state::check_in_use(act.tx, product)?;
    let terms = rules::normalized(terms);
    let mut faults = Faults::default();
    faults.keep(rules::check_code(code));
    faults.keep(rules::check(&terms));
    if store::by_code(act.tx, product, code)?.is_some() {
        faults.add(Refusal::Exists(code.to_owned()));
    }
    faults.finish()?;
    store::insert(
        act.tx,
        &store::NewPlan {
            product,
            code,
            terms: &terms,
        },
        act.now,
    )?;
    act.changed(&Change {
        action: "plans.add",
        subject: &product_state::audit_subject(act.tx, product, code)?,
        before: Value::Null,
        after: terms.facts(),
    })?;
    get(act.tx, product, code)
}

/// Changes to a plan; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct PlanChange {
    /// The new name.
    pub name: Option<String>,
    /// Full or trial.
    pub kind: Option<Kind>,
    /// The new device limit.
    pub device_limit: Option<u32>,
    /// The new term.
    pub term_days: Option<Days>,
    /// When the term begins.
    pub term_starts: Option<TermStart>,
    /// The new features, all of them.
    pub features: Option<Features>,
    /// For how long released versions are covered.
    pub updates_days: Option<Days>,
    /// The change is refused if the plan has another [`Plan::revision`].
    pub seen: Option<Revision>,
}

impl PlanChange {
    /// Replaces everything, if the plan still has the revision `seen`. A trial without a term gets that of trials.
    pub fn replacing(terms: PlanTerms, seen: Revision) -> Self {
        let terms = rules::normalized(&terms);
        let days = |days: Option<u32>| Some(days.map_or(Days::Unlimited, Days::Limited));
        Self {
            name: Some(terms.name),
            kind: Some(terms.kind),
            device_limit: Some(terms.device_limit),
            term_days: days(terms.term_days),
            term_starts: Some(terms.term_starts),
            features: Some(terms.features),
            updates_days: days(terms.updates_days),
            seen: Some(seen),
        }
    }

    /// Whether nothing is to be changed.
    pub const fn is_empty(&self) -> bool {
        let Self {
            name,
            kind,
            device_limit,
            term_days,
            term_starts,
            features,
            updates_days,
            seen: _,
        } = self;
        name.is_none()
            && kind.is_none()
            && device_limit.is_none()
            && term_days.is_none()
            && term_starts.is_none()
            && features.is_none()
            && updates_days.is_none()
    }

    /// `old` with these changes.
    fn of(&self, old: &PlanTerms) -> PlanTerms {
        PlanTerms {
            name: self.name.clone().unwrap_or_else(|| old.name.clone()),
            kind: self.kind.unwrap_or(old.kind),
            device_limit: self.device_limit.unwrap_or(old.device_limit),
            term_days: self.term_days.map_or(old.term_days, Days::number),
            term_starts: self.term_starts.unwrap_or(old.term_starts),
            features: self.features.as_ref().unwrap_or(&old.features).clone(),
            updates_days: self.updates_days.map_or(old.updates_days, Days::number),
        }
    }
}

/// Checks a term that somebody chose for a plan of this kind; `None`: none was chosen.
///
/// # Errors
/// [`Error::Invalid`] for a trial that is to have no end.
pub fn check_chosen_term(kind: Kind, chosen: Option<Days>) -> Result<()> {
    rules::check_chosen_term(kind, chosen)
}

/// Changes a plan, archived or not. Licenses that were issued by it stay as they are.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], `changed_meanwhile`, `product_archived`, and [`Refusal::OffersTrials`] if it
/// is to sell full licenses while the product issues its trials by it.
pub fn edit(act: &Act<'_>, product: ProductId, code: &str, change: &PlanChange) -> Result<Plan> {
    product_state::check_in_use(act.tx, product)?;
    let old = get(act.tx, product, code)?;
    if let Some(seen) = &change.seen {
        seen.check(&old.revision())?;
    }
    let terms = rules::normalized(&change.of(&old.terms));
    let mut faults = Faults::default();
    faults.keep(rules::check_chosen_term(terms.kind, change.term_days));
    faults.keep(rules::check(&terms));
    let ends_trials = old.terms.kind == Kind::Trial && terms.kind == Kind::Full;
    if ends_trials && store::offers_trials(act.tx, old.id)? {
        faults.add(Refusal::OffersTrials(old.code.clone()));
    }
    faults.finish()?;
    store::update(act.tx, old.id, &terms)?;
    act.changed(&Change {
        action: "plans.edit",
        subject: &product_state::audit_subject(act.tx, product, code)?,
        before: old.terms.facts(),
        after: terms.facts(),
    })?;
    Ok(Plan { terms, ..old })
}

/// Archives a plan for ever: nothing is sold by it any more. Licenses that were issued by it stay as they are.
///
/// # Errors
/// [`Error::NotFound`], `product_archived`, and [`Refusal::OffersTrials`] while the product issues its trials by it.
pub fn archive(act: &Act<'_>, product: ProductId, code: &str) -> Result<Plan> {
    product_state::check_in_use(act.tx, product)?;
    let plan = get(act.tx, product, code)?;
    if plan.archived_at.is_some() {
        return Ok(plan);
    }
    if store::offers_trials(act.tx, plan.id)? {
        return Err(Refusal::OffersTrials(plan.code).into());
    }
    store::archive(act.tx, plan.id, act.now)?;
    act.changed(&Change {
        action: "plans.archive",
        subject: &product_state::audit_subject(act.tx, product, code)?,
        before: json!({ "archived_at": null }),
        after: json!({ "archived_at": act.now.rfc3339() }),
    })?;
    Ok(Plan {
        archived_at: Some(act.now),
        ..plan
    })
}

impl PlanTerms {
    /// What a plan gives, as forms and the audit log have it: the features in one text.
    fn facts(&self) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "device_limit": self.device_limit,
            "term_days": self.term_days,
            "term_starts": self.term_starts,
            "features": self.features.stored(),
            "updates_days": self.updates_days,
        })
    }
}
