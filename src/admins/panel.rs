//! Pages on which owners manage administrators.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::{Admin as Account, Role};
use crate::app::App;
use crate::audit::Act;
use crate::db::Db;
use crate::error::{Error, Faults, Result};
use crate::id::AdminId;
use crate::logins;
use crate::logins::panel::{Authenticator, new_password};
use crate::paging::{Direction, SortPosition};
use crate::panel::{Owner, PanelRequest};
use crate::revision::Revision;
use crate::text;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, path_with_query};
use crate::web::pager::{ListParams, ListUrl};

const LIST: &str = "/lizenzserver/admins";
const NEW: &str = "admins/new.html.tera";
const ROLE: &str = "admins/role.html.tera";
const PASSWORD: &str = "admins/password.html.tera";
const CONFIRM: &str = "admins/confirm.html.tera";

/// The columns by which the list can be sorted, the first one if none is chosen.
const COLUMNS: [&str; 4] = ["name", "role", "second_factor", "since"];

/// The list of administrators.
#[get("/admins")]
async fn list(request: Owner<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let sorting = params.sorting(|word| COLUMNS.into_iter().find(|name| *name == word))?;
    let (column, direction) = sorting.unwrap_or((COLUMNS[0], Direction::Ascending));
    let mut admins = app.db.read(super::list).await?;
    direction.sort(&mut admins, |admin: &Account| {
        let (value, id) = match column {
            "role" => (admin.role.as_str().to_owned(), admin.id.0),
            "second_factor" => (u8::from(admin.has_totp).to_string(), admin.id.0),
            "since" => return SortPosition::number(admin.created_at.0, admin.id.0),
            _ => (text::sort_key(&admin.name), admin.id.0),
        };
        SortPosition { value, id }
    });
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &[],
        default_order: COLUMNS[0],
    };
    let values = json!({ "admins": admins, "heads": url.heads(&COLUMNS), "order": params.order });
    request.page("admins/list.html.tera", values).await
}

/// The form for a new administrator.
#[get("/admins/new")]
async fn new_form(request: Owner<'_>) -> HtmlReply {
    request.require_reauthentication()?;
    let values = json!({ "form": form::empty_form(json!({ "role": "admin" })) });
    request.page(NEW, values).await
}

/// Adds an administrator.
#[post("/admins/new", data = "<form>")]
async fn add(request: Owner<'_>, authenticator: Authenticator<'_>, form: Form) -> HtmlReply {
    request.require_reauthentication()?;
    let make = add_once(&request, &authenticator, &form);
    request.once(&form, make).await
}

async fn add_once(
    request: &PanelRequest<'_>,
    authenticator: &Authenticator<'_>,
    form: &Fields,
) -> HtmlReply {
    let added = async {
        let name = form.text("name").to_owned();
        let mut faults = Faults::default();
        let role = faults.keep(Role::parse(form.text("role")));
        let role = role.unwrap_or(Role::Support);
        let password = faults.keep(new_password(form, &[&name]));
        // Without a password, only the other faults are found.
        let hash = match password {
            Some(password) => authenticator.app.hasher.hash(password).await?,
            None => String::new(),
        };
        let (actor, now) = (request.actor(), request.now.wall);
        authenticator
            .app
            .db
            .write("admins.add", move |tx| {
                faults.with(super::add(&Act::new(tx, &actor, now), &name, role, &hash))
            })
            .await
    };
    match added.await {
        Ok(admin) => Html::done(format!("{LIST}/{}", admin.id), "saved"),
        Err(error) => {
            request
                .render_with_errors(NEW, form.rejected("admins", error), json!({}))
                .await
        }
    }
}

/// The hash of the password that `form` asks for twice.
async fn hash_new_password(
    authenticator: &Authenticator<'_>,
    form: &Fields,
    name: &str,
) -> Result<String> {
    let password = new_password(form, &[name])?;
    authenticator.app.hasher.hash(password).await
}

async fn account(db: &Db, id: i64) -> Result<Account> {
    db.read(move |reader| super::get(reader, AdminId(id))).await
}

/// An administrator with their active logins.
#[get("/admins/<id>")]
async fn one(request: Owner<'_>, id: i64, app: &App) -> HtmlReply {
    let (lifetime, now) = (app.login_lifetime(), request.now.wall);
    let (admin, logins) = app
        .db
        .read(move |reader| {
            let admin = super::get(reader, AdminId(id))?;
            Ok((admin, logins::list(reader, AdminId(id), lifetime, now)?))
        })
        .await?;
    let own = admin.id == request.admin.id;
    let actions = path_with_query("/lizenzserver/audit", &[("actor", &admin.name)]);
    let values = json!({ "admin": admin, "logins": logins, "own": own, "all_actions": actions });
    request.page("admins/one.html.tera", values).await
}

fn role_values(admin: &Account) -> Value {
    json!({ "admin": admin, "seen": super::revision(admin) })
}

