//! The links between the pages of a list: reads from the query of its URL which page is shown and how long it is, and
//! writes the URLs of the neighboring pages and of the other lengths.

use serde_json::{Map, Value, json};

use super::html::path_with_query;
use super::query;
use crate::error::{Error, Result};
use crate::paging::{Cursor, Direction, Page, PageRequest, SortPosition, Total};

/// How many rows a page may have; the first number is the default.
pub const LENGTHS: [u32; 3] = [50, 100, 200];
/// The parameter with the number of rows of a page.
const LENGTH: &str = "rows";
/// The parameter with the number of the first row.
const ROW: &str = "row";
/// The parameter with the order of a list.
const ORDER: &str = "order";

/// How the URLs of a list state which page they show. The position of a row takes `N` query parameters.
#[derive(Clone, Copy, Debug)]
pub struct Pager<'a, const N: usize> {
    /// The path of the list; without a query, the URL of the first page.
    pub path: &'a str,
    /// The parameters with the position of the row that the page follows.
    pub next: [&'static str; N],
    /// The parameters with the position of the row that the page precedes.
    pub previous: [&'static str; N],
}

/// How long a page is and where it begins, from the query of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The maximum number of rows, one of [`LENGTHS`].
    pub length: u32,
    /// The number of the first row, counted from 1. The page before told it, since a position says nothing about it; rows
    /// that came or went meanwhile are not counted in.
    row: u32,
}

impl Extent {
    /// From the values of the parameters `rows` and `row`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such length, or `row` is no number from 1 on.
    pub fn parse(rows: Option<&str>, row: Option<&str>) -> Result<Self> {
        let length = query::parsed(LENGTH, rows, |text| {
            LENGTHS
                .into_iter()
                .find(|length| length.to_string() == text)
        })?;
        let row = query::parsed(ROW, row, |text| text.parse().ok().filter(|row| *row > 0))?;
        Ok(Self {
            length: length.unwrap_or(LENGTHS[0]),
            row: row.unwrap_or(1),
        })
    }

    /// A page of this length.
    pub const fn request<P>(self, from: Cursor<P>) -> PageRequest<P> {
        PageRequest {
            from,
            limit: self.length,
        }
    }

    /// The value of the parameter `rows`; empty for the default.
    pub fn length_text(self) -> String {
        Self::text_of(self.length)
    }

    /// The value of the parameter `row`; empty for the first one.
    pub fn row_text(self) -> String {
        if self.row == 1 {
            String::new()
        } else {
            self.row.to_string()
        }
    }

    fn text_of(length: u32) -> String {
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

/// A page that was read, and what the URL said about it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a, T> {
    /// The parameters of the list besides its page: filters and order.
    pub filter: &'a [(&'a str, &'a str)],
    /// How long the page is.
    pub extent: Extent,
    /// The page.
    pub page: &'a Page<T>,
    /// How many rows the list has.
    pub total: Total,
}

impl<'a, T> Shown<'a, T> {
    /// A page with the parameters of its list.
    pub const fn new(
        filter: &'a [(&'a str, &'a str)],
        extent: Extent,
        page: &'a Page<T>,
        total: Total,
    ) -> Self {
        Self {
            filter,
            extent,
            page,
            total,
        }
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
    /// The other lengths of a page; empty if all rows fit on the shortest page.
    lengths: Vec<LengthLink>,
}

/// A link to the list with pages of another length.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct LengthLink {
    rows: u32,
    url: String,
    is_chosen: bool,
}

impl<const N: usize> Pager<'_, N> {
    /// The links of a page. `position` returns the position of a row, as the values of the parameters.
    pub fn links<T>(
        &self,
        shown: &Shown<'_, T>,
        position: impl Fn(&T) -> [String; N],
    ) -> PageLinks {
        let Shown { extent, page, .. } = *shown;
        let (first, last) = extent.numbers(page, shown.total);
        let url = |names, edge: &T, row| self.url(shown, names, (position(edge), row));
        let before = first.saturating_sub(extent.length).max(1);
        let (total, has_more) = match shown.total {
            Total::Exactly(total) => (total.max(last), false),
            Total::MoreThan(total) => (total, true),
            Total::Unknown => (0, false),
        };
        let (previous, next) = (page.previous_edge(), page.next_edge());
        PageLinks {
            newer: previous.map(|row| url(self.previous, row, before)),
            older: next.map(|row| url(self.next, row, last.saturating_add(1))),
            first,
            last,
            total,
            has_more,
            lengths: self.length_links(shown.filter, extent.length, total),
            rows: extent.length_text(),
        }
    }

