//! Commands: the part of `license-server license …` that is about domains.

use clap::Args;
use serde_json::{Value, json};

use super::{BindingChange, DomainBinding, Transfer, TransferGrace};
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::Console;
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::licenses;

/// Arguments: a license key and a domain.
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
    /// [`Error::Invalid`] if the domain is not a host name.
    pub fn parse(self) -> Result<(String, Domain)> {
        let domain = Domain::from_input(&self.domain);
        let invalid = || Error::invalid("domain", "must be a host name like www.example.org");
        Ok((self.key, domain.ok_or_else(invalid)?))
    }
}

/// The grace period of a transfer, from the settings.
pub const fn grace(console: &Console) -> TransferGrace {
    TransferGrace::days(console.transfer_grace_days)
}

/// Changes the domain of the license of `key`.
pub fn change(console: &Console, key: &str, change: BindingChange) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let license = console
        .db
        .read_blocking(|reader| licenses::by_typed_key(reader, key))?;
    let binding = console.db.write_blocking("domains.change", move |tx| {
        super::change(&Act::new(tx, &actor, now), license.id, &change, None)
    })?;
    let line = format!(
        "license {}: {}",
        license.key.formatted(),
        describe(&binding)
    );
    let document = json!({
        "domain": binding.domain,
        "transfer": binding.transfer.as_ref().map(Transfer::to_json),
        "license_key": license.key,
    });
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

/// The transfer of a binding in JSON, with its confirmation; null if there is none.
pub fn transfer_json(binding: &DomainBinding) -> Value {
    binding.transfer.as_ref().map_or(Value::Null, |transfer| {
        let mut all = transfer.to_json();
        if let Some(members) = all.as_object_mut() {
            let confirmed_at = transfer.confirmed_at.map(UnixMs::rfc3339);
            members.insert("confirmed_at".to_owned(), json!(confirmed_at));
        }
        all
    })
}
