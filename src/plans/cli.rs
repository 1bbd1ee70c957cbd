//! The commands `license-server plan …`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::json::members;
use super::{
    Applied, ApplyStep, Days, Plan, PlanChange, PlanFilter, PlanRow, PlanTerms, TermStart,
};
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::{Console, Extent, Table};
use crate::error::{Error, Result};
use crate::id::ProductId;
use crate::licenses::Kind;
use crate::licenses::cli::{KindWord, features};
use crate::paging::PageRequest;
use crate::products::Product;
use crate::products::cli::ProductArg;

const LIST_MAX: u32 = 10_000;
/// The options that are called otherwise than the fields of a plan.
const OPTIONS: &[(&str, &str)] = &[
    ("device_limit", "devices"),
    ("term_days", "term-days"),
    ("term_starts", "term-starts"),
    ("features", "feature"),
    ("updates_days", "updates-days"),
];

/// `plan`, with the product that it is about.
#[derive(Debug, Args)]
pub struct Plans {
    #[command(flatten)]
    product: ProductArg,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// `plan …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a plan
    Add(Add),
    /// List plans
    List,
    /// Show a plan
    Show {
        /// The code of the plan
        code: String,
    },
    /// Change a plan; licenses already sold under it stay as they are
    Edit(Edit),
    /// Archive a plan permanently, without asking: it can no longer be sold; its licenses stay as they are
    Archive {
        /// The code of the plan
        code: String,
    },
    /// Copy kind, devices, features and updates of a plan to the licenses sold under it
    Apply {
        /// The code of the plan
        code: String,
    },
}

/// The value of `--term-starts`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StartWord {
    /// When the license is issued
    Issue,
    /// When its first device is activated
    #[value(name = "first_activation", alias = "first-activation")]
    FirstActivation,
}

impl From<StartWord> for TermStart {
    fn from(word: StartWord) -> Self {
        match word {
            StartWord::Issue => Self::Issue,
            StartWord::FirstActivation => Self::FirstActivation,
        }
    }
}

/// `plan add`
#[derive(Debug, Args)]
pub struct Add {
    /// Its name in commands and addresses, such as pro-yearly; never changes
    code: String,
    /// Its name for people
    #[arg(long)]
    name: String,
    /// Kind of license
    #[arg(long, value_enum, default_value_t = KindWord::Full)]
    kind: KindWord,
    /// Number of devices that can hold a slot
    #[arg(long, default_value_t = 1)]
    devices: u32,
    /// Days of the term, or none: does not expire [default: none; of a trial 30]
    #[arg(long, value_name = "N|none", value_parser = days)]
    term_days: Option<Days>,
    /// When the term starts
    #[arg(long, value_enum, default_value_t = StartWord::Issue)]
    term_starts: StartWord,
    /// Days, from the issue of a license, whose releases it covers, or none: all releases [default: none]
    #[arg(long, value_name = "N|none", value_parser = days)]
    updates_days: Option<Days>,
    /// A feature, such as export; may be repeated
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<String>,
}

/// `plan edit`
#[derive(Debug, Args)]
pub struct Edit {
    /// The code of the plan
    code: String,
    /// Its name for people
    #[arg(long)]
    name: Option<String>,
    /// Kind of license
    #[arg(long, value_enum)]
    kind: Option<KindWord>,
    /// Number of devices that can hold a slot
    #[arg(long)]
    devices: Option<u32>,
    /// Days of the term, or none: does not expire
    #[arg(long, value_name = "N|none", value_parser = days)]
    term_days: Option<Days>,
    /// When the term starts
    #[arg(long, value_enum)]
    term_starts: Option<StartWord>,
    /// Days, from the issue of a license, whose releases it covers, or none: all releases
    #[arg(long, value_name = "N|none", value_parser = days)]
    updates_days: Option<Days>,
    /// A feature; may be repeated, and replaces all; '': none
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Option<Vec<String>>,
}

fn days(text: &str) -> std::result::Result<Days, String> {
    match text {
        "none" => Ok(Days::Unlimited),
        number => {
            let days = number.parse().ok().map(Days::Limited);
            days.ok_or_else(|| "must be a number of days, or none".to_owned())
        }
    }
}

/// Runs `command`.
///
/// # Errors
/// The errors of the operations.
pub fn run(console: &Console, Plans { product, command }: Plans) -> Result<()> {
    let named = console.db.read_blocking(|reader| product.resolve(reader))?;
    let product = named.id;
    let done = match command {
        Command::Add(plan) => add(console, product, plan),
        Command::List => list(console, &named),
        Command::Show { code } => show(console, product, &code),
        Command::Edit(plan) => edit(console, product, plan),
        Command::Archive { code } => archive(console, product, code),
        Command::Apply { code } => apply(console, product, &code),
    };
    done.map_err(|error: Error| error.with_field_names(OPTIONS))
}

fn add(console: &Console, product: ProductId, add: Add) -> Result<()> {
    let days = |days: Option<Days>| days.and_then(Days::number);
    let terms = PlanTerms {
        name: add.name,
        kind: add.kind.into(),
        device_limit: add.devices,
        term_days: days(add.term_days),
        term_starts: add.term_starts.into(),
        features: features(&add.features)?,
        updates_days: days(add.updates_days),
    };
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let plan = console.db.write_blocking("plans.add", move |tx| {
        super::add(&Act::new(tx, &actor, now), product, &add.code, &terms)
    })?;
    let line = format!("plan {} added", plan.code);
    console.show_line(&json!({ "plans": [to_json(&plan)] }), &line)
}