    /// The URL of a page that begins or ends at a position, given in the parameters `names`, with the row of this number.
    fn url<T>(
        &self,
        shown: &Shown<'_, T>,
        names: [&'static str; N],
        (values, row): ([String; N], u32),
    ) -> String {
        let (length, row) = (shown.extent.length_text(), row.to_string());
        let position = names.into_iter().zip(values.iter().map(String::as_str));
        let numbers = [(LENGTH, length.as_str()), (ROW, row.as_str())];
        let filter = shown.filter.iter().copied();
        let pairs: Vec<(&str, &str)> = filter.chain(position).chain(numbers).collect();
        path_with_query(self.path, &pairs)
    }

    /// The links to the list with pages of each length.
    fn length_links(&self, filter: &[(&str, &str)], chosen: u32, total: u32) -> Vec<LengthLink> {
        if (1..=LENGTHS[0]).contains(&total) {
            return Vec::new();
        }
        let links = LENGTHS.map(|rows| {
            let length = Extent::text_of(rows);
            let pairs = [filter, &[(LENGTH, length.as_str())]].concat();
            LengthLink {
                rows,
                url: path_with_query(self.path, &pairs),
                is_chosen: rows == chosen,
            }
        });
        links.into()
    }
}

impl Pager<'_, 1> {
    /// The page that a query asks for by the values `next` and `previous` of its parameters; the first page if both are
    /// missing. `parse` receives the name and the value of a parameter.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn cursor<P>(
        &self,
        next: Option<&str>,
        previous: Option<&str>,
        parse: impl Fn(&'static str, Option<&str>) -> Result<Option<P>>,
    ) -> Result<Cursor<P>> {
        let ([next_name], [previous_name]) = (self.next, self.previous);
        let next = parse(next_name, next)?.map(Cursor::After);
        let previous = parse(previous_name, previous)?.map(Cursor::Before);
        Ok(next.or(previous).unwrap_or(Cursor::First))
    }
}

/// The column heads of a list, which sort it. A column is written in the parameter `order` by its name, with `-` before it
/// if the greatest value comes first.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The path of the list.
    pub path: &'a str,
    /// The other parameters that the links keep.
    pub filter: &'a [(&'a str, &'a str)],
    /// The value of the parameter.
    pub order: &'a str,
    /// The value that may be left out.
    pub default: &'a str,
}

impl Heads<'_> {
    /// For each column how the list is sorted by it, and the URL that sorts it so or, if it is, the other way round.
    pub fn of(&self, columns: &[&str]) -> Map<String, Value> {
        let order = if self.order.is_empty() {
            self.default
        } else {
            self.order
        };
        let head = |column: &&str| {
            let descending = format!("-{column}");
            let (sort, next) = if order == *column {
                ("ascending", descending.as_str())
            } else if order == descending {
                ("descending", *column)
            } else {
                ("", *column)
            };
            let next = if next == self.default { "" } else { next };
            let pairs = [self.filter, &[(ORDER, next)]].concat();
            let href = path_with_query(self.path, &pairs);
            ((*column).to_owned(), json!({ "sort": sort, "href": href }))
        };
        columns.iter().map(head).collect()
    }
}

/// The column and the direction in the value of the parameter `order`; `None` if it is missing.
///
/// # Errors
/// [`Error::Invalid`] if `parse` knows no such column.
pub fn sorting<C>(
    order: Option<&str>,
    parse: impl Fn(&str) -> Option<C>,
) -> Result<Option<(C, Direction)>> {
    query::parsed(ORDER, order, |text| match text.strip_prefix('-') {
        Some(column) => Some((parse(column)?, Direction::Descending)),
        None => Some((parse(text)?, Direction::Ascending)),
    })
}

/// A parameter with the value of a column, and one with the id of the row.
pub type Edge<'r> = (Option<&'r str>, Option<&'r str>);

impl<'a> Pager<'a, 2> {
    /// A list sorted by a column at this path.
    pub const fn sorted(path: &'a str) -> Self {
        Self {
            path,
            next: ["after", "after_id"],
            previous: ["before", "before_id"],
        }
    }

