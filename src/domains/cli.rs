//! Commands: the part of `license-server license …` that is about domains.

use clap::Args;
use serde_json::{Value, json};

use super::{BindingChange, DomainBinding, TransferGrace};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::console::Console;
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::licenses;

/// Arguments: a license and a domain.
#[derive(Debug, Args)]
pub struct KeyAndDomain {
    /// The license key
    key: String,
    /// A host name such as www.example.org
    domain: String,
}

impl KeyAndDomain {
    /// The key as typed, and the domain.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not a host name.
    pub fn parse(self) -> Result<(String, Domain)> {
        let domain = Domain::from_input(&self.domain);
        let invalid = || Error::invalid("domain", "must be a host name like www.example.org");
        Ok((self.key, domain.ok_or_else(invalid)?))
    }
}

/// Changes the domain of the license of `key`.
pub fn change(console: &Console, key: &str, change: BindingChange) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let grace = TransferGrace::days(console.transfer_grace_days);
    let license = console
        .db
        .read_blocking(|reader| licenses::by_typed_key(reader, key))?;
    let binding = console.db.write_blocking("domains.set", move |tx| {
        super::set_domain(tx, license.id, &change, grace, &actor, now)
    })?;
    let line = format!(
        "license {}: {}",
        license.key.formatted(),
        describe(&binding)
    );
    let mut document = super::to_json(&binding);
    if let Some(map) = document.as_object_mut() {
        map.insert("license_key".to_owned(), json!(license.key));
    }
    console.show_line(&document, &line)
}

/// A binding as text.
pub fn describe(binding: &DomainBinding) -> String {
    match (&binding.domain, &binding.transfer) {
        (None, _) => "no domain".to_owned(),
        (Some(domain), None) => domain.to_string(),
        (Some(domain), Some(transfer)) => format!(
            "{domain}, being transferred to {}; both are served until {}",
            transfer.domain,
            transfer.until.rfc3339()
        ),
    }
}

/// The transfer of a binding in JSON; null if there is none.
pub fn transfer_json(binding: &DomainBinding) -> Value {
    binding.transfer.as_ref().map_or(Value::Null, |transfer| {
        json!({
            "target": transfer.domain,
            "until": transfer.until.rfc3339(),
            "confirmed_at": transfer.confirmed_at.map(UnixMs::rfc3339),
        })
    })
}
