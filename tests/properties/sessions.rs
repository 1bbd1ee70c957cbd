//! Random histories of a small shop: every response and every row of the database must be as the model says.

use std::collections::BTreeSet;
use std::time::Duration;

use license_server::id::SessionToken;
use license_server::products::SessionPolicy;
use license_server::session_history::EndReason;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use rusqlite::Connection;

use crate::in_process::{DAY_MS, InProcess, NOON, token_of};
use crate::model::{License, Model, Started};

const LICENSES: usize = 3;
const DEVICES: usize = 3;
const DEVICE_LIMIT: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Activate {
        license: usize,
        device: usize,
    },
    Deactivate {
        license: usize,
        device: usize,
    },
    Start {
        license: usize,
        device: usize,
        key: Option<&'static str>,
    },
    Heartbeat {
        back: usize,
        key_of: KeyOf,
    },
    End {
        back: usize,
        key_of: Option<KeyOf>,
    },
    Terminate {
        back: usize,
    },
    Verify {
        license: usize,
        device: usize,
    },
    Silence {
        ms: u64,
    },
    Jump {
        ms: i64,
    },
    Sweep,
    Flush,
    Purge,
    Policy(SessionPolicy),
    Timeout(u32),
    Suspend(usize),
    Reinstate(usize),
    Restart {
        orderly: bool,
        down_s: u64,
    },
}

/// The license key that is sent with a session token.
#[derive(Clone, Copy, Debug)]
enum KeyOf {
    Own,
    Another,
    NeverIssued,
}

fn step() -> impl Strategy<Value = Step> {
    // One license more than there are: a key that was never issued.
    let on = || (0..=LICENSES, 0..DEVICES);
    let back = || prop_oneof![6 => 0..3_usize, 2 => 0..12_usize, 1 => Just(1000)];
    let key_of = || prop_oneof![6 => Just(KeyOf::Own), 1 => Just(KeyOf::Another), 1 => Just(KeyOf::NeverIssued)];
    let key = prop_oneof![
        2 => Just(None), 1 => Just(Some("first")), 1 => Just(Some("second")),
    ];
    // Around every timeout, and long enough for a jump of the clock to be trusted.
    let ms = prop_oneof![
        3 => prop::sample::select(vec![1, 999, 4_000, 9_999, 10_000, 20_000]),
        3 => prop::sample::select(vec![29_999, 30_000, 59_999, 60_000, 61_000]),
        1 => prop::sample::select(vec![16 * 60_000, 2 * 3_600_000]),
        2 => 0..70_000_u64,
    ];
    let jump = prop_oneof![
        2 => prop::sample::select(vec![400 * DAY_MS, -400 * DAY_MS]),
        1 => prop::sample::select(vec![60_000, -60_000, 119_000, -119_000, 121_000, -121_000]),
        1 => -DAY_MS..DAY_MS,
    ];
    let policy = prop::sample::select(SessionPolicy::ALL.to_vec());
    prop_oneof![
        3 => on().prop_map(|(license, device)| Step::Activate { license, device }),
        1 => on().prop_map(|(license, device)| Step::Deactivate { license, device }),
        12 => (on(), key).prop_map(|((license, device), key)| Step::Start { license, device, key }),
        12 => (back(), key_of()).prop_map(|(back, key_of)| Step::Heartbeat { back, key_of }),
        3 => (back(), prop::option::of(key_of())).prop_map(|(back, key_of)| Step::End { back, key_of }),
        1 => back().prop_map(|back| Step::Terminate { back }),
        3 => on().prop_map(|(license, device)| Step::Verify { license, device }),
        8 => ms.prop_map(|ms| Step::Silence { ms }),
        3 => jump.prop_map(|ms| Step::Jump { ms }),
        3 => Just(Step::Sweep),
        3 => Just(Step::Flush),
        1 => Just(Step::Purge),
        2 => policy.prop_map(Step::Policy),
        1 => prop::sample::select(vec![10, 30, 60]).prop_map(Step::Timeout),
        1 => (0..LICENSES).prop_map(Step::Suspend),
        2 => (0..LICENSES).prop_map(Step::Reinstate),
        1 => (any::<bool>(), 0..200_u64)
            .prop_map(|(orderly, down_s)| Step::Restart { orderly, down_s }),
    ]
}

