//! Adds, renames and archives products.

use serde_json::{Value, json};

use super::rules::{self, Refusal};
use super::{Product, ProductSettings, get, product_settings, settings, store};
use crate::audit::{Act, Change};
use crate::error::{Error, Faults, Result};
use crate::id::ProductId;
use crate::product_state;
use crate::revision::Revision;
use crate::text;

/// A product that is to be added.
#[derive(Clone, Debug)]
pub struct NewProduct {
    /// Its name for people, as typed.
    pub name: String,
    /// Its name in addresses and commands; made from the name if it is not given.
    pub slug: Option<String>,
}

/// Adds a product with default settings and a new API key. Its slug never changes.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) for an invalid `name` or `slug`, [`Refusal::NameTaken`], and
/// [`Refusal::SlugTaken`] if any product has, or had, the slug.
pub fn add(act: &Act<'_>, new: &NewProduct) -> Result<Product> {
    let name = text::clean_input(&new.name);
    let mut faults = Faults::default();
    faults.keep(rules::check_name("name", &name));
    faults.keep(super::check_name_unused(act.tx, &name, None));
    let slug = faults.keep(slug_of(act, new, &name));
    faults.finish()?;
    let slug = slug.unwrap_or_default();
    let id = super::insert(act.tx, &name, &slug, act.now)?;
    // Somebody chose the name, so the slug stays, and there is nothing to remind of.
    store::review(act.tx, id)?;
    let added = get(act.tx, id)?;
    act.changed(&Change {
        action: "products.add",
        subject: &added.slug,
        before: Value::Null,
        after: facts(&added),
    })?;
    Ok(added)
}

/// The slug of a new product with this name.
fn slug_of(act: &Act<'_>, new: &NewProduct, name: &str) -> Result<String> {
    let Some(slug) = &new.slug else {
        return super::unused_slug(act.tx, name, None);
    };
    rules::check_slug(slug)?;
    if super::is_slug_unused(act.tx, slug, None)? {
        Ok(slug.clone())
    } else {
        Err(Refusal::SlugTaken(slug.clone()).into())
    }
}

/// Changes the name of a product, which programs and customers may see. The slug stays. If `seen` is given, the change is
/// refused unless the product still has this [revision](Product::revision).
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) for an invalid `name`, [`Refusal::NameTaken`], `product_archived`,
/// `changed_meanwhile`, and the errors of [`get`].
pub fn rename(
    act: &Act<'_>,
    id: ProductId,
    name: &str,
    seen: Option<&Revision>,
) -> Result<Product> {
    let before = get(act.tx, id)?;
    product_state::check_in_use(act.tx, id)?;
    if let Some(seen) = seen {
        seen.check(&before.revision())?;
    }
    let name = text::clean_input(name);
    rules::check_name("name", &name)?;
    if before.name == name {
        return Ok(before);
    }
    super::check_name_unused(act.tx, &name, Some(id))?;
    let renamed = ProductSettings {
        client_name: name,
        ..product_settings(act.tx, id)?
    };
    store::update(act.tx, &renamed, act.now)?;
    settings::review(act, &renamed)?;
    let after = get(act.tx, id)?;
    act.changed(&Change {
        action: "products.rename",
        subject: &after.slug,
        before: facts(&before),
        after: facts(&after),
    })?;
    Ok(after)
}

/// Archives a product for ever: its API keys are no longer accepted, its sites and its list of versions are no longer
/// served, and nothing of it can be changed or sold.
///
/// # Errors
/// `product_archived` if it is archived already, [`Refusal::SessionsRunning`], [`Refusal::LastProduct`], and the errors
/// of [`get`].
pub fn archive(act: &Act<'_>, id: ProductId) -> Result<Product> {
    let before = get(act.tx, id)?;
    product_state::check_in_use(act.tx, id)?;
    let all = store::list(act.tx)?;
    if all.iter().filter(|one| one.archived_at.is_none()).count() < 2 {
        return Err(Refusal::LastProduct.into());
    }
    let running = store::count_sessions(act.tx, id)?;
    if running > 0 {
        return Err(Refusal::SessionsRunning(running).into());
    }
    store::archive(act.tx, id, act.now)?;
    let after = get(act.tx, id)?;
    act.changed(&Change {
        action: "products.archive",
        subject: &after.slug,
        before: facts(&before),
        after: facts(&after),
    })?;
    Ok(after)
}

/// As [`archive`], if the administrator typed the slug of the product.
///
/// # Errors
/// [`Error::Invalid`] for another slug, and the errors of [`archive`].
pub fn archive_confirmed(act: &Act<'_>, id: ProductId, typed: &str) -> Result<Product> {
    if text::clean_input(typed) != get(act.tx, id)?.slug {
        return Err(Error::invalid("typed", "is not the product's slug"));
    }
    archive(act, id)
}

fn facts(product: &Product) -> Value {
    json!({
        "slug": product.slug,
        "name": product.name,
        "archived": product.archived_at.is_some(),
    })
}
