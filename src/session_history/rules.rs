//! How sessions end, and which ended ones may be folded. No database, clock or HTTP.

use crate::clock::UnixMs;
use crate::id::{LicenseId, SessionId};

const DAY_MS: i64 = 86_400_000;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The program ended it, or deactivated its device.
    Normal,
    /// Its heartbeats stopped.
    Timeout,
    /// The server ended it: at the request of an administrator, because the license became unusable, or at a restore.
    Forced,
    /// Another start replaced it.
    Replaced,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Timeout, Self::Forced, Self::Replaced];

    /// The word in the database and in responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Timeout => "timeout",
            Self::Forced => "forced",
            Self::Replaced => "replaced",
        }
    }

    /// The reason for a word; `None` if unknown.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A day on which many sessions of one license ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct BusyDay {
    pub(super) license_id: LicenseId,
    /// The day, counted from 1970-01-01, UTC.
    pub(super) day: i64,
}

impl BusyDay {
    /// The first moment of the day and of the next day.
    pub(super) fn span(self) -> (UnixMs, UnixMs) {
        let begin = self.day.saturating_mul(DAY_MS);
        (UnixMs(begin), UnixMs(begin.saturating_add(DAY_MS)))
    }
}

/// An ended session that still has a row of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnfoldedSession {
    pub(super) id: SessionId,
    pub(super) reason: EndReason,
}

/// Which ended sessions may be folded.
#[derive(Clone, Copy, Debug)]
pub struct Foldable {
    /// How many sessions of each license and day keep a row of their own.
    pub kept: u32,
    /// Only days on which a session ended at or after this moment.
    pub since: UnixMs,
    /// Only sessions that ended before this moment.
    pub until: UnixMs,
}

impl Foldable {
    /// How many of the kept sessions are the first of the day; the others are the last.
    pub(super) fn first_of_day(self) -> u32 {
        self.kept / 2
    }
}
