//! The links between the pages of a list: reads the position of a page from the query of its URL, and writes the URLs of
//! the neighboring pages.

use super::html::path_with_query;
use crate::error::Result;
use crate::paging::{Cursor, Page};

/// How the URLs of a list state which page they show. The position of a row takes `N` query parameters.
#[derive(Clone, Copy, Debug)]
pub struct Pager<const N: usize> {
    /// The path of the list; without a query, the URL of the first page.
    pub path: &'static str,
    /// The parameters with the position of the row that the page follows.
    pub next: [&'static str; N],
    /// The parameters with the position of the row that the page precedes. If the list is read forward only, they are
    /// empty, and the link to the previous page leads to the first page.
    pub previous: [&'static str; N],
}

/// The URLs of the neighboring pages, named as for a list that shows the newest rows first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageLinks {
    /// The previous page of the list.
    pub newer: Option<String>,
    /// The next page of the list.
    pub older: Option<String>,
}

impl<const N: usize> Pager<N> {
    /// The URLs of the pages before and after `page`, with the same `filter`. `position` returns the position of a row, as
    /// the values of the parameters.
    pub fn links<T>(
        &self,
        filter: &[(&str, &str)],
        page: &Page<T>,
        position: impl Fn(&T) -> [String; N],
    ) -> PageLinks {
        let url = |names: [&str; N], row: &T| {
            let values = position(row);
            let position = names.iter().copied().zip(values.iter().map(String::as_str));
            let pairs: Vec<(&str, &str)> = filter.iter().copied().chain(position).collect();
            path_with_query(self.path, &pairs)
        };
        let newer = if self.previous.iter().all(|name| name.is_empty()) {
            page.has_previous
                .then(|| path_with_query(self.path, filter))
        } else {
            page.previous_edge().map(|row| url(self.previous, row))
        };
        let older = page.next_edge().map(|row| url(self.next, row));
        PageLinks { newer, older }
    }
}

impl Pager<1> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::PageRequest;
    use crate::web::query;

    const LIST: Pager<1> = Pager {
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
    fn the_links_keep_the_filter_and_lead_to_existing_pages() {
        let filter = [("q", "a b"), ("state", "")];
        let links = |pager: Pager<1>, from| {
            let page = PageRequest { from, limit: 2 }.page(vec![7, 6, 5]);
            let links = pager.links(&filter, &page, |id: &i64| [id.to_string()]);
            (links.newer, links.older)
        };
        let some = |address: &str| Some(address.to_owned());
        assert_eq!(
            links(LIST, Cursor::First),
            (None, some("/list?q=a+b&before=6"))
        );
        assert_eq!(
            links(LIST, Cursor::After(8)),
            (some("/list?q=a+b&after=7"), some("/list?q=a+b&before=6"))
        );
        let forward_only = Pager {
            previous: [""],
            ..LIST
        };
        assert_eq!(
            links(forward_only, Cursor::After(8)),
            (some("/list?q=a+b"), some("/list?q=a+b&before=6"))
        );
    }
}
