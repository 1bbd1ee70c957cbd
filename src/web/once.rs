//! Forms that make something, and are sent twice: by a double click, or by a browser that repeats a request. The page gives
//! such a form an id; the second request with it makes nothing, and leads to what the first one made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::form::Fields;
use super::html::{Html, HtmlReply};
use crate::clock::Tick;
use crate::id::AdminId;
use crate::security::secret;

/// The field with the id of a form.
pub(super) const FORM_ID_FIELD: &str = "form_id";
/// How many forms are remembered at most.
const REMEMBERED_MAX: usize = 1024;
/// How long a form is remembered after it was sent.
const REMEMBERED_DURATION: Duration = Duration::from_hours(1);

/// The forms that were sent. Managed by Rocket.
#[derive(Debug, Default)]
pub struct SentForms(Mutex<VecDeque<SentForm>>);

#[derive(Debug)]
struct SentForm {
    /// A digest of who sent what to where: a form that was changed before it is sent again is another one.
    key: [u8; 32],
    /// Where the request led to that made something; locked while it does.
    made: Arc<AsyncMutex<Option<Made>>>,
    at: Tick,
}

/// The response to a form that made something.
#[derive(Clone, Debug)]
enum Made {
    Redirect(String),
    Done(String, &'static str),
}

/// Who sent a form, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The administrator.
    pub admin: AdminId,
    /// The path and query.
    pub address: &'a str,
    /// When the request arrived.
    pub at: Tick,
}

impl SentForms {
    /// Awaits `response`, unless the same form was sent before and made something: then its response is repeated. Requests with the
    /// same form wait for one another. A form without an id is sent for the first time.
    ///
    /// # Errors
    /// Those of `response`.
    pub async fn once(
        &self,
        sender: Sender<'_>,
        form: &Fields,
        response: impl Future<Output = HtmlReply>,
    ) -> HtmlReply {
        if form.non_empty(FORM_ID_FIELD).is_none() {
            return response.await;
        }
        let slot = self.slot(key_of(sender, form), sender.at);
        let mut made = slot.lock().await;
        match made.clone() {
            Some(Made::Redirect(path)) => Html::redirect(path),
            Some(Made::Done(path, done)) => Html::done(path, done),
            None => {
                let reply = response.await;
                *made = match &reply {
                    Ok(Html::Redirect(path)) => Some(Made::Redirect(path.clone())),
                    Ok(Html::Done { path, done }) => Some(Made::Done(path.clone(), done)),
                    _ => None,
                };
                reply
            }
        }
    }

    fn slot(&self, key: [u8; 32], at: Tick) -> Arc<AsyncMutex<Option<Made>>> {
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forms.retain(|form| at.since(form.at) < REMEMBERED_DURATION);
        if let Some(known) = forms.iter().find(|form| form.key == key) {
            return Arc::clone(&known.made);
        }
        if forms.len() >= REMEMBERED_MAX {
            forms.pop_front();
        }
        let made = Arc::default();
        forms.push_back(SentForm {
            key,
            made: Arc::clone(&made),
            at,
        });
        made
    }
}

fn key_of(sender: Sender<'_>, form: &Fields) -> [u8; 32] {
    let fields: Vec<(&str, &str)> = form.iter().collect();
    let text = format!("{}\n{}\n{fields:?}", sender.admin, sender.address);
    secret::sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, name: &str) -> Fields {
        Fields::parse(format!("form_id={id}&name={name}").as_bytes()).unwrap()
    }

    async fn send(forms: &SentForms, form: &Fields, at: Tick, path: &str) -> String {
        let sender = Sender {
            admin: AdminId(1),
            address: "/customers/new?",
            at,
        };
        let make = async { Html::done(path, "saved") };
        match forms.once(sender, form, make).await {
            Ok(Html::Done { path, .. }) => path,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_same_form_makes_one_thing_for_a_while() {
        let forms = SentForms::default();
        let late = Tick(REMEMBERED_DURATION);
        for (form, at, path, expected) in [
            (sent("a", "Ada"), Tick::START, "/1", "/1"),
            (sent("a", "Ada"), Tick::START, "/2", "/1"),
            (sent("a", "Bob"), Tick::START, "/3", "/3"),
            (sent("b", "Ada"), Tick::START, "/4", "/4"),
            (sent("", "Ada"), Tick::START, "/5", "/5"),
            (sent("", "Ada"), Tick::START, "/6", "/6"),
            (sent("a", "Ada"), late, "/7", "/7"),
        ] {
            assert_eq!(send(&forms, &form, at, path).await, expected, "{form:?}");
        }
    }

    #[tokio::test]
    async fn a_form_that_made_nothing_can_be_sent_again_and_few_are_remembered() {
        let forms = SentForms::default();
        let form = sent("a", "Ada");
        let sender = Sender {
            admin: AdminId(1),
            address: "/customers/new?",
            at: Tick::START,
        };
        let refused = async { Ok(Html::Fragment(String::new())) };
        assert!(forms.once(sender, &form, refused).await.is_ok());
        assert_eq!(send(&forms, &form, Tick::START, "/1").await, "/1");
        for number in 0..=REMEMBERED_MAX {
            let form = sent(&number.to_string(), "Ada");
            send(&forms, &form, Tick::START, "/2").await;
        }
        assert_eq!(forms.0.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
