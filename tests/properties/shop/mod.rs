//! Twelve months of a shop with several products, in random order, against a plain model: who may do what with which
//! API key, slots, terms and coverage of every license, and the proofs that the database keeps about itself.

mod model;
mod process;
mod sales;
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use license_server::clock::UnixMs;
use license_server::id::{CustomerId, LicenseId, ProductId, SessionToken};
use license_server::version::Version;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::in_process::{NOON, hardware_id};
use model::{Call, Customer, License, Product, State, Term, World};
use process::{SentCall, Shop, StoredLicense};
use steps::{DEVICES, FEATURES, Key, Program, Step, step};

const PRODUCTS_MAX: usize = 4;
const BACKUPS_MAX: usize = 3;

/// The erasure of a customer.
#[derive(Clone, Debug)]
struct Erasure {
    id: CustomerId,
    created_at: UnixMs,
    keep_licenses: bool,
    at: UnixMs,
}

/// The server and its model.
struct Both {
    shop: Shop,
    world: World,
    /// The backups, each with the world as it was.
    backups: Vec<(PathBuf, World)>,
    /// Every erasure there ever was.
    erased: Vec<Erasure>,
    /// The number of customers, products and plans that were ever added, for their names.
    added: usize,
    /// The names of all customers that were ever added.
    names: Vec<String>,
}

impl Both {
    fn new() -> Self {
        let shop = Shop::new();
        let ada = Customer {
            id: shop.process.customer,
            name: Some("Ada".to_owned()),
            created_at: NOON,
            erased_at: None,
        };
        let world = World {
            products: vec![product(ProductId::FIRST, 0)],
            customers: vec![ada],
            ..World::default()
        };
        Self {
            shop,
            world,
            backups: Vec::new(),
            erased: Vec::new(),
            added: 0,
            names: Vec::new(),
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.added += 1;
        format!("{kind} {}", self.added)
    }

    /// The call as the model and as the server get it.
    fn call(&self, program: Program) -> (Call, SentCall) {
        let license = program.license % (self.world.licenses.len() + 1);
        let sold = self.world.licenses.get(license);
        let own = sold.map_or(0, |license| license.product);
        let key = match program.key {
            Key::Own => self.world.products[own].key,
            Key::Any(key) => key % self.shop.keys.len(),
        };
        let call = Call {
            key,
            license,
            device: program.device,
            now: self.shop.now(),
        };
        let sent = SentCall {
            api_key: self.shop.keys[key].clone(),
            license_key: sold.map_or(self.shop.process.unissued_key, |license| license.key),
            device: program.device,
            version: Version::new(1, u64::try_from(program.release).unwrap(), 0),
        };
        (call, sent)
    }

    /// The token of the session that was started last on the license of a call; else one that was never issued.
    fn token(&self, call: Call) -> SessionToken {
        let license = self.world.licenses.get(call.license);
        let session = license.and_then(|license| license.session);
        session.map_or(SessionToken::from_bytes([7; 16]), |session| session.token)
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Activate(program) => {
                let (call, sent) = self.call(program);
                prop_assert_eq!(self.shop.activate(&sent), self.world.activate(call));
            }
            Step::Deactivate(program) => {
                let (call, sent) = self.call(program);
                prop_assert_eq!(self.shop.deactivate(&sent), self.world.deactivate(call));
            }
            Step::Start(program) => {
                let (call, sent) = self.call(program);
                let started = self.shop.start(&sent);
                let expected = self.world.start(call, program.release);
                prop_assert_eq!(started.clone().map(drop), expected);
                if let Ok(token) = started {
                    self.world.started(call, token);
                }
            }
            Step::Heartbeat(program) => {
                let (call, sent) = self.call(program);
                let heartbeat = self.shop.heartbeat(&sent, self.token(call));
                prop_assert_eq!(heartbeat, self.world.heartbeat(call));
            }
            Step::End { program, with_key } => {
                let (call, sent) = self.call(program);
                let ended = self.shop.end(&sent, self.token(call), with_key);
                prop_assert_eq!(ended, self.world.end(call, with_key));
            }
            Step::Trial { key, device } => self.trial(key, device)?,
            _ => return self.administer(step),
        }
        Ok(())
    }

