//! What an entry is about, as an administrator knows it: a license by its key, a customer by name, with a link to the page.
//! Entries store ids and codes, since names change and can be erased.

use serde_json::{Value, json};

use crate::admins;
use crate::audit::{Entry, escape_invisible};
use crate::customers;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::licenses;
use crate::products;
use crate::web::html::path_with_query;
use crate::web::product_param::{PRODUCT, path_with};

const HOME: &str = "/lizenzserver";

/// The subject of an entry: a text, or the key of one, and the page about it.
#[derive(Default)]
pub(super) struct Subject {
    pub(super) text: String,
    /// The key of a text in the reader's language, where the subject has no name of its own.
    text_key: Option<String>,
    /// The page; `None` if there is none, or if it is gone.
    pub(super) url: Option<String>,
}

impl Subject {
    fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    fn linked(text: impl Into<String>, url: String) -> Self {
        Self {
            text: text.into(),
            text_key: None,
            url: Some(url),
        }
    }

    fn named(text_key: impl Into<String>, url: String) -> Self {
        Self {
            text_key: Some(text_key.into()),
            url: Some(url),
            ..Self::default()
        }
    }
}

/// The subject as entries store it, for one that an administrator typed: the key of a license is replaced by its id.
pub(super) fn stored(reader: &Reader<'_>, typed: Option<String>) -> Result<Option<String>> {
    let Some(typed) = typed else {
        return Ok(None);
    };
    let license = existing(licenses::by_typed_key(reader, &typed))?;
    Ok(Some(
        license.map_or(typed, |license| license.id.to_string()),
    ))
}

/// The subject of `entry` for the template.
pub(super) fn of(reader: &Reader<'_>, entry: &Entry) -> Result<Value> {
    let Subject {
        text,
        text_key,
        url,
    } = find(reader, entry)?;
    Ok(json!({ "text": escape_invisible(&text), "text_key": text_key, "url": url }))
}

fn find(reader: &Reader<'_>, entry: &Entry) -> Result<Subject> {
    let subject = entry.subject.as_str();
    let (module, verb) = entry.action.split_once('.').unwrap_or_default();
    Ok(match module {
        "licenses" | "devices" | "trials" | "integrate" | "handshake" => license(reader, subject)?,
        "customers" => customer(reader, subject)?,
        "admins" => administrator(reader, subject)?,
        "products" => product(reader, subject)?,
        "client_config" => setting(verb, subject),
        "releases" => of_product(subject, |version| format!("{HOME}/releases/{version}")),
        "plans" => of_product(subject, |code| format!("{HOME}/plans/{code}/edit")),
        "sessions" => session(reader, entry)?,
        _ => Subject::plain(subject),
    })
}

/// What `found` is, or `None` if it does not exist any more.
fn existing<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(Error::NotFound { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// A license by its key, or the first and the last of several that were issued at once.
pub(super) fn license(reader: &Reader<'_>, subject: &str) -> Result<Subject> {
    let (first, last) = match subject.split_once("..") {
        Some((first, last)) => (first, Some(last)),
        None => (subject, None),
    };
    let key_of = |id: &str| match id.parse().map(LicenseId) {
        Ok(id) => existing(licenses::find(reader, id)),
        Err(_) => Ok(None), // handshakes are about domains too
    };
    let Some(license) = key_of(first)? else {
        return Ok(Subject::plain(subject));
    };
    let mut text = license.key.formatted();
    if let Some(last) = last.map(key_of).transpose()?.flatten() {
        text = format!("{text} … {}", last.key.formatted());
    }
    Ok(Subject::linked(
        text,
        format!("{HOME}/licenses/{}", license.id),
    ))
}

pub(super) fn customer(reader: &Reader<'_>, subject: &str) -> Result<Subject> {
    let Ok(id) = subject.parse().map(CustomerId) else {
        return Ok(Subject::plain(subject));
    };
    let found = existing(customers::get(reader, id))?;
    Ok(found.map_or_else(
        || Subject::plain(subject),
        |customer| Subject::linked(customer.name, format!("{HOME}/customers/{id}")),
    ))
}

fn administrator(reader: &Reader<'_>, subject: &str) -> Result<Subject> {
    let found = admins::list(reader)?.into_iter();
    let mut found = found.filter(|admin| admin.name == subject);
    Ok(found.next().map_or_else(
        || Subject::plain(subject),
        |admin| Subject::linked(admin.name, format!("{HOME}/admins/{}", admin.id)),
    ))
}

fn product(reader: &Reader<'_>, subject: &str) -> Result<Subject> {
    let found = existing(products::find(reader, subject))?;
    Ok(found.map_or_else(
        || Subject::plain(subject),
        |product| {
            let page = format!("{HOME}/config");
            let url = path_with_query(&page, &[(PRODUCT, &product.slug)]);
            Subject::linked(product.name, url)
        },
    ))
}

/// A part of the settings page.
fn setting(verb: &str, subject: &str) -> Subject {
    let page = |part: &str| format!("{HOME}/config?at={part}#{part}");
    match verb {
        "set_flag" | "remove_flag" => of_product(subject, |_| page("flags")),
        "set_limit" => Subject::named(format!("config.limit_{subject}"), page("limits")),
        "rotate_api_key" => named_of_product(subject, "config.key", page("key")),
        _ => named_of_product(subject, "config.client", page("client")),
    }
}

/// Something of a product. Its entries name the slug of the product, except for those about the first one.
fn of_product(subject: &str, page: impl Fn(&str) -> String) -> Subject {
    match subject.split_once('/') {
        Some((slug, name)) => Subject::linked(subject, path_with(&page(name), slug)),
        None => Subject::linked(subject, page(subject)),
    }
}

fn named_of_product(subject: &str, text_key: &str, page: String) -> Subject {
    let mut named = Subject::named(text_key, page);
    if let Some((slug, _)) = subject.split_once('/') {
        slug.clone_into(&mut named.text);
        named.url = named.url.map(|url| path_with(&url, slug));
    }
    named
}

/// The license of a session, which has ended.
fn session(reader: &Reader<'_>, entry: &Entry) -> Result<Subject> {
    let before: Value = serde_json::from_str(&entry.before).unwrap_or_default();
    match before.get("license").and_then(Value::as_i64) {
        Some(id) => license(reader, &id.to_string()),
        None => Ok(Subject::plain(&entry.subject)),
    }
}
