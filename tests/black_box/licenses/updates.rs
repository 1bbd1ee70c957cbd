//! Updates until a date: which versions a license covers, what its programs are told, and what else was sold with it.

use std::time::{Duration, Instant};

use base64::Engine;
use license_server::clock::UnixMs;
use serde_json::{Value, json};

use crate::database;
use crate::inspect::running;
use crate::setup::{AUTO_ACTIVATE, UNKNOWN, started};
use crate::support::{Client, Response, Server, eventually, heartbeat_body, identity};
use crate::timing::{now_ms, wait_until};

const ENGLISH: &[(&str, &str)] = &[("Accept-Language", "en")];

fn url(version: &str) -> String {
    format!("https://example.org/{version}.zip")
}

/// A server with the releases 1.0.0, 1.1.0 and 2.0.0, of which the last is the current version.
fn prepare(settings: &[(&str, &str)]) -> Server {
    let server = Server::prepare(settings);
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        let (notes, url) = (format!("New in {version}"), url(version));
        server.json(&["release", "add", version, "--notes", &notes, "--url", &url]);
    }
    // On different days: a license covers or does not cover all releases of one second.
    for (day, version) in (20_000..).zip(["1.0.0", "1.1.0", "2.0.0"]) {
        set_released_at(&server, version, day * 86_400_000);
    }
    server.json(&["config", "set", "current_version=2.0.0"]);
    server
}

/// Ends the updates of the newest license at the moment at which 1.1.0 came out.
fn end_updates_with_1_1_0(server: &Server) {
    let until = "(select released_at_ms from releases where version = '1.1.0')";
    let license = database::last_license(server);
    database::set_license(server, license, &format!("updates_until_ms = {until}"));
}

/// The running server, and the key of a license whose updates ended with 1.1.0.
fn start_server(settings: &[(&str, &str)]) -> (Server, String) {
    let mut server = prepare(settings);
    let key = server.issue_license(1);
    end_updates_with_1_1_0(&server);
    server.run();
    (server, key)
}

/// When a release came out, as `release list` shows it.
fn released_at(server: &Server, version: &str) -> Value {
    let releases = server.json(&["release", "list"])["releases"].clone();
    let mut releases = releases.as_array().unwrap().iter();
    let release = releases.find(|release| release["version"] == version);
    release.unwrap()["released_at"].clone()
}

/// Sets when a release came out, in Unix milliseconds.
fn set_released_at(server: &Server, version: &str, at: i64) {
    let set = "update releases set released_at_ms =";
    database::change(server, &format!("{set} {at} where version = '{version}'"));
}

/// What a program of `version` sends.
fn program(key: &str, version: &str) -> Value {
    let mut body = identity(key, "laptop");
    body["version"] = json!(version);
    body
}

fn start(client: &Client, key: &str, version: &str) -> Response {
    client.call_with("session/start", &program(key, version), ENGLISH)
}

fn verify(client: &Client, key: &str, version: &str) -> Value {
    let response = client.call_with("verify", &program(key, version), ENGLISH);
    assert_eq!(response.status, 200, "{response:?}");
    response.body
}

fn end(client: &Client, started: &Response) {
    let body = json!({ "session_token": started.token() });
    assert_eq!(client.call("session/end", &body).status, 200);
}

