//! A model of a shop with several products, written from the contracts alone: without database, threads or caches. If
//! it differs from the server, one of them is wrong.

use std::collections::{BTreeMap, BTreeSet};

use license_server::clock::UnixMs;
use license_server::id::{CustomerId, LicenseId, ProductId, SessionToken};
use license_server::licenses::LicenseKey;
use license_server::version::Version;

use super::steps::Terms;
use crate::in_process::DAY_MS;

/// Days of a trial that says nothing else.
const TRIAL_DAYS: u32 = 30;

/// Everything that a backup holds.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) products: Vec<Product>,
    pub(super) customers: Vec<Customer>,
    pub(super) plans: Vec<Plan>,
    pub(super) licenses: Vec<License>,
    /// The license of the trial that a device started, by product and device.
    pub(super) trials: BTreeMap<(usize, usize), usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) id: ProductId,
    pub(super) archived: bool,
    /// The API key, by its number among all that were ever issued.
    pub(super) key: usize,
    /// Keys that were rotated out, and until when each is accepted.
    pub(super) retired: BTreeMap<usize, UnixMs>,
    pub(super) flags: BTreeMap<String, bool>,
    /// The releases, the first one first.
    pub(super) releases: Vec<(Version, UnixMs)>,
    /// The plan of trials without a key.
    pub(super) trial_plan: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) product: usize,
    pub(super) code: String,
    pub(super) terms: Terms,
    pub(super) archived: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub(super) id: CustomerId,
    /// `None` once the customer is erased.
    pub(super) name: Option<String>,
    /// When the customer was added: after a restore, an id may be given to somebody else.
    pub(super) created_at: UnixMs,
    /// When the customer was erased last.
    pub(super) erased_at: Option<UnixMs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Suspended,
    Revoked,
}

#[derive(Clone, Debug)]
pub(super) struct License {
    pub(super) id: LicenseId,
    pub(super) key: LicenseKey,
    pub(super) product: usize,
    pub(super) plan: Option<usize>,
    pub(super) customer: Option<usize>,
    pub(super) trial: bool,
    pub(super) created_at: UnixMs,
    pub(super) state: State,
    pub(super) device_limit: usize,
    pub(super) term: Term,
    /// Of the features that licenses are sold with.
    pub(super) features: usize,
    pub(super) updates_until: Option<UnixMs>,
    pub(super) devices: BTreeSet<usize>,
    /// The session that was started last.
    pub(super) session: Option<Session>,
}

/// A license as it is issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued {
    pub(super) id: LicenseId,
    pub(super) key: LicenseKey,
    pub(super) product: usize,
    pub(super) plan: Option<usize>,
    pub(super) customer: Option<usize>,
    pub(super) at: UnixMs,
}

/// When a license ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Never,
    At(UnixMs),
    /// So many days after the first activation.
    Pending(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) token: SessionToken,
    device: usize,
    /// Why it ended; `None` while it runs.
    ended: Option<&'static str>,
}

/// A refusal by its code, with the reason of an ended session after it.
pub(super) type Outcome<T> = Result<T, String>;

fn refused<T>(code: &str) -> Outcome<T> {
    Err(code.to_owned())
}

impl Product {
    /// What is released now: newer than everything before.
    pub(super) fn next_version(&self) -> Version {
        Version::new(1, u64::try_from(self.releases.len()).unwrap(), 0)
    }
}

impl Terms {
    /// The term of a license that is issued at this moment.
    pub(super) fn term(&self, at: UnixMs) -> Term {
        let days = self.term_days.or(self.trial.then_some(TRIAL_DAYS));
        match days {
            None => Term::Never,
            Some(days) if self.from_activation => Term::Pending(days),
            Some(days) => Term::At(days_after(at, days)),
        }
    }

    pub(super) fn updates_until(&self, at: UnixMs) -> Option<UnixMs> {
        self.updates_days.map(|days| days_after(at, days))
    }
}

impl License {
    pub(super) fn new(issued: Issued, terms: &Terms) -> Self {
        let Issued {
            id,
            key,
            product,
            plan,
            customer,
            at,
        } = issued;
        Self {
            id,
            key,
            product,
            plan,
            customer,
            trial: terms.trial,
            created_at: at,
            state: State::Active,
            device_limit: terms.device_limit as usize,
            term: terms.term(at),
            features: terms.features,
            updates_until: terms.updates_until(at),
            devices: BTreeSet::new(),
            session: None,
        }
    }

