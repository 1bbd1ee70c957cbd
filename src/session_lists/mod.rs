//! The orders of the list of running sessions: by which columns it can be sorted, and in which orders it is read.

use crate::paging::Direction;
use crate::session_history::Position;

/// A column by which the running sessions can be sorted. They are read in the order of starts or heartbeats: by another
/// column, a list of at most [`SORTED_MAX`] sessions is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionColumn {
    /// When it started.
    Started,
    /// Its last heartbeat.
    LastHeartbeat,
    /// The customer's name.
    Customer,
    /// The device's name.
    Device,
    /// The address.
    Address,
}

impl SessionColumn {
    /// Every column.
    pub const ALL: [Self; 5] = [
        Self::Started,
        Self::LastHeartbeat,
        Self::Customer,
        Self::Device,
        Self::Address,
    ];
    /// The order if none is chosen: the latest start first.
    pub const DEFAULT: (Self, Direction) = (Self::Started, Direction::Descending);

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::LastHeartbeat => "last_heartbeat",
            Self::Customer => "customer",
            Self::Device => "device",
            Self::Address => "address",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

/// The order in which running sessions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The latest start first.
    Newest,
    /// The earliest start first.
    Oldest,
    /// The latest heartbeat first.
    LatestHeartbeat,
    /// The earliest heartbeat first.
    EarliestHeartbeat,
}

impl Order {
    /// The order for a column; `None` if sessions are not read by it.
    pub fn of((column, direction): (SessionColumn, Direction)) -> Option<Self> {
        match (column, direction) {
            (SessionColumn::Started, Direction::Descending) => Some(Self::Newest),
            (SessionColumn::Started, Direction::Ascending) => Some(Self::Oldest),
            (SessionColumn::LastHeartbeat, Direction::Descending) => Some(Self::LatestHeartbeat),
            (SessionColumn::LastHeartbeat, Direction::Ascending) => Some(Self::EarliestHeartbeat),
            _ => None,
        }
    }

    /// The opposite order.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Newest => Self::Oldest,
            Self::Oldest => Self::Newest,
            Self::LatestHeartbeat => Self::EarliestHeartbeat,
            Self::EarliestHeartbeat => Self::LatestHeartbeat,
        }
    }

    /// The position before the first row of the list.
    pub const fn before_first_row(self) -> Position {
        match self {
            Self::Newest | Self::LatestHeartbeat => Position::MAX,
            Self::Oldest | Self::EarliestHeartbeat => Position::MIN,
        }
    }
}
