//! Command line: `license-server license sell`.

use clap::Args;

use crate::audit::{Act, Actor};
use crate::console::Console;
use crate::error::Result;
use crate::licenses::cli::{BuyerArgs, end_of_term, id_and_slugs, show_one};

/// `license sell`
#[derive(Debug, Args)]
pub struct Sell {
    /// The license key of a trial that has no customer
    key: String,
    #[command(flatten)]
    buyer: BuyerArgs,
    /// Code of the plan whose values the license takes, and whose term begins; without it, it stays a trial with its
    /// present end
    #[arg(long, value_name = "CODE")]
    plan: Option<String>,
}

/// Sells the license of a trial.
///
/// # Errors
/// The errors of [`super::sell`].
pub fn sell(console: &Console, Sell { key, buyer, plan }: Sell) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let (id, slugs) = id_and_slugs(console, &key)?;
    let buyer = buyer.into_buyer();
    let license = console.db.write_blocking("trials.sell", move |tx| {
        super::sell(&Act::new(tx, &actor, now), id, &buyer, plan.as_deref())
    })?;
    let line = format!(
        "license {} is sold to {}: {}, valid until: {}",
        license.key.formatted(),
        license.customer,
        license.kind.as_str(),
        end_of_term(&license)
    );
    show_one(console, license, &slugs, &line)
}
