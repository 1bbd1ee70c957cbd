//! Command line: `license-server license …`, except for devices and domains.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Buyer, EditedTerms, Extension, Features, Kind, License, LicenseEdit, LicenseSearch};
use crate::activations;
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::{self, Console, Extent, List, NOTHING_TO_CHANGE, Table};
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::logging::counted;
use crate::plans::{self, Sale};
use crate::products::Slugs;
use crate::products::cli::ProductArg;
use crate::sessions::cli::StoredLiveness;
use crate::terms::Terms;

const LIST_MAX: u32 = 100_000;
/// The most days of `license issue --days`: a hundred years.
const DAYS_MAX: i64 = 36_500;
const DAY: Duration = Duration::from_hours(24);
/// The head of the table; the last column only if there are several products.
const HEAD: &[&str] = &[
    "id",
    "license key",
    "customer",
    "kind",
    "state",
    "devices",
    "valid until",
    "domain",
    "product",
];
/// The same if a license has a plan.
const HEAD_WITH_PLAN: &[&str] = &[
    "id",
    "license key",
    "customer",
    "kind",
    "state",
    "devices",
    "valid until",
    "domain",
    "plan",
    "product",
];
/// The options that are called otherwise than the fields of an order.
const OPTIONS: &[(&str, &str)] = &[
    ("device_limit", "devices"),
    ("valid_until", "valid-until"),
    ("features", "feature"),
    ("updates_until", "updates-until"),
];

/// The customer who buys.
#[derive(Debug, Args)]
pub struct BuyerArgs {
    /// The customer's id (7 or '#7') or name
    #[arg(
        long,
        value_name = "ID|NAME",
        required_unless_present = "customer_id",
        conflicts_with = "customer_id"
    )]
    customer: Option<String>,
    /// The customer's id, even if it is another customer's name
    #[arg(long, value_name = "ID")]
    customer_id: Option<CustomerId>,
}

impl BuyerArgs {
    /// The customer that the options name.
    pub fn into_buyer(self) -> Buyer {
        match (self.customer_id, self.customer) {
            (Some(id), _) => Buyer::Known(id),
            (None, named) => Buyer::Named(named.unwrap_or_default()),
        }
    }
}

/// `license issue`
#[derive(Debug, Args)]
pub struct Issue {
    #[command(flatten)]
    buyer: BuyerArgs,
    /// Code of the plan whose values the license gets; the options below override its values
    #[arg(long, value_name = "CODE")]
    plan: Option<String>,
    /// Kind of license [default: as the plan, else full]
    #[arg(long, value_enum)]
    kind: Option<KindWord>,
    /// Number of devices that can hold a slot [default: as the plan, else 1]
    #[arg(long)]
    devices: Option<u32>,
    /// Last day (2027-12-31) or moment (2027-12-31T12:00:00Z); without it and without a plan a full license never
    /// expires, and a trial ends after 30 days
    #[arg(long, value_name = "DATE", conflicts_with = "days")]
    valid_until: Option<String>,
    /// The same as a number of days from now
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: Option<u32>,
    /// A feature, such as export; may be repeated [default: as the plan, else none]
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<String>,
    /// Last day or moment of the releases that it covers [default: as the plan, else all releases]
    #[arg(long, value_name = "DATE")]
    updates_until: Option<String>,
    /// The domain to bind it to
    #[arg(long)]
    domain: Option<String>,
    /// Number of licenses
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Note for administrators
    #[arg(long, default_value = "")]
    note: String,
    #[command(flatten)]
    product: ProductArg,
}

/// The value of `--kind`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KindWord {
    /// A purchased license
    Full,
    /// A trial license
    Trial,
}

/// `license revoke`
#[derive(Debug, Args)]
pub struct Revoke {
    /// The license key
    key: String,
    /// Revoke it without asking
    #[arg(long)]
    yes: bool,
}

