//! The command `license-server config rotate-api-key`.

use crate::audit::{Act, Actor};
use crate::console::Console;
use crate::error::Result;
use crate::products::cli::ProductArg;

/// Replaces the API key of a product; the old one keeps working for `overlap_days`.
pub fn rotate(console: &Console, product: &ProductArg, overlap_days: u32) -> Result<()> {
    let overlap = super::overlap(overlap_days)?;
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let product = product.clone();
    console.db.write_blocking("api_keys.rotate", move |tx| {
        let product = product.resolve(tx)?.id;
        super::rotate(&Act::new(tx, &actor, now), product, overlap)
    })
}
