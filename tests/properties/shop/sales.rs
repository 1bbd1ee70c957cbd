//! What is sold: licenses, plans and trials, each step on the server and in the model.

use license_server::features::Features;
use license_server::id::LicenseId;
use license_server::licenses::{self, Kind, Order};
use license_server::plans::{PlanTerms, TermStart};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::Both;
use super::model::{Call, Issued, License, Plan, State, Term, Trial};
use super::steps::{FEATURES, Key, Program, Step, Terms};

impl Both {
    pub(super) fn trial(&mut self, key: usize, device: usize) -> Result<(), TestCaseError> {
        let program = Program {
            key: Key::Any(key),
            license: self.world.licenses.len(),
            device,
            release: 0,
        };
        let (call, sent) = self.call(program);
        let answer = self.shop.trial(&sent);
        let product = self.world.product_of(call.key, call.now);
        let expected = product.and_then(|it| Ok((it, self.world.trial(it, device)?)));
        let (product, trial) = match expected {
            Ok(expected) => expected,
            Err(code) => {
                prop_assert_eq!(answer.map(drop), Err(code));
                return Ok(());
            }
        };
        let (license, created, obstacle) = answer.map_err(TestCaseError::fail)?;
        let number = match trial {
            Trial::Known(number) => {
                prop_assert!(!created, "a second trial of the device");
                prop_assert_eq!(license.key, self.world.licenses[number].key);
                number
            }
            Trial::New { plan } => {
                prop_assert!(created, "the trial of another device");
                let issued = self.issued(&license, product, Some(plan), None);
                let terms = &self.world.plans[plan].terms;
                self.world.licenses.push(License::new(issued, terms));
                let number = self.world.licenses.len() - 1;
                self.world.trials.insert((product, device), number);
                number
            }
        };
        let call = Call {
            license: number,
            ..call
        };
        prop_assert_eq!(obstacle, self.world.use_trial(call));
        Ok(())
    }

    fn issued(
        &self,
        license: &licenses::License,
        product: usize,
        plan: Option<usize>,
        customer: Option<usize>,
    ) -> Issued {
        Issued {
            id: license.id,
            key: license.key,
            product,
            plan,
            customer,
            at: self.shop.now(),
        }
    }

    pub(super) fn sell(
        &mut self,
        product: usize,
        customer: usize,
        terms: &Terms,
    ) -> Result<(), TestCaseError> {
        let now = self.shop.now();
        let order = Order {
            kind: kind(terms),
            term: match terms.term(now) {
                Term::Never => licenses::Term::Default,
                Term::At(until) => licenses::Term::Until(until),
                Term::Pending(days) => licenses::Term::DaysFromActivation(days),
            },
            features: Features::from_input(FEATURES[terms.features]).unwrap(),
            updates_until: terms.updates_until(now),
            ..Order::one(self.world.products[product].id, terms.device_limit)
        };
        let sold = self.shop.sell(self.world.customers[customer].id, order);
        let allowed = self.world.check_customer(customer);
        let allowed = allowed.and_then(|()| self.world.check_in_use(product));
        prop_assert_eq!(sold.as_ref().map(drop), allowed.as_ref().copied());
        if let Ok(sold) = sold {
            let issued = self.issued(&sold, product, None, Some(customer));
            self.world.licenses.push(License::new(issued, terms));
        }
        Ok(())
    }

    pub(super) fn add_plan(&mut self, product: usize, terms: &Terms) -> Result<(), TestCaseError> {
        let code = self.name("plan").replace(' ', "-");
        let id = self.world.products[product].id;
        let done = self.shop.add_plan(id, code.clone(), plan_terms(terms));
        prop_assert_eq!(&done, &self.world.check_in_use(product));
        if done.is_ok() {
            self.world.plans.push(Plan {
                product,
                code,
                terms: terms.clone(),
                archived: false,
            });
        }
        Ok(())
    }

    /// One of the unsold trials, or sometimes a license that is sold already; `None` if there is no license.
    pub(super) fn trial_to_sell(&self, choice: usize) -> Option<usize> {
        let unsold = self.world.licenses.iter().enumerate();
        let unsold = unsold.filter(|(_, it)| it.customer.is_none());
        let unsold: Vec<usize> = unsold.map(|(number, _)| number).collect();
        let all = unsold.len() + usize::from(!self.world.licenses.is_empty());
        let at = choice.checked_rem(all)?;
        Some(unsold.get(at).copied().unwrap_or(0))
    }

