//! The selected licenses of a list: one question before all of them are changed, and their export.

use rocket::{FromForm, Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::edit::extension_of;
use super::list::csv_of;
use super::{LIST, as_field, suggested_customers};
use crate::activations::{self, REFUSED_KEY, SELECTED_MAX, SelectedChange};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, LicenseRow};
use crate::panel::{Admin, PanelRequest, Support};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};
use crate::web::query;

const PAGE: &str = "licenses/selected.html.tera";
/// The address of a customer's page, before the id.
const CUSTOMER: &str = "/lizenzserver/customers/";
/// The address of a license's page, before the id.
const LICENSE: &str = "/lizenzserver/licenses/";

/// What an administrator can do with the selected licenses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Suspend,
    Reinstate,
    Extend,
    Move,
}

impl Action {
    const ALL: [Self; 4] = [Self::Suspend, Self::Reinstate, Self::Extend, Self::Move];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Reinstate => "reinstate",
            Self::Extend => "extend",
            Self::Move => "move",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// The change that a form asks for.
    fn change(self, form: &Fields) -> Result<SelectedChange> {
        Ok(match self {
            Self::Suspend => SelectedChange::Suspend,
            Self::Reinstate => SelectedChange::Reinstate,
            Self::Extend => SelectedChange::Extend(extension_of(form)?),
            Self::Move => match form.non_empty("customer") {
                Some(customer) => SelectedChange::Move(customer.to_owned()),
                None => return Err(Error::invalid("customer", "must be an id or a name")),
            },
        })
    }
}

/// The query of a page about the selected licenses.
#[derive(Debug, FromForm)]
struct SelectedParams<'r> {
    action: Option<&'r str>,
    ids: Vec<&'r str>,
    back: Option<&'r str>,
}

/// The ids of the selected licenses, each once.
///
/// # Errors
/// [`Error::Invalid`] if one is no number, or if they are more than [`SELECTED_MAX`].
fn parse_ids<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<LicenseId>> {
    let mut ids = Vec::new();
    for text in texts {
        let id = query::number("ids", Some(text))?.map(LicenseId);
        ids.extend(id.filter(|id| !ids.contains(id)));
        if ids.len() > SELECTED_MAX {
            return Err(Error::invalid(
                "ids",
                format!("are more than {SELECTED_MAX}"),
            ));
        }
    }
    Ok(ids)
}

/// The page on which the licenses were selected: the list, or the page of a customer or of the only license.
fn list_page(back: &str) -> &str {
    let (path, _) = back.split_once('?').unwrap_or((back, ""));
    let is_clean = back.bytes().all(|byte| byte.is_ascii_graphic());
    if (path == LIST || is_page_of(path, CUSTOMER) || is_page_of(path, LICENSE)) && is_clean {
        back
    } else {
        LIST
    }
}

/// Whether `path` is that of the page of one thing: `page` and an id.
fn is_page_of(path: &str, page: &str) -> bool {
    let id = path.strip_prefix(page);
    id.is_some_and(|id| id.parse::<u32>().is_ok())
}

fn rows_of(reader: &Reader<'_>, ids: &[LicenseId], now: UnixMs) -> Result<Vec<LicenseRow>> {
    ids.iter()
        .map(|id| licenses::find_row(reader, *id, now))
        .collect()
}

/// A selected license, for the template.
fn selected_json(LicenseRow { license, .. }: &LicenseRow) -> Value {
    json!({
        "id": license.id,
        "key": license.key,
        "customer_id": license.customer_id,
        "customer": license.customer,
    })
}

/// The question before a change: what happens to how many licenses, and which.
async fn question(
    request: &PanelRequest<'_>,
    (action, ids): (Action, Vec<LicenseId>),
    back: &str,
    app: &App,
) -> Result<Map<String, Value>> {
    let now = request.now.wall;
    let rows = app
        .db
        .read(move |reader| rows_of(reader, &ids, now))
        .await?;
    let sessions = rows.iter().filter(|row| row.session.is_some()).count();
    let ends_sessions = matches!(action, Action::Suspend | Action::Move);
    let text = |key: &str, n: usize| {
        let mut members = Map::new();
        members.insert("n".to_owned(), n.into());
        request.text(&format!("licenses.{key}"), &members)
    };
    let word = action.as_str();
    let mut why = vec![text(&format!("why_selected_{word}"), rows.len())?];
    if ends_sessions && sessions > 0 {
        why.insert(0, text("why_selected_sessions", sessions)?);
    }
    let offered = match action {
        Action::Move => suggested_customers(&app.db).await?,
        _ => Vec::new(),
    };
    Ok(object_members(json!({
        "ask": text(&format!("ask_selected_{word}"), rows.len())?,
        "why": why,
        "word": word,
        "offered": offered,
        "page_of_question": page_of(word, &rows, back),
        "back": back,
        "rows": rows.iter().map(selected_json).collect::<Vec<_>>(),
    })))
}