/// `license edit`
#[derive(Debug, Args)]
pub struct Edit {
    /// The license key
    key: String,
    /// Kind of license
    #[arg(long, value_enum)]
    kind: Option<KindWord>,
    /// Number of devices that can hold a slot
    #[arg(long)]
    devices: Option<u32>,
    /// Last day or moment; '': never expires
    #[arg(long, value_name = "DATE")]
    valid_until: Option<String>,
    /// Code of the plan that it counts as sold under, whose values are not copied; '': none
    #[arg(long, value_name = "CODE")]
    plan: Option<String>,
    /// A feature; may be repeated, and replaces all; '': none
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Option<Vec<String>>,
    /// Last day or moment of the releases that it covers; '': all releases
    #[arg(long, value_name = "DATE")]
    updates_until: Option<String>,
    /// Note for administrators
    #[arg(long)]
    note: Option<String>,
    /// The customer who owns it: id (7 or '#7') or name; a trial is sold with `license sell`
    #[arg(long, value_name = "ID|NAME")]
    customer: Option<String>,
}

/// `license extend`
#[derive(Debug, Args)]
pub struct Extend {
    /// The license key
    key: String,
    /// New last day or moment
    #[arg(
        long,
        value_name = "DATE",
        required_unless_present = "days",
        conflicts_with = "days"
    )]
    until: Option<String>,
    /// Extend by this many days, from the expiry date or, if expired, from now
    #[arg(long)]
    days: Option<u32>,
}

/// An operation that changes the state of a license: suspend, reinstate or revoke.
pub type StateChange = fn(&Act<'_>, LicenseId) -> Result<License>;

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Full => Self::Full,
            KindWord::Trial => Self::Trial,
        }
    }
}

/// Features as they were typed, one option each.
pub fn features(words: &[String]) -> Result<Features> {
    Features::from_input(&words.join(" "))
}

/// Issues licenses and prints their keys.
pub fn issue(console: &Console, issue: Issue) -> Result<()> {
    let date_of = |field, text: &Option<String>| {
        let text = text.as_deref();
        text.map(|text| date(field, text)).transpose()
    };
    let (product, slugs) = console
        .db
        .read_blocking(|reader| Ok((issue.product.resolve(reader)?, Slugs::read(reader)?)))?;
    let sale = Sale {
        product: product.id,
        kind: issue.kind.map(Kind::from),
        device_limit: issue.devices,
        valid_until: match issue.days {
            Some(days) => Some(console.now().wall.plus(DAY * days)),
            None => date_of("valid-until", &issue.valid_until)?,
        },
        features: match issue.features.as_slice() {
            [] => None,
            words => Some(features(words)?),
        },
        updates_until: date_of("updates-until", &issue.updates_until)?,
        plan: issue.plan,
        domain: issue.domain,
        count: issue.count,
        note: issue.note,
    };
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let buyer = issue.buyer.into_buyer();
    let sold = console.db.write_blocking("plans.sell", move |tx| {
        plans::sell(&Act::new(tx, &actor, now), &buyer, &sale)
    });
    let licenses = sold.map_err(|error| error.with_field_names(OPTIONS))?;
    console.show(
        &json!({ "licenses": documents(&licenses, &slugs) }),
        &table(&licenses, &slugs),
    )
}

/// Lists licenses, newest first; of all products unless one is named.
pub fn list(console: &Console, product: &ProductArg, search: &str) -> Result<()> {
    let search = Terms::parse(search);
    let (mut licenses, slugs) = console.db.read_blocking(|reader| {
        let product = product.narrow(reader)?.map(|product| product.id);
        let query = LicenseSearch {
            search: &search,
            product,
            limit: LIST_MAX + 1,
        };
        Ok((super::list(reader, query)?, Slugs::read(reader)?))
    })?;
    let cut = Extent::truncate(&mut licenses, LIST_MAX);
    let table = LicenseTable::of(&licenses, &slugs);
    console.show_list(&List {
        product: None,
        name: "licenses",
        rows: &licenses,
        document: &|license| to_json(license, &slugs),
        head: table.head(),
        cells: &|license| table.cells(license),
        cut,
        advice: "narrow the list with --search",
    })
}

