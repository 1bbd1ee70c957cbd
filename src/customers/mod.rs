//! Customers: the people and companies that licenses were sold to.

pub mod cli;
pub mod panel;
mod rules;
mod store;

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Faults, RefusalKind, Refused, Resource, Result};
use crate::id::CustomerId;
use crate::paging::{Direction, Page, PageRequest, SortPosition, Total};
use crate::revision::Revision;
use crate::terms::{FOUND_MAX, Matches, Pattern, Terms};
use crate::text;

/// The editable data of a customer.
#[derive(Clone, Debug, Default)]
pub struct CustomerData {
    /// 1 to 200 characters. Not unique: several customers may have the same name.
    pub name: String,
    /// Email address. Empty if unknown.
    pub email: String,
    /// Company. Empty if none.
    pub company: String,
    /// A note that only administrators see.
    pub note: String,
}

/// A customer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Customer {
    /// The id.
    pub id: CustomerId,
    /// The name; not unique.
    pub name: String,
    /// Email address. Empty if unknown.
    pub email: String,
    /// Company. Empty if none.
    pub company: String,
    /// A note that only administrators see.
    pub note: String,
    /// How many licenses the customer has.
    pub licenses: u32,
    /// When the customer was added.
    #[serde(skip)]
    pub created_at: UnixMs,
    /// When name, email, company and note were erased for ever; `None` if they were not.
    #[serde(skip)]
    pub erased_at: Option<UnixMs>,
}

/// Adds a customer.
///
/// # Errors
/// [`Error::Invalid`] for an invalid field.
pub fn add(act: &Act<'_>, new: &CustomerData) -> Result<Customer> {
    let new = &new.normalized();
    rules::check(new)?;
    let id = store::insert(act.tx, new, act.now)?;
    act.note(&Change {
        action: "customers.add",
        subject: &id.to_string(),
        before: Value::Null,
        after: audit_json(new),
    })?;
    get(act.tx, id)
}

/// What to do with a new customer who has the name of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameName {
    /// Refuses, so that somebody is asked.
    Ask,
    /// Adds another one.
    AddAnother,
    /// Takes this one instead.
    Use(CustomerId),
}

/// The code of the refusal to add a customer who has the name of another one.
pub const CUSTOMER_EXISTS: &str = "customer_exists";

/// As [`add`], unless there is a customer with this name. Returns the customer that was added, or taken instead.
///
/// # Errors
/// [`Error::Invalid`] for an invalid field, and `customer_exists`.
pub fn add_or_use(act: &Act<'_>, new: &CustomerData, same_name: SameName) -> Result<Customer> {
    let known = with_name(act.tx, &new.name)?;
    if let SameName::Use(id) = same_name
        && let Some(used) = known.iter().find(|one| one.id == id)
    {
        return Ok(used.clone());
    }
    let mut faults = Faults::default();
    if !known.is_empty() && same_name != SameName::AddAnother {
        let refused = Refused::new(RefusalKind::Conflict, CUSTOMER_EXISTS).about("name");
        faults.add(refused.with("name", text::clean_input(&new.name)));
    }
    faults.with(add(act, new))
}

/// The customers with this name, in whatever case, who were not erased: at most ten.
pub fn with_name(reader: &Reader<'_>, name: &str) -> Result<Vec<Customer>> {
    let name = text::clean_input(name);
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let found = store::by_name(reader, &name)?.into_iter();
    let known = found.map(|(id, _)| get(reader, id));
    let mut known = known.collect::<Result<Vec<_>>>()?;
    known.retain(|one| one.erased_at.is_none());
    Ok(known)
}

/// The newest customers of whom name, email, company and note together have what `pattern` says, at most `limit`.
pub fn with_text(reader: &Reader<'_>, pattern: &Pattern, limit: u32) -> Result<Vec<CustomerId>> {
    store::with_text(reader, pattern, limit)
}

/// The first `limit` customers that `search` finds, sorted by name. An empty `search` finds all.
pub fn list(reader: &Reader<'_>, search: &Terms, limit: u32) -> Result<Vec<Customer>> {
    let found = find_up_to(reader, search, limit)?;
    store::list(reader, found.as_ref(), limit)
}

/// The newest customers that `search` finds, at most [`FOUND_MAX`]; `None` if nothing was typed.
pub fn search(reader: &Reader<'_>, search: &Terms) -> Result<Option<Matches<CustomerId>>> {
    find_up_to(reader, search, FOUND_MAX)
}

