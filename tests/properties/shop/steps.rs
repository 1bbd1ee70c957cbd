//! What happens in the shop, in random order.

use proptest::prelude::*;

use super::model::State;

pub(super) const DEVICES: usize = 3;
pub(super) const FLAGS: usize = 2;
/// Features that licenses are sold with, as they are stored.
pub(super) const FEATURES: [&str; 3] = ["", "export", "export pro"];

/// One thing that happens. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Step {
    AddProduct,
    ArchiveProduct {
        product: usize,
    },
    RotateKey {
        product: usize,
        overlap_days: u32,
    },
    Release {
        product: usize,
    },
    SetFlag {
        product: usize,
        flag: usize,
        enabled: bool,
    },
    AddCustomer,
    Sell {
        product: usize,
        customer: usize,
        terms: Terms,
    },
    AddPlan {
        product: usize,
        terms: Terms,
    },
    EditPlan {
        plan: usize,
        terms: Terms,
    },
    ApplyPlan {
        plan: usize,
    },
    ArchivePlan {
        plan: usize,
    },
    /// Trials by this plan from now on.
    OfferTrials {
        plan: usize,
    },
    SellByPlan {
        plan: usize,
        customer: usize,
    },
    /// A customer buys an unsold license, if there is one.
    SellTrial {
        license: usize,
        customer: usize,
        plan: Option<usize>,
    },
    /// A license is given to a customer, with a note about them.
    Move {
        license: usize,
        customer: usize,
    },
    SetState {
        license: usize,
        state: State,
    },
    Erase {
        customer: usize,
        keep_licenses: bool,
    },
    Trial {
        key: usize,
        device: usize,
    },
    Activate(Program),
    Deactivate(Program),
    Start(Program),
    Heartbeat(Program),
    End {
        program: Program,
        with_key: bool,
    },
    Days(u32),
    BackUp,
    Restore {
        backup: usize,
    },
    Restart,
}

/// What a license or a plan is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) trial: bool,
    pub(super) device_limit: u32,
    pub(super) term_days: Option<u32>,
    /// Only with a number of days.
    pub(super) from_activation: bool,
    /// Of [`FEATURES`].
    pub(super) features: usize,
    pub(super) updates_days: Option<u32>,
}

/// A program that calls: its API key, its license, its device, and the release that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) key: Key,
    pub(super) license: usize,
    pub(super) device: usize,
    pub(super) release: usize,
}

/// The API key that a program sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    /// The current one of the license's product.
    Own,
    /// Any that was ever issued.
    Any(usize),
}

fn terms() -> impl Strategy<Value = Terms> {
    let term_days = prop::option::of(prop::sample::select(vec![14, 30, 100, 365]));
    let updates_days = prop::option::of(prop::sample::select(vec![10, 60, 365]));
    (
        prop::bool::weighted(0.3),
        1..4_u32,
        term_days,
        any::<bool>(),
        0..FEATURES.len(),
        updates_days,
    )
        .prop_map(
            |(trial, device_limit, term_days, from_activation, features, updates_days)| Terms {
                trial,
                device_limit,
                term_days,
                from_activation: from_activation && term_days.is_some(),
                features,
                updates_days,
            },
        )
}

fn program() -> impl Strategy<Value = Program> {
    let key = prop_oneof![4 => Just(Key::Own), 1 => any::<usize>().prop_map(Key::Any)];
    // Sometimes a license that does not exist, and a version that is not released yet.
    (key, any::<usize>(), 0..DEVICES, 0..6_usize).prop_map(|(key, license, device, release)| {
        Program {
            key,
            license,
            device,
            release,
        }
    })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    let state = prop::sample::select(vec![
        State::Active,
        State::Active,
        State::Suspended,
        State::Suspended,
        State::Revoked,
    ]);
    let days = prop::sample::select(vec![1, 3, 7, 14, 30, 61]);
    prop_oneof![
        3 => Just(Step::AddProduct),
        1 => any().prop_map(|product| Step::ArchiveProduct { product }),
        2 => (any(), prop::sample::select(vec![0, 7, 30]))
            .prop_map(|(product, overlap_days)| Step::RotateKey { product, overlap_days }),
        4 => any().prop_map(|product| Step::Release { product }),
        2 => (any(), 0..FLAGS, proptest::arbitrary::any::<bool>())
            .prop_map(|(product, flag, enabled)| Step::SetFlag { product, flag, enabled }),
        2 => Just(Step::AddCustomer),
        8 => (any(), any(), terms())
            .prop_map(|(product, customer, terms)| Step::Sell { product, customer, terms }),
        4 => (any(), terms()).prop_map(|(product, terms)| Step::AddPlan { product, terms }),
        2 => (any(), terms()).prop_map(|(plan, terms)| Step::EditPlan { plan, terms }),
        3 => any().prop_map(|plan| Step::ApplyPlan { plan }),
        1 => any().prop_map(|plan| Step::ArchivePlan { plan }),
        3 => any().prop_map(|plan| Step::OfferTrials { plan }),
        6 => (any(), any()).prop_map(|(plan, customer)| Step::SellByPlan { plan, customer }),
        3 => (any(), any(), prop::option::of(any()))
            .prop_map(|(license, customer, plan)| Step::SellTrial { license, customer, plan }),
        3 => (any(), any()).prop_map(|(license, customer)| Step::Move { license, customer }),
        2 => (any(), proptest::arbitrary::any::<bool>())
            .prop_map(|(customer, keep_licenses)| Step::Erase { customer, keep_licenses }),
        8 => (any(), 0..DEVICES).prop_map(|(key, device)| Step::Trial { key, device }),
        3 => (any(), state).prop_map(|(license, state)| Step::SetState { license, state }),
        14 => program().prop_map(Step::Activate),
        3 => program().prop_map(Step::Deactivate),
        14 => program().prop_map(Step::Start),
        6 => program().prop_map(Step::Heartbeat),
        4 => (program(), proptest::arbitrary::any::<bool>())
            .prop_map(|(program, with_key)| Step::End { program, with_key }),
        8 => days.prop_map(Step::Days),
        2 => Just(Step::BackUp),
        1 => any().prop_map(|backup| Step::Restore { backup }),
        1 => Just(Step::Restart),
    ]
}