#[test]
fn a_version_that_came_out_after_the_updates_ended_is_refused_and_older_ones_run() {
    let (server, key) = start_server(&[]);
    let client = server.client();
    let until = released_at(&server, "1.1.0");
    // The license is judged before the device, which holds no slot yet.
    assert_eq!(
        start(&client, &key, "2.0.0").code(),
        "version_not_covered",
        "before the device"
    );
    assert_eq!(start(&client, &key, "1.1.0").code(), "device_not_activated");
    client.call("activate", &program(&key, "1.1.0"));
    for version in ["2.0.0", "2.0.1"] {
        let refused = start(&client, &key, version);
        assert_eq!(refused.status_and_code(), (403, "version_not_covered"));
        assert_eq!(refused.body["updates_until"], until, "{refused:?}");
        assert_eq!(refused.body["covered_version"], "1.1.0");
        assert_eq!(refused.body["download_url"], url("1.1.0"));
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("install version 1.1.0"), "{detail}");
        let is_for_people = !detail.contains(until.as_str().unwrap());
        assert!(
            detail.contains("released up to") && is_for_people,
            "{detail}"
        );
        let verdict = verify(&client, &key, version);
        for name in [
            "code",
            "detail",
            "updates_until",
            "covered_version",
            "download_url",
        ] {
            assert_eq!(verdict[name], refused.body[name], "{name}");
        }
        assert_eq!(verdict["valid"], false);
        assert_eq!(verdict["lease"], Value::Null);
        assert_eq!(verdict["version"]["renewal_version"], "2.0.0");
    }
    assert_eq!(running(&server).len(), 0);
    for version in ["1.0.0", "1.0.7", "1.1.0", "1.1.5"] {
        assert_eq!(verify(&client, &key, version)["code"], "valid", "{version}");
        let started = start(&client, &key, version);
        assert_eq!(started.status, 201, "{version}: {started:?}");
        assert_eq!(started.body["license"]["updates_until"], until);
        end(&client, &started);
    }
}

#[test]
fn programs_are_told_of_the_newest_version_that_the_license_covers() {
    let (server, covered) = start_server(&[]);
    let unlimited = server.issue_license(1);
    let client = server.client();
    for (key, version, offered, renewal) in [
        (&covered, "1.0.0", Some("1.1.0"), json!("2.0.0")),
        (&covered, "1.1.0", None, json!("2.0.0")),
        (&unlimited, "1.1.0", Some("2.0.0"), Value::Null),
        (&unlimited, "2.0.0", None, Value::Null),
    ] {
        client.call("activate", &program(key, version));
        let started = start(&client, key, version);
        let answer = &started.body;
        let notes = offered.map(|version| format!("New in {version}"));
        assert_eq!(answer["update_available"], json!(offered.is_some()));
        assert_eq!(answer["whats_new"], json!(notes), "{version}");
        assert_eq!(answer["download_url"], json!(offered.map(url)), "{version}");
        assert_eq!(answer["renewal_version"], renewal, "{version}");
        assert_eq!(answer["current_version"], "2.0.0");
        let verdict = verify(&client, key, version);
        let (versions, update) = (&verdict["version"], &answer["update_available"]);
        assert_eq!(&versions["update_available"], update, "{version}");
        assert_eq!(versions["renewal_version"], renewal, "{version}");
        assert_eq!(versions["current_version"], "2.0.0");
        for _ in 0..2 {
            let heartbeat = heartbeat_body(key, &started.token());
            let heartbeat = client.call("session/heartbeat", &heartbeat);
            assert_eq!(heartbeat.status, 200, "{heartbeat:?}");
            assert_eq!(&heartbeat.body["update_available"], update, "{version}");
        }
        end(&client, &started);
    }
    // Without a license, the current version counts.
    let public = client.get("/api/license/version?version=1.1.0").body;
    assert_eq!(public["download_url"], url("2.0.0"));
    assert_eq!(public.get("renewal_version"), None);
    let unknown = verify(&client, UNKNOWN, "1.1.0");
    assert_eq!(unknown["version"]["update_available"], true);
    assert_eq!(unknown["version"]["renewal_version"], Value::Null);
    // A session that runs learns of a covered release without a new start.
    client.call("activate", &program(&covered, "1.1.0"));
    let started = start(&client, &covered, "1.1.0");
    database::set_license(&server, 1, "updates_until_ms = null");
    eventually("the update", || {
        let heartbeat = heartbeat_body(&covered, &started.token());
        let heartbeat = client.call("session/heartbeat", &heartbeat);
        heartbeat.body["update_available"] == true
    });
}

#[test]
fn no_version_is_offered_that_would_be_refused_as_too_old() {
    let (server, key) = start_server(&[]);
    let client = server.client();
    server.json(&["config", "set", "--yes", "minimum_version=2.0.0"]);
    eventually("the minimum", || {
        start(&client, &key, "1.1.0").code() == "version_too_old"
    });
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        let versions = verify(&client, &key, version)["version"].clone();
        assert_eq!(versions["update_available"], false, "{version}");
        assert_eq!(versions["renewal_version"], "2.0.0", "{version}");
    }
}

