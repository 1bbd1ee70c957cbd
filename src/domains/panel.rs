//! Handlers of the panel: the domain of one license.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{BindingChange, BoundLicense, DomainBinding, TransferGrace};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::Db;
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, License};
use crate::panel::{Admin, PanelRequest};
use crate::revision;
use crate::web::form::{self, Form};
use crate::web::html::{Html, HtmlReply, object_members};

const LICENSES_PATH: &str = "/lizenzserver/licenses";
const FORM_TEMPLATE: &str = "domains/form.html.tera";

/// A domain for templates: in ASCII (`name`) and in its own script.
pub fn domain_json(domain: &Domain) -> Value {
    json!({ "name": domain, "script": domain.to_unicode() })
}

/// A binding for templates.
pub fn binding_json(binding: &DomainBinding, last_handshake_at: Option<UnixMs>) -> Value {
    let transfer = binding.transfer.as_ref().map(|transfer| {
        json!({
            "to": domain_json(&transfer.domain),
            "until": transfer.until,
            "confirmed_at": transfer.confirmed_at,
        })
    });
    json!({
        "domain": binding.domain.as_ref().map(domain_json),
        "last_handshake_at": last_handshake_at,
        "transfer": transfer,
    })
}

/// A row of the list of bound licenses, for templates, with the name of its product if there are several.
pub fn bound_license_json(request: &PanelRequest<'_>, bound: &BoundLicense) -> Value {
    let License {
        id,
        key,
        customer_id,
        customer,
        product,
        ..
    } = &bound.license;
    json!({
        "license": { "id": id, "key": key, "customer_id": customer_id, "customer": customer },
        "product": request.product_name(*product),
        "stopped": licenses::check_usable(&bound.license, request.now.wall).is_err(),
        "site": binding_json(&bound.binding, bound.last_handshake_at),
    })
}

/// A license and its binding.
async fn license_with_binding(db: &Db, id: i64, now: UnixMs) -> Result<(License, DomainBinding)> {
    db.read(move |reader| {
        let id = LicenseId(id);
        Ok((
            licenses::find(reader, id)?,
            super::binding_at(reader, id, now)?,
        ))
    })
    .await
}

/// The two forms that ask for a domain.
#[derive(Clone, Copy)]
enum DomainForm {
    /// Binds a license.
    Bind,
    /// Starts a transfer.
    Transfer,
}

impl DomainForm {
    /// The part of text keys and of the `done` parameter that names the form.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Transfer => "transfer",
        }
    }

    const fn change(self, domain: Domain, grace: TransferGrace) -> BindingChange {
        match self {
            Self::Bind => BindingChange::Bind(domain),
            Self::Transfer => BindingChange::Transfer { to: domain, grace },
        }
    }

    async fn show(self, request: &PanelRequest<'_>, id: i64, app: &App) -> HtmlReply {
        let values = self.values(request, id, app).await?;
        request.page(FORM_TEMPLATE, values).await
    }

    async fn values(self, request: &PanelRequest<'_>, id: i64, app: &App) -> Result<Value> {
        let (license, binding) = license_with_binding(&app.db, id, request.now.wall).await?;
        Ok(json!({
            "action": self.as_str(),
            "license": {
                "id": license.id, "key": license.key,
                "customer_id": license.customer_id, "customer": license.customer,
            },
            "site": binding_json(&binding, None),
            "seen": binding.revision(),
            "is_changed": false,
            "days": app.handshakes.grace().as_days(),
            "form": form::empty_form(json!({})),
        }))
    }

    async fn save(
        self,
        request: &PanelRequest<'_>,
        id: i64,
        form: &Form,
        app: &App,
    ) -> Result<DomainBinding> {
        let domain = Domain::from_input(form.text("domain"));
        let domain = domain.ok_or_else(|| Error::invalid("domain", "must be a host name"))?;
        let (change, base) = (self.change(domain, app.handshakes.grace()), form.revision());
        let (actor, now) = (request.actor(), request.now.wall);
        app.db
            .write("domains.change", move |tx| {
                let act = Act::new(tx, &actor, now);
                super::change(&act, LicenseId(id), &change, Some(&base))
            })
            .await
    }

    async fn submit(
        self,
        request: &PanelRequest<'_>,
        id: i64,
        form: &Form,
        app: &App,
    ) -> HtmlReply {
        let saved = self.save(request, id, form, app).await;
        let Err(error) = saved else {
            let done = match self {
                Self::Bind => "domain_bind",
                Self::Transfer => "domain_transfer",
            };
            return Html::done(format!("{LICENSES_PATH}/{id}"), done);
        };
        let mut values = object_members(self.values(request, id, app).await?);
        if revision::is_conflict(&error) {
            values.insert("is_changed".to_owned(), true.into());
        } else {
            values.insert("seen".to_owned(), json!(form.revision()));
        }
        request
            .render_with_errors(
                FORM_TEMPLATE,
                form.rejected("handshake", error),
                Value::Object(values),
            )
            .await
    }
}

