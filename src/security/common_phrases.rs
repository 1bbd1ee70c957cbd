//! Well-known phrases, one per line; songs and films by a line that people quote. Attackers try them without spaces and
//! punctuation, cut off, and with digits appended.

/// At least eight letters each, not counting separators. Shorter ones belong in `common_words`.
pub(super) const PHRASES: &str = include_str!("../../assets/wordlists/common_phrases.txt");
