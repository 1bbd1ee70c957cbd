//! The list of licenses and its CSV export.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rocket::{FromForm, Route, get, routes};
use serde_json::{Value, json};

use super::{CSV, LIST, range, row_with_product};
use crate::app::App;
use crate::clock::UnixMs;
use crate::config::Language;
use crate::customers::{self, Customer};
use crate::db::Reader;
use crate::error::Result;
use crate::id::{CustomerId, ProductId};
use crate::licenses::{self, COLUMNS, LicenseCounts, LicenseFilter, LicenseQuery, LicenseRow};
use crate::paging::{Cursor, Direction, Page, PageRequest, SortPosition, Total};
use crate::panel::Support;
use crate::products::Slugs;
use crate::terms::{FOUND_MAX, Terms};
use crate::web::csv::Csv;
use crate::web::html::HtmlReply;
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query;

/// Maximum rows of a CSV file.
const EXPORT_MAX: u32 = 100_000;

/// The query parameters of the list about which licenses it shows.
#[derive(Debug, FromForm)]
struct Params<'r> {
    state: Option<&'r str>,
    customer: Option<&'r str>,
    first: Option<&'r str>,
    last: Option<&'r str>,
}

impl<'r> Params<'r> {
    /// # Errors
    /// [`Error::Invalid`] if a parameter cannot be read.
    fn query(&self, list: &ListParams<'_>, product: Option<ProductId>) -> Result<LicenseQuery> {
        let from = query::number("first", self.first)?;
        let to = query::number("last", self.last)?;
        let filter = query::parsed("state", self.state, LicenseFilter::parse)?;
        let customer = query::number("customer", self.customer)?;
        Ok(LicenseQuery {
            found: None,
            filter: filter.unwrap_or_default(),
            product,
            customer_id: customer.map(CustomerId),
            range: from.zip(to).map(range),
            order: list.sorting(|word| COLUMNS.into_iter().find(|column| *column == word))?,
        })
    }

    /// The parameters with the same search and customer.
    fn pairs(&self, list: &ListParams<'r>, filter: LicenseFilter) -> [(&'static str, &'r str); 3] {
        let state = if filter == LicenseFilter::All {
            ""
        } else {
            filter.as_str()
        };
        [
            ("q", list.search),
            ("state", state),
            ("customer", query::trimmed(self.customer)),
        ]
    }

    /// The filters of the list for the template, with the number of licenses that match each of them.
    fn filters(
        &self,
        list: &ListParams<'r>,
        chosen: LicenseFilter,
        tally: &LicenseCounts,
    ) -> Vec<Value> {
        let filters = LicenseFilter::ALL.map(|filter| {
            json!({
                "word": filter.as_str(),
                "count": tally.matching(filter),
                "address": list_url(list, &self.pairs(list, filter)).at(LIST),
                "chosen": filter == chosen,
            })
        });
        filters.into()
    }
}

fn list_url<'a>(params: &'a ListParams<'a>, filter: &'a [(&'a str, &'a str)]) -> ListUrl<'a> {
    ListUrl {
        path: LIST,
        params,
        filter,
        default_order: "",
    }
}

