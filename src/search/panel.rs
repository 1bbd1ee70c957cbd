//! Handlers of the panel: the search in the bar, and its page.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{Found, FoundDevice, FoundSession, Group, Query, ReleasedDevice};
use crate::app::App;
use crate::customers::Customer;
use crate::domain::Domain;
use crate::id::{LicenseId, ProductId};
use crate::licenses::License;
use crate::manual;
use crate::panel::{PanelRequest, Support};
use crate::terms::{Pattern, Terms};
use crate::web::html::{Html, HtmlReply, path_with_query};

/// The address of the page.
const PAGE: &str = "/lizenzserver/search";
const CUSTOMERS: &str = "/lizenzserver/customers";
const LICENSES: &str = "/lizenzserver/licenses";
const MANUAL: &str = "/lizenzserver/help";
const REFUSALS: &str = "/lizenzserver/refusals";
/// How many things of a kind the page shows.
const ON_PAGE: u32 = 20;
/// How many things of a kind are suggested while somebody types.
const SUGGESTED: u32 = 5;
/// How much of a note is shown, in characters.
const NOTE_MAX: usize = 100;

/// Everything that `q` finds. A whole license key leads to its license at once. A script gets the suggestions that it shows
/// while somebody types.
#[get("/search?<q>")]
async fn search(request: Support<'_>, q: Option<&str>, app: &App) -> HtmlReply {
    let query = Query {
        terms: Terms::parse(q.unwrap_or_default()),
        product: request.chosen(),
        limit: if request.is_fragment() {
            SUGGESTED
        } else {
            ON_PAGE
        },
    };
    let typed = query.terms.typed().to_owned();
    let (words, limit) = (query.terms.words(), query.limit);
    let (license, found) = app
        .db
        .read(move |reader| {
            let license = super::license_with_key(reader, &query.terms)?;
            Ok((license, super::everything(reader, &query)?))
        })
        .await?;
    if let Some(license) = license.filter(|_| !request.is_fragment()) {
        return Html::redirect(license_address(&request, &license));
    }
    let mut groups = groups(&request, &found, &typed);
    groups.extend(manual_group(&request, &words, limit));
    let count: usize = groups
        .iter()
        .filter_map(|group| group["rows"].as_array())
        .map(Vec::len)
        .sum();
    let values = json!({
        "q": typed,
        "groups": groups,
        "count": count,
        "page": path_with_query(PAGE, &[("q", &typed)]),
        "refused": path_with_query(REFUSALS, &[("device", &typed), ("span", "all")]),
    });
    if request.is_fragment() {
        return request.part("search/options.html.tera", values);
    }
    request.page("search/page.html.tera", values).await
}

/// The groups that are not empty, for templates.
fn groups(request: &PanelRequest<'_>, found: &Found, typed: &str) -> Vec<Value> {
    let list = |path: &str| Some(path_with_query(path, &[("q", typed)]));
    let all = [
        group("customers", &found.customers, list(CUSTOMERS), customer_row),
        group("licenses", &found.licenses, list(LICENSES), |license| {
            license_row(request, license)
        }),
        group("devices", &found.devices, None, |device| {
            device_row(request, device)
        }),
        group("released", &found.released, None, |device| {
            released_row(request, device)
        }),
        group("sessions", &found.sessions, None, |session| {
            session_row(request, session)
        }),
    ];
    all.into_iter().flatten().collect()
}

/// `list` is the address of a list with all that was found, if there is one.
fn group<T>(
    kind: &str,
    group: &Group<T>,
    list: Option<String>,
    row: impl Fn(&T) -> Value,
) -> Option<Value> {
    let rows: Vec<Value> = group.rows.iter().map(row).collect();
    (!rows.is_empty())
        .then(|| json!({ "kind": kind, "rows": rows, "more": group.more, "list": list }))
}

/// The parts of the manual that have all the words.
fn manual_group(request: &PanelRequest<'_>, words: &Pattern, limit: u32) -> Option<Value> {
    let rows = request.app.manual.search(request.language, words);
    let found = Group::cut(rows, limit);
    group("manual", &found, None, manual_row)
}

fn manual_row(found: &manual::Found<'_>) -> Value {
    let manual::Found { page, section } = found;
    let anchor = match section.id.as_str() {
        "" => String::new(),
        id => format!("#{id}"),
    };
    let title = Some(&page.title).filter(|title| **title != section.heading);
    json!({
        "href": format!("{MANUAL}/{}{anchor}", page.name),
        "name": section.heading,
        "details": details([title.cloned().unwrap_or_default(), beginning(&section.text)]),
    })
}

fn customer_row(customer: &Customer) -> Value {
    json!({
        "href": format!("{CUSTOMERS}/{}", customer.id),
        "name": customer.name,
        "details": details([customer.company.clone(), customer.email.clone(), beginning(&customer.note)]),
        "licenses": customer.licenses,
    })
}

fn license_row(request: &PanelRequest<'_>, license: &License) -> Value {
    let product = request.product_name(license.product).unwrap_or_default();
    let domain = license
        .domain
        .as_deref()
        .map(domain_text)
        .unwrap_or_default();
    json!({
        "href": license_address(request, license),
        "key": license.key,
        "details": details([license.customer.clone(), product, domain, beginning(&license.note)]),
    })
}

fn device_row(request: &PanelRequest<'_>, FoundDevice { device, license }: &FoundDevice) -> Value {
    json!({
        "href": license_address(request, license),
        "name": device.machine_id,
        "details": details([device.hardware_id.clone(), license.key.formatted(), license.customer.clone()]),
    })
}

fn released_row(
    request: &PanelRequest<'_>,
    (device, license): &(ReleasedDevice, License),
) -> Value {
    json!({
        "href": license_address(request, license),
        "name": device.machine_id,
        "details": details([device.hardware_id.clone(), license.key.formatted(), license.customer.clone()]),
        "released_at": device.released_at,
    })
}

fn session_row(
    request: &PanelRequest<'_>,
    FoundSession { session, ended }: &FoundSession,
) -> Value {
    let key = session.license_key.formatted();
    json!({
        "href": address(request, session.license_id, session.product),
        "name": session.machine_id,
        "details": details([key, session.customer.clone()]),
        "started_at": session.started_at,
        "ended": ended,
    })
}

/// The address of a license; of one of another product than the chosen one, with its product.
fn license_address(request: &PanelRequest<'_>, license: &License) -> String {
    address(request, license.id, license.product)
}

fn address(request: &PanelRequest<'_>, id: LicenseId, product: ProductId) -> String {
    let path = format!("{LICENSES}/{id}");
    match request.chosen() {
        Some(chosen) if chosen != product => request.address_of(&path, product),
        _ => path,
    }
}

/// A domain in its own script, and in ASCII if that differs.
fn domain_text(domain: &str) -> String {
    let unicode = Domain::from_stored(domain).to_unicode();
    unicode.map_or_else(
        || domain.to_owned(),
        |unicode| format!("{unicode} ({domain})"),
    )
}

/// The beginning of a note.
fn beginning(note: &str) -> String {
    note.chars().take(NOTE_MAX).collect()
}

fn details<const N: usize>(all: [String; N]) -> Vec<String> {
    all.into_iter().filter(|text| !text.is_empty()).collect()
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![search]
}
