//! Edit conflicts, field by field: which fields of a form its sender has changed, and which somebody else has.

use serde_json::Value;

use super::digests::{DIGESTS_FIELD, digest, digests, text_of};
use super::form::Fields;

/// A form that was sent after somebody else had saved other values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Its fields, with the saved values of those that only the other changed.
    pub fields: Fields,
    /// The fields that both changed, each with its saved value.
    pub conflicts: Vec<(String, String)>,
    /// The fields that only the other changed.
    pub taken: Vec<String>,
}

impl Fields {
    /// This form, merged with the values `present`. Of a form without digests, every field that differs is a conflict.
    pub fn merged(&self, present: &Value) -> Merged {
        let mut merged = Merged {
            fields: self.clone(),
            ..Merged::default()
        };
        let shown: Vec<_> = self.raw(DIGESTS_FIELD).split(' ').collect();
        let present_values = present.as_object().into_iter().flatten();
        for (name, value) in
            present_values.filter(|(name, value)| self.has(name) || value.is_boolean())
        {
            let (mine, theirs) = (self.text(name), text_of(value));
            let was = shown
                .iter()
                .find_map(|one| one.strip_prefix(name.as_str())?.strip_prefix(':'));
            let is_changed = |text: &str| was.is_none_or(|was| was != digest(text));
            if mine == theirs || !is_changed(&theirs) {
                continue;
            }
            if is_changed(mine) {
                merged.conflicts.push((name.clone(), theirs));
            } else {
                merged.fields.set(name, theirs);
                merged.taken.push(name.clone());
            }
        }
        merged.fields.set(DIGESTS_FIELD, digests(present));
        merged
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::web::form::empty_form;

    #[test]
    fn a_form_is_merged_with_what_somebody_else_saved() {
        let shown = json!({ "a": "1", "b": 2, "c": "3", "d": null, "on": true, "id": 7 });
        let was = empty_form(shown)["was"].as_str().unwrap().to_owned();
        let present = json!({ "a": "1", "b": 20, "c": "30", "d": "4", "on": false, "id": 7 });
        // Its sender changed a, c and d; the other changed all but a.
        let sent = format!("a=10&b=2&c=+31&d=4&on=1&was={was}");
        let merged = Fields::parse(sent.as_bytes()).unwrap().merged(&present);
        assert_eq!(merged.conflicts, [("c".to_owned(), "30".to_owned())]);
        assert_eq!(merged.taken, ["b", "on"]);
        let values = ["a", "b", "c", "d", "on"].map(|name| merged.fields.text(name));
        assert_eq!(values, ["10", "20", "31", "4", ""]);
        // It is sent again without another change in between.
        assert_eq!(
            merged.fields.merged(&present),
            Merged {
                conflicts: vec![],
                taken: vec![],
                ..merged
            }
        );
    }

    #[test]
    fn without_digests_every_other_value_is_a_conflict() {
        let sent = Fields::parse(b"a=1&b=2").unwrap();
        let merged = sent.merged(&json!({ "a": "1", "b": "3", "c": "4", "on": true }));
        let conflicts = [("b", "3"), ("on", "1")];
        let conflicts = conflicts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(merged.conflicts, conflicts);
        assert!(merged.taken.is_empty());
    }
}
