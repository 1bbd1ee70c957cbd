//! Releases as JSON, for the handlers of the panel and of the command line.

use serde_json::{Map, Value};

use super::Release;

/// Everything but the date, whose form depends on the reader.
pub(super) fn members(release: &Release) -> Map<String, Value> {
    let members: [(&str, Value); 6] = [
        ("version", release.version.to_string().into()),
        ("channel", release.channel.clone().into()),
        ("notes", release.notes.clone().into()),
        ("download_url", release.download_url.clone().into()),
        ("sha256", release.sha256.clone().into()),
        ("state", release.state.as_str().into()),
    ];
    let named = members.into_iter();
    named
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
