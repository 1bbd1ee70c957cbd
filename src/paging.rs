//! Pages of lists. A page begins or ends at the position of a row, not at a row number, so that rows that come and go
//! meanwhile neither repeat others nor hide them. `P` is the position: what the list is ordered by.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::text;

/// Which page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor<P> {
    /// The first page.
    First,
    /// The page that follows the row at this position.
    After(P),
    /// The page that precedes the row at this position.
    Before(P),
}

/// A page that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<P> {
    /// Which page.
    pub from: Cursor<P>,
    /// The maximum number of rows.
    pub limit: u32,
}

/// Rows of a list that are counted at most: more than this takes longer than the page itself.
pub const COUNTED_MAX: u32 = 10_000;

/// How many rows a list may have to be sorted by a column without an index: all of them are read and compared for each
/// page.
pub const SORTED_MAX: u32 = 5_000;

/// How many rows a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// So many.
    Exactly(u32),
    /// More than so many; they were counted no further.
    MoreThan(u32),
    /// They were not counted.
    Unknown,
}

impl Total {
    /// The maximum number of rows that a query for [`Total::counted`] counts.
    pub const ROWS_TO_COUNT: u32 = COUNTED_MAX + 1;

    /// The same of a search that was cut: there are more.
    #[must_use]
    pub const fn and_more(self) -> Self {
        match self {
            Self::Exactly(rows) | Self::MoreThan(rows) => Self::MoreThan(rows),
            Self::Unknown => Self::Unknown,
        }
    }

    /// Whether there may be more rows than so many.
    pub const fn may_exceed(self, rows: u32) -> bool {
        match self {
            Self::Exactly(counted) => counted > rows,
            Self::MoreThan(_) | Self::Unknown => true,
        }
    }

    /// The order in which a list of so many rows is shown: `chosen`, or `default` if it has more than [`SORTED_MAX`] rows,
    /// which are read in the order of the default column.
    pub fn order<C: PartialEq>(
        self,
        chosen: (C, Direction),
        default: (C, Direction),
    ) -> (C, Direction) {
        if chosen.0 == default.0 || !self.may_exceed(SORTED_MAX) {
            chosen
        } else {
            default
        }
    }

    /// From the number of rows, of which [`Total::ROWS_TO_COUNT`] were counted at most.
    pub const fn counted(rows: u32) -> Self {
        if rows > COUNTED_MAX {
            Self::MoreThan(COUNTED_MAX)
        } else {
            Self::Exactly(rows)
        }
    }
}

/// The direction in which a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The smallest value first.
    #[default]
    Ascending,
    /// The greatest value first.
    Descending,
}

impl Direction {
    /// Sorts the rows of a short list.
    pub fn sort<T>(self, rows: &mut [T], position: impl Fn(&T) -> SortPosition) {
        rows.sort_by_cached_key(|row| position(row));
        if self == Self::Descending {
            rows.reverse();
        }
    }

    /// The other one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

/// The position of a row in a list that is sorted by a column: rows with the same value follow each other by their id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortPosition {
    /// The value of the column, as text whose bytes sort like it; see [`SortPosition::number`].
    pub value: String,
    /// The id of the row.
    pub id: i64,
}

impl SortPosition {
    /// The position of a row by a number that is not negative.
    pub fn number(value: i64, id: i64) -> Self {
        Self {
            value: format!("{value:020}"),
            id,
        }
    }

    /// The position of a row by a text, as lists sort it.
    pub fn text(text: &str, id: i64) -> Self {
        Self {
            value: text::sort_key(text),
            id,
        }
    }

    /// The position of a row by an IP address; IPv4 addresses come first.
    pub fn address(text: &str, id: i64) -> Self {
        let value = match text.parse() {
            Ok(IpAddr::V4(address)) => format!("4 {:08x}", u32::from(address)),
            Ok(IpAddr::V6(address)) => format!("6 {:032x}", u128::from(address)),
            Err(_) => text.to_owned(),
        };
        Self { value, id }
    }