    /// What is done with plans.
    pub(super) fn change_plan(&mut self, plan: usize, step: &Step) -> Result<(), TestCaseError> {
        let Both { shop, world, .. } = self;
        let Plan {
            product,
            code,
            archived,
            ..
        } = world.plans[plan].clone();
        let id = world.products[product].id;
        let in_use = world.check_in_use(product);
        match step {
            Step::EditPlan { terms, .. } => {
                let offers_trials = world.products[product].trial_plan == Some(plan);
                let ends_trials = world.plans[plan].terms.trial && !terms.trial;
                let done = shop.edit_plan(id, code, plan_terms(terms));
                let expected = match in_use {
                    Ok(()) if offers_trials && ends_trials => Err("plan_offers_trials".to_owned()),
                    other => other,
                };
                prop_assert_eq!(&done, &expected);
                if done.is_ok() {
                    world.plans[plan].terms = terms.clone();
                }
            }
            Step::ApplyPlan { .. } => {
                let limit = world.plans[plan].terms.device_limit as usize;
                let skipped = world.licenses.iter().filter(|license| {
                    license.plan == Some(plan)
                        && license.state != State::Revoked
                        && license.devices.len() > limit
                });
                let skipped: Vec<LicenseId> = skipped.map(|license| license.id).collect();
                let done = shop.apply_plan(id, code);
                prop_assert_eq!(done, in_use.clone().map(|()| skipped));
                if in_use.is_ok() {
                    world.apply(plan);
                }
            }
            Step::ArchivePlan { .. } => {
                let offers_trials = world.products[product].trial_plan == Some(plan);
                let done = shop.archive_plan(id, code);
                let expected = match in_use {
                    Ok(()) if offers_trials && !archived => Err("plan_offers_trials".to_owned()),
                    other => other,
                };
                prop_assert_eq!(&done, &expected);
                if done.is_ok() {
                    world.plans[plan].archived = true;
                }
            }
            Step::OfferTrials { .. } => {
                let is_set = world.products[product].trial_plan == Some(plan);
                if is_set || (world.plans[plan].terms.trial && !archived) {
                    let done = shop.offer_trials(id, code);
                    prop_assert_eq!(&done, &in_use);
                    if done.is_ok() {
                        world.products[product].trial_plan = Some(plan);
                    }
                }
            }
            _ => unreachable!("handled before: {step:?}"),
        }
        Ok(())
    }

    pub(super) fn sell_by_plan(
        &mut self,
        plan: usize,
        customer: usize,
    ) -> Result<(), TestCaseError> {
        let Plan { product, code, .. } = self.world.plans[plan].clone();
        let buyer = self.world.customers[customer].id;
        let product_id = self.world.products[product].id;
        let sold = self.shop.sell_by_plan(buyer, product_id, code);
        let allowed = self.world.check_for_sale(plan, customer);
        prop_assert_eq!(sold.as_ref().map(drop), allowed.as_ref().copied());
        if let Ok(sold) = sold {
            let issued = self.issued(&sold, product, Some(plan), Some(customer));
            let terms = &self.world.plans[plan].terms;
            self.world.licenses.push(License::new(issued, terms));
        }
        Ok(())
    }

    pub(super) fn sell_trial(
        &mut self,
        license: usize,
        customer: usize,
        plan: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let product = self.world.licenses[license].product;
        // Plans of other products are not found by their code.
        let of_product = |plan: &usize| self.world.plans[*plan].product == product;
        let plan = plan
            .and_then(|plan| plan.checked_rem(self.world.plans.len()))
            .filter(of_product);
        let code = plan.map(|plan| self.world.plans[plan].code.clone());
        let buyer = self.world.customers[customer].id;
        let done = self.shop.sell_trial(self.license_id(license), buyer, code);
        let now = self.shop.now();
        let expected = self.world.sell_trial(license, customer, plan, now);
        prop_assert_eq!(done, expected);
        Ok(())
    }
}

const fn kind(terms: &Terms) -> Kind {
    if terms.trial { Kind::Trial } else { Kind::Full }
}

fn plan_terms(terms: &Terms) -> PlanTerms {
    PlanTerms {
        name: "Plan".to_owned(),
        kind: kind(terms),
        device_limit: terms.device_limit,
        term_days: terms.term_days,
        term_starts: if terms.from_activation {
            TermStart::FirstActivation
        } else {
            TermStart::Issue
        },
        features: Features::from_input(FEATURES[terms.features]).unwrap(),
        updates_days: terms.updates_days,
    }
}
