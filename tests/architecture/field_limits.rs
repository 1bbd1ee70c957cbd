//! Whether the limits among the attributes of form fields are those of the rules in the code: a field that allows less refuses
//! what the server accepts, and one that allows more lets people type what is refused. The browser tests compare the patterns.

use std::collections::BTreeMap;

use crate::files;

/// How an attribute follows from constants of the code.
#[derive(Clone, Copy)]
enum Rule {
    /// It is this number.
    Number(u64),
    /// It is the constant of this name in this file.
    Is(&'static str, &'static str),
    /// It is the number of digits of the constant.
    Digits(&'static str, &'static str),
    /// It is the constant and so much more.
    More(&'static str, &'static str, u64),
    /// The longest list of so many words of that length, each with a separator.
    Words(&'static str, &'static str, &'static str),
}
use Rule::{Digits, Is, More, Number, Words};

const CUSTOMERS: &str = "src/customers/rules.rs";
const LICENSES: &str = "src/licenses/rules.rs";
const LIMITS: &str = "src/limits/rules.rs";
const PLANS: &str = "src/plans/rules.rs";
const PRODUCTS: &str = "src/products/rules.rs";
const RELEASES: &str = "src/releases/rules.rs";
const TEXT: &str = "src/text.rs";
/// The name and the id of a customer, as a list to choose from shows them: `Ada Lovelace (#12345678901234)`.
const CUSTOMER_LABEL: Rule = More(CUSTOMERS, "NAME_MAX", 20);
/// The smallest number of devices, licenses or days.
const ONE: Rule = Number(1);

/// The limits of each field: the section of its texts and its name, the attribute, and the rule.
const FIELDS: &[(&str, &str, Rule)] = &[
    (
        "admins.name",
        "maxlength",
        Is("src/admins/rules.rs", "NAME_MAX"),
    ),
    (
        "admins.password",
        "minlength",
        Is("src/security/password.rs", "LENGTH_MIN"),
    ),
    (
        "admins.password",
        "maxlength",
        Is("src/security/password.rs", "LENGTH_MAX"),
    ),
    (
        "admins.again",
        "maxlength",
        Is("src/security/password.rs", "LENGTH_MAX"),
    ),
    // A recovery code with separators; whatever is longer is none.
    (".code", "maxlength", Number(40)),
    ("config.client_name", "maxlength", Is(PRODUCTS, "NAME_MAX")),
    (
        "config.current_version",
        "maxlength",
        Is("src/version.rs", "VERSION_LEN_MAX"),
    ),
    (
        "config.minimum_version",
        "maxlength",
        Is("src/version.rs", "VERSION_LEN_MAX"),
    ),
    (
        "config.heartbeat_interval",
        "maxlength",
        Digits(PRODUCTS, "HEARTBEAT_INTERVAL_MAX"),
    ),
    (
        "config.session_timeout",
        "maxlength",
        Digits(PRODUCTS, "SESSION_TIMEOUT_MAX"),
    ),
    (
        "config.offline_days",
        "maxlength",
        Digits(PRODUCTS, "OFFLINE_DAYS_MAX"),
    ),
    (
        "config.name",
        "maxlength",
        Is("src/flags/rules.rs", "NAME_MAX"),
    ),
    (
        "config.description",
        "maxlength",
        Is("src/flags/rules.rs", "DESCRIPTION_MAX"),
    ),
    // 100 percent.
    ("config.share", "maxlength", Number(3)),
    ("config.per_hour", "maxlength", Digits(LIMITS, "TRIALS_MAX")),
    ("config.per_minute", "maxlength", Digits(LIMITS, "RATE_MAX")),
    ("config.burst", "maxlength", Digits(LIMITS, "RATE_MAX")),
    (
        "config.overlap_days",
        "maxlength",
        Digits("src/api_keys/rules.rs", "OVERLAP_DAYS_MAX"),
    ),
    ("customers.name", "maxlength", Is(CUSTOMERS, "NAME_MAX")),
    ("customers.company", "maxlength", Is(CUSTOMERS, "NAME_MAX")),
    ("customers.email", "maxlength", Is(CUSTOMERS, "NAME_MAX")),
    (
        ".name",
        "maxlength",
        Is("src/saved_filters/rules.rs", "NAME_MAX"),
    ),
    (
        ".domain",
        "maxlength",
        Is("src/domain.rs", "DOMAIN_LEN_MAX"),
    ),
    (
        "handshake.domain",
        "maxlength",
        Is("src/domain.rs", "DOMAIN_LEN_MAX"),
    ),
    ("licenses.customer", "maxlength", CUSTOMER_LABEL),
    ("licenses.devices", "min", ONE),
    ("licenses.devices", "max", Is(LICENSES, "DEVICES_MAX")),
    ("licenses.pending_days", "min", ONE),
    ("licenses.pending_days", "max", Is(LICENSES, "DAYS_MAX")),
    ("licenses.days", "min", ONE),
    ("licenses.days", "max", Is(LICENSES, "DAYS_MAX")),
    ("licenses.count", "min", ONE),
    (
        "licenses.count",
        "max",
        Is("src/licenses/issue.rs", "ORDER_MAX"),
    ),
    (
        "licenses.domain",
        "maxlength",
        Is("src/domain.rs", "DOMAIN_LEN_MAX"),
    ),
    (
        "licenses.features",
        "maxlength",
        Words("src/features.rs", "COUNT_MAX", "LENGTH_MAX"),
    ),
    ("plans.code", "maxlength", Is(TEXT, "SLUG_MAX")),
    ("plans.name", "maxlength", Is(PLANS, "NAME_MAX")),
    ("plans.device_limit", "min", ONE),
    ("plans.device_limit", "max", Is(PLANS, "DEVICES_MAX")),
    ("plans.term_days", "min", ONE),
    ("plans.term_days", "max", Is(PLANS, "DAYS_MAX")),
    ("plans.updates_days", "min", ONE),
    ("plans.updates_days", "max", Is(PLANS, "DAYS_MAX")),
    (
        "plans.features",
        "maxlength",
        Words("src/features.rs", "COUNT_MAX", "LENGTH_MAX"),
    ),
    ("products.name", "maxlength", Is(PRODUCTS, "NAME_MAX")),
    ("products.slug", "maxlength", Is(TEXT, "SLUG_MAX")),
    (
        "releases.version",
        "maxlength",
        Is("src/version.rs", "VERSION_LEN_MAX"),
    ),
    ("releases.channel", "maxlength", Is(RELEASES, "CHANNEL_MAX")),
    ("releases.url", "maxlength", Is(RELEASES, "URL_MAX")),
    ("releases.sha256", "maxlength", Is(RELEASES, "SHA256_LEN")),
    ("setup.name", "maxlength", Is(CUSTOMERS, "NAME_MAX")),
    ("setup.devices", "min", ONE),
    ("setup.devices", "max", Is(LICENSES, "DEVICES_MAX")),
];

/// The number that a constant of a source file is; `None` if there is no such constant.
fn constant(file: &str, name: &str) -> Option<u64> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).ok()?;
    let rest = text.split(&format!("const {name}: ")).nth(1)?;
    let value = rest.split_once("= ")?.1.split(';').next()?;
    value.replace('_', "").parse().ok()
}