#[test]
fn no_version_above_the_current_one_is_recommended() {
    let mut server = prepare(&[]);
    let key = server.issue_license(1);
    for version in ["2.1.0", "3.0.0"] {
        server.json(&[
            "release",
            "add",
            version,
            "--notes",
            "",
            "--channel",
            "beta",
        ]);
    }
    // The current version and the beta 2.1.0 are covered, 3.0.0 is not.
    for (number, version) in ["1.0.0", "1.1.0", "2.0.0", "2.1.0", "3.0.0"]
        .into_iter()
        .enumerate()
    {
        set_released_at(&server, version, i64::try_from(number).unwrap() * 1_000_000);
    }
    database::set_license(&server, 1, "updates_until_ms = 3500000");
    server.run();
    let client = server.client();
    let refused = start(&client, &key, "3.0.0").body;
    assert_eq!(refused["code"], "version_not_covered");
    assert_eq!(refused["covered_version"], "2.0.0");
    assert_eq!(refused["download_url"], url("2.0.0"));
    // Of what is covered, nothing is below the current version.
    server.json(&["config", "set", "current_version=1.0.0"]);
    set_released_at(&server, "1.0.0", 9_000_000);
    server.json(&["release", "yank", "1.1.0"]);
    eventually("the current version", || {
        start(&client, &key, "3.0.0").body["covered_version"] == Value::Null
    });
}

#[test]
fn a_release_of_the_last_second_of_the_updates_is_covered() {
    let mut server = prepare(&[AUTO_ACTIVATE]);
    let key = server.issue_license(1);
    let second = 1_800_000_000_000_i64;
    for (version, at) in [("1.0.0", 0), ("1.1.0", second), ("2.0.0", second + 500)] {
        set_released_at(&server, version, at);
    }
    database::set_license(&server, 1, &format!("updates_until_ms = {second}"));
    server.run();
    let client = server.client();
    let until = server.json(&["license", "show", &key])["updates_until"].clone();
    assert_eq!(released_at(&server, "2.0.0"), until);
    let started = start(&client, &key, "2.0.0");
    assert_eq!(started.status, 201, "{started:?}");
    end(&client, &started);
    let verdict = verify(&client, &key, "1.1.0");
    assert_eq!(verdict["version"]["update_available"], true);
    database::set_license(&server, 1, &format!("updates_until_ms = {second} - 1"));
    eventually("the end of the updates", || {
        start(&client, &key, "2.0.0").code() == "version_not_covered"
    });
    let covered = start(&client, &key, "2.0.0").body["covered_version"].clone();
    assert_eq!(covered, "1.0.0");
}

#[test]
fn updates_that_a_plan_sold_end_by_themselves() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["plan", "add", "pro", "--name", "Pro", "--updates-days", "1"]);
    let sale = ["license", "issue", "--customer", "Ada", "--plan", "pro"];
    let sold = server.json(&sale)["licenses"][0].clone();
    let key = sold["license_key"].as_str().unwrap();
    let add = |version: &str| {
        let url = url(version);
        server.json(&["release", "add", version, "--notes", "n", "--url", &url]);
        server.json(&["config", "set", &format!("current_version={version}")]);
    };
    add("1.0.0");
    let client = server.client();
    let current = |version: &str| {
        let versions = verify(&client, key, version)["version"].clone();
        versions["current_version"] == *version
    };
    eventually("the release", || current("1.0.0"));
    end(&client, &start(&client, key, "1.0.0"));
    // The day of updates ends sooner than the test could wait for; the next release comes out a second later.
    let until = UnixMs(now_ms()).rfc3339();
    server.json(&["license", "edit", key, "--updates-until", &until]);
    wait_until(Instant::now(), Duration::from_millis(1100));
    add("2.0.0");
    eventually("the release", || current("2.0.0"));
    let refused = start(&client, key, "2.0.0");
    assert_eq!(refused.status_and_code(), (403, "version_not_covered"));
    assert_eq!(refused.body["updates_until"], until);
    assert_eq!(refused.body["covered_version"], "1.0.0");
    assert_eq!(refused.body["download_url"], url("1.0.0"));
    let old = start(&client, key, "1.0.0");
    assert_eq!(old.status, 201, "{old:?}");
    assert_eq!(old.body["renewal_version"], "2.0.0");
    assert_eq!(old.body["update_available"], false);
    end(&client, &old);
    // The renewal.
    server.json(&["license", "edit", key, "--updates-until", "2099-12-31"]);
    eventually("the renewal", || start(&client, key, "2.0.0").status == 201);
}

