//! The settings of a product: versions, heartbeat, session policy. A change takes effect within a second.

use serde_json::{Value, json};

use super::SessionPolicy;
use super::rules::{self, Refusal};
use super::store;
use crate::api_keys;
use crate::audit::{Act, Change};
use crate::db::Reader;
use crate::devices;
use crate::error::{Error, Faults, Result};
use crate::id::{PlanId, ProductId};
use crate::licenses::Kind;
use crate::plans::{self, Plan};
use crate::product_state;
use crate::revision::Revision;
use crate::security::secret::Secret;
use crate::version::Version;

/// The setting that names the plan of trials without a key.
pub(super) const TRIAL_PLAN: &str = "trial_plan";

/// A row of `client_configs`.
#[derive(Clone, Debug)]
pub struct ProductSettings {
    /// The product.
    pub product: ProductId,
    /// The name of the product.
    pub client_name: String,
    /// The key that every copy of the program contains.
    pub api_key: Secret<String>,
    /// Seconds between two heartbeats; 1 to 3600.
    pub heartbeat_interval: u32,
    /// Seconds without a heartbeat after which a session times out; above the interval, at most 86400.
    pub session_timeout: u32,
    /// The newest version.
    pub current_version: Version,
    /// The oldest version that may start.
    pub minimum_version: Version,
    /// What happens if a session is started while another one is active.
    pub session_policy: SessionPolicy,
    /// Days for which a program may run without reaching the server; 0 to 90.
    pub offline_days: u32,
    /// The plan of trials without a key; `None` if the product offers none.
    pub trial_plan: Option<TrialPlan>,
}

/// The plan by which a product issues trials to programs that have no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialPlan {
    /// The id.
    pub id: PlanId,
    /// Its name in commands and forms.
    pub code: String,
}

impl ProductSettings {
    /// Identifies the content, to detect edit conflicts. The API key is not included.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.facts())
    }

    /// The settings as JSON, without the API key.
    pub(super) fn facts(&self) -> Value {
        json!({
            "client_name": self.client_name,
            "heartbeat_interval": self.heartbeat_interval,
            "session_timeout": self.session_timeout,
            "current_version": self.current_version,
            "minimum_version": self.minimum_version,
            "session_policy": self.session_policy,
            "offline_days": self.offline_days,
            "trial_plan": self.trial_plan.as_ref().map(|plan| &plan.code),
        })
    }
}

/// The settings of a product.
///
/// # Errors
/// [`Error::Damaged`] if they are missing: every product is added with them, and nothing removes them.
pub fn product_settings(reader: &Reader<'_>, product: ProductId) -> Result<ProductSettings> {
    store::product_settings(reader, product)?.ok_or_else(|| Error::Damaged {
        found: "the client configuration is missing".to_owned(),
    })
}

/// Sets the columns of a product's settings that `changes` names: pairs of a column's name and its new value, unparsed.
/// `confirmed` is the minimum version for which the caller accepts that older programs are refused.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Usage`] for each invalid pair, [`Refusal::MinimumAboveCurrent`],
/// [`Refusal::MinimumUnconfirmed`], [`Refusal::NameTaken`] and `product_archived`; nothing is changed then.
pub fn set(
    act: &Act<'_>,
    product: ProductId,
    changes: &[(String, String)],
    confirmed: Option<Version>,
) -> Result<ProductSettings> {
    product_state::check_in_use(act.tx, product)?;
    let old = product_settings(act.tx, product)?;
    let new = changed(act.tx, &old, changes)?;
    if new.minimum_version > old.minimum_version && confirmed != Some(new.minimum_version) {
        check_no_device_refused(act.tx, &new)?;
    }
    store::update(act.tx, &new, act.now)?;
    review(act, &new)?;
    act.changed(&Change {
        action: "client_config.set",
        subject: &product_state::audit_subject(act.tx, product, "client")?,
        before: old.facts(),
        after: new.facts(),
    })?;
    Ok(new)
}

/// The settings `old` with `changes`.
fn changed(
    reader: &Reader<'_>,
    old: &ProductSettings,
    changes: &[(String, String)],
) -> Result<ProductSettings> {
    let (mut new, mut faults) = (old.clone(), Faults::default());
    for (key, value) in changes {
        if key == TRIAL_PLAN {
            let plan = faults.keep(trial_plan(reader, old, value));
            new.trial_plan = plan.flatten();
        } else {
            faults.keep(rules::set_column(&mut new, key, value));
        }
    }
    faults.keep(rules::check(&new));
    let is_unused = super::check_name_unused(reader, &new.client_name, Some(new.product));
    let named = |error: Error| error.with_field_names(&[("name", "client_name")]);
    faults.keep(is_unused.map_err(named));
    faults.keep(api_keys::check_usable_for(
        reader,
        new.product,
        &new.api_key,
    ));
    if !faults.has("current_version") {
        faults.keep(rules::check_versions(old, &new).map_err(Error::from));
    }
    faults.finish()?;
    Ok(new)
}

/// Checks that no device last ran a version older than the new minimum.
///
/// # Errors
/// [`Refusal::MinimumUnconfirmed`].
fn check_no_device_refused(reader: &Reader<'_>, new: &ProductSettings) -> Result<()> {
    let minimum_version = new.minimum_version;
    match devices::count_older_than(reader, new.product, minimum_version)? {
        0 => Ok(()),
        devices => Err(Refusal::MinimumUnconfirmed {
            minimum_version,
            devices,
        }
        .into()),
    }
}

/// The trial plan with the code `code`; `None` if it is empty. The one that is set already may be named again, whatever
/// became of it.
fn trial_plan(reader: &Reader<'_>, old: &ProductSettings, code: &str) -> Result<Option<TrialPlan>> {
    if code.is_empty() {
        return Ok(None);
    }
    let present = old.trial_plan.as_ref().filter(|plan| plan.code == code);
    if let Some(present) = present {
        return Ok(Some(present.clone()));
    }
    let found = match plans::get(reader, old.product, code) {
        Err(Error::NotFound { .. }) => None,
        found => Some(found?),
    };
    let offers_trials = |plan: &Plan| plan.terms.kind == Kind::Trial && plan.archived_at.is_none();
    let plan = found.filter(offers_trials).ok_or_else(|| {
        let problem = "must be the code of a plan of kind trial that is not archived; empty: none";
        Error::invalid(TRIAL_PLAN, problem)
    })?;
    Ok(Some(TrialPlan {
        id: plan.id,
        code: plan.code,
    }))
}

/// Notes that an administrator has reviewed the settings. Until then the name is a default; the slug follows the first
/// name that somebody chose, and stays. It also stays once there is a second product: addresses and commands name it.
pub(super) fn review(act: &Act<'_>, settings: &ProductSettings) -> Result<()> {
    let product = settings.product;
    let is_alone = store::list(act.tx)?.len() == 1;
    if is_alone && !store::reviewed(act.tx, product)? {
        let slug = super::unused_slug(act.tx, &settings.client_name, Some(product))?;
        store::set_slug(act.tx, product, &slug)?;
    }
    store::review(act.tx, product)
}
