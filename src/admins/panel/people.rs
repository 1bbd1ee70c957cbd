//! The administrators: for owners.

use rocket::{Route, State, get, post, routes};
use serde_json::{Value, json};

use super::setup::new_password;
use super::{Authenticator, Owner};
use crate::admins::{Admin as Person, Role, SessionLifetime, factors, logins};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::AdminId;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, address};

const LIST: &str = "/lizenzserver/admins";
const NEW: &str = "admins/new.html.tera";
const ROLE: &str = "admins/role.html.tera";
const PASSWORD: &str = "admins/password.html.tera";
const CONFIRM: &str = "admins/confirm.html.tera";

/// Everybody.
#[get("/admins")]
async fn list(who: Owner<'_>, db: &State<Db>) -> HtmlReply {
    let admins = db.read(crate::admins::list).await?;
    who.page("admins/list.html.tera", json!({ "admins": admins }))
        .await
}

/// The form for a new one.
#[get("/admins/new")]
async fn new_form(who: Owner<'_>) -> HtmlReply {
    who.proved()?;
    let values = json!({ "form": form::empty_form(json!({ "role": "admin" })) });
    who.page(NEW, values).await
}

/// Adds one.
#[post("/admins/new", data = "<form>")]
async fn add(who: Owner<'_>, gate: Authenticator, form: Form) -> HtmlReply {
    who.proved()?;
    let added = async {
        let name = form.text("name").to_owned();
        let role = Role::of_word(form.text("role"))?;
        let hash = hashed(&gate, &form, &name).await?;
        let (actor, now) = (who.actor(), who.now.wall);
        gate.db
            .write("admins.add", move |tx| {
                crate::admins::add(tx, &name, role, &hash, &actor, now)
            })
            .await
    };
    match added.await {
        Ok(id) => Html::go(format!("{LIST}/{id}?done=saved")),
        Err(error) => who.again(NEW, "admins", &form, error, json!({})).await,
    }
}

/// The hash of the password that `form` asks for twice.
async fn hashed(gate: &Authenticator, form: &Fields, name: &str) -> Result<String> {
    let password = new_password(form, &[name])?;
    gate.hasher.hash(password).await
}

async fn person(db: &Db, id: i64) -> Result<Person> {
    db.read(move |reader| crate::admins::get(reader, AdminId(id)))
        .await
}

/// One of them, and his logins.
#[get("/admins/<id>")]
async fn one(
    who: Owner<'_>,
    id: i64,
    db: &State<Db>,
    lasting: &State<SessionLifetime>,
) -> HtmlReply {
    let (lasting, now) = (**lasting, who.now.wall);
    let (admin, logins) = db
        .read(move |reader| {
            let admin = crate::admins::get(reader, AdminId(id))?;
            Ok((admin, logins::of(reader, AdminId(id), lasting, now)?))
        })
        .await?;
    let own = admin.id == who.admin.id;
    let deeds = address("/lizenzserver/audit", &[("actor", &admin.name)]);
    let values = json!({ "admin": admin, "logins": logins, "own": own, "deeds": deeds });
    who.page("admins/one.html.tera", values).await
}

fn role_values(admin: &Person) -> Value {
    json!({ "admin": admin, "seen": crate::admins::state(admin) })
}

/// The form for another role.
#[get("/admins/<id>/role")]
async fn role_form(who: Owner<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let admin = person(db, id).await?;
    let mut values = crate::web::html::members(role_values(&admin));
    let form = form::empty_form(json!({ "role": admin.role }));
    values.insert("form".to_owned(), form);
    who.page(ROLE, values.into()).await
}

/// Gives another role.
#[post("/admins/<id>/role", data = "<form>")]
async fn set_role(who: Owner<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let changed = async {
        let role = Role::of_word(form.text("role"))?;
        let (seen, actor, now) = (form.raw("seen").to_owned(), who.actor(), who.now.wall);
        db.write("admins.set_role", move |tx| {
            let admin = crate::admins::get(tx, AdminId(id))?;
            crate::admins::set_role(tx, &admin, role, Some(&seen), &actor, now)
        })
        .await
    };
    match changed.await {
        Ok(()) => Html::go(format!("{LIST}/{id}?done=saved")),
        Err(error) => {
            let admin = person(db, id).await?;
            let values = role_values(&admin);
            who.again(ROLE, "admins", &form, error, values).await
        }
    }
}

