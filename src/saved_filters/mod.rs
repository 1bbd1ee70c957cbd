//! Filters of the panel's lists that an administrator saved under a name. Other administrators do not see them.

pub mod panel;
mod rules;
mod store;

pub use rules::{LISTS, Refusal, filter_of};

use crate::db::{Reader, Tx};
use crate::error::{Error, Refused, Resource, Result};
use crate::id::AdminId;
use crate::text;

/// Most filters that an administrator can save for a list.
pub const SAVED_MAX: usize = 20;

/// A saved filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFilter {
    /// Its id.
    pub id: i64,
    /// The list, one of [`LISTS`].
    pub list: String,
    /// What the administrator calls it.
    pub name: String,
    /// The query of the list's URL, as [`filter_of`] returns it.
    pub query: String,
}

/// A filter that is to be saved.
#[derive(Clone, Debug)]
pub struct NewFilter {
    /// The list, one of [`LISTS`].
    pub list: String,
    /// The name, as typed.
    pub name: String,
    /// The query of the list's URL.
    pub query: String,
}

/// The filters that an administrator saved for a list, by name.
pub fn of_list(reader: &Reader<'_>, admin: AdminId, list: &str) -> Result<Vec<SavedFilter>> {
    let mut filters = store::of_list(reader, admin, list)?;
    filters.sort_by_cached_key(|filter| text::sort_key(&filter.name));
    Ok(filters)
}

/// Saves a filter for an administrator; replaces the one with the same name.
///
/// # Errors
/// [`Error::Invalid`], [`Refusal::TooMany`].
pub fn save(tx: &Tx<'_>, admin: AdminId, new: &NewFilter) -> Result<()> {
    let new = rules::checked(new)?;
    let saved = store::of_list(tx, admin, &new.list)?;
    let is_new = saved.iter().all(|filter| filter.name != new.name);
    if is_new && saved.len() >= SAVED_MAX {
        return Err(Refused::from(Refusal::TooMany).into());
    }
    store::save(tx, admin, &new)
}

/// Removes a filter of an administrator; returns what it was.
///
/// # Errors
/// [`Error::NotFound`] if the administrator has none with this id.
pub fn remove(tx: &Tx<'_>, admin: AdminId, id: i64) -> Result<SavedFilter> {
    let filter = store::by_id(tx, admin, id)?;
    let filter = filter.ok_or_else(|| Error::not_found(Resource::SavedFilter, id))?;
    store::remove(tx, id)?;
    Ok(filter)
}

/// The filters, of all administrators, that search for a person or are named so: by one of `words`, such as the name, or
/// by the number of the customer.
pub fn about(reader: &Reader<'_>, words: &[String], customer: &str) -> Result<Vec<SavedFilter>> {
    let filters = store::all(reader)?.into_iter();
    let about = filters.filter(|filter| rules::is_about(filter, words, customer));
    Ok(about.collect())
}

/// Removes the filters that [`about`] finds.
pub fn forget(tx: &Tx<'_>, words: &[String], customer: &str) -> Result<()> {
    for filter in about(tx, words, customer)? {
        store::remove(tx, filter.id)?;
    }
    Ok(())
}