    /// The license after a plan was applied to it. A term that has begun stays, as do days where the plan has none, and
    /// updates that last longer.
    fn with_plan(&self, terms: &Terms) -> Self {
        Self {
            trial: terms.trial || self.customer.is_none(),
            device_limit: terms.device_limit as usize,
            term: match (self.term, terms.term_days) {
                (Term::Pending(_), Some(days)) if terms.from_activation => Term::Pending(days),
                (term, _) => term,
            },
            features: terms.features,
            updates_until: match (terms.updates_until(self.created_at), self.updates_until) {
                (Some(planned), Some(present)) => Some(planned.max(present)),
                _ => None,
            },
            ..self.clone()
        }
    }

    /// Whether a program of the release of this number may start on it. A version that is not released yet is newer
    /// than the last release.
    fn covers(&self, product: &Product, release: usize) -> bool {
        let released = product.releases.get(release);
        match (self.updates_until, released.or(product.releases.last())) {
            // As they are shown: in whole seconds.
            (Some(until), Some((_, released_at))) => released_at.0 / 1000 <= until.0 / 1000,
            _ => true,
        }
    }

    fn take_slot(&mut self, device: usize, now: UnixMs) {
        self.devices.insert(device);
        if let Term::Pending(days) = self.term {
            self.term = Term::At(days_after(now, days));
        }
    }

    fn running(&mut self) -> Option<&mut Session> {
        self.session
            .as_mut()
            .filter(|session| session.ended.is_none())
    }

    fn end_session(&mut self, reason: &'static str) {
        if let Some(session) = self.running() {
            session.ended = Some(reason);
        }
    }
}

impl World {
    /// The product of an API key.
    pub(super) fn product_of(&self, key: usize, now: UnixMs) -> Outcome<usize> {
        let accepts = |product: &Product| {
            let retired = product.retired.get(&key);
            !product.archived && (product.key == key || retired.is_some_and(|until| now < *until))
        };
        let product = self.products.iter().position(accepts);
        product.ok_or_else(|| "invalid_api_key".to_owned())
    }

    /// Replaces the API key of a product by a new one; the old one is accepted for so many days.
    pub(super) fn rotate(&mut self, product: usize, new: usize, overlap_days: u32, now: UnixMs) {
        let product = &mut self.products[product];
        let old = std::mem::replace(&mut product.key, new);
        if overlap_days == 0 {
            product.retired.clear();
        } else {
            product.retired.insert(old, days_after(now, overlap_days));
        }
    }

    /// Archives a product for ever.
    pub(super) fn archive(&mut self, product: usize) -> Outcome<()> {
        if self.products[product].archived {
            return refused("product_archived");
        }
        let in_use = self.products.iter().filter(|product| !product.archived);
        if in_use.count() < 2 {
            return refused("last_product");
        }
        let mut licenses = self.licenses.iter_mut();
        if licenses.any(|license| license.product == product && license.running().is_some()) {
            return refused("sessions_running");
        }
        self.products[product].archived = true;
        Ok(())
    }

    /// The license of a call, if it can be used.
    fn usable(&self, key: usize, license: usize, now: UnixMs) -> Outcome<&License> {
        let product = self.product_of(key, now)?;
        let license = self
            .licenses
            .get(license)
            .filter(|license| license.product == product);
        let Some(license) = license else {
            return refused("license_not_found");
        };
        match (license.state, license.term) {
            (State::Suspended | State::Revoked, _) => refused("license_suspended"),
            (State::Active, Term::At(until)) if now > until => refused("license_expired"),
            (State::Active, _) => Ok(license),
        }
    }

    /// Whether the device took a slot now.
    pub(super) fn activate(&mut self, call: Call) -> Outcome<bool> {
        let license = self.usable(call.key, call.license, call.now)?;
        if license.devices.contains(&call.device) {
            return Ok(false);
        }
        if self.is_bound_elsewhere(call) || license.devices.len() >= license.device_limit {
            return refused("device_limit_reached");
        }
        self.licenses[call.license].take_slot(call.device, call.now);
        Ok(true)
    }

    /// Whether another device started this trial, and no customer has bought it.
    fn is_bound_elsewhere(&self, call: Call) -> bool {
        let license = &self.licenses[call.license];
        let trial = self.trials.get(&(license.product, call.device));
        license.customer.is_none() && trial != Some(&call.license)
    }

