//! The SQL call for the state of a product.

use rusqlite::named_params;

use super::ProductState;
use crate::db::Reader;
use crate::error::Result;
use crate::id::ProductId;
use crate::sql;

pub(super) fn state(reader: &Reader<'_>, product: ProductId) -> Result<Option<ProductState>> {
    let params = named_params! { ":product_id": product };
    reader.maybe(sql!("product_state/by_id"), params, |row| {
        Ok(ProductState {
            slug: row.get("slug")?,
            in_use: row.get("in_use")?,
        })
    })
}