/// The form for another password.
#[get("/admins/<id>/password")]
async fn password_form(who: Owner<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let admin = person(db, id).await?;
    if admin.id == who.admin.id {
        return Html::go("/lizenzserver/profile/password");
    }
    let values = json!({ "admin": admin, "form": form::empty_form(json!({})) });
    who.page(PASSWORD, values).await
}

/// Gives another password.
#[post("/admins/<id>/password", data = "<form>")]
async fn set_password(who: Owner<'_>, id: i64, gate: Authenticator, form: Form) -> HtmlReply {
    who.proved()?;
    let admin = person(&gate.db, id).await?;
    let changed = async {
        let hash = hashed(&gate, &form, &admin.name).await?;
        let (actor, now) = (who.actor(), who.now.wall);
        gate.db
            .write("admins.set_password", move |tx| {
                let admin = crate::admins::get(tx, AdminId(id))?;
                crate::admins::set_password(tx, &admin, &hash, &actor, now)
            })
            .await
    };
    match changed.await {
        Ok(()) => Html::go(format!("{LIST}/{id}?done=password")),
        Err(error) => {
            let values = json!({ "admin": admin });
            who.again(PASSWORD, "admins", &form, error, values).await
        }
    }
}

fn question(deed: &str, admin: &Person) -> Value {
    json!({ "deed": deed, "admin": admin })
}

async fn ask(who: &Owner<'_>, deed: &str, admin: &Person) -> HtmlReply {
    let mut values = crate::web::html::members(question(deed, admin));
    values.insert("form".to_owned(), form::empty_form(json!({})));
    who.page(CONFIRM, values.into()).await
}

/// Refuses a final deed whose name was not typed.
fn expect_name(form: &Fields, admin: &Person) -> Result<()> {
    if form.text("confirm") == admin.name {
        Ok(())
    } else {
        Err(Error::invalid("confirm", "is another name"))
    }
}

/// Asks before a second factor is taken away.
#[get("/admins/<id>/reset-totp")]
async fn reset_totp_question(who: Owner<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let admin = person(db, id).await?;
    ask(&who, "reset_totp", &admin).await
}

/// Takes a second factor away.
#[post("/admins/<id>/reset-totp", data = "<form>")]
async fn reset_totp(who: Owner<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let admin = person(db, id).await?;
    let done = async {
        expect_name(&form, &admin)?;
        let (actor, now) = (who.actor(), who.now.wall);
        db.write("admins.reset_totp", move |tx| {
            let admin = crate::admins::get(tx, AdminId(id))?;
            factors::reset(tx, &admin, &actor, now)
        })
        .await
    };
    match done.await {
        Ok(()) => Html::go(format!("{LIST}/{id}?done=saved")),
        Err(error) => {
            let values = question("reset_totp", &admin);
            who.again(CONFIRM, "admins", &form, error, values).await
        }
    }
}

/// Asks before somebody is removed.
#[get("/admins/<id>/remove")]
async fn remove_question(who: Owner<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let admin = person(db, id).await?;
    ask(&who, "remove", &admin).await
}

/// Removes somebody.
#[post("/admins/<id>/remove", data = "<form>")]
async fn remove(who: Owner<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let admin = person(db, id).await?;
    let done = async {
        expect_name(&form, &admin)?;
        let (actor, now) = (who.actor(), who.now.wall);
        db.write("admins.remove", move |tx| {
            let admin = crate::admins::get(tx, AdminId(id))?;
            crate::admins::remove(tx, &admin, &actor, now)
        })
        .await
    };
    match done.await {
        Ok(()) => Html::go(format!("{LIST}?done=removed")),
        Err(error) => {
            let values = question("remove", &admin);
            who.again(CONFIRM, "admins", &form, error, values).await
        }
    }
}

/// What is behind this door.
pub(super) fn routes() -> Vec<Route> {
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