    /// What administrators do.
    fn administer(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::AddProduct => {
                if self.world.products.len() < PRODUCTS_MAX {
                    let name = self.name("Product");
                    let (id, key) = self.shop.add_product(&name);
                    self.world.products.push(product(id, key));
                }
            }
            Step::AddCustomer => self.add_customer(),
            Step::Sell {
                product,
                customer,
                terms,
            } => {
                let product = product % self.world.products.len();
                let customer = customer % self.world.customers.len();
                self.sell(product, customer, terms)?;
            }
            Step::AddPlan { product, terms } => {
                self.add_plan(product % self.world.products.len(), terms)?;
            }
            Step::EditPlan { plan, .. }
            | Step::ApplyPlan { plan }
            | Step::ArchivePlan { plan }
            | Step::OfferTrials { plan } => {
                if let Some(plan) = plan.checked_rem(self.world.plans.len()) {
                    self.change_plan(plan, step)?;
                }
            }
            Step::SellByPlan { plan, customer } => {
                if let Some(plan) = plan.checked_rem(self.world.plans.len()) {
                    self.sell_by_plan(plan, customer % self.world.customers.len())?;
                }
            }
            Step::SellTrial {
                license,
                customer,
                plan,
            } => {
                if let Some(license) = self.trial_to_sell(*license) {
                    self.sell_trial(license, customer % self.world.customers.len(), *plan)?;
                }
            }
            Step::Erase {
                customer,
                keep_licenses,
            } => self.erase(customer % self.world.customers.len(), *keep_licenses)?,
            Step::Move { license, customer } => {
                let Some(license) = license.checked_rem(self.world.licenses.len()) else {
                    return Ok(());
                };
                self.give(license, customer % self.world.customers.len())?;
            }
            Step::SetState { license, state } => {
                let Some(license) = license.checked_rem(self.world.licenses.len()) else {
                    return Ok(());
                };
                let done = self.shop.set_state(self.license_id(license), *state);
                prop_assert_eq!(done, self.world.set_state(license, *state));
            }
            Step::ArchiveProduct { product }
            | Step::RotateKey { product, .. }
            | Step::Release { product }
            | Step::SetFlag { product, .. } => {
                let product = product % self.world.products.len();
                self.change_product(product, step)?;
            }
            _ => self.pass(step),
        }
        Ok(())
    }

    fn add_customer(&mut self) {
        // No name is part of another one.
        let name = format!("{};", self.name("Customer"));
        self.names.push(name.clone());
        let id = self.shop.add_customer(&name);
        let created_at = self.shop.now();
        self.world.customers.push(Customer {
            id,
            name: Some(name),
            created_at,
            erased_at: None,
        });
    }

    fn erase(&mut self, customer: usize, keep_licenses: bool) -> Result<(), TestCaseError> {
        let Customer { id, created_at, .. } = self.world.customers[customer];
        prop_assert_eq!(self.shop.erase(id, keep_licenses), Ok(()));
        let at = self.shop.now();
        self.world.erase(customer, keep_licenses, at);
        self.erased.push(Erasure {
            id,
            created_at,
            keep_licenses,
            at,
        });
        Ok(())
    }

    fn give(&mut self, license: usize, customer: usize) -> Result<(), TestCaseError> {
        let Customer { id, name, .. } = &self.world.customers[customer];
        let note = name.clone().unwrap_or_default();
        let done = self.shop.give(self.license_id(license), *id, note);
        prop_assert_eq!(done, self.world.give(license, customer));
        Ok(())
    }

    fn license_id(&self, license: usize) -> LicenseId {
        self.world.licenses[license].id
    }

    fn change_product(&mut self, product: usize, step: &Step) -> Result<(), TestCaseError> {
        let now = self.shop.now();
        let Both { shop, world, .. } = self;
        let id = world.products[product].id;
        let archived = world.products[product].archived;
        let done = match step {
            Step::ArchiveProduct { .. } => {
                let expected = world.archive(product);
                let done = shop.archive_product(id);
                prop_assert_eq!(&done, &expected);
                return Ok(());
            }
            Step::RotateKey { overlap_days, .. } => {
                let rotated = shop.rotate(id, *overlap_days);
                if let Ok(new) = rotated {
                    world.rotate(product, new, *overlap_days, now);
                }
                rotated.map(drop)
            }
            Step::Release { .. } => {
                let version = world.products[product].next_version();
                let done = shop.release(id, version);
                if done.is_ok() {
                    world.products[product].releases.push((version, now));
                }
                done
            }
            Step::SetFlag { flag, enabled, .. } => {
                let name = format!("flag-{flag}");
                let done = shop.set_flag(id, name.clone(), *enabled);
                if done.is_ok() {
                    world.products[product].flags.insert(name, *enabled);
                }
                done
            }
            _ => unreachable!("handled before: {step:?}"),
        };
        let expected = if archived {
            Err("product_archived".to_owned())
        } else {
            Ok(())
        };
        prop_assert_eq!(done, expected);
        Ok(())
    }

    /// Time, and what the operator does.
    fn pass(&mut self, step: &Step) {
        match *step {
            Step::Days(days) => {
                self.shop.process.advance(Duration::from_hours(24) * days);
                self.shop.process.sweep();
                self.world.end_sessions("timeout");
            }
            Step::BackUp => {
                if self.backups.len() < BACKUPS_MAX {
                    let backup = self.shop.back_up();
                    self.backups.push((backup, self.world.clone()));
                }
            }
            Step::Restore { backup } => {
                let Some(backup) = backup.checked_rem(self.backups.len()) else {
                    return;
                };
                let (path, world) = &self.backups[backup];
                self.shop.process.restore(path);
                self.world = world.clone();
                self.world.end_sessions("forced");
                // The customers who were erased since are erased again.
                for erasure in &self.erased {
                    let mut customers = self.world.customers.iter();
                    let customer = customers.position(|it| {
                        it.id == erasure.id
                            && it.created_at == erasure.created_at
                            && it.erased_at < Some(erasure.at)
                    });
                    if let Some(customer) = customer {
                        self.world
                            .erase(customer, erasure.keep_licenses, erasure.at);
                    }
                }
            }
            Step::Restart => {
                self.shop.process.finish();
                self.shop.process.restart(Duration::ZERO);
            }
            _ => unreachable!("handled before: {step:?}"),
        }
    }

    /// Checks what must hold after every step.
    fn compare(&self) -> Result<(), TestCaseError> {
        let customers = self.world.customers.iter();
        let named = |it: &Customer| {
            let erased = || format!("erased customer {}", it.id);
            (it.id.0, it.name.clone().unwrap_or_else(erased))
        };
        let customers: Vec<_> = customers.map(named).collect();
        prop_assert_eq!(self.shop.stored_customers(), customers);
        let licenses: Vec<_> = self
            .world
            .licenses
            .iter()
            .map(|it| self.stored(it))
            .collect();
        prop_assert_eq!(self.shop.stored_licenses(), licenses);
        self.compare_keys()
    }

    /// Checks the file and the chain of the audit log, which takes longer.
    fn check_file(&self) -> Result<(), TestCaseError> {
        let damage = self.shop.damage();
        prop_assert!(damage.is_empty(), "{damage:?}");
        let customers = self.world.customers.iter();
        let named: Vec<_> = customers.filter_map(|it| it.name.as_ref()).collect();
        for name in self.names.iter().filter(|name| !named.contains(name)) {
            let holders = self.shop.tables_with(name);
            prop_assert!(holders.is_empty(), "{name} in {holders:?}");
        }
        Ok(())
    }

    fn stored(&self, license: &License) -> StoredLicense {
        let (valid_until, pending_days) = match license.term {
            Term::Never => (None, None),
            Term::At(until) => (Some(until.0), None),
            Term::Pending(days) => (None, Some(days)),
        };
        let state = match license.state {
            State::Active => "active",
            State::Suspended => "suspended",
            State::Revoked => "revoked",
        };
        let devices = license.devices.iter();
        StoredLicense {
            id: license.id.0,
            product: self.world.products[license.product].id.0,
            plan: license.plan.map(|plan| self.world.plans[plan].code.clone()),
            customer: license.customer.map(|it| self.world.customers[it].id.0),
            kind: if license.trial { "trial" } else { "full" }.to_owned(),
            state: state.to_owned(),
            device_limit: license.device_limit,
            valid_until,
            pending_days,
            features: FEATURES[license.features].to_owned(),
            updates_until: license.updates_until.map(|until| until.0),
            devices: devices.map(|device| hardware_id(*device)).collect(),
        }
    }

    /// What each API key that was ever issued gives access to.
    fn compare_keys(&self) -> Result<(), TestCaseError> {
        let now = self.shop.now();
        for (number, api_key) in self.shop.keys.iter().enumerate() {
            let expected = self.world.product_of(number, now);
            let admitted = self.shop.admit(api_key);
            let product = match (expected, admitted) {
                (Ok(product), Ok(settings)) => {
                    let known = &self.world.products[product];
                    prop_assert_eq!(settings.config.product, known.id);
                    let flags = settings.flags.iter();
                    let flags: BTreeMap<_, _> = flags
                        .map(|flag| (flag.name.clone(), flag.enabled))
                        .collect();
                    prop_assert_eq!(&flags, &known.flags);
                    let released = settings.released.iter().rev();
                    let released: Vec<_> =
                        released.map(|it| (it.version, it.released_at)).collect();
                    prop_assert_eq!(&released, &known.releases);
                    product
                }
                (expected, admitted) => {
                    prop_assert_eq!(admitted.map(drop), expected.map(drop), "key {}", number);
                    continue;
                }
            };
            // Of the licenses, those of which the key sees one, and in turn some of the others.
            let all = 0..=self.world.licenses.len();
            let seen = |license: &usize| {
                let sold = self.world.licenses.get(*license);
                sold.is_none_or(|it| it.product == product) || (license + number).is_multiple_of(4)
            };
            for license in all.filter(seen) {
                let program = Program {
                    key: Key::Any(number),
                    license,
                    device: (license + product) % DEVICES,
                    release: (license + number) % 6,
                };
                let (call, sent) = self.call(program);
                let expected = self.world.verify(call, program.release);
                prop_assert_eq!(self.shop.verify(&sent), expected, "{:?}", program);
            }
        }
        Ok(())
    }
}

fn product(id: ProductId, key: usize) -> Product {
    Product {
        id,
        archived: false,
        key,
        retired: BTreeMap::new(),
        flags: BTreeMap::new(),
        releases: Vec::new(),
        trial_plan: None,
    }
}

fn run_history(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut both = Both::new();
    for (number, step) in steps.iter().enumerate() {
        let is_thorough = matches!(step, Step::Restore { .. }) || number + 1 == steps.len();
        // A little time for each step, less than any timeout in all.
        both.shop.process.advance(Duration::from_millis(1));
        let result = both.run(step).and_then(|()| both.compare());
        let result = match result {
            Ok(()) if is_thorough => both.check_file(),
            result => result,
        };
        result
            .map_err(|error| TestCaseError::fail(format!("at step {number}, {step:?}: {error}")))?;
    }
    Ok(())
}

#[test]
fn in_twelve_months_of_a_shop_every_license_is_what_was_sold_and_each_api_key_sees_its_product() {
    let config = Config {
        cases: crate::rounds(4),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let histories = prop::collection::vec(step(), 30..70);
    let outcome = TestRunner::new(config).run(&histories, |steps| run_history(&steps));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
