//! The set-up of the first administrator, by a link that the server prints.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::admins::accounts::{is_in, location};
use crate::browser::PASSWORD;
use crate::database;
use crate::support::{Response, Server};
use crate::timing::run_together;

/// A server without administrators, and the link that it printed.
pub struct Fresh {
    pub server: Server,
    child: Child,
    link: String,
}

impl Fresh {
    pub fn start(settings: &[(&str, &str)]) -> Self {
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

    pub fn token(&self) -> &str {
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
pub fn without_date(answer: &Response) -> (u16, Vec<(String, String)>, String) {
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
fn the_set_up_asks_for_the_default_language_unless_the_settings_name_it() {
    let language = |server: &Server| {
        let ca = std::fs::read(server.path("data/tls/ca.pem")).unwrap();
        let client = crate::support::Client::new(&ca, server.port(), "none");
        let french = [("Accept-Language", "fr")];
        let response = client.call_with("verify", &serde_json::json!({}), &french);
        response.header("content-language").map(str::to_owned)
    };
    for (settings, asked, expected) in [
        (&[][..], true, "en"),
        (&[("PANEL__DEFAULT_LANGUAGE", "de")][..], false, "de"),
    ] {
        let mut fresh = Fresh::start(settings);
        let token = fresh.token().to_owned();
        let mut browser = fresh.server.browser();
        let page = browser.get(&format!("/setup?token={token}"));
        assert_eq!(
            page.text.contains("name=\"language\""),
            asked,
            "{}",
            page.text
        );
        assert!(!asked || page.text.contains("<option value=\"en\" selected"));
        assert_eq!(language(&fresh.server).as_deref(), Some("de"));
        let answer = browser.post_bare(
            "/setup",
            &[
                ("token", &token),
                ("name", "ada"),
                ("password", PASSWORD),
                ("again", PASSWORD),
                ("language", "en"),
            ],
        );
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(language(&fresh.server).as_deref(), Some(expected));
        fresh.child.kill().unwrap();
        fresh.child.wait().unwrap();
        fresh.server.run();
        assert_eq!(
            language(&fresh.server).as_deref(),
            Some(expected),
            "after a restart"
        );
    }
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