    pub(super) fn deactivate(&mut self, call: Call) -> Outcome<()> {
        let license = self.usable(call.key, call.license, call.now)?;
        if !license.devices.contains(&call.device) {
            return refused("device_not_activated");
        }
        let license = &mut self.licenses[call.license];
        if license
            .running()
            .is_some_and(|session| session.device == call.device)
        {
            license.end_session("normal");
        }
        license.devices.remove(&call.device);
        Ok(())
    }

    /// Whether a session starts; [`World::started`] adds it. The program has the release of this number.
    pub(super) fn start(&mut self, call: Call, release: usize) -> Outcome<()> {
        let license = self.usable(call.key, call.license, call.now)?;
        if !license.covers(&self.products[license.product], release) {
            return refused("version_not_covered");
        }
        if !license.devices.contains(&call.device) {
            return refused(if self.is_bound_elsewhere(call) {
                "device_limit_reached"
            } else {
                "device_not_activated"
            });
        }
        match self.licenses[call.license].running() {
            Some(_) => refused("session_active"),
            None => Ok(()),
        }
    }

    pub(super) fn started(&mut self, call: Call, token: SessionToken) {
        self.licenses[call.license].session = Some(Session {
            token,
            device: call.device,
            ended: None,
        });
    }

    /// A heartbeat of the latest session of the license.
    pub(super) fn heartbeat(&mut self, call: Call) -> Outcome<()> {
        let usable = self.usable(call.key, call.license, call.now).map(drop);
        if let Err(code) = usable {
            if code.starts_with("license_") && code != "license_not_found" {
                self.licenses[call.license].end_session("forced");
            }
            return Err(code);
        }
        match self.licenses[call.license].session {
            None => refused("session_not_found"),
            Some(Session {
                ended: Some(reason),
                ..
            }) => Err(format!("session_ended {reason}")),
            Some(_) => Ok(()),
        }
    }