/// A list that was read: its page, and what its head says.
struct Listed {
    filter: LicenseFilter,
    page: Page<LicenseRow>,
    tally: LicenseCounts,
    order: Option<(&'static str, Direction)>,
    customer: Option<Customer>,
    is_cut: bool,
}

/// Reads the list of `query`, with what `search` finds.
fn read_list(
    reader: &Reader<'_>,
    (mut query, search): (LicenseQuery, &Terms),
    page_request: &PageRequest<SortPosition>,
    now: UnixMs,
) -> Result<Listed> {
    query.found = licenses::search(reader, search, query.product)?;
    let tally = licenses::count_by_filter(reader, &query, now)?;
    let customer = query.customer_id.map(|id| customers::get(reader, id));
    Ok(Listed {
        filter: query.filter,
        page: licenses::page(reader, &query, page_request, now)?,
        tally,
        order: query.order,
        customer: customer.transpose()?,
        is_cut: query.found.is_some_and(|found| found.is_cut),
    })
}

impl Listed {
    fn total(&self) -> Total {
        let total = Total::Exactly(self.tally.matching(self.filter));
        if self.is_cut { total.and_more() } else { total }
    }
}

/// A page of licenses.
#[get("/licenses?<params..>")]
async fn list(
    request: Support<'_>,
    list: ListParams<'_>,
    params: Params<'_>,
    app: &App,
) -> HtmlReply {
    let (query, page_request) = (params.query(&list, request.chosen())?, list.page()?);
    let (filter, search, now) = (query.filter, Terms::parse(list.search), request.now.wall);
    let is_first_page = page_request.from == Cursor::First;
    let listed = app
        .db
        .read(move |reader| read_list(reader, (query, &search), &page_request, now))
        .await?;
    let pairs = params.pairs(&list, filter);
    let url = list_url(&list, &pairs);
    let searched = !list.search.is_empty();
    let position = |row: &LicenseRow| row.position(listed.order);
    let values = json!({
        "rows": listed.page.rows.iter().map(|row| row_with_product(&request, row)).collect::<Vec<_>>(),
        "q": list.search,
        "state": filter.as_str(),
        "of": listed.customer,
        "searched": searched,
        "found_max": listed.is_cut.then_some(FOUND_MAX),
        // The figures count all licenses and would mislead above a part of them.
        "figures": !searched && filter == LicenseFilter::All && listed.customer.is_none() && is_first_page,
        "tally": listed.tally,
        "filters": params.filters(&list, filter, &listed.tally),
        "csv": url.at(CSV),
        "sheet_max": (listed.tally.matching(filter) > EXPORT_MAX).then_some(EXPORT_MAX),
        "heads": url.heads(&COLUMNS),
        "order": list.order,
        "pager": url.links(&listed.page, listed.total(), position)?,
    });
    request.page("licenses/list.html.tera", values).await
}

/// The CSV export of a list.
#[get("/licenses.csv?<params..>")]
async fn export(
    request: Support<'_>,
    list: ListParams<'_>,
    params: Params<'_>,
    app: &App,
) -> HtmlReply {
    let mut query = params.query(&list, request.chosen())?;
    let search = Terms::parse(list.search);
    let (now, language) = (request.now.wall, request.language);
    let csv = app
        .db
        .read(move |reader| {
            query.found = licenses::search(reader, &search, query.product)?;
            let page_request = PageRequest::first(EXPORT_MAX + 1);
            let page = licenses::page(reader, &query, &page_request, now)?;
            csv_of(reader, &page.rows, language)
        })
        .await?;
    Ok(csv.into_file(&format!("licenses-{}", request.today()))?)
}

/// Licenses as a CSV file, no more than [`EXPORT_MAX`].
pub(super) fn csv_of(reader: &Reader<'_>, rows: &[LicenseRow], language: Language) -> Result<Csv> {
    let max = usize::try_from(EXPORT_MAX).unwrap_or(usize::MAX);
    let slugs = Slugs::read(reader)?;
    let mut emails: BTreeMap<CustomerId, String> = BTreeMap::new();
    let mut csv = Csv::new(slugs.table_head(&CSV_COLUMNS), language)?;
    for row in rows {
        let email = match row.license.customer_id {
            None => "",
            Some(id) => match emails.entry(id) {
                Entry::Occupied(known) => known.into_mut().as_str(),
                Entry::Vacant(new) => new.insert(customers::get(reader, id)?.email),
            },
        };
        let cells = cells(row, email, &slugs);
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        csv.row_up_to(max, slugs.table_head(&cells))?;
    }
    Ok(csv)
}

/// The columns of the CSV export, the last one only if there are several products.
const CSV_COLUMNS: [&str; 18] = [
    "license_key",
    "customer",
    "company",
    "kind",
    "state",
    "device_limit",
    "device_count",
    "valid_from",
    "valid_until",
    "domain",
    "note",
    "created_at",
    "plan",
    "features",
    "updates_until",
    "term_days_from_first_activation",
    "email",
    "product",
];

fn cells(row: &LicenseRow, email: &str, slugs: &Slugs) -> [String; 18] {
    let license = &row.license;
    let date = |date: Option<UnixMs>| date.map(UnixMs::rfc3339).unwrap_or_default();
    [
        license.key.formatted(),
        license.customer.clone(),
        row.company.clone(),
        license.kind.as_str().to_owned(),
        license.state.as_str().to_owned(),
        license.device_limit.to_string(),
        row.taken.to_string(),
        license.valid_from.rfc3339(),
        date(license.valid_until),
        license.domain.clone().unwrap_or_default(),
        license.note.clone(),
        license.created_at.rfc3339(),
        license.plan.clone().unwrap_or_default(),
        license.features.stored(),
        date(license.updates_until),
        license
            .pending_days
            .map(|days| days.to_string())
            .unwrap_or_default(),
        email.to_owned(),
        slugs.of(license.product).to_owned(),
    ]
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![list, export]
}
