//! Which licenses a list shows, and where each order of it begins.

use crate::clock::UnixMs;
use crate::error::{Error, Result};
use crate::paging::{Direction, SortPosition};

/// Which licenses a list shows, by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LicenseFilter {
    /// All of them.
    #[default]
    All,
    /// In use now.
    Active,
    /// In use, owned by a customer, and expiring within 30 days.
    Expiring,
    /// In use, and no device has a slot.
    Unused,
    /// Suspended or revoked.
    Stopped,
    /// Expired.
    Expired,
}

impl LicenseFilter {
    /// Every filter, in the order of the panel.
    pub const ALL: [Self; 6] = [
        Self::All,
        Self::Active,
        Self::Expiring,
        Self::Unused,
        Self::Stopped,
        Self::Expired,
    ];

    /// The word in URLs and SQL queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Active => "active",
            Self::Expiring => "expiring",
            Self::Unused => "unused",
            Self::Stopped => "stopped",
            Self::Expired => "expired",
        }
    }

    /// The filter for a word; `None` if unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.as_str() == text)
    }
}

/// The ends of the licenses that a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// The first one, included.
    pub(super) from: UnixMs,
    /// The last one, included.
    pub(super) until: UnixMs,
    /// Whether licenses without an end are shown.
    pub(super) with_open: bool,
}

impl LicenseFilter {
    /// When the licenses of this filter end.
    pub(super) const fn ends(self, now: UnixMs, soon: UnixMs) -> Ends {
        let (from, until, with_open) = match self {
            Self::All | Self::Stopped => (UnixMs(i64::MIN), UnixMs(i64::MAX), true),
            Self::Active | Self::Unused => (now, UnixMs(i64::MAX), true),
            Self::Expiring => (now, soon, false),
            Self::Expired => (UnixMs(i64::MIN), UnixMs(now.0 - 1), false),
        };
        Ends {
            from,
            until,
            with_open,
        }
    }
}

/// Separates the name of a customer from its id in the value by which licenses are sorted: the licenses of each of two
/// customers with one name stay together.
const ID_MARK: char = '\u{1}';

/// The value of a license in the order of customers, given the customer's name as `sort_key` gives it.
pub fn customer_value(customer: Option<(&str, i64)>) -> String {
    customer.map_or_else(String::new, |(name, id)| format!("{name}{ID_MARK}{id:020}"))
}

/// The least or the greatest number: before the first row of a list.
const fn outside(direction: Direction) -> i64 {
    match direction {
        Direction::Ascending => i64::MIN,
        Direction::Descending => i64::MAX,
    }
}

/// The other end: after the last row.
const fn beyond(direction: Direction) -> i64 {
    outside(direction.reversed())
}

/// A position in the order of customers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CustomerPosition<'a> {
    pub(super) name: &'a str,
    pub(super) customer: i64,
    /// Among the licenses of that customer.
    pub(super) id: i64,
    /// Among the licenses without a customer, which precede all others.
    pub(super) unowned: i64,
}

/// # Errors
/// [`Error::Invalid`] if the value is none of [`customer_value`].
pub(super) fn customer_position(
    from: Option<&SortPosition>,
    direction: Direction,
) -> Result<CustomerPosition<'_>> {
    let nowhere = CustomerPosition {
        name: "",
        customer: i64::MIN,
        id: i64::MIN,
        unowned: outside(direction),
    };
    let Some(from) = from else {
        return Ok(match direction {
            Direction::Ascending => nowhere,
            Direction::Descending => CustomerPosition {
                name: "\u{10ffff}",
                customer: i64::MAX,
                ..nowhere
            },
        });
    };
    if from.value.is_empty() {
        return Ok(CustomerPosition {
            unowned: from.id,
            ..nowhere
        });
    }
    let named = from.value.rsplit_once(ID_MARK);
    let named = named.and_then(|(name, id)| Some((name, id.parse().ok()?)));
    let (name, customer) = named.ok_or_else(no_position)?;
    Ok(CustomerPosition {
        name,
        customer,
        id: from.id,
        unowned: i64::MAX,
    })
}

/// A position in the order of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberPosition {
    pub(super) number: i64,
    pub(super) id: i64,
    /// Among the licenses without a number, which follow all others.
    pub(super) open: i64,
}

/// # Errors
/// [`Error::Invalid`] if the value is no number.
pub(super) fn number_position(
    from: Option<&SortPosition>,
    direction: Direction,
) -> Result<NumberPosition> {
    let outside = outside(direction);
    let Some(from) = from else {
        return Ok(NumberPosition {
            number: outside,
            id: outside,
            open: outside,
        });
    };
    let number = from.value.parse().ok().ok_or_else(no_position)?;
    let open = match (number, direction) {
        (i64::MAX, _) => from.id,
        (_, Direction::Ascending) => outside,
        (_, Direction::Descending) => beyond(direction),
    };
    Ok(NumberPosition {
        number,
        id: from.id,
        open,
    })
}

fn no_position() -> Error {
    Error::invalid("after", "must be the position of a row")
}
