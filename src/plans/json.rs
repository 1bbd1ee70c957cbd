//! Plans as JSON, for the handlers of the panel and of the command line.

use serde_json::{Map, Value, json};

use super::Plan;

/// Everything but the dates, whose form depends on the reader.
pub(super) fn members(plan: &Plan) -> Map<String, Value> {
    let terms = &plan.terms;
    let members: [(&str, Value); 8] = [
        ("code", plan.code.clone().into()),
        ("name", terms.name.clone().into()),
        ("kind", json!(terms.kind)),
        ("device_limit", terms.device_limit.into()),
        ("term_days", terms.term_days.into()),
        ("term_starts", json!(terms.term_starts)),
        ("features", json!(terms.features)),
        ("updates_days", terms.updates_days.into()),
    ];
    let named = members.into_iter();
    named
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