/// The address of the question, for a form that is sent after the login has ended.
fn page_of(word: &str, rows: &[LicenseRow], back: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("action", word);
    query.append_pair("back", back);
    for row in rows {
        query.append_pair("ids", &row.license.id.to_string());
    }
    format!("{LIST}/selected?{}", query.finish())
}

/// Asks before the selected licenses are changed.
#[get("/licenses/selected?<params..>")]
async fn confirm(request: Admin<'_>, params: SelectedParams<'_>, app: &App) -> HtmlReply {
    let action = query::parsed("action", params.action, Action::parse)?;
    let ids = parse_ids(params.ids.iter().copied())?;
    let back = list_page(params.back.unwrap_or_default());
    let (Some(action), false) = (action, ids.is_empty()) else {
        return Html::done(back, "none_selected");
    };
    let mut values = question(&request, (action, ids), back, app).await?;
    values.insert("form".to_owned(), form::empty_form(json!({})));
    request.page(PAGE, Value::Object(values)).await
}

/// Changes the selected licenses, all of them or none.
#[post("/licenses/selected", data = "<form>")]
async fn change(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    let action = query::parsed("action", Some(form.text("action")), Action::parse)?;
    let ids = form.iter().filter(|(name, _)| *name == "ids");
    let ids = parse_ids(ids.map(|(_, value)| value))?;
    let back = list_page(form.text("back")).to_owned();
    let (Some(action), false) = (action, ids.is_empty()) else {
        return Html::done(&back, "none_selected");
    };
    let (actor, now, live) = (request.actor(), request.now, app.live_sessions.clone());
    let selected = ids.clone();
    let changed = match action.change(&form) {
        Ok(change) => {
            app.db
                .write("licenses.change_selected", move |tx| {
                    let act = Act::new(tx, &actor, now.wall);
                    activations::change_selected(&act, live.at(now), &selected, &change)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = changed else {
        let is_one = is_page_of(&back, LICENSE);
        return Html::done(&back, if is_one { "moved" } else { "selected_changed" });
    };
    let mut values = question(&request, (action, ids), &back, app).await?;
    values.insert("refused".to_owned(), refused_key(&error));
    let rejected = form.rejected("licenses", as_field(error));
    request
        .render_with_errors(PAGE, rejected, Value::Object(values))
        .await
}

/// The key of the license that was refused; null if the refusal is about none in particular.
fn refused_key(error: &Error) -> Value {
    match error {
        Error::Refused(refused) => refused
            .members
            .get(REFUSED_KEY)
            .cloned()
            .unwrap_or_default(),
        _ => Value::Null,
    }
}

/// The selected licenses as a CSV file.
#[get("/licenses/selected.csv?<params..>")]
async fn export(request: Support<'_>, params: SelectedParams<'_>, app: &App) -> HtmlReply {
    let ids = parse_ids(params.ids.iter().copied())?;
    if ids.is_empty() {
        let back = list_page(params.back.unwrap_or_default());
        return Html::done(back, "none_selected");
    }
    let (now, language) = (request.now.wall, request.language);
    let csv = app
        .db
        .read(move |reader| {
            let rows = rows_of(reader, &ids, now)?;
            csv_of(reader, &rows, language)
        })
        .await?;
    Ok(csv.into_file(&format!("licenses-{}", request.today()))?)
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![confirm, change, export]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_each_once_and_not_too_many() {
        let parsed = |texts: &[&str]| parse_ids(texts.iter().copied()).ok();
        let ids = |ids: &[i64]| Some(ids.iter().map(|id| LicenseId(*id)).collect());
        assert_eq!(parsed(&[]), ids(&[]));
        assert_eq!(parsed(&["7", "3", "7"]), ids(&[7, 3]));
        assert_eq!(parsed(&["7", "x"]), None);
        let texts: Vec<String> = (0..=SELECTED_MAX).map(|id| id.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(parsed(&texts), None);
        assert!(parsed(&texts[1..]).is_some());
    }

    #[test]
    fn afterwards_the_list_is_shown_again_and_no_other_address() {
        for (back, page) in [
            ("", LIST),
            (LIST, LIST),
            ("/lizenzserver/licenses?q=a", "/lizenzserver/licenses?q=a"),
            ("/lizenzserver/licenses?q=a\nb", LIST),
            ("/lizenzserver/licensesx", LIST),
            ("/lizenzserver/customers/7", "/lizenzserver/customers/7"),
            ("/lizenzserver/licenses/7", "/lizenzserver/licenses/7"),
            ("/lizenzserver/licenses/7/edit", LIST),
            ("/lizenzserver/customers/7/erase", LIST),
            ("/lizenzserver/customers/", LIST),
            ("https://example.org", LIST),
        ] {
            assert_eq!(list_page(back), page);
        }
    }
}