impl Rule {
    fn value(self) -> Option<u64> {
        Some(match self {
            Number(number) => number,
            Is(file, name) => constant(file, name)?,
            Digits(file, name) => constant(file, name)?.to_string().len() as u64,
            More(file, name, more) => constant(file, name)? + more,
            Words(file, count, length) => constant(file, count)? * (constant(file, length)? + 1),
        })
    }
}

/// The value of the last `name="…"` in `text`.
fn last<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let begin = format!("{name}=\"");
    text.rsplit(&begin)
        .next()
        .filter(|rest| rest.len() < text.len())?
        .split('"')
        .next()
}

#[test]
fn the_limits_of_form_fields_are_those_of_the_rules() {
    let expected: BTreeMap<(&str, &str), Option<u64>> = FIELDS
        .iter()
        .map(|(field, attribute, rule)| ((*field, *attribute), rule.value()))
        .collect();
    let (mut wrong, mut used) = (Vec::new(), Vec::new());
    for (path, text) in files("assets/templates", "tera") {
        for attribute in ["maxlength", "minlength", "min", "max"] {
            let parts: Vec<&str> = text.split(&format!(" {attribute}=\"")).collect();
            let mut before = 0;
            for pair in parts.windows(2) {
                before += pair[0].len() + if before == 0 { 0 } else { attribute.len() + 3 };
                let value = pair[1].split('"').next().unwrap();
                // The field begins with a call of a macro, or with a tag.
                let head = &text[..before];
                let begins = ["{{ f::", "{{ self::", "<input"].map(|begin| head.rfind(begin));
                let field = &head[begins.into_iter().flatten().max().unwrap()..];
                let (section, name) = if field.starts_with("{{") {
                    (last(field, "section"), last(field, "name"))
                } else {
                    (None, last(field, " name").or(Some("code")))
                };
                let name = format!(
                    "{}.{}",
                    section.unwrap_or_default(),
                    name.unwrap_or_default()
                );
                used.push((name.clone(), attribute));
                match expected.get(&(name.as_str(), attribute)) {
                    Some(Some(limit)) if limit.to_string() == value => {}
                    found => wrong.push(format!(
                        "{}: {name} {attribute}={value}, not {found:?}",
                        path.display()
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (field, attribute) in expected.keys() {
        let is_used = used
            .iter()
            .any(|(name, known)| name == field && known == attribute);
        assert!(is_used, "{field} has no {attribute}");
    }
}