    /// The end of the latest session of the license; with its key, or with the token alone.
    pub(super) fn end(&mut self, call: Call, with_key: bool) -> Outcome<&'static str> {
        let product = self.product_of(call.key, call.now)?;
        let license = self
            .licenses
            .get_mut(call.license)
            .filter(|license| license.product == product);
        let Some(license) = license else {
            return refused(if with_key {
                "license_not_found"
            } else {
                "session_not_found"
            });
        };
        license.end_session("normal");
        match license.session {
            None => refused("session_not_found"),
            Some(session) => Ok(session.ended.unwrap_or("normal")),
        }
    }

    /// The code of a verification, and whether a session is active.
    pub(super) fn verify(&self, call: Call, release: usize) -> Outcome<(String, bool)> {
        self.product_of(call.key, call.now)?;
        let code = match self.usable(call.key, call.license, call.now) {
            Err(code) => code,
            Ok(license) if !license.covers(&self.products[license.product], release) => {
                "version_not_covered".to_owned()
            }
            Ok(license) if !license.devices.contains(&call.device) => {
                "device_not_activated".to_owned()
            }
            Ok(_) => "valid".to_owned(),
        };
        let session = self.licenses.get(call.license).and_then(|it| it.session);
        let running = session.is_some_and(|session| session.ended.is_none());
        Ok((code.clone(), running && code != "license_not_found"))
    }

    /// Whether a plan is sold to a customer: in this order the plan, the customer and the product are judged.
    pub(super) fn check_for_sale(&self, plan: usize, customer: usize) -> Outcome<()> {
        let plan = &self.plans[plan];
        if plan.archived {
            return refused("plan_archived");
        }
        self.check_customer(customer)?;
        self.check_in_use(plan.product)
    }

    pub(super) fn check_in_use(&self, product: usize) -> Outcome<()> {
        if self.products[product].archived {
            return refused("product_archived");
        }
        Ok(())
    }

    pub(super) fn check_customer(&self, customer: usize) -> Outcome<()> {
        match self.customers[customer].name {
            None => refused("customer_erased"),
            Some(_) => Ok(()),
        }
    }

    /// Applies a plan to its licenses, except those that are revoked or have more devices than it allows.
    pub(super) fn apply(&mut self, plan: usize) {
        let terms = &self.plans[plan].terms;
        for license in &mut self.licenses {
            let applies = license.plan == Some(plan) && license.state != State::Revoked;
            if applies && license.devices.len() <= terms.device_limit as usize {
                *license = license.with_plan(terms);
            }
        }
    }

    /// The trial that a device of a product gets: the license if it has one, else the plan by which it is issued.
    pub(super) fn trial(&self, product: usize, device: usize) -> Outcome<Trial> {
        if let Some(license) = self.trials.get(&(product, device)) {
            return Ok(Trial::Known(*license));
        }
        let plan = self.products[product].trial_plan;
        let plan = plan.filter(|plan| self.plans[*plan].terms.trial && !self.plans[*plan].archived);
        let plan = plan.ok_or_else(|| "trial_not_offered".to_owned())?;
        Ok(Trial::New { plan })
    }

    /// Why a device cannot use its trial now; `None` if it can, then it holds a slot.
    pub(super) fn use_trial(&mut self, call: Call) -> Option<String> {
        let usable = self.usable(call.key, call.license, call.now).map(drop);
        if let Err(code) = usable {
            return Some(code);
        }
        let license = &mut self.licenses[call.license];
        if license.devices.contains(&call.device) {
            return None;
        }
        if license.devices.len() >= license.device_limit {
            return Some("device_limit_reached".to_owned());
        }
        license.take_slot(call.device, call.now);
        None
    }

    /// A customer buys a trial: as a license of a plan, whose term begins, or as it is.
    pub(super) fn sell_trial(
        &mut self,
        license: usize,
        customer: usize,
        plan: Option<usize>,
        now: UnixMs,
    ) -> Outcome<()> {
        let sold = &self.licenses[license];
        if sold.customer.is_some() {
            return refused("license_sold");
        }
        if plan.is_some_and(|plan| self.plans[plan].archived) {
            return refused("plan_archived");
        }
        self.check_in_use(sold.product)?;
        if sold.state == State::Revoked {
            return refused("license_revoked");
        }
        self.check_customer(customer)?;
        let mut new = License {
            customer: Some(customer),
            ..sold.clone()
        };
        if let Some(plan) = plan {
            let terms = &self.plans[plan].terms;
            if (terms.device_limit as usize) < sold.devices.len() {
                return refused("slots_taken");
            }
            new = License {
                plan: Some(plan),
                trial: terms.trial,
                device_limit: terms.device_limit as usize,
                term: match terms.term(now) {
                    Term::Pending(days) if !sold.devices.is_empty() => {
                        Term::At(days_after(now, days))
                    }
                    term => term,
                },
                features: terms.features,
                updates_until: terms.updates_until(now),
                ..new
            };
        }
        self.licenses[license] = new;
        Ok(())
    }

    /// Gives a license to a customer: from another one it comes without devices.
    pub(super) fn give(&mut self, license: usize, customer: usize) -> Outcome<()> {
        self.check_customer(customer)?;
        let license = &mut self.licenses[license];
        if license.customer.is_some_and(|owner| owner != customer) {
            license.end_session("forced");
            license.devices.clear();
        }
        license.customer = Some(customer);
        Ok(())
    }

    /// Erases a customer, once more if need be: the licenses lose their devices and, unless they are kept, are revoked.
    pub(super) fn erase(&mut self, customer: usize, keep_licenses: bool, at: UnixMs) {
        self.customers[customer].name = None;
        self.customers[customer].erased_at = Some(at);
        let licenses = self.licenses.iter_mut();
        for license in licenses.filter(|it| it.customer == Some(customer)) {
            license.end_session("forced");
            license.devices.clear();
            if !keep_licenses {
                license.state = State::Revoked;
            }
        }
    }

    /// Whether the license is now in this state; a revoked one stays so.
    pub(super) fn set_state(&mut self, license: usize, state: State) -> Outcome<()> {
        let license = &mut self.licenses[license];
        if license.state == State::Revoked && state != State::Revoked {
            return refused("license_revoked");
        }
        license.state = state;
        Ok(())
    }

    /// After days without a heartbeat no session runs.
    pub(super) fn end_sessions(&mut self, reason: &'static str) {
        for license in &mut self.licenses {
            license.end_session(reason);
        }
    }
}

/// The trial of a device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trial {
    /// It has this license.
    Known(usize),
    /// One is issued by this plan.
    New {
        /// The plan.
        plan: usize,
    },
}

/// A call of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The API key, by its number among all that were ever issued.
    pub(super) key: usize,
    /// The license; one more than there are is a key that was never issued.
    pub(super) license: usize,
    pub(super) device: usize,
    pub(super) now: UnixMs,
}

pub(super) fn days_after(moment: UnixMs, days: u32) -> UnixMs {
    UnixMs(moment.0 + DAY_MS * i64::from(days))
}
