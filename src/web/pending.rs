//! Forms that were sent after the login of their sender had ended. What was typed is kept for the same administrator, whose
//! page of the form shows it once after the next login; nothing is done before the form is sent again. In memory only.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::digests::DIGESTS_FIELD;
use super::form::{CSRF_FIELD, Fields, REVISION_FIELD};
use super::once::FORM_ID_FIELD;
use crate::clock::{Now, Tick, UnixMs};
use crate::id::AdminId;

/// The field with the address of the page that shows the form, if it is not sent to that address.
pub const PAGE_FIELD: &str = "page";
/// How many forms are kept at most.
const PENDING_MAX: usize = 64;
/// How long they are together at most, in bytes.
const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a form is kept.
const PENDING_DURATION: Duration = Duration::from_hours(1);
/// The fields that are never kept: secrets, and what belongs to one login or one sending.
const NEVER_STORED: [&str; 8] = [
    "again",
    "code",
    "confirmed_minimum",
    "old",
    "password",
    "token",
    CSRF_FIELD,
    FORM_ID_FIELD,
];
/// The fields in which nothing is typed.
const NOT_TYPED: [&str; 4] = [DIGESTS_FIELD, PAGE_FIELD, REVISION_FIELD, "back"];

/// The forms that wait for a login. Managed by Rocket.
#[derive(Debug, Default)]
pub struct PendingForms(Mutex<VecDeque<PendingForm>>);

#[derive(Debug)]
struct PendingForm {
    admin: AdminId,
    /// The path of the page that shows the form.
    page: String,
    fields: Fields,
    at: Tick,
    stored_at: UnixMs,
}

impl PendingForm {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        let fields: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        self.page.len() + fields
    }
}

impl PendingForms {
    /// Keeps what `admin` typed into a form of the page at `page`, a path; returns whether there is anything to keep.
    pub fn keep(&self, admin: AdminId, page: &str, fields: Fields, now: Now) -> bool {
        let fields = fields.without(&NEVER_STORED);
        let is_typed =
            |(name, value): (&str, &str)| !value.is_empty() && !NOT_TYPED.contains(&name);
        if !fields.iter().any(is_typed) {
            return false;
        }
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A later form of the same page replaces the earlier one.
        pending.retain(|old| {
            now.tick.since(old.at) < PENDING_DURATION && (old.admin != admin || old.page != page)
        });
        pending.push_back(PendingForm {
            admin,
            page: page.to_owned(),
            fields,
            at: now.tick,
            stored_at: now.wall,
        });
        let mut bytes: usize = pending.iter().map(PendingForm::bytes).sum();
        while pending.len() > PENDING_MAX || bytes > PENDING_BYTES_MAX {
            bytes -= pending.pop_front().map_or(bytes, |oldest| oldest.bytes());
        }
        true
    }

    /// Takes what `admin` typed into a form of the page at `page`, a path. An account that was created at `since`, later than the
    /// form was kept, has the id of a removed one, and gets nothing of it.
    pub fn take(&self, admin: AdminId, since: UnixMs, page: &str, now: Tick) -> Option<Fields> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = pending
            .iter()
            .position(|form| form.admin == admin && form.page == page)?;
        let form = pending.remove(place)?;
        let is_own = since <= form.stored_at;
        (is_own && now.since(form.at) < PENDING_DURATION).then_some(form.fields)
    }
}

