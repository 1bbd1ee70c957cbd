//! The panel's page *Integrate*: its commands work as they are copied from the page, and the dry run.

use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::database;
use crate::setup::started;
use crate::support::{Server, heartbeat_body, identity};

/// The part of a page between two strings.
pub fn between<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = page.split(begin).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no {begin} in {page}"));
    rest.split(end).next().unwrap()
}

/// The text of an element whose start tag ends with the first `>`.
fn unescaped_text(html: &str) -> String {
    let html = html.split_once('>').unwrap().1;
    let plain = html.replace("&lt;", "<").replace("&gt;", ">");
    let plain = plain.replace("&quot;", "\"").replace("&#39;", "'");
    plain.replace("&amp;", "&")
}

/// The text of the element `id`, which must have a button to copy it.
pub fn copied(page: &str, id: &str) -> String {
    assert!(
        page.contains(&format!("data-from=\"{id}\"")),
        "it has a button: {id}"
    );
    unescaped_text(between(page, &format!("<pre id=\"{id}\""), "</pre>"))
}

/// The responses of a dry run.
fn answers(page: &str) -> Vec<Value> {
    let blocks = page.split("aria-label=\"Response to ").skip(1);
    let texts = blocks.map(|block| unescaped_text(block.split("</pre>").next().unwrap()));
    texts
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect()
}

fn keys(answer: &Value) -> Vec<&String> {
    answer.as_object().unwrap().keys().collect()
}

/// Whether a program that the test needs is installed. Prints a line if it is not.
pub fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    let is_installed = output.is_ok_and(|output| output.status.success());
    if !is_installed {
        // Written directly, since the test harness hides what a passing test prints.
        let message = format!("SKIPPED: there is no {program} on this machine\n");
        std::io::stderr().write_all(message.as_bytes()).unwrap();
    }
    is_installed
}

/// Downloads the certificate from the page into the folder of the server.
pub fn download_certificate(server: &Server, panel: &mut Browser) {
    let file = panel.get("/integrate/ca.pem");
    let attachment = Some("attachment; filename=\"ca.pem\"");
    assert_eq!(file.header("content-disposition"), attachment);
    let own = std::fs::read_to_string(server.path("data/tls/ca.pem")).unwrap();
    assert_eq!(file.text, own);
    assert!(!file.text.contains("PRIVATE"));
    std::fs::write(server.path("ca.pem"), &file.text).unwrap();
}