#[test]
fn other_refusals_keep_their_place_before_and_after_the_version() {
    let (server, key) = start_server(&[]);
    let client = server.client();
    client.call("activate", &program(&key, "1.1.0"));
    let running = start(&client, &key, "1.1.0");
    assert_eq!(start(&client, &key, "2.0.0").code(), "version_not_covered");
    assert_eq!(start(&client, &key, "1.1.0").code(), "session_active");
    end(&client, &running);
    // The minimum version comes first, and names the current version as before.
    server.json(&["config", "set", "--yes", "minimum_version=1.1.0"]);
    eventually("the minimum", || {
        start(&client, &key, "1.0.0").code() == "version_too_old"
    });
    let too_old = start(&client, &key, "1.0.0").body;
    assert_eq!(too_old["current_version"], "2.0.0");
    assert_eq!(too_old["download_url"], url("2.0.0"));
    assert_eq!(too_old.get("covered_version"), None);
    // A version that would be refused as too old is not recommended.
    server.json(&["config", "set", "--yes", "minimum_version=2.0.0"]);
    eventually("the minimum", || {
        start(&client, &key, "1.1.0").code() == "version_too_old"
    });
    let refused = start(&client, &key, "2.0.0").body;
    assert_eq!(refused["code"], "version_not_covered");
    assert_eq!(refused["covered_version"], Value::Null);
    assert_eq!(refused["download_url"], Value::Null);
    let detail = refused["detail"].as_str().unwrap();
    assert!(!detail.contains("null"), "{detail}");
    // The license's own state comes before its updates.
    server.json(&["license", "suspend", &key]);
    eventually("the suspension", || {
        start(&client, &key, "2.0.0").code() == "license_suspended"
    });
    assert_eq!(verify(&client, &key, "2.0.0")["code"], "license_suspended");
}

#[test]
fn a_withdrawn_release_is_not_recommended_but_runs_as_long_as_its_date_is_covered() {
    let (server, key) = start_server(&[]);
    let client = server.client();
    client.call("activate", &program(&key, "1.1.0"));
    server.json(&["release", "yank", "1.1.0"]);
    eventually("the withdrawal", || {
        start(&client, &key, "2.0.0").body["covered_version"] == "1.0.0"
    });
    let started = start(&client, &key, "1.1.0");
    assert_eq!(started.status, 201, "{started:?}");
    end(&client, &started);
    server.json(&["release", "yank", "2.0.0"]);
    eventually("the withdrawal", || {
        let public = client.get("/api/license/version?version=1.0.0").body;
        public["download_url"].is_null()
    });
    assert_eq!(start(&client, &key, "2.0.0").code(), "version_not_covered");
}

#[test]
fn a_refused_version_takes_no_slot() {
    let (server, key) = start_server(&[AUTO_ACTIVATE]);
    let client = server.client();
    assert_eq!(start(&client, &key, "2.0.0").code(), "version_not_covered");
    assert_eq!(database::count(&server, "devices"), 0);
    assert_eq!(start(&client, &key, "1.1.0").status, 201);
    assert_eq!(database::count(&server, "devices"), 1);
}

#[test]
fn a_repeated_start_gets_the_stored_response_although_the_version_is_no_longer_covered() {
    let mut server = prepare(&[AUTO_ACTIVATE]);
    let key = server.issue_license(1);
    server.run();
    let client = server.client();
    let repeat = || {
        let key_of_request = &[("Idempotency-Key", "a")];
        client.call_with("session/start", &program(&key, "2.0.0"), key_of_request)
    };
    let first = repeat();
    assert_eq!(first.status, 201, "{first:?}");
    end_updates_with_1_1_0(&server);
    eventually("the end of the updates", || {
        start(&client, &key, "2.0.0").code() == "version_not_covered"
    });
    let again = repeat();
    assert_eq!((again.status, &again.text), (201, &first.text));
    let heartbeat = heartbeat_body(&key, &first.token());
    let heartbeat = client.call("session/heartbeat", &heartbeat);
    assert_eq!(heartbeat.status, 200, "the running session goes on");
    end(&client, &first);
    assert_eq!(repeat().status_and_code(), (403, "version_not_covered"));
}

