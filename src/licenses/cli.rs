//! Command line: `license-server license …`, except for devices and domains.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Buyer, Extension, Kind, License, LicenseSearch, Order, Term};
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::{Console, Extent, Table};
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::products::Slugs;
use crate::products::cli::ProductArg;

const LIST_MAX: u32 = 100_000;
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
/// The options that are called otherwise than the fields of an order.
const OPTIONS: &[(&str, &str)] = &[("device_limit", "devices"), ("valid_until", "valid-until")];

/// `license issue`
#[derive(Debug, Args)]
pub struct Issue {
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
    /// Kind of license
    #[arg(long, value_enum, default_value_t = KindWord::Full)]
    kind: KindWord,
    /// Number of devices that can hold a slot
    #[arg(long, default_value_t = 1)]
    devices: u32,
    /// Last day (2027-12-31) or moment (2027-12-31T12:00:00Z); by default a full license never expires,
    /// and a trial ends after 30 days
    #[arg(long, value_name = "DATE")]
    valid_until: Option<String>,
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

/// Issues licenses and prints their keys.
pub fn issue(console: &Console, issue: Issue) -> Result<()> {
    let kind = match issue.kind {
        KindWord::Full => Kind::Full,
        KindWord::Trial => Kind::Trial,
    };
    let valid_until = issue
        .valid_until
        .as_deref()
        .map(|text| date("valid-until", text))
        .transpose()?;
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let buyer = match (issue.customer_id, issue.customer) {
        (Some(id), _) => Buyer::Known(id),
        (None, named) => Buyer::Named(named.unwrap_or_default()),
    };
    let sold = console.db.write_blocking("licenses.sell", move |tx| {
        let product = issue.product.resolve(tx)?.id;
        let order = Order {
            kind,
            term: valid_until.map_or(Term::Default, Term::Until),
            domain: issue.domain,
            count: issue.count,
            note: issue.note,
            ..Order::one(product, issue.devices)
        };
        let sold = super::sell(&Act::new(tx, &actor, now), &buyer, &order)?;
        Ok((sold, Slugs::read(tx)?))
    });
    let (licenses, slugs) = sold.map_err(|error| error.with_field_names(OPTIONS))?;
    console.show(
        &json!({ "licenses": documents(&licenses, &slugs) }),
        &table(&licenses, &slugs),
    )
}

/// Lists licenses, newest first; of all products unless one is named.
pub fn list(console: &Console, product: &ProductArg, search: &str) -> Result<()> {
    let (mut licenses, slugs) = console.db.read_blocking(|reader| {
        let product = product.narrow(reader)?.map(|product| product.id);
        let query = LicenseSearch {
            search,
            product,
            limit: LIST_MAX + 1,
        };
        Ok((super::list(reader, query)?, Slugs::read(reader)?))
    })?;
    let cut = Extent::truncate(&mut licenses, LIST_MAX);
    console.show_list(
        json!({ "licenses": documents(&licenses, &slugs) }),
        &table(&licenses, &slugs),
        cut,
        "narrow the list with --search",
    )
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
    console.show_line(&json!({ "licenses": documents(&[license], &slugs) }), &line)
}

/// The license of a typed key, and the slugs of all products.
fn id_and_slugs(console: &Console, key: &str) -> Result<(LicenseId, Slugs)> {
    console.db.read_blocking(|reader| {
        let license = super::by_typed_key(reader, key)?;
        Ok((license.id, Slugs::read(reader)?))
    })
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
    let until = license.valid_until.map(UnixMs::rfc3339).unwrap_or_default();
    let line = format!("license {} is valid until {until}", license.key.formatted());
    console.show_line(&json!({ "licenses": documents(&[license], &slugs) }), &line)
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
        "domain": license.domain,
        "note": license.note,
        "created_at": license.created_at.rfc3339(),
    })
}

fn table(licenses: &[License], slugs: &Slugs) -> Table {
    let rows = licenses.iter().map(|license| {
        let mut row = vec![
            license.id.to_string(),
            license.key.formatted(),
            license.customer.clone(),
            license.kind.as_str().to_owned(),
            license.state.as_str().to_owned(),
            license.device_limit.to_string(),
            license
                .valid_until
                .map_or_else(|| "no end".to_owned(), UnixMs::rfc3339),
            license.domain.clone().unwrap_or_default(),
        ];
        if slugs.are_several() {
            row.push(slugs.of(license.product).to_owned());
        }
        row
    });
    Table::new(slugs.table_head(HEAD)).with(rows)
}
