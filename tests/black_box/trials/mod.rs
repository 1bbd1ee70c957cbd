//! Trials without a key.

mod calls;
mod limits;
mod panel;
mod sale;

use serde_json::{Value, json};

use crate::setup::started;
use crate::support::{Client, Response, Server};

/// The command that adds a plan for trials of 14 days.
pub const PLAN: &[&str] = &[
    "plan",
    "add",
    "try",
    "--name",
    "14 days",
    "--kind",
    "trial",
    "--term-days",
    "14",
];
/// The command that offers trials by that plan.
pub const OFFER: &[&str] = &["config", "set", "trial_plan=try"];

/// The command that adds a plan to sell.
const PRO: &[&str] = &[
    "plan",
    "add",
    "pro",
    "--name",
    "Pro",
    "--devices",
    "2",
    "--term-days",
    "365",
    "--feature",
    "export",
];

/// A server that offers trials.
fn offering() -> Server {
    started(&[], &[PLAN, OFFER])
}

/// The body with which a program of version 1.0.0 asks for the trial of a device.
pub fn device(name: &str) -> Value {
    json!({ "machine_id": name, "hardware_hash": format!("hash of {name}"), "version": "1.0.0" })
}

/// The response to the request of a device for its trial.
fn trial(client: &Client, name: &str) -> Response {
    client.call("trial", &device(name))
}

/// Offers trials and starts one; the id of its license.
pub fn start(server: &Server) -> i64 {
    server.json(PLAN);
    server.json(OFFER);
    let answer = trial(&server.client(), "laptop");
    let key = answer.body["license_key"].as_str().unwrap();
    shown(server, key)["id"].as_i64().unwrap()
}

/// The license with a key, as `license show` prints it.
fn shown(server: &Server, key: &str) -> Value {
    server.json(&["license", "show", key])
}

/// What a command that fails prints to standard error.
fn refused(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}