/// Suspends, reinstates or revokes the license of `key`.
pub fn change_state(console: &Console, key: &str, operation: StateChange) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let (id, slugs) = id_and_slugs(console, key)?;
    let license = console
        .db
        .write_blocking("licenses.change_state", move |tx| {
            operation(&Act::new(tx, &actor, now), id)
        })?;
    let line = format!(
        "license {} is {}",
        license.key.formatted(),
        license.state.as_str()
    );
    show_one(console, license, &slugs, &line)
}

/// Revokes a license, after a confirmation.
///
/// # Errors
/// [`Error::Usage`] if it is not confirmed; those of [`super::revoke`].
pub fn revoke(console: &Console, Revoke { key, yes }: &Revoke) -> Result<()> {
    if !yes {
        // Refused before anything is asked.
        let license = console
            .db
            .read_blocking(|reader| super::by_typed_key(reader, key))?;
        console::message(&format!(
            "This permanently revokes the license {} of {}: it cannot be used or reinstated any more. Type yes to confirm, or \
             use --yes:",
            license.key.formatted(),
            customer_cell(&license.customer)
        ));
        if console::first_line_of_input()?.trim() != "yes" {
            return Err(Error::Usage(
                "it was not confirmed; nothing was changed".to_owned(),
            ));
        }
    }
    change_state(console, key, super::revoke)
}

/// Prints a license that was changed: `line`, or its JSON.
pub fn show_one(console: &Console, license: License, slugs: &Slugs, line: &str) -> Result<()> {
    console.show_line(&json!({ "licenses": documents(&[license], slugs) }), line)
}

/// The license of a typed key, and the slugs of all products.
pub fn id_and_slugs(console: &Console, key: &str) -> Result<(LicenseId, Slugs)> {
    console.db.read_blocking(|reader| {
        let license = super::by_typed_key(reader, key)?;
        Ok((license.id, Slugs::read(reader)?))
    })
}

/// Changes the terms of a license.
pub fn edit(console: &Console, edit: Edit) -> Result<()> {
    let terms = EditedTerms {
        kind: edit.kind.map(Kind::from),
        device_limit: edit.devices,
        valid_until: edit.valid_until,
        plan: edit.plan,
        features: edit.features.as_deref().map(features).transpose()?,
        updates_until: edit.updates_until,
        note: edit.note,
        customer: edit.customer,
        ..EditedTerms::default()
    };
    if terms == EditedTerms::default() {
        return Err(Error::Usage(NOTHING_TO_CHANGE.to_owned()));
    }
    let customer = terms.customer.as_deref().map(str::trim);
    if customer.is_some_and(str::is_empty) {
        let problem = "must be an id or a name, as in `customer list`";
        return Err(Error::invalid("customer", problem));
    }
    let actor = Actor::command_line(&console.user);
    let (id, slugs) = id_and_slugs(console, &edit.key)?;
    let StoredLiveness { live, now, .. } = StoredLiveness::load(console)?;
    let edit = LicenseEdit {
        id,
        terms,
        seen: None,
    };
    let edited = console.db.write_blocking("licenses.edit", move |tx| {
        activations::edit_license(&Act::new(tx, &actor, now.wall), live.at(now), &edit)
    });
    let license = edited.map_err(|error| error.with_field_names(OPTIONS))?;
    let line = format!("license {} changed", license.key.formatted());
    show_one(console, license, &slugs, &line)
}

/// Changes the expiry date of a license.
pub fn extend(console: &Console, extend: &Extend) -> Result<()> {
    let by = match (&extend.until, extend.days) {
        (Some(until), _) => Extension::Until(date("until", until)?),
        (None, Some(days)) => Extension::Days(days),
        (None, None) => return Err(Error::Usage("give --until or --days".to_owned())),
    };
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let (id, slugs) = id_and_slugs(console, &extend.key)?;
    let license = console.db.write_blocking("licenses.extend", move |tx| {
        super::extend(&Act::new(tx, &actor, now), id, by)
    })?;
    let line = match license.valid_until {
        Some(until) => format!(
            "license {} is valid until {}",
            license.key.formatted(),
            until.rfc3339()
        ),
        None => format!(
            "license {}: {}",
            license.key.formatted(),
            end_of_term(&license)
        ),
    };
    show_one(console, license, &slugs, &line)
}

