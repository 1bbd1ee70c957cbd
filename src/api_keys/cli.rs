//! The command `license-server config rotate-api-key`.

use crate::audit::{Act, Actor};
use crate::console::Console;
use crate::error::Result;
use crate::products;

/// Replaces the API key; the old one keeps working for `overlap_days`.
pub fn rotate(console: &Console, overlap_days: u32) -> Result<()> {
    let overlap = super::overlap(overlap_days)?;
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    console.db.write_blocking("api_keys.rotate", move |tx| {
        let product = products::named_or_sole(tx, None)?.id;
        super::rotate(&Act::new(tx, &actor, now), product, overlap)
    })
}
