//! Whether a product is in use or archived, for the modules below `products`: API keys, flags, releases and licenses of
//! an archived product stay as they are.

mod rules;
mod store;

pub use rules::Refusal;

use crate::db::Reader;
use crate::error::{Error, Resource, Result};
use crate::id::ProductId;

/// What of a product never changes, or changes once.
#[derive(Clone, Debug)]
struct ProductState {
    /// Its name in addresses and commands.
    slug: String,
    /// Whether it is not archived.
    in_use: bool,
}

/// Whether there is such a product, archived or not.
pub fn exists(reader: &Reader<'_>, product: ProductId) -> Result<bool> {
    Ok(store::state(reader, product)?.is_some())
}

/// Whether a product is not archived.
///
/// # Errors
/// [`Error::NotFound`] if there is no such product.
pub fn is_in_use(reader: &Reader<'_>, product: ProductId) -> Result<bool> {
    Ok(state(reader, product)?.in_use)
}

/// Checks that a product is not archived, before something of it is changed or sold.
///
/// # Errors
/// [`Refusal::Archived`], and [`Error::NotFound`] if there is no such product.
pub fn check_in_use(reader: &Reader<'_>, product: ProductId) -> Result<()> {
    let ProductState { slug, in_use } = state(reader, product)?;
    if in_use {
        Ok(())
    } else {
        Err(Refusal::Archived(slug).into())
    }
}

/// The subject of an audit entry about `subject` of a product: `subject` alone for the first product, since a shop with
/// one program needs no more; with the slug in front for every other one.
pub fn audit_subject(reader: &Reader<'_>, product: ProductId, subject: &str) -> Result<String> {
    if product == ProductId::FIRST {
        return Ok(subject.to_owned());
    }
    Ok(format!("{}/{subject}", state(reader, product)?.slug))
}

fn state(reader: &Reader<'_>, product: ProductId) -> Result<ProductState> {
    store::state(reader, product)?.ok_or_else(|| Error::not_found(Resource::Product, product))
}