/// The server and its model.
struct Both {
    server: InProcess,
    model: Model,
}

impl Both {
    fn new() -> Self {
        let mut server = InProcess::new();
        // The last license expires between now and a jump of 400 days.
        let ends = [None, None, Some(NOON.plus_s(200 * 86_400))];
        let licenses = ends.map(|valid_until| License {
            device_limit: DEVICE_LIMIT as usize,
            valid_until,
            ..License::default()
        });
        let mut model = Model::new(licenses.to_vec());
        for valid_until in ends {
            let license = server.issue(DEVICE_LIMIT, valid_until);
            for device in 0..DEVICES - 1 {
                let now = server.now();
                assert_eq!(server.activate(license, device), Ok(true));
                assert_eq!(model.activate(license, device, now), Ok(true));
            }
        }
        server.configure("heartbeat_interval", "5");
        Self { server, model }
    }

    /// The session of a step, if there is one, and its token, or a token that was never issued.
    fn session(&self, back: usize) -> (Option<usize>, SessionToken) {
        let never_issued = SessionToken::from_bytes([7; 16]);
        let known = self.model.token(back);
        known.map_or((None, never_issued), |(index, token)| (Some(index), token))
    }

    fn license(&self, session: Option<usize>, key_of: KeyOf) -> usize {
        let own = session.map_or(0, |session| self.model.license_of(session));
        match key_of {
            KeyOf::Own => own,
            KeyOf::Another => (own + 1) % LICENSES,
            KeyOf::NeverIssued => LICENSES,
        }
    }

    fn start(
        &mut self,
        license: usize,
        device: usize,
        key: Option<&str>,
    ) -> Result<(), TestCaseError> {
        let Self { server, model } = self;
        let now = server.now();
        let answer = server.start(license, device, key);
        match model.start(license, device, key, now) {
            Started::Refused(code) => prop_assert_eq!(answer, Err(code.to_owned())),
            Started::Again(first) => {
                prop_assert_eq!(answer, Ok(model.answer_of(first).to_owned()));
            }
            Started::New => {
                prop_assert!(answer.is_ok(), "a start was refused: {answer:?}");
                let answer = answer.unwrap();
                model.add((license, device, key), token_of(&answer), &answer, now);
            }
        }
        Ok(())
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.server.now();
        let Self { server, model } = self;
        match *step {
            Step::Activate { license, device } => prop_assert_eq!(
                server.activate(license, device),
                model.activate(license, device, now)
            ),
            Step::Deactivate { license, device } => prop_assert_eq!(
                server.deactivate(license, device),
                model.deactivate(license, device, now)
            ),
            Step::Start {
                license,
                device,
                key,
            } => self.start(license, device, key)?,
            Step::Heartbeat { back, key_of } => {
                let (session, token) = self.session(back);
                let license = self.license(session, key_of);
                let result = self.server.heartbeat(token, self.server.key(license));
                prop_assert_eq!(result, self.model.heartbeat(session, license, now));
            }
            Step::End { back, key_of } => {
                let (session, token) = self.session(back);
                let license = key_of.map(|key_of| self.license(session, key_of));
                let key = license.map(|license| self.server.key(license));
                let ended = self.server.end(token, key).map(EndReason::as_str);
                prop_assert_eq!(ended, self.model.end(session, license, now));
            }
            Step::Terminate { back } => {
                let (session, token) = self.session(back);
                let ended = self.server.terminate(token);
                prop_assert_eq!(ended, self.model.terminate(session, now));
            }
            Step::Verify { license, device } => {
                let verdict = server.verify(license, device);
                let code = verdict.refusal.map_or("valid", |refused| refused.code);
                let expected = model.verify(license, device, now);
                prop_assert_eq!((code, verdict.session_active), expected);
            }
            Step::Sweep => prop_assert_eq!(server.sweep(), model.sweep(now)),
            Step::Flush => {
                server.flush();
                model.flush();
            }
            _ => self.run_unanswered(step),
        }
        Ok(())
    }