fn find_up_to(
    reader: &Reader<'_>,
    search: &Terms,
    limit: u32,
) -> Result<Option<Matches<CustomerId>>> {
    if search.is_empty() {
        return Ok(None);
    }
    let ids = store::with_text(reader, &search.words(), limit)?;
    let is_cut = ids.len() >= limit as usize;
    Ok(Some(Matches { ids, is_cut }))
}

/// A column by which the list of customers can be sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CustomerColumn {
    /// The name.
    #[default]
    Name,
    /// The company.
    Company,
    /// The mail address.
    Email,
    /// The number of licenses.
    Licenses,
}

impl CustomerColumn {
    /// Every column.
    pub const ALL: [Self; 4] = [Self::Name, Self::Company, Self::Email, Self::Licenses];

    /// The word in URLs and SQL queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Company => "company",
            Self::Email => "email",
            Self::Licenses => "licenses",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

impl Customer {
    /// The position in a list sorted by `column`, as the queries compare it.
    pub fn position(&self, column: CustomerColumn) -> SortPosition {
        let value = match column {
            CustomerColumn::Name => &self.name,
            CustomerColumn::Company => &self.company,
            CustomerColumn::Email => &self.email,
            CustomerColumn::Licenses => {
                return SortPosition::number(self.licenses.into(), self.id.0);
            }
        };
        SortPosition {
            value: text::sort_key(value),
            id: self.id.0,
        }
    }
}

/// Which customers to list.
#[derive(Clone, Debug, Default)]
pub struct CustomerQuery {
    /// Only those that [`search`] found.
    pub found: Option<Matches<CustomerId>>,
    /// The column by which they are sorted, and in which direction.
    pub order: (CustomerColumn, Direction),
}

/// A page of customers, and how many there are.
pub fn page(
    reader: &Reader<'_>,
    query: &CustomerQuery,
    request: &PageRequest<SortPosition>,
) -> Result<(Page<Customer>, Total)> {
    let (column, direction) = query.order;
    let (from, direction) = request.start(direction);
    let range = store::PageRange {
        column,
        direction,
        from,
        limit: request.rows_to_read(),
    };
    let found = query.found.as_ref();
    let rows = store::page(reader, found, &range)?;
    let total = match found {
        None => Total::Exactly(store::count(reader)?),
        Some(found) => {
            let total = Total::counted(store::count_found(reader, found)?);
            if found.is_cut {
                total.and_more()
            } else {
                total
            }
        }
    };
    Ok((request.page(rows), total))
}

/// Changes a customer. `seen` is the [`Customer::revision`] that the edit is based on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], `changed_meanwhile` if the customer has been changed since, and
/// `customer_erased`.
pub fn edit(act: &Act<'_>, id: CustomerId, new: &CustomerData, seen: &Revision) -> Result<()> {
    let old = not_erased(act.tx, id)?;
    seen.check(&old.revision())?;
    let new = &new.normalized();
    rules::check(new)?;
    store::update(act.tx, id, new)?;
    act.changed(&Change {
        action: "customers.edit",
        subject: &id.to_string(),
        before: audit_json(&old.editable_data()),
        after: audit_json(new),
    })
}

/// The editable data as JSON, for the audit log.
fn audit_json(data: &CustomerData) -> Value {
    json!({ "name": data.name, "email": data.email, "company": data.company, "note": data.note })
}

impl Customer {
    /// Name and id, as shown in lists to choose from: `Ada Lovelace (#12)`.
    pub fn label(&self) -> String {
        format!("{} (#{})", self.name, self.id)
    }

    /// The revision of the editable data.
    pub fn revision(&self) -> Revision {
        Revision::of(&audit_json(&self.editable_data()))
    }

