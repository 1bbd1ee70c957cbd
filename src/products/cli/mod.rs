//! Commands: `license-server config …` and `license-server product …`, and the option `--product` of all commands.

mod config;
mod product;

pub use config::{Config, ConfigCommand, run as run_config};
pub use product::{ProductCommand, run as run_product};

use clap::Args;

use super::Product;
use crate::db::Reader;
use crate::error::Result;

/// The option `--product`.
#[derive(Clone, Debug, Default, Args)]
pub struct ProductArg {
    /// The product, by its slug as in `product list`; needed only if there are several
    #[arg(long, global = true, value_name = "SLUG")]
    product: Option<String>,
}

impl ProductArg {
    /// The product that a command is about: the named one, or the only one in use.
    ///
    /// # Errors
    /// As [`super::named_or_sole`].
    pub fn resolve(&self, reader: &Reader<'_>) -> Result<Product> {
        super::named_or_sole(reader, self.product.as_deref())
    }

    /// As [`Self::resolve`], for a command that changes nothing: the named product may be archived.
    ///
    /// # Errors
    /// As [`super::find`], and [`super::named_or_sole`] if no product is named.
    pub fn resolve_for_reading(&self, reader: &Reader<'_>) -> Result<Product> {
        let named = self.narrow(reader)?;
        named.map_or_else(|| super::named_or_sole(reader, None), Ok)
    }

    /// As [`Self::resolve`], for a command that is about the whole server; `None` if several are in use and none is named.
    ///
    /// # Errors
    /// As [`super::find`], and `product_archived`.
    fn resolve_if_unambiguous(&self, reader: &Reader<'_>) -> Result<Option<Product>> {
        if self.product.is_none() && super::in_use(reader)?.len() > 1 {
            return Ok(None);
        }
        self.resolve(reader).map(Some)
    }

    /// The product, archived or not, that a list is narrowed to; `None` if no product is named.
    ///
    /// # Errors
    /// As [`super::find`].
    pub fn narrow(&self, reader: &Reader<'_>) -> Result<Option<Product>> {
        let slug = self.product.as_deref();
        slug.map(|slug| super::find(reader, slug)).transpose()
    }

    /// The option that names the product with this slug.
    fn naming(slug: &str) -> Self {
        Self {
            product: Some(slug.to_owned()),
        }
    }

    /// The option as it was given, after a space, for the advice to run another command; empty if it was not.
    pub fn repeated(&self) -> String {
        let slug = self.product.as_deref();
        slug.map_or_else(String::new, |slug| format!(" --product {slug}"))
    }
}
