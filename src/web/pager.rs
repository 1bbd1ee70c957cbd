//! The page of a list: reads from the query of its URL which rows are shown, how many and in which order, and writes the
//! URLs of the neighboring pages, of the other lengths, and of the other orders.

use std::convert::Infallible;

use rocket::Request;
use rocket::request::{FromRequest, Outcome};
use serde_json::{Map, Value, json};

use super::html::path_with_query;
use super::query;
use crate::error::{Error, Result};
use crate::paging::{Cursor, Direction, Page, PageRequest, SortPosition, Total};

/// How many rows a page may have; the first number is the default.
pub const LENGTHS: [u32; 3] = [50, 100, 200];
/// The parameter with what was typed into the search field.
const SEARCH: &str = "q";
/// The parameter with the number of rows of a page.
const LENGTH: &str = "rows";
/// The parameter with the number of the first row.
const ROW: &str = "row";
/// The parameter with the order of a list.
const ORDER: &str = "order";
/// The parameters with the position of the row that the page follows: the value of the column by which the list is sorted,
/// and the id.
const AFTER: [&str; 2] = ["after", "after_id"];
/// The same of the row that the page precedes.
const BEFORE: [&str; 2] = ["before", "before_id"];

/// The query parameters that every list has, as they were sent; empty if they are missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListParams<'r> {
    /// What was typed into the search field, without white space at its ends.
    pub search: &'r str,
    /// The order: a column, with `-` before it if the greatest value comes first.
    pub order: &'r str,
    rows: &'r str,
    row: &'r str,
    after: [&'r str; 2],
    before: [&'r str; 2],
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ListParams<'r> {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        let text = |name| {
            let value = request.query_value::<&'r str>(name);
            value.and_then(std::result::Result::ok).unwrap_or_default()
        };
        Outcome::Success(Self {
            search: text(SEARCH).trim(),
            order: text(ORDER).trim(),
            rows: text(LENGTH),
            row: text(ROW),
            after: AFTER.map(text),
            before: BEFORE.map(text),
        })
    }
}

impl<'r> ListParams<'r> {
    /// The page that is asked for; the first one if no position is named.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such length, a row is no number from 1 on, or an id is no number, or missing beside
    /// a value.
    pub fn page(&self) -> Result<PageRequest<SortPosition>> {
        let position = |[_, id_name]: [&'static str; 2], [value, id]: [&str; 2]| {
            // Empty parameters are left out of URLs.
            match query::number(id_name, Some(id))? {
                None if !value.is_empty() => Err(Error::invalid(id_name, "is missing")),
                id => Ok(id.map(|id| SortPosition {
                    value: value.to_owned(),
                    id,
                })),
            }
        };
        let next = position(AFTER, self.after)?.map(Cursor::After);
        let previous = position(BEFORE, self.before)?.map(Cursor::Before);
        Ok(PageRequest {
            from: next.or(previous).unwrap_or(Cursor::First),
            limit: self.extent()?.length,
        })
    }

    /// The column and the direction of the order; `None` if none was chosen.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `parse` knows no such column.
    pub fn sorting<C>(&self, parse: impl Fn(&str) -> Option<C>) -> Result<Option<(C, Direction)>> {
        query::parsed(ORDER, Some(self.order), |text| {
            match text.strip_prefix('-') {
                Some(column) => Some((parse(column)?, Direction::Descending)),
                None => Some((parse(text)?, Direction::Ascending)),
            }
        })
    }

    /// The parameters of the list as it is shown: those of its first page in the default order, if that is not the order
    /// that was asked for.
    #[must_use]
    pub fn in_order<O: PartialEq>(self, asked: O, shown: O) -> Self {
        if asked == shown {
            return self;
        }
        Self {
            search: self.search,
            rows: self.rows,
            ..Self::default()
        }
    }

