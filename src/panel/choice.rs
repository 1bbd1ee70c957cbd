//! The product that an administrator has chosen by the address of a page. A shop with one product has nothing to choose,
//! and its pages say nothing of it.

use rocket::Request;
use rocket::http::Method;
use serde_json::{Value, json};

use super::rules;
use crate::error::{Error, Resource, Result};
use crate::id::ProductId;
use crate::products::Product;
use crate::web::product_param::{self, PRODUCT};

/// Products in the switcher at most, besides the chosen one; the page of products lists all of them.
const OPTIONS_MAX: usize = 100;

/// The products of the shop, and which of them is chosen.
#[derive(Clone, Debug)]
pub(super) struct ProductChoice {
    products: Vec<Product>,
    /// `None`: all of them. Never on a page about one product of several.
    chosen: Option<ProductId>,
    /// Of a page about one product.
    default: ProductId,
    /// The slug in the address, if the shop has no product with it.
    unknown: Option<String>,
}

impl ProductChoice {
    /// The choice in the address of `request`, which its response will keep; to be checked by [`ProductChoice::check`].
    pub(super) fn of(request: &Request<'_>, products: Vec<Product>) -> Self {
        let slug = request.query_value::<&str>(PRODUCT);
        let slug = slug.and_then(std::result::Result::ok).unwrap_or_default();
        let path = request.uri().path();
        let about_one = rules::is_about_one_product(path.as_str());
        // A page that was loaded before the second product was added names none in its forms: they mean the first one.
        let default = if request.method() == Method::Post {
            ProductId::FIRST
        } else {
            default_of(&products)
        };
        let named = products.iter().find(|product| product.slug == slug);
        let unknown = (named.is_none() && !slug.is_empty()).then(|| slug.to_owned());
        let several = products.len() > 1;
        let chosen = named.map(|product| product.id);
        let choice = Self {
            chosen: chosen
                .or_else(|| about_one.then_some(default))
                .filter(|_| several),
            products,
            default,
            unknown,
        };
        if let Some(product) = choice.chosen.and_then(|id| choice.find(id)) {
            product_param::set_chosen(request, &product.slug);
        }
        choice
    }

    /// Refuses an address that chooses a product which the shop does not have.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(super) fn check(&self) -> Result<()> {
        match &self.unknown {
            Some(slug) => Err(Error::not_found(Resource::Product, slug)),
            None => Ok(()),
        }
    }

    /// The chosen product; `None`: all products.
    pub(super) const fn chosen(&self) -> Option<ProductId> {
        self.chosen
    }

    /// The product of a page that is about one.
    pub(super) fn product(&self) -> ProductId {
        self.chosen.unwrap_or(self.default)
    }

    /// Whether there is something to choose from.
    pub(super) fn is_among_several(&self) -> bool {
        self.products.len() > 1
    }

    /// Whether the chosen product is archived, so that nothing of it can be changed.
    pub(super) fn is_archived(&self) -> bool {
        let product = self.chosen.and_then(|id| self.find(id));
        product.is_some_and(|product| product.archived_at.is_some())
    }

    /// The name of a product as pages show it beside what belongs to it; `None` in a shop with one product.
    pub(super) fn name_of(&self, id: ProductId) -> Option<String> {
        let product = self.find(id).filter(|_| self.is_among_several());
        product.map(|product| self.label(product))
    }

    /// `path` as a URL that chooses the product `id`; `path` itself in a shop with one product.
    pub(super) fn address_of(&self, path: &str, id: ProductId) -> String {
        match self.find(id).filter(|_| self.is_among_several()) {
            Some(product) => product_param::path_with(path, &product.slug),
            None => path.to_owned(),
        }
    }

    fn find(&self, id: ProductId) -> Option<&Product> {
        self.products.iter().find(|product| product.id == id)
    }

    /// The name of a product, and its slug if another one has the same name.
    fn label(&self, product: &Product) -> String {
        let same_name = |other: &&Product| other.name == product.name;
        if self.products.iter().filter(same_name).count() > 1 {
            format!("{} ({})", product.name, product.slug)
        } else {
            product.name.clone()
        }
    }

    /// The switcher in the bar of the page at `path`, as a value for the template; null in a shop with one product.
    pub(super) fn switcher(&self, path: &str) -> Value {
        if !self.is_among_several() {
            return Value::Null;
        }
        let option = |product: &Product| {
            json!({
                "slug": product.slug,
                "name": self.label(product),
                "chosen": Some(product.id) == self.chosen,
            })
        };
        let first = self.products.iter().enumerate();
        let first = first
            .filter(|(number, product)| *number < OPTIONS_MAX || Some(product.id) == self.chosen);
        let (archived, in_use): (Vec<&Product>, Vec<&Product>) = first
            .map(|(_, product)| product)
            .partition(|product| product.archived_at.is_some());
        let options =
            |products: Vec<&Product>| -> Vec<Value> { products.into_iter().map(option).collect() };
        json!({
            "page": rules::page_for_another_product(path),
            "has_all": !rules::is_about_one_product(path),
            "in_use": options(in_use),
            "archived": options(archived),
            "has_more": self.products.len() > OPTIONS_MAX,
        })
    }
}

/// The first product that is not archived.
fn default_of(products: &[Product]) -> ProductId {
    let mut in_use = products
        .iter()
        .filter(|product| product.archived_at.is_none());
    in_use.next().map_or(ProductId::FIRST, |product| product.id)
}