    /// The page that a query asks for; the first page if it names no position.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an id is no number, or missing beside a value.
    pub fn sorted_cursor(
        &self,
        next: Edge<'_>,
        previous: Edge<'_>,
    ) -> Result<Cursor<SortPosition>> {
        let position = |name, (value, id): Edge<'_>| {
            // Empty parameters are left out of URLs.
            let value = value.unwrap_or_default().to_owned();
            match query::number(name, id)? {
                None if !value.is_empty() => Err(Error::invalid(name, "is missing")),
                id => Ok(id.map(|id| SortPosition { value, id })),
            }
        };
        let next = position(self.next[1], next)?.map(Cursor::After);
        let previous = position(self.previous[1], previous)?.map(Cursor::Before);
        Ok(next.or(previous).unwrap_or(Cursor::First))
    }

    /// As [`Pager::links`], with the position of a row in the order of the list.
    pub fn sorted_links<T>(
        &self,
        shown: &Shown<'_, T>,
        position: impl Fn(&T) -> SortPosition,
    ) -> PageLinks {
        self.links(shown, |row| Self::sorted_values(position(row)))
    }

    /// The values of the parameters for a position.
    fn sorted_values(position: SortPosition) -> [String; 2] {
        [position.value, position.id.to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::PageRequest;

    const LIST: Pager<'_, 1> = Pager {
        path: "/list",
        next: ["before"],
        previous: ["after"],
    };

    #[test]
    fn the_query_says_which_page_is_asked_for() {
        for (next, previous, expected) in [
            (None, None, Some(Cursor::First)),
            (Some(" "), None, Some(Cursor::First)),
            (Some("7"), None, Some(Cursor::After(7))),
            (None, Some("7"), Some(Cursor::Before(7))),
            (Some("7"), Some("9"), Some(Cursor::After(7))),
            (Some("x"), None, None),
            (None, Some("x"), None),
        ] {
            let cursor = LIST.cursor(next, previous, query::number);
            assert_eq!(cursor.ok(), expected, "{next:?} {previous:?}");
        }
    }

    #[test]
    fn the_length_of_a_page_is_one_of_those_offered() {
        for (rows, row, expected) in [
            (None, None, Some((50, 1))),
            (Some("200"), Some("401"), Some((200, 401))),
            (Some("51"), None, None),
            (None, Some("0"), None),
            (None, Some("x"), None),
        ] {
            let extent = Extent::parse(rows, row).ok();
            let found = extent.map(|extent| (extent.length, extent.row));
            assert_eq!(found, expected, "{rows:?} {row:?}");
        }
    }

    #[test]
    fn a_sorted_list_is_entered_at_a_value_and_an_id() {
        let pager = Pager::sorted("/list");
        for value in ["", "-", "a b&c", "\u{e4}"] {
            let position = SortPosition {
                value: value.to_owned(),
                id: 7,
            };
            let [value, id] = Pager::sorted_values(position.clone());
            let edge = (
                Some(value.as_str()).filter(|text| !text.is_empty()),
                Some(id.as_str()),
            );
            let cursor = pager.sorted_cursor(edge, (None, None)).unwrap();
            assert_eq!(cursor, Cursor::After(position.clone()));
            let cursor = pager.sorted_cursor((None, None), edge).unwrap();
            assert_eq!(cursor, Cursor::Before(position));
        }
        let cursor = pager.sorted_cursor((Some("a"), None), (None, None));
        assert!(cursor.is_err());
        let cursor = pager.sorted_cursor((None, None), (Some(""), Some(" ")));
        assert_eq!(cursor.unwrap(), Cursor::First);
    }

    #[test]
    fn a_head_sorts_by_its_column_and_turns_the_order_round() {
        for (order, sort, next) in [
            ("", "ascending", "/list?q=x&order=-name"),
            ("name", "ascending", "/list?q=x&order=-name"),
            ("-name", "descending", "/list?q=x"),
            ("added", "", "/list?q=x"),
        ] {
            let heads = Heads {
                path: "/list",
                filter: &[("q", "x")],
                order,
                default: "name",
            };
            let heads = heads.of(&["name"]);
            assert_eq!(
                heads["name"],
                serde_json::json!({ "sort": sort, "href": next }),
                "{order}"
            );
        }
    }

    #[test]
    fn the_links_keep_filter_and_length_and_lead_to_existing_pages() {
        let filter = [("q", "a b"), ("state", "")];
        let links = |from, rows, row, total| {
            let extent = Extent::parse(rows, row).unwrap();
            let page = PageRequest { from, limit: 2 }.page(vec![7, 6, 5]);
            let shown = Shown {
                filter: &filter,
                extent,
                page: &page,
                total,
            };
            LIST.links(&shown, |id: &i64| [id.to_string()])
        };
        let some = |address: &str| Some(address.to_owned());
        let first = links(Cursor::First, None, None, Total::Exactly(3));
        assert_eq!(first.newer, None);
        assert_eq!(first.older, some("/list?q=a+b&before=6&row=3"));
        assert_eq!((first.first, first.last, first.total), (1, 2, 3));
        assert_eq!(first.lengths, []);
        let more = Total::counted(Total::ROWS_TO_COUNT);
        let later = links(Cursor::After(8), Some("100"), Some("301"), more);
        assert_eq!(later.newer, some("/list?q=a+b&after=7&rows=100&row=201"));
        assert_eq!(later.older, some("/list?q=a+b&before=6&rows=100&row=303"));
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
        let extent = Extent::parse(None, Some("51")).unwrap();
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