#[test]
fn every_answer_about_a_license_names_what_was_sold_with_it() {
    let mut server = prepare(&[]);
    server.json(&["config", "set", "offline_days=7"]);
    server.json(&["customer", "add", "Ada"]);
    let plan = ["plan", "add", "pro-year", "--name", "Pro"];
    let features = ["pro", "export", "seats.50"].map(|feature| ["--feature", feature]);
    server.json(&[&plan[..], &features.concat()].concat());
    let issued = server.json(&[
        "license",
        "issue",
        "--customer",
        "Ada",
        "--plan",
        "pro-year",
    ]);
    let key = issued["licenses"][0]["license_key"]
        .as_str()
        .unwrap()
        .to_owned();
    end_updates_with_1_1_0(&server);
    server.run();
    let client = server.client();
    let activated = client.call("activate", &program(&key, "1.1.0")).body;
    let started = start(&client, &key, "1.1.0").body;
    let verdict = verify(&client, &key, "1.1.0");
    let claims = claims(started["lease"].as_str().unwrap());
    let until = released_at(&server, "1.1.0");
    for sold in [
        &activated["license"],
        &started["license"],
        &verdict["license"],
        &claims,
    ] {
        assert_eq!(sold["features"], json!(["export", "pro", "seats.50"]));
        assert_eq!(sold["updates_until"], until, "{sold}");
        assert_eq!(sold["plan"], "pro-year", "{sold}");
    }
    assert_eq!(
        started["feature_flags"],
        json!({}),
        "flags are not features"
    );
}

/// The claims of a lease.
fn claims(lease: &str) -> Value {
    let claims = lease.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims);
    serde_json::from_slice(&claims.unwrap()).unwrap()
}

#[test]
fn the_answer_that_begins_a_term_shows_its_end() {
    let day = 86_400_000;
    for (settings, endpoint) in [(None, "activate"), (Some(AUTO_ACTIVATE), "session/start")] {
        let mut server = prepare(settings.as_slice());
        let key = server.issue_license(1);
        let license = database::last_license(&server);
        database::set_license(&server, license, "pending_days = 30");
        server.run();
        let client = server.client();
        let before = verify(&client, &key, "2.0.0");
        assert_eq!(before["license"]["valid_until"], Value::Null);
        let earliest = UnixMs(now_ms() + 30 * day).rfc3339();
        let begun = client.call(endpoint, &program(&key, "2.0.0")).body;
        let latest = UnixMs(now_ms() + 30 * day).rfc3339();
        let until = begun["license"]["valid_until"].as_str().unwrap();
        assert!(
            *earliest <= *until && *until <= *latest,
            "{endpoint}: {earliest} {until} {latest}"
        );
        let after = verify(&client, &key, "2.0.0");
        assert_eq!(after["license"]["valid_until"], until, "{endpoint}");
    }
}

#[test]
fn refused_versions_are_counted_on_the_overview_and_in_the_metrics() {
    let (server, key) = start_server(&[]);
    let client = server.client();
    for _ in 0..2 {
        assert_eq!(start(&client, &key, "2.0.0").code(), "version_not_covered");
    }
    let metrics = client.get("/metrics").text;
    let metric = "license_server_refusals_total{code=\"version_not_covered\"} 2";
    assert!(metrics.contains(metric), "{metrics}");
    let page = server.logged_in_browser("support").get("").text;
    for expected in [
        "<code>version_not_covered</code>",
        "Programs were refused 2 times today because their licenses do not cover the new version.",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
}

#[test]
fn without_releases_every_version_is_covered() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(1);
    database::set_license(&server, 1, "updates_until_ms = 1");
    let client = server.client();
    eventually("the end of the updates", || {
        verify(&client, &key, "9.0.0")["license"]["updates_until"] == "1970-01-01T00:00:00Z"
    });
    let started = start(&client, &key, "9.0.0");
    assert_eq!(started.status, 201, "{started:?}");
    assert_eq!(started.body["renewal_version"], Value::Null);
}
