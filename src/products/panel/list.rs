//! The products themselves: their list, a new one, renaming and archiving.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::audit::Act;
use crate::error::{Error, Result};
use crate::panel::{Admin, PanelRequest};
use crate::products::{self, NewProduct, Product, ProductColumn};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, path_with_query};
use crate::web::pager::{ListParams, ListUrl};
use crate::web::product_param::PRODUCT;

const LIST: &str = "/lizenzserver/products";
const NEW: &str = "products/new.html.tera";
const RENAME: &str = "products/rename.html.tera";
const ARCHIVE: &str = "parts/confirm.html.tera";

/// A product for the templates.
fn product_json(product: &Product) -> Value {
    let of = |page: &str| path_with_query(page, &[(PRODUCT, &product.slug)]);
    json!({
        "slug": product.slug,
        "name": product.name,
        "archived_at": product.archived_at,
        "created_at": product.created_at,
        "settings": of("/lizenzserver/config"),
        "licenses": of("/lizenzserver/licenses"),
    })
}

/// A page of products.
#[get("/products")]
async fn list(request: Admin<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let order = params.sorting(ProductColumn::parse)?.unwrap_or_default();
    let page_request = params.page()?;
    let (page, total) = app
        .db
        .read(move |reader| products::page(reader, order, &page_request))
        .await?;
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &[],
        default_order: ProductColumn::default().as_str(),
    };
    let values = json!({
        "rows": page.rows.iter().map(product_json).collect::<Vec<_>>(),
        "heads": url.heads(&ProductColumn::ALL.map(ProductColumn::as_str)),
        "pager": url.links(&page, total, |product: &Product| product.position(order.0))?,
    });
    request.page("products/list.html.tera", values).await
}

/// The form for a new product.
#[get("/products/new")]
async fn new_form(request: Admin<'_>) -> HtmlReply {
    let values = json!({ "form": form::empty_form(json!({})) });
    request.page(NEW, values).await
}

/// Adds a product, and shows its settings.
#[post("/products/new", data = "<form>")]
async fn add(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, add_once(&request, &form, app)).await
}

async fn add_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    let new = NewProduct {
        name: form.text("name").to_owned(),
        slug: form.non_empty("slug").map(str::to_owned),
    };
    let added = app
        .db
        .write("products.add", move |tx| {
            products::add(&Act::new(tx, &actor, now), &new)
        })
        .await;
    match added {
        Ok(added) => {
            let settings = [(PRODUCT, &*added.slug)];
            let path = path_with_query("/lizenzserver/config", &settings);
            Html::done(path, "product_added")
        }
        Err(error) => {
            request
                .render_with_errors(NEW, form.rejected("products", error), json!({}))
                .await
        }
    }
}

async fn load(slug: &str, app: &App) -> Result<Product> {
    let slug = slug.to_owned();
    app.db
        .read(move |reader| products::find(reader, &slug))
        .await
}

/// The form that renames a product.
#[get("/products/<slug>/rename")]
async fn rename_form(request: Admin<'_>, slug: &str, app: &App) -> HtmlReply {
    let product = load(slug, app).await?;
    let values = json!({
        "product": product_json(&product),
        "seen": product.revision(),
        "form": form::empty_form(json!({ "name": product.name })),
    });
    request.page(RENAME, values).await
}

/// Renames a product.
#[post("/products/<slug>/rename", data = "<form>")]
async fn rename(request: Admin<'_>, slug: &str, form: Form, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    let product = load(slug, app).await?;
    let (id, name, seen) = (product.id, form.text("name").to_owned(), form.seen());
    let renamed = app
        .db
        .write("products.rename", move |tx| {
            products::rename(&Act::new(tx, &actor, now), id, &name, seen.as_ref())
        })
        .await;
    match renamed {
        Ok(_) => Html::done(LIST, "saved"),
        Err(error) => {
            let product = load(slug, app).await?;
            let values = json!({
                "product": product_json(&product),
                "seen": form.revision().after(&error, product.revision()),
            });
            let rejected = form.rejected("products", error);
            let rejected = rejected.against(json!({ "name": product.name }));
            request.render_with_errors(RENAME, rejected, values).await
        }
    }
}

/// The confirmation page before a product is archived.
fn confirmation(request: &PanelRequest<'_>, product: &Product) -> Result<Value> {
    let mut members = Map::new();
    members.insert("name".to_owned(), product.name.clone().into());
    let text = |key: &str| request.text(&format!("products.{key}"), &members);
    Ok(json!({
        "text_section": "products",
        "ask": text("ask_archive")?,
        "why": [text("why_archive")?, text("why_archive_final")?],
        "action": text("do_archive")?,
        "back": LIST,
        "typed": product.slug,
    }))
}

/// Asks for confirmation before a product is archived.
#[get("/products/<slug>/archive")]
async fn confirm_archive(request: Admin<'_>, slug: &str, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let product = load(slug, app).await?;
    let mut values = confirmation(&request, &product)?;
    if let Some(values) = values.as_object_mut() {
        values.insert("form".to_owned(), form::empty_form(json!({})));
    }
    request.page(ARCHIVE, values).await
}

/// Archives a product, if its slug was typed.
#[post("/products/<slug>/archive", data = "<form>")]
async fn archive(request: Admin<'_>, slug: &str, form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let (actor, now) = (request.actor(), request.now.wall);
    let product = load(slug, app).await?;
    let (id, typed) = (product.id, form.text("typed").to_owned());
    let archived = app
        .db
        .write("products.archive", move |tx| {
            products::archive_confirmed(&Act::new(tx, &actor, now), id, &typed)
        })
        .await;
    match archived {
        Ok(_) => Html::done(LIST, "product_archived"),
        Err(error @ Error::Invalid { .. }) => {
            let values = confirmation(&request, &product)?;
            request
                .render_with_errors(ARCHIVE, form.rejected("products", error), values)
                .await
        }
        // Typing something else does not help while sessions run, for example.
        Err(error) => Err(error.into()),
    }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![
        list,
        new_form,
        add,
        rename_form,
        rename,
        confirm_archive,
        archive
    ]
}
