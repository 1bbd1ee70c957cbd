//! Administrators: set-up, login, logout, roles, throttling, and secrets that must not leak.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::browser::{Browser, PASSWORD};
use crate::database;
use crate::logins::factors::{log_in_with, set_up_totp};
use crate::scene::{limit, run_together, spellings, started};
use crate::support::{Response, Server, rounds};

pub const SESSION: &str = "__Host-session";
const KNOWN: &str = "__Host-known";
pub const NO_LOGIN_LIMIT: &[&str] = &["limit", "set", "login", "--per-minute", "0"];
pub const BEHIND_A_PROXY: (&str, &str) = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");

/// The text of the page from `before` to the next quotation mark or tag.
pub fn between(page: &str, before: &str) -> String {
    let rest = page.split(before).nth(1).unwrap_or_default();
    rest.split(['"', '<']).next().unwrap_or_default().to_owned()
}

/// The CSRF token of the form on a page.
pub fn csrf_token_in(page: &Response) -> String {
    between(&page.text, "name=\"proof\" value=\"")
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
    all.push(("proof", &csrf_token));
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

/// A server without administrators, and the link that it printed.
struct Fresh {
    server: Server,
    child: Child,
    link: String,
}

impl Fresh {
    fn start(settings: &[(&str, &str)]) -> Self {
        let server = Server::prepare(settings);
        let log = std::fs::File::create(server.path("server.log")).unwrap();
        let mut child = server
            .command(&["--json", "serve"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            output += &line.unwrap();
            if output.ends_with('}') {
                break;
            }
        }
        let output: serde_json::Value = serde_json::from_str(&output).unwrap();
        let link = output["setup"].as_str().unwrap_or_default().to_owned();
        Self {
            server,
            child,
            link,
        }
    }

    fn token(&self) -> &str {
        self.link
            .split_once("/lizenzserver/setup?token=")
            .unwrap()
            .1
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Everything in a response except the `Date` header, to compare responses that must not differ.
fn without_date(answer: &Response) -> (u16, Vec<(String, String)>, String) {
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| name != "date");
    (answer.status, headers, answer.text.clone())
}

#[test]
fn twenty_concurrent_uses_of_the_link_create_one_owner_and_then_it_is_not_served() {
    let fresh = Fresh::start(&[]);
    let token = fresh.token().to_owned();
    assert_eq!(token.len(), 64, "256 bits");
    let server = &fresh.server;
    assert!(
        fresh
            .link
            .starts_with(&format!("https://127.0.0.1:{}/", server.port()))
    );
    let mut browser = server.browser();
    let not_served = without_date(&browser.get("/nothing-here"));
    assert_eq!(not_served.0, 503);
    let fields = |token, password| {
        [
            ("token", token),
            ("name", "ada"),
            ("password", password),
            ("again", password),
        ]
    };
    let wrong = "0".repeat(64);
    for path in ["/setup", "/setup?token=", &format!("/setup?token={wrong}")] {
        assert_eq!(without_date(&browser.get(path)), not_served, "{path}");
    }
    let response = browser.post_bare("/setup", &fields(&wrong, PASSWORD));
    assert_eq!(without_date(&response), not_served);
    let mut stranger = browser.clone();
    stranger.headers.clear();
    let response = stranger.post_bare("/setup", &fields(&token, PASSWORD));
    assert_eq!(
        without_date(&response),
        not_served,
        "a form of another site"
    );

    let page = browser.get(&format!("/setup?token={token}"));
    assert!(
        page.status == 200 && page.text.contains("Step 1 of 3"),
        "{page:?}"
    );
    for password in ["short", "password1234", "123456789012"] {
        let response = browser.post_bare("/setup", &fields(&token, password));
        assert_eq!(response.status, 422, "{password}");
        assert!(!response.text.contains(password), "{}", response.text);
    }
    let mut differing = fields(&token, PASSWORD);
    differing[3].1 = "seven green bicycle";
    let response = browser.post_bare("/setup", &differing);
    assert!(
        response.status == 422 && response.text.contains("do not match"),
        "{response:?}"
    );

    let responses = run_together(20, |_| {
        let mut one = server.browser();
        let answer = one.post_bare("/setup", &fields(&token, PASSWORD));
        (answer, one)
    });
    let (made, rest): (Vec<_>, Vec<_>) = responses.into_iter().partition(|(a, _)| a.status == 303);
    assert_eq!((made.len(), rest.len()), (1, 19));
    for (answer, _) in &rest {
        assert_eq!(without_date(answer), not_served);
    }
    assert_eq!(database::count(server, "admins"), 1);
    let (answer, mut owner) = made.into_iter().next().unwrap();
    assert_eq!(location(&answer), "/lizenzserver/config/client/new");
    assert!(is_in(&mut owner), "the new owner is logged in");
    let used = browser.get(&format!("/setup?token={token}"));
    assert_eq!(without_date(&used), not_served);

    let page = owner.get("/setup/license");
    assert!(page.text.contains("Step 3 of 3"), "{}", page.text);
    let invalid = owner.post("/setup/license", &[("name", "Ada"), ("devices", "0")]);
    assert_eq!(invalid.status, 422, "{}", invalid.text);
    let issued = owner.post("/setup/license", &[("name", "Ada"), ("devices", "2")]);
    assert_eq!(location(&issued), "/lizenzserver/integrate?license=1");
    let late = owner.get("/setup/license");
    assert_eq!(location(&late), "/lizenzserver/licenses");
}

#[test]
fn the_link_uses_the_public_address_and_is_not_served_once_a_command_has_added_an_administrator() {
    let fresh = Fresh::start(&[("SERVER__PUBLIC_URL", "https://licenses.example.org/")]);
    let start = "https://licenses.example.org/lizenzserver/setup?token=";
    assert!(fresh.link.starts_with(start), "{}", fresh.link);
    let (mut browser, path) = (
        fresh.server.browser(),
        format!("/setup?token={}", fresh.token()),
    );
    assert_eq!(browser.get(&path).status, 200);
    fresh.server.add_admin("ada", "owner");
    assert_eq!(browser.get(&path).status, 503);
    let fields = [
        ("token", fresh.token()),
        ("name", "eve"),
        ("password", PASSWORD),
        ("again", PASSWORD),
    ];
    assert_eq!(browser.post_bare("/setup", &fields).status, 503);
}

#[test]
fn a_server_with_an_administrator_prints_no_link() {
    let server = Server::prepare(&[]);
    server.add_admin("ada", "owner");
    let mut server = server;
    server.run();
    server.stop();
    assert!(!server.log().contains("setup?token"), "{}", server.log());
}

#[test]
fn a_login_always_gets_a_fresh_token() {
    let server = Server::start();
    server.add_admin("ada", "admin");
    let mut browser = server.browser();
    let planted = "ab".repeat(32);
    browser.set_cookie(SESSION, &planted);
    browser.set_cookie(KNOWN, &planted);
    let answer = browser.log_in("ada", PASSWORD);
    assert_eq!(answer.status, 303);
    let cookies: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, cookie)| cookie.as_str())
        .collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    for cookie in cookies {
        for word in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(word), "{word} in {cookie}");
        }
    }
    assert_ne!(browser.cookie(SESSION).unwrap(), planted);
    assert_ne!(browser.cookie(KNOWN).unwrap(), planted);
    let mut old = browser.clone();
    assert!(is_in(&mut old));
    browser.log_in("ada", PASSWORD);
    assert!(
        is_in(&mut browser) && !is_in(&mut old),
        "a new login ends the one before"
    );
    let mut attacker = server.browser();
    attacker.set_cookie(SESSION, &planted);
    assert!(!is_in(&mut attacker));
    let stored = database::login_token(&server);
    let token = browser.cookie(SESSION).unwrap();
    assert!(
        !stored.eq_ignore_ascii_case(&token),
        "the database has only a digest"
    );
}

