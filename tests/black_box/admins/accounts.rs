//! Administrators: roles, re-authentication, preferences, and secrets that must not leak.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::admins::setup::Fresh;
use crate::browser::{Browser, PASSWORD};
use crate::database;
use crate::inspect::spellings;
use crate::logins::factors::{log_in_with, set_up_totp};
use crate::support::{Response, Server, is_installed};

pub const SESSION: &str = "__Host-session";
pub const KNOWN: &str = "__Host-known";
pub const NO_LOGIN_LIMIT: &[&str] = &["limit", "set", "login", "--per-minute", "0"];
pub const BEHIND_A_PROXY: (&str, &str) = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");

/// The text of the page from `before` to the next quotation mark or tag.
pub fn between(page: &str, before: &str) -> String {
    let rest = page.split(before).nth(1).unwrap_or_default();
    rest.split(['"', '<']).next().unwrap_or_default().to_owned()
}

/// The CSRF token of the form on a page.
pub fn csrf_token_in(page: &Response) -> String {
    between(&page.text, "name=\"csrf_token\" value=\"")
}

pub fn location(answer: &Response) -> &str {
    answer.header("location").unwrap_or_default()
}

/// Whether this browser is logged in.
pub fn is_in(browser: &mut Browser) -> bool {
    let answer = browser.get("/profile");
    assert!([200, 303].contains(&answer.status), "{answer:?}");
    answer.status == 200
}

/// Posts a form of the page at `path`, with the CSRF token of that page.
pub fn submit(browser: &mut Browser, path: &str, to: &str, fields: &[(&str, &str)]) -> Response {
    let csrf_token = csrf_token_in(&browser.get(path));
    let mut all = fields.to_vec();
    all.push(("csrf_token", &csrf_token));
    browser.post_bare(to, &all)
}