fn date(field: &'static str, text: &str) -> Result<UnixMs> {
    UnixMs::parse(text).map_err(|problem| Error::invalid(field, problem))
}

fn documents(licenses: &[License], slugs: &Slugs) -> Vec<Value> {
    let licenses = licenses.iter();
    licenses.map(|license| to_json(license, slugs)).collect()
}

/// A license in JSON output.
pub fn to_json(license: &License, slugs: &Slugs) -> Value {
    json!({
        "id": license.id,
        "license_key": license.key,
        "product": slugs.of(license.product),
        "customer_id": license.customer_id,
        "customer": license.customer,
        "kind": license.kind,
        "state": license.state,
        "device_limit": license.device_limit,
        "valid_from": license.valid_from.rfc3339(),
        "valid_until": license.valid_until.map(UnixMs::rfc3339),
        "term_days_from_first_activation": license.pending_days,
        "plan": license.plan,
        "features": license.features,
        "updates_until": license.updates_until.map(UnixMs::rfc3339),
        "domain": license.domain,
        "note": license.note,
        "created_at": license.created_at.rfc3339(),
    })
}

/// The end of a license for people: its date, or what begins its term.
pub fn end_of_term(license: &License) -> String {
    match (license.valid_until, license.pending_days) {
        (Some(until), _) => until.rfc3339(),
        (None, Some(days)) => {
            let days = counted(days as usize, "day", "days");
            format!("{days}, starts with the first activation")
        }
        (None, None) => "no end".to_owned(),
    }
}

/// From when to when a license is valid, for people.
pub fn validity(license: &License) -> String {
    let from = license.valid_from.rfc3339();
    match (license.valid_until, license.pending_days) {
        (Some(until), _) => format!("{from} to {}", until.rfc3339()),
        (None, Some(days)) => {
            let term = counted(days as usize, "day that starts", "days that start");
            format!("from {from}, for {term} with the first activation")
        }
        (None, None) => format!("from {from}, without an end"),
    }
}

/// The name of a customer in a table; words that say so for a trial that has none.
pub fn customer_cell(customer: &str) -> String {
    let name = if customer.is_empty() {
        "(trial, no customer yet)"
    } else {
        customer
    };
    name.to_owned()
}

/// The columns of plan and product are shown only if there is something to tell.
/// The table of some licenses.
struct LicenseTable<'a> {
    /// Whether any of them has a plan.
    with_plan: bool,
    slugs: &'a Slugs,
}

impl<'a> LicenseTable<'a> {
    fn of(licenses: &[License], slugs: &'a Slugs) -> Self {
        Self {
            with_plan: licenses.iter().any(|license| license.plan.is_some()),
            slugs,
        }
    }

    fn head(&self) -> &'static [&'static str] {
        let head = if self.with_plan { HEAD_WITH_PLAN } else { HEAD };
        self.slugs.table_head(head)
    }

    fn cells(&self, license: &License) -> Vec<String> {
        let mut row = vec![
            license.id.to_string(),
            license.key.formatted(),
            customer_cell(&license.customer),
            license.kind.as_str().to_owned(),
            license.state.as_str().to_owned(),
            license.device_limit.to_string(),
            end_of_term(license),
            license.domain.clone().unwrap_or_default(),
        ];
        if self.with_plan {
            row.push(license.plan.clone().unwrap_or_default());
        }
        if self.slugs.are_several() {
            row.push(self.slugs.of(license.product).to_owned());
        }
        row
    }
}

fn table(licenses: &[License], slugs: &Slugs) -> Table {
    let table = LicenseTable::of(licenses, slugs);
    let rows = licenses.iter().map(|license| table.cells(license));
    Table::new(table.head()).with(rows)
}
