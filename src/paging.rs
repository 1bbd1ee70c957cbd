//! Pages of lists. A page begins or ends at the position of a row, not at a row number, so that rows that come and go
//! meanwhile neither repeat others nor hide them. `P` is the position: what the list is ordered by.

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
    /// The page that follows `position`; the first page if it is `None`.
    pub fn after(position: Option<P>) -> Self {
        position.map_or(Self::First, Self::After)
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