/// Puts what was typed into `form`, a form for a template. It carries the digests with which it was sent, so that what somebody
/// else has saved since then is a conflict.
pub fn fill(form: &mut Value, typed: &Fields) {
    if let Some(was) = typed.non_empty(DIGESTS_FIELD) {
        form["was"] = was.into();
    }
    let Some(values) = form.get_mut("values").and_then(Value::as_object_mut) else {
        return;
    };
    // A box that is not checked is not sent.
    values.retain(|_, value| !value.is_boolean());
    // As in `Fields::raw`, the first of several fields with the same name counts.
    let typed: Vec<_> = typed.iter().collect();
    for (name, value) in typed.into_iter().rev() {
        values.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::web::form;

    const ADA: AdminId = AdminId(1);
    const PAGE: &str = "/lizenzserver/customers/new";
    const STORED_AT: UnixMs = UnixMs(1_000);

    fn keep(forms: &PendingForms, page: &str, text: &str, tick: Tick) -> bool {
        let fields = Fields::parse(text.as_bytes()).unwrap();
        let now = Now {
            wall: STORED_AT,
            tick,
            awake: Duration::ZERO,
        };
        forms.keep(ADA, page, fields, now)
    }

    fn name(forms: &PendingForms, admin: AdminId, page: &str, at: Tick) -> Option<String> {
        let fields = forms.take(admin, STORED_AT, page, at)?;
        Some(fields.text("name").to_owned())
    }

    #[test]
    fn a_form_is_given_once_to_its_administrator_on_its_page() {
        let forms = PendingForms::default();
        assert!(keep(&forms, PAGE, "name=Eve", Tick::START));
        assert!(keep(&forms, PAGE, "name=Ada&seen=1", Tick::START));
        assert_eq!(name(&forms, AdminId(2), PAGE, Tick::START), None);
        assert_eq!(
            name(&forms, ADA, "/lizenzserver/customers", Tick::START),
            None
        );
        assert_eq!(name(&forms, ADA, PAGE, Tick::START).as_deref(), Some("Ada"));
        assert_eq!(name(&forms, ADA, PAGE, Tick::START), None);
        keep(&forms, PAGE, "name=Ada", Tick::START);
        assert_eq!(name(&forms, ADA, PAGE, Tick(PENDING_DURATION)), None);
    }

    #[test]
    fn a_later_account_with_the_id_of_a_removed_one_gets_nothing() {
        let forms = PendingForms::default();
        keep(&forms, PAGE, "name=Ada", Tick::START);
        let later = UnixMs(STORED_AT.0 + 1);
        assert_eq!(forms.take(ADA, later, PAGE, Tick::START), None);
    }

    #[test]
    fn few_forms_are_kept_and_little_of_them() {
        let forms = PendingForms::default();
        for number in 0..=PENDING_MAX {
            keep(&forms, &format!("/{number}"), "name=Ada", Tick::START);
        }
        assert_eq!(forms.0.lock().unwrap().len(), PENDING_MAX);
        let long = format!("name={}", "a".repeat(PENDING_BYTES_MAX / 3));
        for number in 0..4 {
            keep(&forms, &format!("/{number}"), &long, Tick::START);
        }
        assert_eq!(forms.0.lock().unwrap().len(), 2);
        // The address of the page counts, too.
        keep(
            &forms,
            &"/".repeat(PENDING_BYTES_MAX),
            "name=Ada",
            Tick::START,
        );
        assert_eq!(forms.0.lock().unwrap().len(), 0);
        keep(&forms, PAGE, "name=Ada", Tick::START);
        keep(&forms, "/late", "name=Ada", Tick(PENDING_DURATION));
        assert_eq!(forms.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_stored_of_a_form_in_which_nothing_is_typed() {
        let forms = PendingForms::default();
        for text in [
            "",
            "seen=1&was=a:1&back=%2f&page=%2f",
            "password=x&again=x",
            "name=",
        ] {
            assert!(!keep(&forms, PAGE, text, Tick::START), "{text}");
        }
        assert!(keep(
            &forms,
            PAGE,
            "name=Ada&password=x&csrf_token=1",
            Tick::START
        ));
        let fields = forms.take(ADA, STORED_AT, PAGE, Tick::START).unwrap();
        assert_eq!(fields, Fields::parse(b"name=Ada").unwrap());
    }

    #[test]
    fn a_form_shows_what_was_typed() {
        let mut form =
            form::empty_form(json!({ "name": "Ada", "note": "old", "on": true, "off": false }));
        let typed = Fields::parse(b"name=Bob&name=Eve&off=1&seen=1&was=name:1").unwrap();
        fill(&mut form, &typed);
        let values = ["name", "note", "on", "off"].map(|name| form["values"][name].clone());
        assert_eq!(
            values,
            [json!("Bob"), json!("old"), Value::Null, json!("1")]
        );
        assert_eq!(form["was"], "name:1");
    }

    /// The names of the secrets that the templates below `folder` ask for.
    fn secret_fields(folder: &Path, names: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                secret_fields(&path, names);
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let calls = text.split("::secret(").skip(1);
            let found = calls.filter_map(|call| call.split("name=\"").nth(1)?.split('"').next());
            names.extend(found.map(str::to_owned));
        }
    }

    #[test]
    fn no_secret_that_a_page_asks_for_is_stored() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/templates");
        let mut names = vec!["code".to_owned()];
        secret_fields(&templates, &mut names);
        assert!(names.iter().any(|name| name == "old"));
        names.retain(|name| !NEVER_STORED.contains(&name.as_str()));
        assert!(names.is_empty(), "{names:?}");
    }
}