/// The form for a new role.
#[get("/admins/<id>/role")]
async fn role_form(request: Owner<'_>, id: i64, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&app.db, id).await?;
    let mut values = crate::web::html::object_members(role_values(&admin));
    let form = form::empty_form(json!({ "role": admin.role }));
    values.insert("form".to_owned(), form);
    request.page(ROLE, values.into()).await
}

/// Changes the role.
#[post("/admins/<id>/role", data = "<form>")]
async fn set_role(request: Owner<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let changed = async {
        let role = Role::parse(form.text("role"))?;
        let (seen, actor, now) = (
            Revision::parse(form.raw("seen")),
            request.actor(),
            request.now.wall,
        );
        app.db
            .write("admins.set_role", move |tx| {
                let act = Act::new(tx, &actor, now);
                super::set_role(&act, AdminId(id), role, Some(&seen))
            })
            .await
    };
    match changed.await {
        Ok(_) => Html::done(format!("{LIST}/{id}"), "saved"),
        Err(error) => {
            let admin = account(&app.db, id).await?;
            let values = role_values(&admin);
            request
                .render_with_errors(ROLE, form.rejected("admins", error), values)
                .await
        }
    }
}

/// The form for a new password.
#[get("/admins/<id>/password")]
async fn password_form(request: Owner<'_>, id: i64, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&app.db, id).await?;
    if admin.id == request.admin.id {
        return Html::redirect("/lizenzserver/profile/password");
    }
    let values = json!({ "admin": admin, "form": form::empty_form(json!({})) });
    request.page(PASSWORD, values).await
}

/// Sets the password.
#[post("/admins/<id>/password", data = "<form>")]
async fn set_password(
    request: Owner<'_>,
    id: i64,
    authenticator: Authenticator<'_>,
    form: Form,
) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&authenticator.app.db, id).await?;
    let changed = async {
        let hash = hash_new_password(&authenticator, &form, &admin.name).await?;
        let (actor, now) = (request.actor(), request.now.wall);
        authenticator
            .app
            .db
            .write("admins.set_password", move |tx| {
                super::set_password(&Act::new(tx, &actor, now), AdminId(id), &hash)
            })
            .await
    };
    match changed.await {
        Ok(_) => Html::done(format!("{LIST}/{id}"), "password"),
        Err(error) => {
            let values = json!({ "admin": admin });
            request
                .render_with_errors(PASSWORD, form.rejected("admins", error), values)
                .await
        }
    }
}

fn question(action: &str, admin: &Account) -> Value {
    json!({ "action": action, "admin": admin })
}

async fn confirm_page(request: &Owner<'_>, action: &str, admin: &Account) -> HtmlReply {
    let mut values = crate::web::html::object_members(question(action, admin));
    values.insert("form".to_owned(), form::empty_form(json!({})));
    request.page(CONFIRM, values.into()).await
}

/// Rejects an irreversible action if the administrator's name was not typed to confirm it.
fn expect_name(form: &Fields, admin: &Account) -> Result<()> {
    if form.text("confirm") == admin.name {
        Ok(())
    } else {
        Err(Error::invalid("confirm", "is another name"))
    }
}

/// Asks for confirmation before a second factor is removed.
#[get("/admins/<id>/reset-totp")]
async fn reset_totp_question(request: Owner<'_>, id: i64, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&app.db, id).await?;
    confirm_page(&request, "reset_totp", &admin).await
}

/// Removes a second factor.
#[post("/admins/<id>/reset-totp", data = "<form>")]
async fn reset_totp(request: Owner<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&app.db, id).await?;
    let outcome = async {
        expect_name(&form, &admin)?;
        let (actor, now) = (request.actor(), request.now.wall);
        app.db
            .write("admins.reset_totp", move |tx| {
                super::reset_totp(&Act::new(tx, &actor, now), AdminId(id))
            })
            .await
    };
    match outcome.await {
        Ok(_) => Html::done(format!("{LIST}/{id}"), "saved"),
        Err(error) => {
            let values = question("reset_totp", &admin);
            request
                .render_with_errors(CONFIRM, form.rejected("admins", error), values)
                .await
        }
    }
}

/// Asks for confirmation before an administrator is removed.
#[get("/admins/<id>/remove")]
async fn remove_question(request: Owner<'_>, id: i64, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&app.db, id).await?;
    confirm_page(&request, "remove", &admin).await
}

/// Removes an administrator.
#[post("/admins/<id>/remove", data = "<form>")]
async fn remove(request: Owner<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let admin = account(&app.db, id).await?;
    let outcome = async {
        expect_name(&form, &admin)?;
        let (actor, now) = (request.actor(), request.now.wall);
        app.db
            .write("admins.remove", move |tx| {
                super::remove(&Act::new(tx, &actor, now), AdminId(id))
            })
            .await
    };
    match outcome.await {
        Ok(_) => Html::done(LIST, "removed"),
        Err(error) => {
            let values = question("remove", &admin);
            request
                .render_with_errors(CONFIRM, form.rejected("admins", error), values)
                .await
        }
    }
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        new_form,
        add,
        one,
        role_form,
        set_role,
        password_form,
        set_password,
        reset_totp_question,
        reset_totp,
        remove_question,
        remove
    ]
}