    /// The editable data.
    pub fn editable_data(&self) -> CustomerData {
        CustomerData {
            name: self.name.clone(),
            email: self.email.clone(),
            company: self.company.clone(),
            note: self.note.clone(),
        }
    }
}

/// How many customers there are.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

/// The customer with this id.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
pub fn get(reader: &Reader<'_>, id: CustomerId) -> Result<Customer> {
    store::by_id(reader, id)?.ok_or_else(|| Error::not_found(Resource::Customer, id))
}

/// The customer with this id, unless erased: nothing is sold to an erased one, or changed.
///
/// # Errors
/// [`Error::NotFound`], and `customer_erased`.
pub fn not_erased(reader: &Reader<'_>, id: CustomerId) -> Result<Customer> {
    let customer = get(reader, id)?;
    match customer.erased_at {
        None => Ok(customer),
        Some(_) => Err(Refused::new(RefusalKind::Conflict, "customer_erased").into()),
    }
}

impl CustomerData {
    /// The data with all texts normalized for storage.
    fn normalized(&self) -> Self {
        Self {
            name: text::clean_input(&self.name),
            email: text::clean_input(&self.email),
            company: text::clean_input(&self.company),
            note: text::clean_input(&self.note),
        }
    }
}

/// Finds the customer that `input` refers to: an id (`12`, `#12`), a name, or both in the form of [`Customer::label`].
///
/// # Errors
/// [`Error::NotFound`] if there is none, `several_customers` if several have that name, and `number_or_name` if it is
/// the id of one customer and the name of another.
pub fn find(reader: &Reader<'_>, input: &str) -> Result<CustomerId> {
    let input = text::clean_input(input);
    let with_id = by_id_in(reader, &input)?;
    let with_name = store::by_name(reader, &input)?;
    // Among names that differ only in case or spelling, an exact match wins.
    let with_name: Vec<CustomerId> = match with_name.as_slice() {
        [(id, name), rest @ ..]
            if *name == input && rest.iter().all(|(_, other)| *other != input) =>
        {
            vec![*id]
        }
        all => all.iter().map(|(id, _)| *id).collect(),
    };
    let ambiguous = |code, numbers: &[String]| {
        let refused = Refused::new(RefusalKind::Ambiguous, code);
        let refused = refused.about("customer").with("name", input.as_str());
        Err(refused.with("numbers", numbers.join(", ")).into())
    };
    match (with_id, with_name.as_slice()) {
        (None, []) => Err(Error::not_found(Resource::Customer, &input)),
        (None, [one]) => Ok(*one),
        (Some(id), others) if others.iter().all(|other| *other == id) => Ok(id),
        (Some(id), others) => {
            let others = others.iter().copied().filter(|other| *other != id);
            let all = std::iter::once(id).chain(others);
            // With names: the number alone was ambiguous.
            let shown = all.map(|id| Ok(get(reader, id)?.label()));
            ambiguous("number_or_name", &shown.collect::<Result<Vec<_>>>()?)
        }
        (None, all) => {
            let numbers: Vec<String> = all.iter().map(ToString::to_string).collect();
            ambiguous("several_customers", &numbers)
        }
    }
}

/// As [`find`], unless the customer was erased.
///
/// # Errors
/// Those of [`find`], and `customer_erased`.
pub fn find_not_erased(reader: &Reader<'_>, input: &str) -> Result<CustomerId> {
    let id = find(reader, input)?;
    Ok(not_erased(reader, id)?.id)
}

/// The customer whose id is in `input`. If `input` also contains a name, it must be that of the customer.
fn by_id_in(reader: &Reader<'_>, input: &str) -> Result<Option<CustomerId>> {
    let Some((name, id)) = rules::parse_reference(input) else {
        return Ok(None);
    };
    let customer = store::by_id(reader, id)?;
    let fits = |customer: &Customer| {
        name.is_none_or(|name| text::casefold(&customer.name) == text::casefold(name))
    };
    Ok(customer.filter(fits).map(|customer| customer.id))
}

/// The `limit` most recently added customers, for selection lists.
pub fn latest(reader: &Reader<'_>, limit: u32) -> Result<Vec<Customer>> {
    store::latest(reader, limit)
}

/// The customer with this id, if it can be removed: nothing was ever sold to it.
///
/// # Errors
/// [`Error::NotFound`], `customer_has_licenses`, `customer_had_licenses`, and `customer_erased`.
pub fn removable(reader: &Reader<'_>, id: CustomerId) -> Result<Customer> {
    let customer = not_erased(reader, id)?;
    if customer.licenses > 0 {
        let refused = Refused::new(RefusalKind::Conflict, "customer_has_licenses");
        return Err(refused.with("licenses", customer.licenses).into());
    }
    if store::had_licenses(reader, id)? {
        return Err(Refused::new(RefusalKind::Conflict, "customer_had_licenses").into());
    }
    Ok(customer)
}