fn list(console: &Console, product: &Product) -> Result<()> {
    let request = PageRequest::first(LIST_MAX);
    let page = console
        .db
        .read_blocking(|reader| super::page(reader, product.id, PlanFilter::All, &request))?;
    let cut = if page.has_next {
        Extent::After(LIST_MAX)
    } else {
        Extent::Complete
    };
    let documents: Vec<Value> = page.rows.iter().map(listed).collect();
    let table = Table::new(&[
        "code", "name", "kind", "devices", "term", "updates", "features", "licenses", "state",
    ])
    .with(page.rows.iter().map(row));
    let document = json!({ "product": product.slug, "plans": documents });
    console.show_list(document, &table, cut, "show one with plan show CODE")
}

fn show(console: &Console, product: ProductId, code: &str) -> Result<()> {
    let plan = console
        .db
        .read_blocking(|reader| super::get(reader, product, code))?;
    let terms = &plan.terms;
    let facts = [
        ("code", plan.code.clone()),
        ("name", terms.name.clone()),
        ("kind", terms.kind.as_str().to_owned()),
        ("devices", terms.device_limit.to_string()),
        ("term", term(terms)),
        ("updates", updates(terms)),
        ("features", terms.features.stored()),
        ("state", state(&plan).to_owned()),
    ];
    let rows = facts.map(|(name, value)| vec![name.to_owned(), value]);
    console.show(&to_json(&plan), &Table::new(&["fact", "value"]).with(rows))
}

fn edit(console: &Console, product: ProductId, edit: Edit) -> Result<()> {
    let features = edit.features.as_deref().map(features);
    let change = PlanChange {
        name: edit.name,
        kind: edit.kind.map(Kind::from),
        device_limit: edit.devices,
        term_days: edit.term_days,
        term_starts: edit.term_starts.map(TermStart::from),
        features: features.transpose()?,
        updates_days: edit.updates_days,
        seen: None,
    };
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let plan = console.db.write_blocking("plans.edit", move |tx| {
        super::edit(&Act::new(tx, &actor, now), product, &edit.code, &change)
    })?;
    let line = format!("plan {} changed; its licenses stay as they are", plan.code);
    console.show_line(&json!({ "plans": [to_json(&plan)] }), &line)
}

fn archive(console: &Console, product: ProductId, code: String) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let plan = console.db.write_blocking("plans.archive", move |tx| {
        super::archive(&Act::new(tx, &actor, now), product, &code)
    })?;
    let line = format!("plan {} is archived", plan.code);
    console.show_line(&json!({ "plans": [to_json(&plan)] }), &line)
}

fn apply(console: &Console, product: ProductId, code: &str) -> Result<()> {
    let (mut all, mut step) = (Applied::default(), ApplyStep::first(None));
    loop {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        let (code, next) = (code.to_owned(), step.clone());
        all.add(console.db.write_blocking("plans.apply", move |tx| {
            super::apply(&Act::new(tx, &actor, now), product, &code, &next)
        })?);
        match all.next {
            Some(after) => step.after = after,
            None => break,
        }
    }
    let skipped: Vec<Value> = all.skipped.iter().map(|skipped| {
        json!({ "license_key": skipped.license.key, "device_count": skipped.taken, "device_limit": skipped.license.device_limit })
    }).collect();
    let mut lines = vec![format!(
        "plan {code}: {} licenses changed, {} had its values already",
        all.changed, all.unchanged
    )];
    lines.extend(all.skipped.iter().map(|skipped| {
        let key = skipped.license.key.formatted();
        let taken = skipped.taken;
        format!("license {key} stays as it is: {taken} devices hold a slot")
    }));
    let document = json!({
        "plan": code, "changed": all.changed, "unchanged": all.unchanged, "skipped": skipped,
    });
    console.show_line(&document, &lines.join("\n"))
}

/// A plan in JSON output.
fn to_json(plan: &Plan) -> Value {
    let mut document = members(plan);
    let archived_at = plan.archived_at.map(UnixMs::rfc3339);
    document.insert("created_at".to_owned(), plan.created_at.rfc3339().into());
    document.insert("archived_at".to_owned(), archived_at.into());
    Value::Object(document)
}

/// The same with the number of licenses.
fn listed(row: &PlanRow) -> Value {
    let mut document = to_json(&row.plan);
    if let Some(members) = document.as_object_mut() {
        members.insert("licenses".to_owned(), row.licenses.into());
    }
    document
}

fn row(row: &PlanRow) -> Vec<String> {
    let (plan, terms) = (&row.plan, &row.plan.terms);
    vec![
        plan.code.clone(),
        terms.name.clone(),
        terms.kind.as_str().to_owned(),
        terms.device_limit.to_string(),
        term(terms),
        updates(terms),
        terms.features.stored(),
        row.licenses.to_string(),
        state(plan).to_owned(),
    ]
}

fn term(terms: &PlanTerms) -> String {
    match (terms.term_days, terms.term_starts) {
        (None, _) => "no end".to_owned(),
        (Some(days), TermStart::Issue) => format!("{days} days"),
        (Some(days), TermStart::FirstActivation) => {
            format!("{days} days, starts with the first activation")
        }
    }
}

fn updates(terms: &PlanTerms) -> String {
    match terms.updates_days {
        None => "all releases".to_owned(),
        Some(days) => format!("{days} days"),
    }
}

const fn state(plan: &Plan) -> &'static str {
    match plan.archived_at {
        None => "for sale",
        Some(_) => "archived",
    }
}
