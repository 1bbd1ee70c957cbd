//! The messages that the server sends to a site, in JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use super::OneTimeId;
use crate::clock::UnixMs;
use crate::domains::{DomainBinding, Transfer};
use crate::licenses::License;
use crate::products::ProgramSettings;
use crate::releases::Release;

/// Maximum length of the information in a delivery, in bytes, so that the whole body stays below 16 KiB.
const INFORMATION_LEN_MAX: usize = 15 * 1024;
/// Maximum length of the release notes of one version, in bytes; longer ones are cut off.
const NOTES_LEN_MAX: usize = 2048;

/// The result of an operation.
#[derive(Clone, Debug)]
pub(super) enum Information {
    /// The released versions.
    Versions(Arc<ProgramSettings>),
    /// The state of a license, and its binding.
    License(Box<License>, DomainBinding),
}

/// The second message, which gives the transaction id to the site at the domain.
pub(super) fn challenge(request_id: &OneTimeId, transaction_id: &OneTimeId) -> Value {
    json!({
        "step": "challenge",
        "request_id": request_id.reveal(),
        "transaction_id": transaction_id.reveal(),
    })
}

/// The fourth message, with the result of `operation`.
pub(super) fn delivery(
    transaction_id: &OneTimeId,
    operation: &'static str,
    information: &Information,
) -> Value {
    let information = match information {
        Information::Versions(settings) => versions(settings),
        Information::License(license, binding) => license_information(license, binding),
    };
    json!({
        "step": "delivery",
        "transaction_id": transaction_id.reveal(),
        "operation": operation,
        "information": information,
    })
}

/// The information about a license that is delivered to a site.
fn license_information(license: &License, binding: &DomainBinding) -> Value {
    json!({
        "kind": license.kind,
        "valid_from": license.valid_from.rfc3339(),
        "valid_until": license.valid_until.map(UnixMs::rfc3339),
        "domain": binding.domain,
        "transfer": binding.transfer.as_ref().map(Transfer::to_json),
        "plan": license.plan,
        "features": license.features,
        "updates_until": license.updates_until.map(UnixMs::rfc3339),
    })
}

/// The information about versions that is delivered to a site: every release, newest first, with the notes of the
/// newest ones as far as they fit into [`INFORMATION_LEN_MAX`]. If the releases alone do not fit, the oldest are left
/// out.
fn versions(settings: &ProgramSettings) -> Value {
    let mut listed = Vec::new();
    let mut remaining = INFORMATION_LEN_MAX;
    for release in &settings.released {
        let without_notes = version(release, 0);
        // With the comma that follows.
        let length = without_notes.to_string().len() + 1;
        if length > remaining {
            break;
        }
        remaining -= length;
        listed.push(without_notes);
    }
    for (release, entry) in settings.released.iter().zip(&mut listed) {
        let with_notes = version(release, NOTES_LEN_MAX);
        let length = with_notes.to_string().len();
        let notes_length = length.saturating_sub(entry.to_string().len());
        if notes_length <= remaining {
            remaining -= notes_length;
            *entry = with_notes;
        }
    }
    json!({
        "current_version": settings.config.current_version,
        "minimum_version": settings.config.minimum_version,
        "versions": listed,
    })
}

/// A version with at most `notes_len` bytes of its release notes.
fn version(release: &Release, notes_len: usize) -> Value {
    let end = release.notes.floor_char_boundary(notes_len);
    json!({
        "version": release.version,
        "channel": release.channel,
        "released_at": release.released_at.rfc3339(),
        "whats_new": release.notes.get(..end),
        "download_url": release.download_url,
        "sha256": release.sha256,
        // Part of the protocol; the size of a download is not recorded.
        "size": null,
    })
}
