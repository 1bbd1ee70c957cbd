//! How sessions end. No database, clock or HTTP.

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The program ended it, also by deactivating the device.
    Normal,
    /// Its heartbeats stopped.
    Timeout,
    /// An administrator, a suspended license or an expired one ended it.
    Forced,
    /// Another start replaced it.
    Replaced,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Timeout, Self::Forced, Self::Replaced];

    /// The word in the database and in responses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Timeout => "timeout",
            Self::Forced => "forced",
            Self::Replaced => "replaced",
        }
    }

    /// The reason for a word; `None` if unknown.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}
