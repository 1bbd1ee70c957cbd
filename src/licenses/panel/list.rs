//! The list of licenses and its CSV export.

use rocket::{FromForm, Route, get, routes};
use serde_json::{Value, json};

use super::{CSV, LIST, PAGE, range, row_with_product};
use crate::app::App;
use crate::clock::UnixMs;
use crate::customers;
use crate::error::Result;
use crate::id::{CustomerId, LicenseId, ProductId};
use crate::licenses::{self, LicenseCounts, LicenseFilter, LicenseQuery, LicenseRow};
use crate::paging::{Cursor, PageRequest};
use crate::panel::Support;
use crate::products::Slugs;
use crate::terms::{FOUND_MAX, Terms};
use crate::web::csv::Csv;
use crate::web::html::{HtmlReply, path_with_query};
use crate::web::pager::Pager;
use crate::web::query;

/// Maximum rows of a CSV file.
const EXPORT_MAX: u32 = 100_000;
/// The list begins with the newest license, so the next page is the one before a license.
const PAGER: Pager<1> = Pager {
    path: LIST,
    next: ["before"],
    previous: ["after"],
};

/// The query parameters of a list.
#[derive(Debug, FromForm)]
struct ListParams<'r> {
    q: Option<&'r str>,
    state: Option<&'r str>,
    customer: Option<&'r str>,
    first: Option<&'r str>,
    last: Option<&'r str>,
    before: Option<&'r str>,
    after: Option<&'r str>,
}

impl ListParams<'_> {
    /// # Errors
    /// [`Error::Invalid`] if a parameter cannot be read.
    fn query(&self, product: Option<ProductId>) -> Result<LicenseQuery> {
        let first = query::number("first", self.first)?;
        let last = query::number("last", self.last)?;
        let filter = query::parsed("state", self.state, LicenseFilter::parse)?;
        let customer = query::number("customer", self.customer)?;
        Ok(LicenseQuery {
            found: None,
            filter: filter.unwrap_or_default(),
            product,
            customer_id: customer.map(CustomerId),
            range: first.zip(last).map(range),
        })
    }

    fn search(&self) -> Terms {
        Terms::parse(self.q.unwrap_or_default())
    }

    fn cursor(&self) -> Result<Cursor<LicenseId>> {
        PAGER.cursor(self.before, self.after, |name, text| {
            Ok(query::number(name, text)?.map(LicenseId))
        })
    }

    /// The parameters with the same search and customer.
    fn pairs(&self, filter: LicenseFilter) -> [(&str, &str); 3] {
        let state = if filter == LicenseFilter::All {
            ""
        } else {
            filter.as_str()
        };
        [
            ("q", self.q.unwrap_or_default().trim()),
            ("state", state),
            ("customer", self.customer.unwrap_or_default().trim()),
        ]
    }

    /// The filters of the list for the template, with the number of licenses that match each of them.
    fn filters(&self, chosen: LicenseFilter, tally: &LicenseCounts) -> Vec<Value> {
        let filters = LicenseFilter::ALL.map(|filter| {
            json!({
                "word": filter.as_str(),
                "count": tally.of(filter),
                "address": path_with_query(LIST, &self.pairs(filter)),
                "chosen": filter == chosen,
            })
        });
        filters.into()
    }
}

/// A page of licenses.
#[get("/licenses?<params..>")]
async fn list(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let mut query = params.query(request.chosen())?;
    let (from, now) = (params.cursor()?, request.now.wall);
    let (filter, search) = (query.filter, params.search());
    let (page, tally, customer, is_cut) = app
        .db
        .read(move |reader| {
            query.found = licenses::search(reader, &search, query.product)?;
            let page_request = PageRequest { from, limit: PAGE };
            let page = licenses::page(reader, &query, &page_request, now)?;
            let tally = licenses::count_by_filter(reader, &query, now)?;
            let customer = query.customer_id.map(|id| customers::get(reader, id));
            let is_cut = query.found.is_some_and(|found| found.is_cut);
            Ok((page, tally, customer.transpose()?, is_cut))
        })
        .await?;
    let links = PAGER.links(&params.pairs(filter), &page, |row: &LicenseRow| {
        [row.license.id.to_string()]
    });
    let searched = params.q.is_some_and(|q| !q.trim().is_empty());
    let values = json!({
        "rows": page.rows.iter().map(|row| row_with_product(&request, row)).collect::<Vec<_>>(),
        "q": params.q.unwrap_or_default(),
        "state": filter.as_str(),
        "of": customer,
        "searched": searched,
        "found_max": is_cut.then_some(FOUND_MAX),
        // The figures count all licenses and would mislead above a part of them.
        "figures": !searched && filter == LicenseFilter::All && customer.is_none() && from == Cursor::First,
        "tally": tally,
        "filters": params.filters(filter, &tally),
        "csv": path_with_query(CSV, &params.pairs(filter)),
        "sheet_max": (tally.of(filter) > EXPORT_MAX).then_some(EXPORT_MAX),
        "newer": links.newer,
        "older": links.older,
    });
    request.page("licenses/list.html.tera", values).await
}

/// The CSV export of a list.
#[get("/licenses.csv?<params..>")]
async fn export(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let mut query = params.query(request.chosen())?;
    let search = params.search();
    let (now, language) = (request.now.wall, request.language);
    let csv = app
        .db
        .read(move |reader| {
            query.found = licenses::search(reader, &search, query.product)?;
            let page_request = PageRequest::first(EXPORT_MAX + 1);
            let page = licenses::page(reader, &query, &page_request, now)?;
            let max = usize::try_from(EXPORT_MAX).unwrap_or(usize::MAX);
            let slugs = Slugs::read(reader)?;
            let mut csv = Csv::new(slugs.table_head(&CSV_COLUMNS), language)?;
            for row in &page.rows {
                let cells = cells(row, &slugs);
                let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
                csv.row_up_to(max, slugs.table_head(&cells))?;
            }
            Ok(csv)
        })
        .await?;
    Ok(csv.into_file(&format!("licenses-{}", now.day()))?)
}

/// The columns of the CSV export, the last one only if there are several products.
const CSV_COLUMNS: [&str; 17] = [
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
    "product",
];

fn cells(row: &LicenseRow, slugs: &Slugs) -> [String; 17] {
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
        slugs.of(license.product).to_owned(),
    ]
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![list, export]
}