#[test]
fn a_login_ends_by_logout_a_new_password_a_new_role_and_removal() {
    let server = Server::start();
    let mut owner = server.browser_after_login("owner");
    let mut admin = server.browser_after_login("admin");
    let mut elsewhere = server.browser();
    elsewhere.log_in("admin", PASSWORD);

    let mut copy = admin.clone();
    assert_eq!(admin.post("/logout", &[]).status, 303);
    assert!(!is_in(&mut copy), "replayed after logout");
    assert!(is_in(&mut elsewhere), "other logins stay");

    let new = "nine purple tractors";
    let mut copy = elsewhere.clone();
    let fields = [("old", PASSWORD), ("password", new), ("again", new)];
    let wrong = [
        ("old", "ten grey tractors"),
        ("password", new),
        ("again", new),
    ];
    let response = elsewhere.post("/profile/password", &wrong);
    assert!(
        response.status == 422 && response.text.contains("not your current"),
        "{response:?}"
    );
    let mut third = server.browser();
    third.log_in("admin", PASSWORD);
    let response = elsewhere.post("/profile/password", &fields);
    assert_eq!(location(&response), "/lizenzserver/profile?done=password");
    assert!(is_in(&mut elsewhere), "under a new token");
    assert_ne!(copy.cookie(SESSION), elsewhere.cookie(SESSION));
    assert!(
        !is_in(&mut copy) && !is_in(&mut third),
        "replayed after a change of password"
    );
    assert_eq!(third.log_in("admin", PASSWORD).status, 422);
    assert_eq!(third.log_in("admin", new).status, 303);

    let id = database::admin_id(&server, "admin");
    let role = format!("/admins/{id}/role");
    let seen = between(&owner.get(&role).text, "name=\"seen\" value=\"");
    let response = owner.post(&role, &[("role", "support"), ("seen", &seen)]);
    assert_eq!(response.status, 303, "{}", response.text);
    assert!(!is_in(&mut elsewhere), "another role");
    let response = owner.post(&role, &[("role", "owner"), ("seen", &seen)]);
    assert!(response.status == 422 && response.text.contains("Someone else changed this"));

    third.log_in("admin", new);
    assert!(is_in(&mut third));
    let response = owner.post(
        &format!("/admins/{id}/password"),
        &[("password", PASSWORD), ("again", PASSWORD)],
    );
    assert_eq!(response.status, 303, "{}", response.text);
    assert!(!is_in(&mut third), "a password set by an owner");

    third.log_in("admin", PASSWORD);
    let path = format!("/admins/{id}/remove");
    assert_eq!(owner.post(&path, &[("confirm", "admi")]).status, 422);
    assert!(is_in(&mut third));
    let response = owner.post(&path, &[("confirm", "admin")]);
    assert_eq!(location(&response), "/lizenzserver/admins?done=removed");
    assert!(!is_in(&mut third), "removed");
    assert_eq!(third.log_in("admin", PASSWORD).status, 422);
}

