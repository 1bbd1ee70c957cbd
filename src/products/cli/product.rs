//! Commands: `license-server product …`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::ProductArg;
use super::config;
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::{Console, Table};
use crate::error::Result;
use crate::id::ProductId;
use crate::products::{self, NewProduct, Product};

/// `product …`
#[derive(Debug, Subcommand)]
pub enum ProductCommand {
    /// Add a product, and show its settings and its new API key
    Add {
        /// Its name for people
        name: String,
        /// Its name in addresses and commands, which never changes: a-z, 0-9 and - [default: made from the name]
        #[arg(long)]
        slug: Option<String>,
    },
    /// List products, the first one first
    List,
    /// Change the name of a product; its slug stays
    Rename {
        /// The product's slug, as shown by `product list`
        slug: String,
        /// The new name
        name: String,
    },
    /// Archive a product permanently, without asking; refused while programs of it are running. Its API keys are no
    /// longer accepted
    Archive {
        /// The product's slug, as shown by `product list`
        slug: String,
    },
}

/// Runs a `product` command.
///
/// # Errors
/// The errors of the operations.
pub fn run(console: &Console, command: ProductCommand) -> Result<()> {
    match command {
        ProductCommand::Add { name, slug } => {
            let added = write(console, "products.add", move |act| {
                products::add(act, &NewProduct { name, slug })
            })?;
            config::show(console, &ProductArg::naming(&added.slug))
        }
        ProductCommand::List => list(console),
        ProductCommand::Rename { slug, name } => {
            let id = id_of(console, &slug)?;
            let renamed = write(console, "products.rename", move |act| {
                products::rename(act, id, &name, None)
            })?;
            let line = format!("product {} is named {}", renamed.slug, renamed.name);
            console.show_line(&json!({ "products": [document(&renamed)] }), &line)
        }
        ProductCommand::Archive { slug } => {
            let id = id_of(console, &slug)?;
            let archived = write(console, "products.archive", move |act| {
                products::archive(act, id)
            })?;
            let line = format!("product {} archived", archived.slug);
            console.show_line(&json!({ "products": [document(&archived)] }), &line)
        }
    }
}

/// The id of the product with this slug, which never changes.
fn id_of(console: &Console, slug: &str) -> Result<ProductId> {
    let product = console
        .db
        .read_blocking(|reader| products::find(reader, slug))?;
    Ok(product.id)
}

/// Runs `operation` in a transaction, on behalf of the operator.
fn write(
    console: &Console,
    name: &'static str,
    operation: impl FnOnce(&Act<'_>) -> Result<Product> + Send + 'static,
) -> Result<Product> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    console
        .db
        .write_blocking(name, move |tx| operation(&Act::new(tx, &actor, now)))
}

fn list(console: &Console) -> Result<()> {
    let all = console.db.read_blocking(products::list)?;
    let rows = all.iter().map(|product| {
        vec![
            product.slug.clone(),
            product.name.clone(),
            product.created_at.rfc3339(),
            product
                .archived_at
                .map_or_else(String::new, UnixMs::rfc3339),
        ]
    });
    let table = Table::new(&["slug", "name", "added", "archived"]).with(rows);
    let documents: Vec<Value> = all.iter().map(document).collect();
    console.show(&json!({ "products": documents }), &table)
}

fn document(product: &Product) -> Value {
    json!({
        "slug": product.slug,
        "name": product.name,
        "created_at": product.created_at.rfc3339(),
        "archived_at": product.archived_at.map(UnixMs::rfc3339),
    })
}
