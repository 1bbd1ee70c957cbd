//! The list of refused calls: its filter, how its rows are found, and their number.

use super::{ROWS_MAX, RecordedRefusal, store};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::id::{LicenseId, ProductId};
use crate::license_key;
use crate::licenses::{self, LicenseText};
use crate::paging::{Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::terms::{Pattern, Terms};

/// The position of a row in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the first call arrived.
    pub at: UnixMs,
    /// The row's id.
    pub id: i64,
}

impl TryFrom<&SortPosition> for Position {
    type Error = Error;

    fn try_from(position: &SortPosition) -> Result<Self> {
        Ok(Self {
            at: UnixMs(position.as_number()?),
            id: position.id,
        })
    }
}

impl RecordedRefusal {
    /// Its position in a list that is sorted by `column`.
    pub fn position(&self, column: RefusalColumn) -> SortPosition {
        let text = |text: &str| SortPosition::text(text, self.id);
        match column {
            RefusalColumn::Time => SortPosition::number(self.at.0, self.id),
            RefusalColumn::Reason => text(&self.code),
            RefusalColumn::Customer => text(&self.customer),
            // A website has no device.
            RefusalColumn::Device if self.machine_id.is_empty() => text(&self.domain),
            RefusalColumn::Device => text(&self.machine_id),
            RefusalColumn::Call => text(&self.call),
        }
    }
}

/// Which rows a page lists.
#[derive(Clone, Debug)]
pub struct Filter {
    /// With this code; empty for any.
    pub code: String,
    /// Part of the license key; empty for any.
    pub key: String,
    /// What name, company, mail address and note of the customer contain; empty for any.
    pub customer: Terms,
    /// What name and fingerprint of the device, or the domain of the website, contain; empty for any.
    pub device: Terms,
    /// Of this product only.
    pub product: Option<ProductId>,
    /// At this moment or later.
    pub since: UnixMs,
    /// At this moment or earlier.
    pub until: UnixMs,
    /// The column by which the list is sorted, and in which direction.
    pub order: (RefusalColumn, Direction),
}

/// A column by which the list can be sorted. Only times have an index: by another column, a list of at most [`SORTED_MAX`]
/// rows is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalColumn {
    /// When the first call arrived.
    Time,
    /// The code.
    Reason,
    /// The customer's name.
    Customer,
    /// The device's name.
    Device,
    /// The path of the call.
    Call,
}

impl RefusalColumn {
    /// Every column.
    pub const ALL: [Self; 5] = [
        Self::Time,
        Self::Reason,
        Self::Customer,
        Self::Device,
        Self::Call,
    ];
    /// The order if none is chosen: the latest call first.
    pub const DEFAULT: (Self, Direction) = (Self::Time, Direction::Descending);

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Reason => "reason",
            Self::Customer => "customer",
            Self::Device => "device",
            Self::Call => "call",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

/// How the rows of a filter are found.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Among these few.
    Few(Vec<i64>),
    /// In the order of time: each is compared until the page is full.
    Many,
}

/// Rows that are looked up one by one. More are so many of all that a page is full soon.
const FEW_MAX: u32 = 10_000;
/// Licenses whose rows are looked up.
const LICENSES_MAX: u32 = 12_000;
/// Customers whose licenses are looked up.
const CUSTOMERS_MAX: u32 = 5_000;
/// Rows that are compared with texts to count those that match.
const COMPARED_MAX: u32 = 10_000;

/// How the rows of `filter` are found.
pub fn scope(reader: &Reader<'_>, filter: &Filter) -> Result<Scope> {
    let found = if filter.device.is_empty() {
        let licenses = licenses_of(reader, filter)?;
        let licenses = licenses.filter(|found| found.len() <= LICENSES_MAX as usize);
        let rows = licenses.map(|found| store::of_licenses(reader, &found, FEW_MAX + 1));
        rows.transpose()?
    } else {
        let words = filter.device.words();
        Some(store::with_text(reader, &words, FEW_MAX + 1)?)
    };
    Ok(match found {
        Some(ids) if ids.len() <= FEW_MAX as usize => Scope::Few(ids),
        _ => Scope::Many,
    })
}

/// The licenses that the filter names, by their customers or a part of their key, up to one more than are looked up; `None`
/// if it names none or too many.
fn licenses_of(reader: &Reader<'_>, filter: &Filter) -> Result<Option<Vec<LicenseId>>> {
    let limit = LICENSES_MAX + 1;
    if !filter.customer.is_empty() {
        let words = filter.customer.words();
        let found = customers::with_text(reader, &words, CUSTOMERS_MAX + 1)?;
        if found.len() > CUSTOMERS_MAX as usize {
            return Ok(None);
        }
        return licenses::of_customers(reader, &found, filter.product, limit).map(Some);
    }
    let Some(part) = license_key::searched_part(&filter.key) else {
        return Ok(None);
    };
    let text = LicenseText {
        pattern: Pattern::of(None),
        key_part: Some(part),
    };
    licenses::with_text(reader, &text, filter.product, limit).map(Some)
}

/// A page of the rows in the order of `filter`, whose [`scope`] is given; see [`Total::order`] for the orders in which a
/// list can be shown.
///
/// # Errors
/// [`Error::Invalid`] if the position is none in this order.
pub fn page(
    reader: &Reader<'_>,
    (filter, scope): (&Filter, &Scope),
    request: &PageRequest<SortPosition>,
) -> Result<Page<RecordedRefusal>> {
    let (column, direction) = filter.order;
    if column == RefusalColumn::Time {
        return page_by_time(reader, (filter, scope), (direction, request));
    }
    let all = PageRequest::first(SORTED_MAX);
    let all = page_by_time(reader, (filter, scope), (direction, &all))?;
    Ok(request.cut(all.rows, direction, |row| row.position(column)))
}

fn page_by_time(
    reader: &Reader<'_>,
    (filter, scope): (&Filter, &Scope),
    (direction, request): (Direction, &PageRequest<SortPosition>),
) -> Result<Page<RecordedRefusal>> {
    let (position, direction) = request.start(direction);
    let position = position.map(Position::try_from).transpose()?;
    let start = match direction {
        Direction::Descending => {
            let last = Position {
                at: filter.until,
                id: i64::MAX,
            };
            position.map_or(last, |position| last.min(position))
        }
        Direction::Ascending => {
            let first = Position {
                at: filter.since,
                id: i64::MIN,
            };
            position.map_or(first, |position| first.max(position))
        }
    };
    let rows = store::page(
        reader,
        (filter, scope),
        (start, direction),
        request.rows_to_read(),
    )?;
    Ok(request.page(rows))
}

/// How many rows match a filter, whose [`scope`] is given.
pub fn count_matching(reader: &Reader<'_>, filter: &Filter, scope: &Scope) -> Result<Total> {
    if let Scope::Few(ids) = scope {
        return Ok(Total::counted(store::count_few(reader, filter, ids)?));
    }
    let has_texts = !(filter.device.is_empty() && filter.customer.is_empty());
    let walked = if has_texts { COMPARED_MAX } else { ROWS_MAX };
    let count = store::count_matching(reader, filter, walked, Total::ROWS_TO_COUNT)?;
    let total = Total::counted(count);
    Ok(match (has_texts, count) {
        (true, 0) => Total::Unknown,
        (true, _) => total.and_more(),
        (false, _) => total,
    })
}