    /// The number of [`SortPosition::number`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if the value is no number.
    pub fn as_number(&self) -> Result<i64> {
        let number = self.value.parse();
        number.map_err(|_not_a_number| Error::invalid("after", "must be a whole number"))
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its rows, in the order of the list.
    pub rows: Vec<T>,
    /// Whether rows precede it.
    pub has_previous: bool,
    /// Whether rows follow it.
    pub has_next: bool,
}

impl<P> Cursor<P> {
    /// The position that the page follows or precedes; `None` for the first page.
    pub fn position(self) -> Option<P> {
        match self {
            Self::First => None,
            Self::After(position) | Self::Before(position) => Some(position),
        }
    }
}

impl<P> PageRequest<P> {
    /// The first page.
    pub const fn first(limit: u32) -> Self {
        Self {
            from: Cursor::First,
            limit,
        }
    }

    /// How to read the rows of a list in `direction`: from after which position on, and in which direction.
    pub const fn start(&self, direction: Direction) -> (Option<&P>, Direction) {
        match &self.from {
            Cursor::First => (None, direction),
            Cursor::After(position) => (Some(position), direction),
            Cursor::Before(position) => (Some(position), direction.reversed()),
        }
    }

    /// The same page; the first one if the list is not shown in the order in which it was asked for.
    #[must_use]
    pub fn in_order<O: PartialEq>(self, asked: O, shown: O) -> Self {
        if asked == shown {
            self
        } else {
            Self::first(self.limit)
        }
    }

    /// How many rows to read: one more than the page has, which tells whether the list goes on.
    pub const fn rows_to_read(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    /// The page of `rows` as they were read, up to [`PageRequest::rows_to_read`] of them. For [`Cursor::Before`] they
    /// are in the reverse order of the list, since those next to the position are read first.
    pub fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let (has_previous, has_next) = match self.from {
            Cursor::First => (false, has_more),
            Cursor::After(_) => (true, has_more),
            Cursor::Before(_) => {
                rows.reverse();
                (has_more, true)
            }
        };
        Page {
            rows,
            has_previous,
            has_next,
        }
    }
}

impl PageRequest<SortPosition> {
    /// The page of a short list that was read as a whole, in any order.
    pub fn cut<T>(
        &self,
        rows: Vec<T>,
        direction: Direction,
        position: impl Fn(&T) -> SortPosition,
    ) -> Page<T> {
        let mut rows: Vec<(SortPosition, T)> =
            rows.into_iter().map(|row| (position(&row), row)).collect();
        direction.sort(&mut rows, |(position, _)| position.clone());
        let precedes = |a: &SortPosition, b: &SortPosition| match direction {
            Direction::Ascending => a < b,
            Direction::Descending => a > b,
        };
        match &self.from {
            Cursor::First => {}
            Cursor::After(edge) => rows.retain(|(row, _)| precedes(edge, row)),
            Cursor::Before(edge) => {
                rows.retain(|(row, _)| precedes(row, edge));
                rows.reverse();
            }
        }
        self.page(rows.into_iter().map(|(_, row)| row).collect())
    }
}

impl<T> Page<T> {
    /// The first row, if the previous page ends before it.
    pub fn previous_edge(&self) -> Option<&T> {
        self.rows.first().filter(|_| self.has_previous)
    }