#[test]
fn the_commands_on_the_page_start_keep_and_end_a_session() {
    if !is_installed("curl") {
        return;
    }
    let server = Server::start();
    server.issue_license(1);
    let mut panel = server.logged_in_browser("admin");
    download_certificate(&server, &mut panel);
    let page = panel.get("/integrate?license=1").text;
    let run = |word: &str, token: &str| -> Value {
        let line = copied(&page, &format!("line-{word}"));
        let line = line.replace("PASTE-THE-SESSION-TOKEN", token);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{line} -sS"));
        let output = shell.current_dir(server.path(".")).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{line}: {e}: {output:?}"))
    };
    assert_eq!(run("activate", "")["device_count"], 1);
    assert_eq!(run("verify", "")["valid"], true);
    let token = run("start", "")["session_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(run("heartbeat", &token)["status"], "ok");
    assert_eq!(run("end", &token)["end_reason"], "normal");
}

#[test]
fn the_page_finds_any_license_by_a_search() {
    let server = Server::start();
    let oldest = server.issue_license(1);
    server.json(&["customer", "add", "Ada Byron"]);
    server.json(&["license", "issue", "--customer", "Ada Byron"]);
    server.issue_licenses(1, 25);
    let mut panel = server.logged_in_browser("admin");
    let choices = |page: &str| between(page, "id=\"f-fill\"", "</select>").to_owned();
    let page = panel.get("/integrate").text;
    assert!(!choices(&page).contains(&oldest), "only the newest ones");
    assert_eq!(choices(&page).matches("<option").count(), 21);
    assert!(page.contains("These are the newest 20"));

    let by_customer = panel.get("/integrate?q=byron").text;
    let found = choices(&by_customer);
    assert!(found.contains("Ada Byron"), "{found}");
    assert_eq!(found.matches("<option").count(), 2);
    assert!(!by_customer.contains("These are the newest"));

    let by_key = panel.get(&format!("/integrate?q={oldest}")).text;
    assert!(
        copied(&by_key, "line-start").contains(&oldest),
        "a whole key is filled in at once"
    );
    let tried = panel.post("/integrate", &[("license", "1"), ("q", "byron")]);
    assert_eq!(answers(&tried.text).len(), 5);

    let nothing = panel.get("/integrate?q=nobody");
    assert!(nothing.text.contains("Nothing matches"), "{nothing:?}");
}

#[test]
fn a_dry_run_gets_the_responses_of_a_program_and_leaves_the_slot_free() {
    let server = Server::start();
    let key = server.issue_license(1);
    let mut panel = server.logged_in_browser("admin");
    let page = panel.post("/integrate", &[("license", "1")]);
    assert_eq!(page.status, 200, "{page:?}");
    let responses = answers(&page.text);
    let program = server.client();
    let device = identity(&key, "laptop");
    let activated = program.call("activate", &device).body;
    let started = program.call("session/start", &device);
    let heartbeat = program
        .call("session/heartbeat", &heartbeat_body(&key, &started.token()))
        .body;
    let ended = program
        .call("session/end", &heartbeat_body(&key, &started.token()))
        .body;
    let left = program.call("deactivate", &device).body;
    for (response, expected) in
        responses
            .iter()
            .zip([&activated, &started.body, &heartbeat, &ended, &left])
    {
        assert_eq!(keys(response), keys(expected));
    }
    assert_eq!(responses.len(), 5);
    assert_eq!(responses[3], ended);
    assert_eq!(responses[4], left, "the slot is free");
    assert_eq!(server.json(&["session", "list"])["sessions"], json!([]));
    let history = server.json(&["session", "history"]);
    assert_eq!(
        history["sessions"].as_array().unwrap().len(),
        2,
        "one of each"
    );
    let late = program.call(
        "session/heartbeat",
        &heartbeat_body(&key, responses[1]["session_token"].as_str().unwrap()),
    );
    assert_eq!(late.status_and_code(), (410, "session_ended"));
    let noted = database::audited(&server, "integrate.rehearse");
    assert!(noted.len() == 1 && noted[0].actor == "admin", "{noted:?}");
}

#[test]
fn a_dry_run_does_not_begin_the_term_of_a_license() {
    let server = Server::start();
    let key = server.issue_license(1);
    database::set_license(&server, 1, "pending_days = 30, valid_until_ms = null");
    let mut panel = server.logged_in_browser("admin");
    let page = panel.post("/integrate", &[("license", "1")]);
    assert_eq!(answers(&page.text).len(), 5, "{page:?}");
    let program = server.client();
    let before = program.call("verify", &identity(&key, "laptop"));
    assert_eq!(before.body["license"]["valid_until"], Value::Null);
    let activated = program.call("activate", &identity(&key, "laptop"));
    assert_eq!(activated.status, 201, "{activated:?}");
    let after = program.call("verify", &identity(&key, "laptop"));
    assert!(
        after.body["license"]["valid_until"].is_string(),
        "{after:?}"
    );
}

#[test]
fn a_dry_run_disturbs_no_program_and_its_refusals_have_a_text() {
    // With this policy, a start would take over the running session.
    let replace = &["config", "set", "session_policy=replace"];
    let release = &["release", "add", "1.0.0", "--notes", ""];
    let server = started(&[], &[replace, release]);
    let keys = server.issue_licenses(1, 4);
    database::set_license(&server, 4, "updates_until_ms = 1");
    let program = server.client();
    let token = program.session(&keys[0], "laptop");
    program.call("activate", &identity(&keys[1], "laptop"));
    server.json(&["license", "suspend", &keys[2]]);
    let mut panel = server.logged_in_browser("admin");
    for (license, english, german) in [
        (
            "1",
            "A program is running on this license",
            "Auf dieser Lizenz läuft ein Programm",
        ),
        ("2", "The device slot of this license", "Der Geräteplatz"),
        (
            "3",
            "This license is suspended",
            "Diese Lizenz ist gesperrt",
        ),
        (
            "4",
            "This license covers the versions",
            "Diese Lizenz gilt für alle Versionen",
        ),
        (
            "",
            "Please choose a license",
            "Bitte wählen Sie eine Lizenz",
        ),
    ] {
        for (language, text) in [("en", english), ("de", german)] {
            panel.set_cookie("lang", language);
            let response = panel.post("/integrate", &[("license", license)]);
            assert_eq!(response.status, 422, "{license}");
            assert!(response.text.contains(text), "{license}: {}", response.text);
        }
    }
    let alive = program.call("session/heartbeat", &heartbeat_body(&keys[0], &token));
    assert_eq!(alive.status, 200, "{alive:?}");
    assert_eq!(database::devices_named(&server, "rehearsal"), 0);
    assert_eq!(database::count(&server, "session_history"), 0);
    assert_eq!(panel.post("/integrate", &[("license", "99")]).status, 404);
}

#[test]
fn the_api_key_is_filled_in_only_for_roles_that_may_see_it() {
    let server = Server::start();
    let mut support = server.logged_in_browser("support");
    assert!(support.get("/integrate").text.contains("No licenses yet"));
    let key = server.issue_license(1);
    let page = support.get("/integrate?license=1").text;
    assert!(
        !page.contains(server.api_key()) && page.contains("YOUR-API-KEY") && page.contains(&key)
    );
    assert!(!page.contains("Try it"));
    assert_eq!(support.post("/integrate", &[("license", "1")]).status, 403);
    let page = server.logged_in_browser("owner").get("/integrate").text;
    assert!(page.contains(server.api_key()) && page.contains("YOUR-LICENSE-KEY"));
    assert!(page.contains("set public_url"), "what to do next");
}

#[test]
fn the_address_is_the_public_one_of_the_settings() {
    let server = Server::start_with(&[("SERVER__PUBLIC_URL", "https://licenses.example.org/")]);
    let page = server.logged_in_browser("admin").get("/integrate").text;
    assert!(
        page.contains("&#39;https://licenses.example.org/api/license/activate&#39;"),
        "{page}"
    );
    assert!(!page.contains("set public_url"));
}

#[test]
fn the_public_keys_that_sites_verify_with_are_shown() {
    let server = Server::start();
    let shown = server.json(&["config", "show"]);
    let page = server.logged_in_browser("support").get("/integrate").text;
    for name in ["signing_public_key", "next_signing_public_key"] {
        let key = shown[name].as_str().unwrap();
        assert!(key.len() > 40 && page.contains(key), "{shown}");
    }
}