    /// The parameters of the page, for a URL that shows the same one.
    pub fn pairs_of_page(&self) -> [(&'static str, &'r str); 6] {
        let [after, after_id] = self.after;
        let [before, before_id] = self.before;
        [
            (AFTER[0], after),
            (AFTER[1], after_id),
            (BEFORE[0], before),
            (BEFORE[1], before_id),
            (LENGTH, self.rows),
            (ROW, self.row),
        ]
    }

    fn extent(&self) -> Result<Extent> {
        let length = query::parsed(LENGTH, Some(self.rows), |text| {
            LENGTHS
                .into_iter()
                .find(|length| length.to_string() == text)
        })?;
        let row = query::parsed(ROW, Some(self.row), |text| {
            text.parse().ok().filter(|row| *row > 0)
        })?;
        Ok(Extent {
            length: length.unwrap_or(LENGTHS[0]),
            row: row.unwrap_or(1),
        })
    }
}

/// How long a page is and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// The maximum number of rows, one of [`LENGTHS`].
    length: u32,
    /// The number of the first row, counted from 1. The page before told it, since a position says nothing about it; rows
    /// that came or went meanwhile are not counted in.
    row: u32,
}

impl Extent {
    /// The value of the parameter `rows`; empty for the default.
    fn length_text(length: u32) -> String {
        if length == LENGTHS[0] {
            String::new()
        } else {
            length.to_string()
        }
    }

    /// The numbers of the first and the last row of `page`, in a list of `total` rows.
    fn numbers<T>(self, page: &Page<T>, total: Total) -> (u32, u32) {
        let rows = u32::try_from(page.rows.len()).unwrap_or(u32::MAX);
        let first = match total {
            _ if !page.has_previous => 1,
            Total::Exactly(total) if !page.has_next => total.saturating_sub(rows) + 1,
            _ => self.row,
        };
        (first, first.saturating_add(rows).saturating_sub(1))
    }
}

/// What the template shows below a list: the numbers of the rows, and the URLs of the neighboring pages, named as for a
/// list that shows the newest rows first.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PageLinks {
    /// The previous page of the list.
    pub newer: Option<String>,
    /// The next page of the list.
    pub older: Option<String>,
    /// The number of the first row.
    first: u32,
    /// The number of the last row.
    last: u32,
    /// How many rows the list has; 0 if they were not counted.
    total: u32,
    /// Whether it has more than that.
    has_more: bool,
    /// The value of the parameter `rows`, for the forms of the list.
    rows: String,
    lengths: Vec<LengthLink>,
}

/// A link to the list with pages of another length.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct LengthLink {
    rows: u32,
    url: String,
    is_chosen: bool,
}

/// A list as its URL shows it.
#[derive(Clone, Copy, Debug)]
pub struct ListUrl<'a> {
    /// The path; without a query, the URL of the first page.
    pub path: &'a str,
    /// The parameters that every list has.
    pub params: &'a ListParams<'a>,
    /// The list's own ones: its filters, the search among them.
    pub filter: &'a [(&'a str, &'a str)],
    /// The order that may be left out.
    pub default_order: &'a str,
}

impl<'a> ListUrl<'a> {
    /// The URL of another form of the list, such as its CSV file, with the same filters and order.
    pub fn at(&self, path: &str) -> String {
        path_with_query(path, &self.pairs())
    }

    /// Filters and order.
    fn pairs(&self) -> Vec<(&'a str, &'a str)> {
        [self.filter, &[(ORDER, self.params.order)]].concat()
    }

    /// For each column how the list is sorted by it, and the URL that sorts it so or, if it is, the other way round.
    pub fn heads(&self, columns: &[&str]) -> Map<String, Value> {
        let order = match self.params.order {
            "" => self.default_order,
            order => order,
        };
        let head = |column: &&str| {
            let descending = format!("-{column}");
            // A column whose greatest values come first by default is sorted so at first.
            let first = if descending == self.default_order {
                descending.as_str()
            } else {
                *column
            };
            let (sort, next) = if order == *column {
                ("ascending", descending.as_str())
            } else if order == descending {
                ("descending", *column)
            } else {
                ("", first)
            };
            let next = if next == self.default_order { "" } else { next };
            let pairs = [self.filter, &[(ORDER, next)]].concat();
            let href = path_with_query(self.path, &pairs);
            ((*column).to_owned(), json!({ "sort": sort, "href": href }))
        };
        columns.iter().map(head).collect()
    }

