//! The commands `license-server plan …`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::json::members;
use super::{
    Applied, ApplyPreview, ApplyStep, Days, Plan, PlanChange, PlanFilter, PlanRow, PlanTerms,
    SkippedLicense, TermStart,
};
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::{self, Console, Extent, List, NOTHING_TO_CHANGE, Table};
use crate::error::{Error, Result};
use crate::id::ProductId;
use crate::licenses::Kind;
use crate::licenses::cli::{KindWord, features};
use crate::logging::counted;
use crate::paging::PageRequest;
use crate::products::Product;
use crate::products::cli::ProductArg;
use crate::revision;

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
    /// Copy kind, devices, features and updates of a plan to the licenses sold under it; updates that last longer
    /// stay
    Apply(Apply),
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
    /// Days of the term, or none: does not expire, which a trial cannot be [default: none; of a trial 30]
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
    /// Days of the term, or none: does not expire, which a trial cannot be
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

/// `plan apply`
#[derive(Debug, Args)]
pub struct Apply {
    /// The code of the plan
    code: String,
    /// Do not ask for the code of the plan on standard input
    #[arg(long)]
    yes: bool,
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
    let named = console.db.read_blocking(|reader| match command {
        Command::List | Command::Show { .. } => product.resolve_for_reading(reader),
        _ => product.resolve(reader),
    })?;
    let product = named.id;
    let done = match command {
        Command::Add(plan) => add(console, product, plan),
        Command::List => list(console, &named),
        Command::Show { code } => show(console, product, &code),
        Command::Edit(plan) => edit(console, product, plan),
        Command::Archive { code } => archive(console, product, code),
        Command::Apply(it) => apply(console, product, &it),
    };
    done.map_err(|error: Error| error.with_field_names(OPTIONS))
}

fn add(console: &Console, product: ProductId, add: Add) -> Result<()> {
    let days = |days: Option<Days>| days.and_then(Days::number);
    let kind = add.kind.into();
    super::check_chosen_term(kind, add.term_days)?;
    let terms = PlanTerms {
        name: add.name,
        kind,
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
    let query = super::PlanQuery {
        product: product.id,
        filter: PlanFilter::All,
        order: Default::default(),
    };
    let page = console
        .db
        .read_blocking(|reader| Ok(super::page(reader, &query, &request)?.0))?;
    let cut = if page.has_next {
        Extent::After(LIST_MAX)
    } else {
        Extent::Complete
    };
    console.show_list(&List {
        product: Some(&product.slug),
        name: "plans",
        rows: &page.rows,
        document: &listed,
        head: &[
            "code", "name", "kind", "devices", "term", "updates", "features", "licenses", "state",
        ],
        cells: &row,
        cut,
        advice: "show one with plan show CODE",
    })
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
    if change.is_empty() {
        return Err(Error::Usage(NOTHING_TO_CHANGE.to_owned()));
    }
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

fn apply(console: &Console, product: ProductId, apply: &Apply) -> Result<()> {
    let code = &apply.code;
    let (plan, preview) = console.db.read_blocking(|reader| {
        let plan = super::get(reader, product, code)?;
        let preview = super::apply_preview(reader, &plan)?;
        Ok((plan, preview))
    })?;
    if !apply.yes && preview.licenses > 0 {
        ask_apply(&plan, &preview)?;
    }
    let applied = apply_in_steps(console, &plan)?;
    let skipped: Vec<Value> = applied.skipped.iter().map(skipped_json).collect();
    let document = json!({
        "plan": code, "changed": applied.changed, "unchanged": applied.unchanged,
        "longer_updates": applied.longer_updates, "skipped": skipped,
    });
    console.show_line(&document, &result_of(code, &applied))
}

/// Asks for the code of the plan.
fn ask_apply(plan: &Plan, preview: &ApplyPreview) -> Result<()> {
    let licenses = counted(preview.licenses as usize, "license", "licenses");
    let skipped = match preview.skipped {
        0 => String::new(),
        n => format!(", of which {n} with too many devices stay as they are"),
    };
    console::message(&format!(
        "This copies kind, devices, features and updates of the plan to the {licenses} sold under it{skipped}, also \
         where something else was agreed. Updates are never shortened. Type the code of the plan to confirm, or use --yes:"
    ));
    if console::first_line_of_input()? == plan.code {
        Ok(())
    } else {
        Err(Error::invalid("code", "is not the code of the plan"))
    }
}

/// Applies the plan, as it was read, in as many steps as its licenses need.
fn apply_in_steps(console: &Console, plan: &Plan) -> Result<Applied> {
    let (mut all, mut step) = (Applied::default(), ApplyStep::first(plan.revision()));
    loop {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        let (code, product, next) = (plan.code.clone(), plan.product, step.clone());
        let applied = console.db.write_blocking("plans.apply", move |tx| {
            super::apply(&Act::new(tx, &actor, now), product, &code, &next)
        });
        // What the steps before have changed stays so.
        all.add(applied.map_err(|error| with_progress(error, &plan.code, &all))?);
        match all.next {
            Some(after) => step.after = after,
            None => return Ok(all),
        }
    }
}

/// An error of a step, with what the steps before it have done.
fn with_progress(error: Error, code: &str, before: &Applied) -> Error {
    let changed = counted(before.changed as usize, "license has", "licenses have");
    if revision::is_conflict(&error) {
        return Error::State(format!(
            "the plan {code} was changed in the meantime: {changed} its former values now, the others are as they were; \
             look at it with `plan show {code}`, then apply it again"
        ));
    }
    if before.next.is_some() {
        console::message(&format!(
            "license-server: {changed} the values of the plan now, the others are as they were:"
        ));
    }
    error
}

fn skipped_json(skipped: &SkippedLicense) -> Value {
    let license = &skipped.license;
    json!({ "license_key": license.key, "device_count": skipped.taken, "device_limit": license.device_limit })
}

/// What was done, for people.
fn result_of(code: &str, applied: &Applied) -> String {
    let changed = counted(applied.changed as usize, "license", "licenses");
    let unchanged = applied.unchanged;
    let mut lines = vec![format!(
        "plan {code}: {changed} changed, {unchanged} unchanged"
    )];
    if applied.longer_updates > 0 {
        let kept = counted(
            applied.longer_updates as usize,
            "license keeps",
            "licenses keep",
        );
        lines.push(format!("{kept} updates that last longer than the plan's"));
    }
    lines.extend(applied.skipped.iter().map(|skipped| {
        let key = skipped.license.key.formatted();
        let taken = skipped.taken;
        format!("license {key} stays as it is: {taken} devices hold a slot")
    }));
    lines.join("\n")
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
        (Some(days), TermStart::Issue) => days_text(days),
        (Some(days), TermStart::FirstActivation) => {
            format!("{}, starts with the first activation", days_text(days))
        }
    }
}

fn updates(terms: &PlanTerms) -> String {
    match terms.updates_days {
        None => "all releases".to_owned(),
        Some(days) => days_text(days),
    }
}

fn days_text(days: u32) -> String {
    counted(days as usize, "day", "days")
}

const fn state(plan: &Plan) -> &'static str {
    match plan.archived_at {
        None => "for sale",
        Some(_) => "archived",
    }
}