    /// Steps without a response to compare.
    fn run_unanswered(&mut self, step: &Step) {
        let Self { server, model } = self;
        match *step {
            Step::Silence { ms } => server.advance(Duration::from_millis(ms)),
            Step::Jump { ms } => server.clock.jump_ms(ms),
            Step::Purge => server.purge(),
            Step::Policy(policy) => {
                server.configure("session_policy", policy.as_str());
                model.policy = policy;
            }
            Step::Timeout(timeout_s) => {
                server.configure("session_timeout", &timeout_s.to_string());
                model.timeout_s = timeout_s;
            }
            Step::Suspend(license) => {
                server.suspend(license);
                model.licenses[license].suspended = true;
            }
            Step::Reinstate(license) => {
                server.reinstate(license);
                model.licenses[license].suspended = false;
            }
            Step::Restart { orderly, down_s } => {
                if orderly {
                    server.finish();
                    model.flush();
                }
                server.restart(Duration::from_secs(down_s));
                model.restart(server.started_at);
            }
            _ => unreachable!("handled in run: {step:?}"),
        }
    }

    /// Checks what must hold after every step, read from the database and not from the server.
    fn compare(&self, conn: &Connection) -> Result<(), TestCaseError> {
        let (running, ended) = self.server.tables(conn);
        let licenses: BTreeSet<usize> = running.iter().map(|row| row.license).collect();
        prop_assert_eq!(licenses.len(), running.len(), "a license with two sessions");
        let mut tokens: Vec<&str> = running.iter().map(|row| row.token.as_str()).collect();
        tokens.extend(ended.iter().map(|row| row.token.as_str()));
        tokens.sort_unstable();
        tokens.dedup();
        prop_assert_eq!(
            tokens.len(),
            running.len() + ended.len(),
            "a session in both tables"
        );
        prop_assert_eq!(
            tokens.len(),
            self.model.sessions.len(),
            "a session is missing or was never started"
        );
        let expected = self.model.tables();
        prop_assert_eq!(running, expected.0);
        prop_assert_eq!(ended, expected.1);
        Ok(())
    }
}

fn run_history(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut both = Both::new();
    let conn = both.server.connect();
    let mut latest = both.server.now().wall;
    for (number, step) in steps.iter().enumerate() {
        let result = both.run(step).and_then(|()| both.compare(&conn));
        result
            .map_err(|error| TestCaseError::fail(format!("at step {number}, {step:?}: {error}")))?;
        let crashed = matches!(step, Step::Restart { orderly: false, .. });
        let wall = both.server.now().wall;
        // A crash may lose a date that was not stored yet; no other step sets the date back.
        prop_assert!(
            crashed || wall >= latest,
            "the date went back at step {number}"
        );
        latest = wall;
    }
    Ok(())
}

#[test]
fn a_session_with_a_stored_heartbeat_in_the_future_times_out_too() {
    let steps = [
        Step::Jump {
            ms: -34_560_000_000,
        },
        Step::Silence { ms: 960_000 },
        Step::Start {
            license: 0,
            device: 0,
            key: None,
        },
        Step::Restart {
            orderly: false,
            down_s: 0,
        },
        Step::Silence { ms: 60_000 },
        Step::Sweep,
    ];
    run_history(&steps).unwrap();
}

#[test]
fn in_random_histories_responses_and_rows_are_as_the_api_says() {
    let config = ProptestConfig {
        cases: crate::rounds(32),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let histories = prop::collection::vec(step(), 20..90);
    let outcome = TestRunner::new(config).run(&histories, |steps| run_history(&steps));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
