//! Handlers of the panel: saving and removing filters. The pages of the lists show them; see [`crate::panel`].

use rocket::{Route, post, routes};

use super::NewFilter;
use crate::app::App;
use crate::panel::Support;
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

/// The address of a list with a filter.
fn list_with(list: &str, query: &str) -> String {
    format!("/lizenzserver/{list}?{query}")
}

/// Saves the filter of a list under a name.
#[post("/filters", data = "<form>")]
async fn save(request: Support<'_>, form: Form, app: &App) -> HtmlReply {
    let admin = request.admin.id;
    let new = NewFilter {
        list: form.text("list").to_owned(),
        name: form.text("name").to_owned(),
        query: form.text("query").to_owned(),
    };
    let path = list_with(&new.list, &super::filter_of(&new.query));
    app.db
        .write("saved_filters.save", move |tx| super::save(tx, admin, &new))
        .await?;
    Html::done(path, "filter_saved")
}

/// Removes a saved filter.
#[post("/filters/<id>/remove", data = "<_form>")]
async fn remove(request: Support<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let admin = request.admin.id;
    let removed = app
        .db
        .write("saved_filters.remove", move |tx| {
            super::remove(tx, admin, id)
        })
        .await?;
    let path = list_with(&removed.list, &removed.query);
    Html::done(path, "filter_removed")
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![save, remove]
}