/// Runs a command with one line on its standard input.
pub fn run_with_input(server: &Server, words: &[&str], line: &str) -> std::process::Output {
    let mut child = server
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn at_a_terminal_a_new_password_is_asked_for_twice_and_not_shown() {
    if !is_installed("script") {
        return;
    }
    let server = Server::start();
    server.add_admin("ada", "owner");
    let executable = env!("CARGO_BIN_EXE_license-server");
    let type_twice = |first: &str, second: &str| {
        // A terminal for the command.
        let mut typed = server.command(&["list"]);
        let envs: Vec<_> = typed
            .get_envs()
            .map(|(k, v)| (k.to_owned(), v.map(std::ffi::OsStr::to_owned)))
            .collect();
        let folder = typed.get_current_dir().map(std::path::Path::to_owned);
        typed = std::process::Command::new("script");
        typed.args([
            "-qec",
            &format!("{executable} admin set-password ada"),
            "/dev/null",
        ]);
        for (name, value) in envs {
            if let Some(value) = value {
                typed.env(name, value);
            }
        }
        if let Some(folder) = folder {
            typed.current_dir(folder);
        }
        typed
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = typed.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut said = Vec::new();
        // Each password is typed as soon as its question stands there.
        for (question, password) in [
            ("New password of ada: ", first),
            ("The same again: ", second),
        ] {
            while !String::from_utf8_lossy(&said).contains(question) {
                let mut bytes = [0; 256];
                let count = stdout.read(&mut bytes).unwrap();
                assert_ne!(count, 0, "no {question:?} in {said:?}");
                said.extend(&bytes[..count]);
            }
            stdin.write_all(format!("{password}\n").as_bytes()).unwrap();
        }
        stdout.read_to_end(&mut said).unwrap();
        let status = child.wait().unwrap();
        (status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let new = "seven green bicycles sing";
    let (status, said) = type_twice(new, "another one altogether");
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("the two passwords differ") && !said.contains("bicycles"),
        "{said}"
    );
    let (status, said) = type_twice(new, new);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("The same again") && !said.contains("bicycles"),
        "{said}"
    );
}

#[test]
fn irreversible_actions_require_a_recent_password_or_second_factor() {
    let server = Server::start();
    let mut owner = server.browser_after_login("owner");
    server.add_admin("eve", "admin");
    let path = "/admins/2/remove";
    assert_eq!(owner.get(path).status, 200, "just logged in");
    database::age_reauthentication(&server);
    let prove = "/lizenzserver/prove?next=%2Flizenzserver%2Fadmins%2F2%2Fremove";
    assert_eq!(location(&owner.get(path)), prove);
    assert_eq!(location(&owner.post(path, &[("confirm", "eve")])), prove);
    assert_eq!(database::count(&server, "admins"), 2);
    let next = "/lizenzserver/admins/2/remove";
    assert!(
        owner
            .get(&prove["/lizenzserver".len()..])
            .text
            .contains(next)
    );
    assert_eq!(
        owner
            .post("/prove", &[("next", next), ("old", "wrong")])
            .status,
        422
    );
    let response = owner.post("/prove", &[("next", next), ("old", PASSWORD)]);
    assert_eq!(location(&response), next);
    assert_eq!(owner.post(path, &[("confirm", "eve")]).status, 303);
    // An account with a second factor must give that instead of the password.
    let (authenticator, codes, _) = set_up_totp(&mut owner);
    database::age_reauthentication(&server);
    assert_eq!(
        owner
            .post("/prove", &[("next", next), ("old", PASSWORD)])
            .status,
        422
    );
    let code = authenticator.code(1);
    assert_eq!(
        owner
            .post("/prove", &[("next", next), ("code", &code)])
            .status,
        303
    );
    database::age_reauthentication(&server);
    let response = owner.post("/prove", &[("next", "//example.org"), ("code", &codes[0])]);
    assert_eq!(location(&response), "/lizenzserver");
}

#[test]
fn only_owners_manage_administrators_and_the_last_owner_cannot_be_removed() {
    let server = Server::start();
    let mut owner = server.browser_after_login("owner");
    for role in ["admin", "support"] {
        let mut other = server.browser_after_login(role);
        assert!(
            !other
                .get("/customers")
                .text
                .contains("/lizenzserver/admins")
        );
        for path in ["/admins", "/admins/new", "/admins/1", "/admins/1/remove"] {
            assert_eq!(other.get(path).status, 403, "{role} {path}");
        }
        let response = other.post("/admins/1/remove", &[("confirm", "owner")]);
        assert_eq!(response.status, 403);
    }
    let page = owner.get("/admins").text;
    assert!(page.contains("support") && page.contains("Owner"), "{page}");
    for (order, expected) in [
        ("", ["2", "1", "3"]),
        ("-name", ["3", "1", "2"]),
        ("since", ["1", "2", "3"]),
    ] {
        let page = owner.get(&format!("/admins?order={order}")).text;
        let rows = page.split("<th scope=\"row\"><a href=\"/lizenzserver/admins/");
        let ids: Vec<&str> = rows.skip(1).map(|row| &row[..1]).collect();
        assert_eq!(ids, expected, "{order}: {page}");
    }
    let own = owner.get("/admins/1/role").text;
    let seen = between(&own, "name=\"seen\" value=\"");
    let response = owner.post("/admins/1/role", &[("role", "support"), ("seen", &seen)]);
    assert!(
        response.status == 422 && response.text.contains("Another owner"),
        "{}",
        response.text
    );
    let response = owner.post("/admins/1/remove", &[("confirm", "owner")]);
    assert!(response.status == 422 && response.text.contains("cannot remove yourself"));
    for words in [
        &["admin", "set-role", "owner", "admin"][..],
        &["admin", "remove", "owner"],
    ] {
        let output = server.cli(words);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains("The last owner cannot be removed"),
            "{error}"
        );
    }
    let new = "nine purple tractors";
    let fields = [
        ("name", "\"><b>x"),
        ("role", "owner"),
        ("password", new),
        ("again", new),
    ];
    let response = owner.post("/admins/new", &fields);
    assert_eq!(
        location(&response),
        "/lizenzserver/admins/4",
        "{}",
        response.text
    );
    for path in [
        "/admins",
        "/admins/4",
        "/admins/4/role",
        "/admins/4/password",
        "/admins/4/remove",
    ] {
        let page = owner.get(path).text;
        assert!(
            !page.contains("<b>x") && page.contains("&quot;&gt;&lt;b&gt;x"),
            "{path}: {page}"
        );
    }
    let again = owner.post("/admins/new", &fields);
    assert!(again.status == 422 && again.text.contains("name is already taken"));
    server.json(&["admin", "set-role", "owner", "admin"]);
    assert_eq!(
        location(&owner.get("/admins")),
        "/lizenzserver/login?next=%2Flizenzserver%2Fadmins"
    );
}