    /// The links of a page. `position` returns the position of a row in the order of the list.
    ///
    /// # Errors
    /// As [`ListParams::page`].
    pub fn links<T>(
        &self,
        page: &Page<T>,
        total: Total,
        position: impl Fn(&T) -> SortPosition,
    ) -> Result<PageLinks> {
        let extent = self.params.extent()?;
        let (first, last) = extent.numbers(page, total);
        let rows = Extent::length_text(extent.length);
        let url = |names, edge: &T, row| self.page_url(names, (position(edge), row), &rows);
        let before = first.saturating_sub(extent.length).max(1);
        let (total, has_more) = match total {
            Total::Exactly(total) => (total.max(last), false),
            Total::MoreThan(total) => (total, true),
            Total::Unknown => (0, false),
        };
        let (previous, next) = (page.previous_edge(), page.next_edge());
        Ok(PageLinks {
            newer: previous.map(|row| url(BEFORE, row, before)),
            older: next.map(|row| url(AFTER, row, last.saturating_add(1))),
            first,
            last,
            total,
            has_more,
            lengths: self.length_links(extent.length, total),
            rows,
        })
    }

    /// The URL of a page that begins or ends at a position, given in the parameters `names`, with the row of this number.
    fn page_url(
        &self,
        [value_name, id_name]: [&'static str; 2],
        (position, row): (SortPosition, u32),
        rows: &str,
    ) -> String {
        let (id, row) = (position.id.to_string(), row.to_string());
        let mut pairs = self.pairs();
        pairs.extend([
            (value_name, position.value.as_str()),
            (id_name, id.as_str()),
            (LENGTH, rows),
            (ROW, row.as_str()),
        ]);
        path_with_query(self.path, &pairs)
    }

    /// The links to the list with pages of each length.
    fn length_links(&self, chosen: u32, total: u32) -> Vec<LengthLink> {
        if (1..=LENGTHS[0]).contains(&total) {
            return Vec::new();
        }
        let links = LENGTHS.map(|rows| {
            let length = Extent::length_text(rows);
            let mut pairs = self.pairs();
            pairs.push((LENGTH, length.as_str()));
            LengthLink {
                rows,
                url: path_with_query(self.path, &pairs),
                is_chosen: rows == chosen,
            }
        });
        links.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params<'r>(after: [&'r str; 2], before: [&'r str; 2]) -> ListParams<'r> {
        ListParams {
            after,
            before,
            ..ListParams::default()
        }
    }

    fn list<'a>(params: &'a ListParams<'a>, filter: &'a [(&'a str, &'a str)]) -> ListUrl<'a> {
        ListUrl {
            path: "/list",
            params,
            filter,
            default_order: "name",
        }
    }

    #[test]
    fn the_length_of_a_page_is_one_of_those_offered() {
        for (rows, row, expected) in [
            ("", "", Some((50, 1))),
            ("200", " 401", Some((200, 401))),
            ("51", "", None),
            ("", "0", None),
            ("", "x", None),
        ] {
            let params = ListParams {
                rows,
                row,
                ..ListParams::default()
            };
            let extent = params.extent().ok();
            let found = extent.map(|extent| (extent.length, extent.row));
            assert_eq!(found, expected, "{rows:?} {row:?}");
            assert_eq!(
                params.page().is_ok(),
                expected.is_some(),
                "{rows:?} {row:?}"
            );
        }
    }