    /// The last row, if the next page begins after it.
    pub fn next_edge(&self) -> Option<&T> {
        self.rows.last().filter(|_| self.has_next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a list forward to its end and back to its beginning.
    fn walk(rows: &[(i64, i64)], direction: Direction) -> (Vec<i64>, Vec<i64>) {
        let position = |row: &(i64, i64)| SortPosition::number(row.0, row.1);
        let ids =
            |page: &Page<(i64, i64)>| -> Vec<i64> { page.rows.iter().map(|(_, id)| *id).collect() };
        let mut request = PageRequest::first(3);
        let mut page = request.cut(rows.to_vec(), direction, position);
        let mut forward = ids(&page);
        while let Some(last) = page.next_edge() {
            request.from = Cursor::After(position(last));
            page = request.cut(rows.to_vec(), direction, position);
            forward.extend(ids(&page));
        }
        let mut back = ids(&page);
        while let Some(first) = page.previous_edge() {
            request.from = Cursor::Before(position(first));
            page = request.cut(rows.to_vec(), direction, position);
            back.splice(0..0, ids(&page));
        }
        (forward, back)
    }

    #[test]
    fn walking_over_equal_values_gives_each_row_once_in_both_directions() {
        for values in [
            vec![],
            vec![1],
            vec![1; 10],
            vec![2, 1, 2, 1, 1, 2, 1],
            vec![10, 9, 100, 9, 10, 9, 100, 9, 9],
        ] {
            let rows: Vec<(i64, i64)> = values.into_iter().zip(1..).collect();
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            let ascending: Vec<i64> = sorted.iter().map(|(_, id)| *id).collect();
            let descending: Vec<i64> = ascending.iter().rev().copied().collect();
            for (direction, expected) in [
                (Direction::Ascending, &ascending),
                (Direction::Descending, &descending),
            ] {
                let (forward, back) = walk(&rows, direction);
                assert_eq!(&forward, expected, "{rows:?} {direction:?}");
                assert_eq!(&back, expected, "{rows:?} {direction:?}, back");
            }
        }
    }

    #[test]
    fn addresses_are_sorted_by_their_numbers() {
        let mut addresses = ["::2", "192.0.2.10", "", "192.0.2.9", "2001:db8::10", "::1"];
        addresses.sort_by_key(|text| SortPosition::address(text, 1));
        let sorted = ["", "192.0.2.9", "192.0.2.10", "::1", "::2", "2001:db8::10"];
        assert_eq!(addresses, sorted);
    }

    #[test]
    fn a_long_list_keeps_its_own_order() {
        let (default, chosen) = (
            ("time", Direction::Descending),
            ("name", Direction::Ascending),
        );
        let time = ("time", Direction::Ascending);
        for (total, asked, shown) in [
            (Total::Exactly(SORTED_MAX), chosen, chosen),
            (Total::Exactly(SORTED_MAX + 1), chosen, default),
            (Total::Unknown, chosen, default),
            (Total::MoreThan(1), chosen, default),
            (Total::Unknown, time, time),
        ] {
            assert_eq!(total.order(asked, default), shown, "{total:?} {asked:?}");
        }
    }

    #[test]
    fn a_page_has_its_rows_in_order_and_knows_whether_the_list_goes_on() {
        for (from, read, rows, has_previous, has_next) in [
            (Cursor::First, vec![], vec![], false, false),
            (Cursor::First, vec![1, 2], vec![1, 2], false, false),
            (Cursor::First, vec![1, 2, 3], vec![1, 2], false, true),
            (Cursor::After(2), vec![3, 4, 5], vec![3, 4], true, true),
            (Cursor::After(4), vec![5], vec![5], true, false),
            (Cursor::Before(4), vec![3, 2, 1], vec![2, 3], true, true),
            (Cursor::Before(3), vec![2, 1], vec![1, 2], false, true),
        ] {
            let request = PageRequest { from, limit: 2 };
            assert_eq!(request.rows_to_read(), 3);
            let page = request.page(read);
            assert_eq!(page.rows, rows, "{from:?}");
            assert_eq!(page.has_previous, has_previous, "{from:?}");
            assert_eq!(page.has_next, has_next, "{from:?}");
            let (first, last) = (rows.first(), rows.last());
            assert_eq!(page.previous_edge(), first.filter(|_| has_previous));
            assert_eq!(page.next_edge(), last.filter(|_| has_next));
        }
    }
}