#[test]
fn commands_restore_lost_access_and_are_in_the_audit_log() {
    let server = Server::start();
    let mut ada = server.browser_after_login("owner");
    set_up_totp(&mut ada);
    let words = [
        "--json",
        "admin",
        "add",
        "eve",
        "--role",
        "support",
        "--password-stdin",
    ];
    let added = run_with_input(&server, &words, "nine purple tractors");
    let added: serde_json::Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(added["admins"][0]["role"], "support");
    for (line, expected) in [
        ("nine", "12 to 128"),
        ("password1234", "easy to guess: it is common"),
        ("eve.eve.eve.", "easy to guess: it is common"),
    ] {
        let words = ["admin", "set-password", "eve", "--password-stdin"];
        let output = run_with_input(&server, &words, line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && error.contains(expected),
            "{line}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let unknown = run_with_input(
        &server,
        &["admin", "set-password", "bob", "--password-stdin"],
        PASSWORD,
    );
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(error.contains("license-server admin list"), "{error}");
    let words = ["--json", "admin", "set-password", "eve", "--password-stdin"];
    assert!(run_with_input(&server, &words, PASSWORD).status.success());
    assert_eq!(server.browser().log_in("eve", PASSWORD).status, 303);
    let changed = server.json(&["admin", "set-role", "eve", "admin"]);
    assert_eq!(changed["admins"][0]["role"], "admin");
    let changed = server.json(&["admin", "reset-totp", "owner"]);
    assert_eq!(changed["admins"][0]["second_factor"], false);
    assert!(!is_in(&mut ada), "all logins end");
    ada.log_in("owner", PASSWORD);
    assert!(is_in(&mut ada));
    let removed = server.json(&["admin", "remove", "eve"]);
    assert_eq!(removed["removed"][0]["name"], "eve");
    let actions: Vec<String> = database::audit_log(&server)
        .into_iter()
        .filter(|entry| entry.actor == "command line" && entry.action.starts_with("admins."))
        .map(|entry| format!("{} {}", entry.action, entry.subject))
        .collect();
    let expected = [
        "admins.add owner",
        "admins.add eve",
        "admins.set_password eve",
        "admins.set_role eve",
        "admins.reset_totp owner",
        "admins.remove eve",
    ];
    assert_eq!(actions, expected);
    assert!(server.cli(&["check"]).status.success());
}

#[test]
fn preferences_are_stored_in_the_profile() {
    let server = Server::start();
    let mut ada = server.browser_after_login("admin");
    assert!(ada.get("/profile").text.contains("<html lang=\"en\""));
    let mut foreign = ada.clone();
    let fields = [("lang", "de"), ("back", "/lizenzserver/profile")];
    foreign.post_bare("/appearance", &fields);
    let language = || database::admin_language(&server, "admin");
    assert_eq!(language(), None, "without a CSRF token");
    let response = ada.post("/appearance", &fields);
    assert_eq!(location(&response), "/lizenzserver/profile");
    assert_eq!(language().as_deref(), Some("de"));
    let mut elsewhere = server.browser_after_login("admin");
    let page = elsewhere.get("/profile").text;
    assert!(
        page.contains("<html lang=\"de\"") && !page.contains("data-keys"),
        "{page}"
    );
    let fields = [("language", "browser"), ("theme", "dark")];
    elsewhere.post("/profile/taste", &fields);
    let page = elsewhere.get("/profile").text;
    for words in ["<html lang=\"en\" data-theme=\"dark\"", "data-keys=\"off\""] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn neither_the_most_verbose_log_nor_an_address_contains_a_password_a_token_or_a_code() {
    let fresh = Fresh::start(&[("LOG__LEVEL", "trace")]);
    let server = &fresh.server;
    let mut owner = server.browser();
    let mut responses = Vec::new();
    let mut secrets = vec![fresh.token().to_owned(), PASSWORD.to_owned()];
    let fields = [
        ("token", fresh.token()),
        ("name", "ada"),
        ("password", PASSWORD),
        ("again", PASSWORD),
    ];
    responses.push(owner.post_bare("/setup", &fields));
    let wrong = "a wrong password of mine";
    secrets.push(wrong.to_owned());
    responses.push(server.browser().log_in("ada", wrong));
    // Typed into the wrong field.
    responses.push(server.browser().log_in(wrong, wrong));
    let (authenticator, codes, secret) = set_up_totp(&mut owner);
    let next = authenticator.code(1);
    secrets.extend(codes.iter().cloned());
    secrets.extend([secret, next.clone()]);
    let mut browser = server.browser();
    responses.push(log_in_with(&mut browser, "ada", "000000"));
    secrets.extend(browser.cookie(SESSION));
    responses.push(log_in_with(&mut browser, "ada", &codes[0]));
    secrets.extend(
        browser
            .cookie(SESSION)
            .into_iter()
            .chain(browser.cookie(KNOWN)),
    );
    responses.push(owner.post("/prove", &[("code", &next), ("next", "/lizenzserver")]));
    let new = "nine purple tractors";
    let fields = [("old", PASSWORD), ("password", new), ("again", new)];
    responses.push(owner.post("/profile/password", &fields));
    let words = ["admin", "set-password", "ada", "--password-stdin"];
    let newest = "twelve blue canoes";
    assert!(run_with_input(server, &words, newest).status.success());
    secrets.extend([new.to_owned(), newest.to_owned()]);
    // An internal error must not leak them, either.
    database::break_table(server, "recovery_codes");
    let failed = log_in_with_password(&mut server.browser(), "ada", newest, &codes[1]);
    assert_eq!(failed.status, 500, "{}", failed.text);
    responses.push(failed);
    let log = server.log();
    assert!(
        log.contains("recovery_codes"),
        "the log names the failure: {log}"
    );
    for answer in &responses {
        for secret in secrets.iter().filter(|secret| secret.len() > 6) {
            let found = answer.text.contains(secret.as_str()) && secret != wrong;
            assert!(
                !found && !location(answer).contains(secret.as_str()),
                "{answer:?}"
            );
        }
    }
    for secret in &secrets {
        for form in spellings(secret) {
            assert!(!log.contains(&form), "the log contains {form}");
        }
    }
    let file = std::fs::read(server.database()).unwrap();
    for secret in secrets.iter().filter(|secret| secret.len() > 6) {
        let found = file
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "the database contains {secret}");
    }
}

fn log_in_with_password(browser: &mut Browser, name: &str, password: &str, code: &str) -> Response {
    browser.log_in(name, password);
    submit(browser, "/login/code", "/login/code", &[("code", code)])
}

#[test]
fn a_login_that_fails_for_lack_of_memory_is_not_a_wrong_password() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut server = Server::prepare(&[]);
    server.json(NO_LOGIN_LIMIT);
    // The allocator reserves addresses for 1 GiB by itself, so that a limit for addresses would have no effect.
    server.set_launcher(&["/usr/bin/env", "MIMALLOC_ARENA_RESERVE=32MiB"]);
    server.run();
    drop(server.logged_in_browser("owner"));
    let pid = server.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find(|line| line.starts_with("VmSize:"));
    let size = size.and_then(|line| line.split_whitespace().nth(1));
    let size: u64 = size.unwrap().parse().unwrap();
    let limit = |bytes: Option<u64>| {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::As, limit).unwrap();
    };
    // Enough for everything except a password hash, which takes 64 MiB.
    limit(Some((size + 48 * 1024) * 1024));
    for name in ["owner", "nobody"] {
        let answer = server.browser().log_in(name, PASSWORD);
        assert_eq!(answer.status, 503, "{name}: {answer:?}");
    }
    limit(None);
    assert_eq!(server.browser().log_in("owner", PASSWORD).status, 303);
    assert_eq!(server.browser().log_in("nobody", PASSWORD).status, 422);
}