    #[test]
    fn a_list_is_entered_at_a_value_and_an_id() {
        let none = ["", ""];
        for value in ["", "-", "a b&c", "\u{e4} "] {
            let position = SortPosition {
                value: value.to_owned(),
                id: 7,
            };
            let given = [value, "7"];
            let from = |params: ListParams<'_>| params.page().unwrap().from;
            assert_eq!(from(params(given, none)), Cursor::After(position.clone()));
            assert_eq!(from(params(none, given)), Cursor::Before(position.clone()));
            assert_eq!(from(params(given, ["x", "9"])), Cursor::After(position));
        }
        assert!(params(["a", ""], none).page().is_err());
        assert!(params(none, ["a", "x"]).page().is_err());
        let first = params(none, ["", " "]).page().unwrap();
        assert_eq!(first.from, Cursor::First);
    }

    #[test]
    fn a_head_sorts_by_its_column_and_turns_the_order_round() {
        for (default_order, order, sort, next) in [
            ("name", "", "ascending", "/list?q=x&order=-name"),
            ("name", "name", "ascending", "/list?q=x&order=-name"),
            ("name", "-name", "descending", "/list?q=x"),
            ("name", "added", "", "/list?q=x"),
            ("-name", "", "descending", "/list?q=x&order=name"),
            ("-name", "name", "ascending", "/list?q=x"),
            ("-name", "added", "", "/list?q=x"),
            ("added", "", "", "/list?q=x&order=name"),
        ] {
            let params = ListParams {
                order,
                ..ListParams::default()
            };
            let list = ListUrl {
                default_order,
                ..list(&params, &[("q", "x")])
            };
            assert_eq!(
                list.heads(&["name"])["name"],
                serde_json::json!({ "sort": sort, "href": next }),
                "{default_order} {order}"
            );
        }
    }

    #[test]
    fn the_links_keep_filter_and_length_and_lead_to_existing_pages() {
        let filter = [("q", "a b"), ("state", "")];
        let links = |from, rows, row, total| {
            let params = ListParams {
                rows,
                row,
                ..ListParams::default()
            };
            let page = PageRequest { from, limit: 2 }.page(vec![7, 6, 5]);
            let list = list(&params, &filter);
            list.links(&page, total, |id: &i64| SortPosition {
                value: "v".to_owned(),
                id: *id,
            })
        };
        let some = |address: &str| Some(address.to_owned());
        let first = links(Cursor::First, "", "", Total::Exactly(3)).unwrap();
        assert_eq!(first.newer, None);
        assert_eq!(first.older, some("/list?q=a+b&after=v&after_id=6&row=3"));
        assert_eq!((first.first, first.last, first.total), (1, 2, 3));
        assert_eq!(first.lengths, []);
        let more = Total::counted(Total::ROWS_TO_COUNT);
        let later = links(Cursor::After(8), "100", "301", more).unwrap();
        let older = "/list?q=a+b&after=v&after_id=6&rows=100&row=303";
        let newer = "/list?q=a+b&before=v&before_id=7&rows=100&row=201";
        assert_eq!(later.newer, some(newer));
        assert_eq!(later.older, some(older));
        assert_eq!((later.first, later.last, later.has_more), (301, 302, true));
        let chosen: Vec<(&str, bool)> = later
            .lengths
            .iter()
            .map(|link| (link.url.as_str(), link.is_chosen))
            .collect();
        assert_eq!(
            chosen,
            [
                ("/list?q=a+b", false),
                ("/list?q=a+b&rows=100", true),
                ("/list?q=a+b&rows=200", false)
            ]
        );
    }

    #[test]
    fn the_last_page_ends_with_the_last_row_whatever_came_meanwhile() {
        let extent = Extent {
            length: 50,
            row: 51,
        };
        let page = PageRequest {
            from: Cursor::After(9),
            limit: 2,
        }
        .page(vec![8, 7]);
        assert_eq!(extent.numbers(&page, Total::Exactly(60)), (59, 60));
        assert_eq!(extent.numbers(&page, Total::MoreThan(10)), (51, 52));
        let page = PageRequest {
            from: Cursor::Before(2),
            limit: 2,
        }
        .page(vec![3]);
        assert_eq!(extent.numbers(&page, Total::Exactly(60)), (1, 1));
    }
}