/// The form that binds a license.
#[get("/licenses/<id>/bind")]
async fn bind_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    DomainForm::Bind.show(&request, id, app).await
}

/// The form that starts a transfer.
#[get("/licenses/<id>/transfer")]
async fn transfer_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    DomainForm::Transfer.show(&request, id, app).await
}

/// Binds a license.
#[post("/licenses/<id>/bind", data = "<form>")]
async fn bind(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    DomainForm::Bind.submit(&request, id, &form, app).await
}

/// Starts a transfer.
#[post("/licenses/<id>/transfer", data = "<form>")]
async fn transfer(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    DomainForm::Transfer.submit(&request, id, &form, app).await
}

/// The confirmation page for unbinding a license.
#[get("/licenses/<id>/free")]
async fn confirm_unbind(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let (license, binding) = license_with_binding(&app.db, id, request.now.wall).await?;
    let seen = binding.revision();
    let domain = binding
        .domain
        .ok_or_else(|| Error::from(super::Refusal::NoDomain))?;
    let mut params = Map::new();
    params.insert("domain".to_owned(), json!(domain));
    let customer = licenses::panel::customer_name(&request, &license)?;
    params.insert("customer".to_owned(), customer.into());
    let text = |key: &str| request.text(&format!("handshake.{key}"), &params);
    let mut why = vec![text("why_unbind")?];
    if let Some(transfer) = binding.transfer {
        params.insert("to".to_owned(), json!(transfer.domain));
        why.push(request.text("handshake.why_unbind_in_transfer", &params)?);
    }
    let values = json!({
        "ask": request.text("handshake.ask_unbind", &params)?,
        "why": why,
        "action": request.text("handshake.do_unbind", &params)?,
        "back": format!("{LICENSES_PATH}/{id}"),
        "seen": seen,
    });
    request.page("parts/confirm.html.tera", values).await
}

/// Unbinds a license from its domains.
#[post("/licenses/<id>/free", data = "<form>")]
async fn unbind(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    let (actor, now, base) = (request.actor(), request.now.wall, form.revision());
    app.db
        .write("domains.change", move |tx| {
            let act = Act::new(tx, &actor, now);
            super::change(&act, LicenseId(id), &BindingChange::Unbind, Some(&base))
        })
        .await?;
    Html::done(format!("{LICENSES_PATH}/{id}"), "domain_free")
}

/// Cancels a transfer. It can be started again, so there is no confirmation page.
#[post("/licenses/<id>/cancel-transfer", data = "<_form>")]
async fn cancel_transfer(request: Admin<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    app.db
        .write("domains.change", move |tx| {
            let act = Act::new(tx, &actor, now);
            super::change(&act, LicenseId(id), &BindingChange::CancelTransfer, None)
        })
        .await?;
    Html::done(format!("{LICENSES_PATH}/{id}"), "domain_stays")
}

/// The routes of this module's pages.
pub fn routes() -> Vec<Route> {
    routes![
        bind_form,
        bind,
        transfer_form,
        transfer,
        confirm_unbind,
        unbind,
        cancel_transfer
    ]
}
