//! Command line: `license-server session history --refused`, and refused calls in other commands.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Filter, RecordedRefusal, RefusalColumn, Scope};
use crate::clock::UnixMs;
use crate::console::{Console, Extent, List};
use crate::error::Result;
use crate::licenses;
use crate::licenses::LicenseKey;
use crate::paging::PageRequest;
use crate::products::Slugs;
use crate::terms::Terms;

/// Maximum rows listed: as many as are stored.
const LIST_MAX: u32 = super::ROWS_MAX;
const HOUR: Duration = Duration::from_hours(1);

/// The head of the table; the last column only if there are several products.
const HEADER: &[&str] = &[
    "time",
    "calls",
    "code",
    "call",
    "license key",
    "customer",
    "device",
    "version",
    "address",
    "product",
];

/// Lists refused calls, the latest first.
///
/// # Errors
/// If `license` is an unknown key.
pub fn history(console: &Console, hours: u32, license: Option<&str>) -> Result<()> {
    let since = console.now().wall.minus(HOUR * hours);
    let (mut rows, slugs) = console.db.read_blocking(|reader| {
        let rows = if let Some(key) = license {
            let license = licenses::by_typed_key(reader, key)?;
            super::of_license(reader, license.id, since, LIST_MAX)?
        } else {
            let scope = (&everything(since), &Scope::Many);
            super::page(reader, scope, &PageRequest::first(LIST_MAX))?.rows
        };
        Ok((rows, Slugs::read(reader)?))
    })?;
    let extent = Extent::truncate(&mut rows, LIST_MAX);
    console.show_list(&List {
        product: None,
        name: "refusals",
        rows: &rows,
        document: &|row| to_json(row, &slugs),
        head: slugs.table_head(HEADER),
        cells: &|row| table_row(row, &slugs),
        cut: extent,
        advice: "narrow the list with --hours or --license",
    })
}

fn everything(since: UnixMs) -> Filter {
    Filter {
        code: String::new(),
        key: String::new(),
        customer: Terms::default(),
        device: Terms::default(),
        product: None,
        since,
        until: UnixMs(i64::MAX),
        order: RefusalColumn::DEFAULT,
    }
}

/// Refused calls in JSON output.
pub fn to_json(row: &RecordedRefusal, slugs: &Slugs) -> Value {
    json!({
        "at": row.at.rfc3339(),
        "last_at": row.last_at.rfc3339(),
        "calls": row.calls,
        "code": row.code,
        "detail": row.detail,
        "call": row.call,
        "license_key": row.license_key,
        "product": row.product.map(|product| slugs.of(product)),
        "customer": row.customer,
        "masked_key": row.masked_key,
        "machine_id": row.machine_id,
        "hardware_id": row.hardware_id,
        "version": row.version,
        "domain": row.domain,
        "address": row.address,
    })
}

fn table_row(row: &RecordedRefusal, slugs: &Slugs) -> Vec<String> {
    let key = row.license_key.as_ref().map(LicenseKey::formatted);
    let product = row.product.map(|product| slugs.of(product).to_owned());
    let mut cells = vec![
        row.at.rfc3339(),
        row.calls.to_string(),
        row.code.clone(),
        row.call.clone(),
        key.unwrap_or_else(|| row.masked_key.clone()),
        row.customer.clone(),
        named(row).to_owned(),
        row.version.clone(),
        row.address.clone(),
    ];
    if slugs.are_several() {
        cells.push(product.unwrap_or_default());
    }
    cells
}

/// The device of a program, or the domain of a website.
fn named(row: &RecordedRefusal) -> &str {
    let names = [&row.machine_id, &row.domain];
    let mut names = names.into_iter().filter(|name| !name.is_empty());
    names.next().map_or(&row.hardware_id, String::as_str)
}

/// Refused calls as one line.
pub fn line(row: &RecordedRefusal) -> String {
    let what = [named(row), &row.version, &row.address];
    let what = what.into_iter().filter(|text| !text.is_empty());
    let what: Vec<&str> = what.collect();
    let times = match row.calls {
        1 => String::new(),
        calls => format!(", {calls} times"),
    };
    format!(
        "{} {} ({}){times}",
        row.at.rfc3339(),
        row.code,
        what.join(", ")
    )
}
