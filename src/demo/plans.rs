//! The demo's plans, and the trials that programs started by one of them.

use std::sync::Arc;
use std::time::Duration;

use super::phrase::phrase;
use crate::audit::{Act, Actor};
use crate::clock::Now;
use crate::config::Language;
use crate::db::Tx;
use crate::devices::ClientIdentity;
use crate::error::Result;
use crate::features::Features;
use crate::id::ProductId;
use crate::licenses::{Buyer, Kind};
use crate::plans::{self, PlanTerms, TermStart};
use crate::products;
use crate::security::rate_limit::{Group, HourlyQuota, Quota, Source};
use crate::trials::{self, TrialRequest};
use crate::version::Version;

const DAY: Duration = Duration::from_hours(24);
const YEARLY: &str = "pro-yearly";
const TRIAL: &str = "trial";
/// Name of the device, days since its trial started, and who bought it.
const TRIALS: &[(&str, u32, Option<&str>)] = &[
    ("studio-north", 9, Some("Emmy Noether")),
    ("laptop-east", 4, None),
    ("desk-west", 1, None),
];

/// Adds a plan to sell and one for trials, which the product offers.
pub(super) fn add(act: &Act<'_>, language: Language) -> Result<()> {
    let yearly = PlanTerms {
        name: phrase(language, ("Pro, one year", "Pro, ein Jahr")).to_owned(),
        kind: Kind::Full,
        device_limit: 2,
        term_days: Some(365),
        term_starts: TermStart::FirstActivation,
        features: Features::from_input("export print")?,
        updates_days: Some(365),
    };
    let trial = PlanTerms {
        name: phrase(language, ("30 days", "30 Tage")).to_owned(),
        kind: Kind::Trial,
        device_limit: 1,
        term_days: Some(30),
        term_starts: TermStart::Issue,
        features: Features::from_input("print")?,
        updates_days: None,
    };
    for (code, terms) in [(YEARLY, yearly), (TRIAL, trial)] {
        plans::add(act, ProductId::FIRST, code, &terms)?;
    }
    let offer = [("trial_plan".to_owned(), TRIAL.to_owned())];
    products::set(act, ProductId::FIRST, &offer, None).map(drop)
}

/// Starts trials on the last days, of which one was bought; returns how many they are.
pub(super) fn start_trials(tx: &Tx<'_>, seller: &Actor, now: Now) -> Result<usize> {
    for (device, days, customer) in TRIALS {
        let started = Now {
            wall: now.wall.minus(DAY * *days),
            ..now
        };
        let request = TrialRequest {
            product: ProductId::FIRST,
            client: ClientIdentity {
                license_key: None,
                hardware_id: format!("sample-{device}"),
                machine_id: (*device).to_owned(),
                version: Version::new(1, 2, 0),
            },
            idempotency_key: None,
            trial_quota: unlimited(),
            quota: Quota::unlimited(),
            now: started,
        };
        let act = Act::new(tx, &Actor::Program, started.wall);
        let mut license_id = None;
        trials::start_once(&act, &request, |trial| {
            license_id = Some(trial.license.id);
            Ok(String::new())
        })?;
        if let (Some(id), Some(customer)) = (license_id, customer) {
            let act = Act::new(tx, seller, started.wall.plus(DAY * 2));
            let buyer = Buyer::Named((*customer).to_owned());
            trials::sell(&act, id, &buyer, Some(YEARLY))?;
        }
    }
    Ok(TRIALS.len())
}

/// No limit of new trials.
fn unlimited() -> HourlyQuota {
    let whose = (Group::Trials, Source::from_identifier(b"demo"));
    HourlyQuota::new(Arc::default(), whose, 0)
}