#[test]
fn a_login_ends_by_inactivity_and_by_age() {
    let server = Server::start();
    for (column, hours) in [("seen_at_ms", 1), ("created_at_ms", 12)] {
        let mut admin = server.browser_after_login("admin");
        let ms = hours * 3_600_000;
        database::age_logins(&server, column, ms - 60_000);
        assert!(is_in(&mut admin), "{column}");
        database::age_logins(&server, column, ms);
        let answer = admin.get("/profile");
        assert_eq!(
            location(&answer),
            "/lizenzserver/login?next=%2Flizenzserver%2Fprofile"
        );
    }
}

#[test]
fn own_logins_are_listed_and_ended() {
    let server = Server::start();
    let mut here = server.browser_after_login("admin");
    let mut there = server.browser();
    there
        .headers
        .push(("User-Agent".to_owned(), "Lynx <b>2.9</b>".to_owned()));
    there.log_in("admin", PASSWORD);
    let mut third = server.browser();
    third.log_in("admin", PASSWORD);
    let page = here.get("/profile").text;
    assert!(
        page.contains("Lynx &lt;b&gt;2.9") && page.contains("This session"),
        "{page}"
    );
    let id = database::login_of_browser(&server, "Lynx");
    let mut stranger = server.browser_after_login("support");
    let path = format!("/profile/logins/{id}/end");
    stranger.post(&path, &[]);
    assert!(is_in(&mut there), "only one's own logins can be ended here");
    here.post(&path, &[]);
    assert!(!is_in(&mut there) && is_in(&mut third));
    here.post("/profile/logins/end-others", &[]);
    assert!(!is_in(&mut third) && is_in(&mut here) && is_in(&mut stranger));
}

