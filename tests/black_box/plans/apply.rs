//! `plan apply`: the question before it, and what it never takes from a license.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use super::commands::{issue, key_of, shop};
use crate::database;
use crate::inspect::error_of;
use crate::support::{Server, eventually};

/// A day that is later than every end that the plans of these tests give.
const LATE: &str = "2090-12-31";

/// The state of a license, as `license show` prints it.
fn shown(server: &Server, license: &Value) -> Value {
    server.json(&["license", "show", key_of(license)])
}

#[test]
fn applying_a_plan_never_shortens_updates() {
    let server = shop();
    let agreed = issue(&server, &["--plan", "pro", "--updates-until", LATE]);
    let unlimited = issue(&server, &["--plan", "pro"]);
    let edit = ["license", "edit", key_of(&unlimited)];
    server.json(&[&edit[..], &["--updates-until", ""]].concat());
    let shorter = issue(&server, &["--plan", "pro", "--updates-until", "2026-12-31"]);
    // As a trial that began long ago and was bought now: the plan counts from the issue, the sale from today.
    let sold = issue(&server, &["--plan", "pro"]);
    database::set_license(&server, 4, "created_at_ms = created_at_ms - 90 * 86400000");
    let before = [&agreed, &unlimited, &sold].map(|license| shown(&server, license));
    let applied = server.json(&["plan", "apply", "pro", "--yes"]);
    let expected = json!({
        "plan": "pro", "changed": 1, "unchanged": 3, "longer_updates": 3, "skipped": [],
    });
    assert_eq!(applied, expected);
    let after = [&agreed, &unlimited, &sold].map(|license| shown(&server, license));
    assert_eq!(after, before);
    assert_eq!(after[1]["updates_until"], Value::Null);
    let lengthened = shown(&server, &shorter);
    assert!(
        lengthened["updates_until"].as_str() > Some("2027"),
        "{lengthened}"
    );
    // The other values of the plan are copied although the updates stay.
    server.json(&[
        "plan",
        "edit",
        "pro",
        "--updates-days",
        "1",
        "--devices",
        "7",
    ]);
    let applied = server.json(&["plan", "apply", "pro", "--yes"]);
    assert_eq!(applied["changed"], 4);
    assert_eq!(applied["longer_updates"], 4);
    let now = shown(&server, &agreed);
    assert_eq!(now["device_limit"], 7);
    assert_eq!(now["updates_until"], before[0]["updates_until"]);
    assert_eq!(shown(&server, &unlimited)["updates_until"], Value::Null);
    // A plan that covers all releases lengthens them.
    server.json(&["plan", "edit", "pro", "--updates-days", "none"]);
    let text = server.cli(&["plan", "apply", "pro", "--yes"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert_eq!(
        text, "plan pro: 3 licenses changed, 1 unchanged\n",
        "nothing has longer updates"
    );
    assert_eq!(shown(&server, &agreed)["updates_until"], Value::Null);
}

/// `plan apply pro`, waiting for the confirmation on its standard input.
struct Asking(std::process::Child);

impl Asking {
    fn start(server: &Server) -> Self {
        let mut command = server.command(&["plan", "apply", "pro"]);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// The question, once it is asked.
    fn question(&mut self) -> String {
        let mut question = String::new();
        let mut error = std::io::BufReader::new(self.0.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut error, &mut question).unwrap();
        self.0.stderr = Some(error.into_inner());
        question
    }

    /// The exit status, and what was printed after the question.
    fn answer(mut self, line: &str) -> (Option<i32>, String) {
        let mut input = self.0.stdin.take().unwrap();
        drop(writeln!(input, "{line}"));
        drop(input);
        let output = self.0.wait_with_output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    }
}

#[test]
fn the_command_asks_before_a_plan_is_applied() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    issue(&server, &["--plan", "pro"]);
    server.json(&["plan", "edit", "pro", "--devices", "5"]);
    let mut asking = Asking::start(&server);
    let question = asking.question();
    for part in [
        "2 licenses",
        "Updates are never shortened",
        "--yes",
        "code of the plan",
    ] {
        assert!(question.contains(part), "{part}: {question}");
    }
    let (status, text) = asking.answer("yes");
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("code"), "{text}");
    assert_eq!(shown(&server, &license)["device_limit"], 3);
    assert_eq!(server.cli(&["plan", "apply", "pro"]).status.code(), Some(2));
    let mut asking = Asking::start(&server);
    asking.question();
    let (status, text) = asking.answer("pro");
    assert_eq!(
        (status, &*text),
        (Some(0), "plan pro: 2 licenses changed, 0 unchanged\n")
    );
    assert_eq!(shown(&server, &license)["device_limit"], 5);
    // Without a license, there is nothing to ask.
    server.json(&["plan", "add", "free", "--name", "Free"]);
    assert_eq!(server.json(&["plan", "apply", "free"])["changed"], 0);
}

#[test]
fn a_plan_that_was_changed_since_the_question_is_not_applied() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    server.json(&["plan", "edit", "pro", "--devices", "5"]);
    let mut asking = Asking::start(&server);
    asking.question();
    server.json(&["plan", "edit", "pro", "--devices", "1"]);
    let (status, text) = asking.answer("pro");
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("meantime"), "{text}");
    assert_eq!(shown(&server, &license)["device_limit"], 3);
    assert_eq!(database::audited(&server, "plans.apply").len(), 0);
}

