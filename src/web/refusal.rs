//! Notes on a request that it is refused, for what counts and records refusals. Every refusal of a program or website passes
//! here, so that no handler can forget it.

use std::sync::OnceLock;

use rocket::Request;

use crate::error::{RefusalKind, Refused};

/// Members of refusals that tell more than the code.
const DETAILS: [&str; 2] = ["field", "end_reason"];

/// The refusal of a request.
#[derive(Clone, Debug)]
pub struct NotedRefusal {
    /// The code.
    pub code: &'static str,
    /// A word that tells more than the code, such as the name of an invalid field; may be empty.
    pub detail: String,
}

/// Kept with the request; the first refusal counts.
#[derive(Default)]
struct Note(OnceLock<NotedRefusal>);

/// Notes the refusal of `request` for [`noted`]. Internal errors are not refusals; they are in the log.
pub fn note(request: &Request<'_>, refused: &Refused) {
    if refused.kind == RefusalKind::Internal {
        return;
    }
    let mut details = DETAILS.iter().filter_map(|name| refused.members.get(*name));
    let why = refused.why.filter(|why| *why != refused.code);
    let detail = details.find_map(serde_json::Value::as_str).or(why);
    let noted = NotedRefusal {
        code: refused.code,
        detail: detail.unwrap_or_default().to_owned(),
    };
    request.local_cache(Note::default).0.get_or_init(|| noted);
}

/// The refusal of `request`; `None` if it was not refused.
pub fn noted<'r>(request: &'r Request<'_>) -> Option<&'r NotedRefusal> {
    request.local_cache(Note::default).0.get()
}