#[test]
fn guessing_from_many_addresses_is_slowed_and_the_administrator_can_still_log_in() {
    let few = limit("login", "1", "1");
    let server = started(&[BEHIND_A_PROXY], &[&few]);
    server.add_admin("ada", "owner");
    let from = |source: &str| {
        let mut browser = server.browser();
        browser
            .headers
            .push(("X-Forwarded-For".to_owned(), source.to_owned()));
        browser
    };
    let mut known = from("192.0.2.1");
    assert_eq!(known.log_in("ada", PASSWORD).status, 303);
    // 5,000 from 250 with LICENSE_TEST_ROUNDS=250.
    let sources = rounds(24);
    let statuses = run_together(4, |thread| {
        let mut statuses = Vec::new();
        for source in 0..sources / 4 {
            let address = format!("198.51.{thread}.{source}");
            let name = if source % 6 == 5 { "nobody" } else { "ada" };
            let mut guesser = from(&address);
            for number in 0..20 {
                statuses.push(
                    guesser
                        .log_in(name, &format!("guess number {number}"))
                        .status,
                );
            }
        }
        statuses
    });
    let statuses: Vec<u16> = statuses.into_iter().flatten().collect();
    let evaluated = statuses.iter().filter(|status| **status == 422).count();
    let waiting = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(evaluated + waiting, statuses.len(), "{statuses:?}");
    assert!(
        evaluated <= 2 * sources as usize,
        "{evaluated} of {}",
        statuses.len()
    );
    // The address of the last guesses is limited now; it may try again after a minute.
    let last = format!("198.51.0.{}", sources / 4 - 1);
    let again = from(&last).log_in("ada", PASSWORD);
    assert!(
        again.status == 429 && again.text.contains("Too many"),
        "{again:?}"
    );
    // Not limited: a known browser behind the address of the guesses, any browser at another address, and the command.
    let mut known_browser = known.clone();
    known_browser.headers.pop();
    known_browser
        .headers
        .push(("X-Forwarded-For".to_owned(), last.clone()));
    assert_eq!(known_browser.log_in("ada", PASSWORD).status, 303);
    assert_eq!(from("203.0.113.9").log_in("ada", PASSWORD).status, 303);
    let words = ["admin", "set-password", "ada", "--password-stdin"];
    assert!(
        run_with_input(&server, &words, "nine purple tractors")
            .status
            .success()
    );
    assert_eq!(
        from("203.0.113.10")
            .log_in("ada", "nine purple tractors")
            .status,
        303
    );
    assert_eq!(
        known_browser.log_in("ada", "nine purple tractors").status,
        429,
        "a new password makes the browser unknown again"
    );
}

#[test]
fn an_unknown_name_and_a_wrong_password_get_the_same_response_after_the_same_time() {
    let server = started(&[], &[NO_LOGIN_LIMIT]);
    server.add_admin("ada", "owner");
    let ask = |name: &str| {
        let mut browser = server.browser();
        let began = Instant::now();
        let answer = browser.log_in(name, "ten grey tractors");
        (without_date(&answer), began.elapsed())
    };
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..9 {
        for (times, name) in times.iter_mut().zip(["ada", "eve"]) {
            let ((status, headers, text), took) = ask(name);
            times.push(took);
            let other = ask("zoe").0;
            assert_eq!(status, 422);
            assert_eq!((status, headers, text.replace(name, "zoe")), other);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (known, unknown) = (median(&mut times[0]), median(&mut times[1]));
    let ratio = known / unknown;
    assert!((0.5..2.0).contains(&ratio), "{known} s and {unknown} s");
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
        "/lizenzserver/admins/4?done=saved",
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
    let server = started(&[], &[NO_LOGIN_LIMIT]);
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