/// So many licenses that they are changed in several steps.
const MANY: u32 = 2500;

#[test]
fn an_edit_between_two_steps_ends_them_and_the_command_says_how_far_it_came() {
    let server = shop();
    let count = MANY.to_string();
    issue(&server, &["--plan", "pro", "--count", &count]);
    server.json(&["plan", "edit", "pro", "--devices", "5"]);
    // The edit waits for the writer as the steps do, and comes between two of them.
    let apply = server
        .command(&["plan", "apply", "pro", "--yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the first step", || {
        !database::audited(&server, "plans.apply").is_empty()
    });
    eventually("the edit", || {
        let edited = server.cli(&["plan", "edit", "pro", "--devices", "4"]);
        edited.status.success()
    });
    let output = apply.wait_with_output().unwrap();
    let steps = database::audited(&server, "plans.apply").len();
    let error = String::from_utf8(output.stderr).unwrap();
    if steps == 3 {
        // The command was faster than the edit.
        assert_eq!(output.status.code(), Some(0), "{error}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{error}");
    let changed = format!("{} licenses have its former values", steps * 1000);
    assert!(error.contains(&changed), "{error}");
    let applied = server.json(&["plan", "apply", "pro", "--yes"]);
    assert_eq!(applied["changed"], MANY);
}

#[test]
fn the_plan_of_trials_stays_a_trial_plan() {
    let server = shop();
    server.json(crate::trials::PLAN);
    server.json(crate::trials::OFFER);
    let error = error_of(&server, &["plan", "edit", "try", "--kind", "full"]);
    assert!(
        error.contains("Trials are issued under the plan try"),
        "{error}"
    );
    server.json(&["plan", "edit", "try", "--devices", "2"]);
    server.json(&["config", "set", "trial_plan="]);
    server.json(&["plan", "edit", "try", "--kind", "full"]);
}

#[test]
fn a_trial_plan_without_an_end_is_refused() {
    let server = shop();
    server.json(crate::trials::PLAN);
    for command in [
        "plan add other --name Other --kind trial --term-days none",
        "plan edit try --term-days none",
        "plan edit pro --kind trial --term-days none --term-starts issue",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let output = server.cli(&words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {error}");
        assert!(error.contains("a trial always ends"), "{error}");
    }
    assert_eq!(server.json(&["plan", "show", "try"])["term_days"], 14);
}
