//! A login that ends while a form is filled: what was typed is there again after the next one, and only for the same
//! administrator.

use crate::browser::{Browser, HOME, field};
use crate::database;
use crate::support::{PASSWORD, Response, Server};

const AGAIN: &str = "You had been logged out.";
/// The idle time of logins, in milliseconds, and a bit.
const IDLE_MS: i64 = 61 * 60_000;

/// How a login ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Idle,
    /// By its administrator, from another browser.
    Forced,
    /// In another tab, which logs out.
    LoggedOut,
    /// In another tab, which logs in again.
    Replaced,
}

/// A form: its page, where it is sent to, what is typed, and what its page shows again.
struct Filled<'a> {
    page: &'a str,
    path: &'a str,
    typed: &'a [(&'a str, &'a str)],
    shown: &'a [&'a str],
}

/// The hidden fields of the form on `page` that is sent to `path`, and of which `part` is a part.
fn hidden(page: &str, path: &str, part: Option<&str>) -> Vec<(String, String)> {
    let action = format!("action=\"{HOME}{path}\"");
    let forms = page.split("<form").skip(1);
    let mut forms = forms.map(|form| form.split("</form>").next().unwrap());
    let form = forms.find(|form| {
        let named = part.map(|part| format!("name=\"part\" value=\"{part}\""));
        form.contains(&action) && named.is_none_or(|named| form.contains(&named))
    });
    let form = form.unwrap_or_else(|| panic!("no form for {path} in {page}"));
    let inputs = form.split("<input type=\"hidden\" name=\"").skip(1);
    let values = inputs.map(|input| {
        let mut parts = input.split('"');
        let name = parts.next().unwrap();
        (name.to_owned(), parts.nth(1).unwrap().replace("&amp;", "&"))
    });
    values.collect()
}

fn end_login(server: &Server, panel: &mut Browser, how: End) {
    match how {
        End::Idle => database::age_logins(server, "seen_at_ms", IDLE_MS),
        End::Forced => {
            let mut other = server.browser_after_login("owner");
            other.post("/profile/logins/end-others", &[]);
        }
        End::LoggedOut => {
            panel.post("/logout", &[]);
        }
        End::Replaced => {
            panel.log_in("owner", PASSWORD);
        }
    }
}

/// Fills the form, ends the login, and sends the form; what the server answers.
fn send_too_late(server: &Server, panel: &mut Browser, form: &Filled<'_>, how: End) -> Response {
    let page = panel.get(form.page).text;
    let part = form.typed.iter().find(|(name, _)| *name == "part");
    let mut fields = hidden(&page, form.path, part.map(|(_, part)| *part));
    fields.retain(|(name, _)| !form.typed.iter().any(|(typed, _)| typed == name));
    let fields = fields.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let fields: Vec<_> = fields.chain(form.typed.iter().copied()).collect();
    end_login(server, panel, how);
    panel.post_bare(form.path, &fields)
}

/// Follows the answer to a form that was sent too late, over a new login where it asks for one, to the page of the form.
fn log_in_again(panel: &mut Browser, name: &str, answer: &Response) -> Response {
    assert_eq!(answer.status, 303, "{answer:?}");
    if !answer.header("location").unwrap().contains("/login?") {
        return panel.follow(answer);
    }
    let login = panel.follow(answer);
    assert!(login.text.contains("What you typed is kept"), "{login:?}");
    let next = field(&login.text, "next").replace("&amp;", "&");
    let fields = [("name", name), ("password", PASSWORD), ("next", &next)];
    let answer = panel.post_bare("/login", &fields);
    panel.follow(&answer)
}

/// What administrators have done, besides logging in and out.
fn changes(server: &Server) -> Vec<String> {
    let mut actions = database::audited_actions(server);
    actions.retain(|action| {
        !action.starts_with("admins.login") && !action.starts_with("admins.end_logins")
    });
    actions
}

#[test]
fn what_was_typed_is_there_again_after_the_next_login() {
    let server = Server::start();
    server.json(&["flag", "set", "beta", "--on"]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["license", "issue", "--customer", "1"]);
    let mut panel = server.browser_after_login("owner");
    let note = "\u{e4}\n".repeat(5000);
    let (selected, extend) = (
        "/licenses/selected?action=extend&ids=1",
        "/licenses/selected",
    );
    let forms = [
        (
            End::Idle,
            ("/customers/new", "/customers/new"),
            &[("name", "K\u{e4}the \"K\""), ("note", &*note)][..],
            &["value=\"K\u{e4}the &quot;K&quot;\"", &*note][..],
        ),
        (
            End::Forced,
            ("/licenses/1/edit", "/licenses/1/edit"),
            &[("customer", "1 Ada"), ("kind", "trial"), ("devices", "7")],
            &["<option value=\"trial\" selected>", "value=\"7\""],
        ),
        (
            End::LoggedOut,
            ("/config?at=limits", "/config/update"),
            &[
                ("part", "flag"),
                ("name", "beta"),
                ("description", "Typed"),
                ("share", "17"),
            ],
            &[
                "value=\"Typed\"",
                "value=\"17\"",
                "<details class=\"row\" open>",
            ],
        ),
        (
            End::Replaced,
            ("/config", "/config/update"),
            &[("part", "client"), ("client_name", "Typed")],
            &["value=\"Typed\""],
        ),
        (
            End::Replaced,
            ("/admins/new", "/admins/new"),
            &[
                ("name", "eve"),
                ("password", "secret phrase"),
                ("again", "secret phrase"),
            ],
            &["value=\"eve\""],
        ),
        (
            End::Idle,
            (selected, extend),
            &[("days", "365")],
            &["value=\"365\"", "name=\"ids\" value=\"1\""],
        ),
        (
            End::Replaced,
            ("/licenses?state=active", "/filters"),
            &[("name", "Mine")],
            &["value=\"Mine\"", "state=active"],
        ),
        (
            End::Replaced,
            ("/profile", "/profile/taste"),
            &[
                ("language", "en"),
                ("theme", "dark"),
                ("time_zone", "Asia/Tokyo"),
            ],
            &[
                "<option value=\"dark\" selected>",
                "<option selected>Asia/Tokyo",
            ],
        ),
    ];
    let before = changes(&server);
    for (how, (page, path), typed, shown) in forms {
        let form = Filled {
            page,
            path,
            typed,
            shown,
        };
        let answer = send_too_late(&server, &mut panel, &form, how);
        // The same page of another administrator shows nothing of it.
        let mut other = server.logged_in_browser_as("eve", "owner");
        assert!(!other.get(page).text.contains(AGAIN), "{page}");
        let again = log_in_again(&mut panel, "owner", &answer);
        assert!(again.text.contains(AGAIN), "{page}: {}", again.text);
        for text in form.shown {
            assert!(again.text.contains(text), "{page}: {text}: {}", again.text);
        }
        assert!(!again.text.contains("secret phrase"), "{page}");
        assert!(!panel.get(page).text.contains(AGAIN), "{page}: twice");
    }
    assert_eq!(changes(&server), before);
}

#[test]
fn a_form_is_kept_for_nobody_but_the_administrator_who_filled_it() {
    let server = Server::start();
    let mut ada = server.browser_after_login("owner");
    let mut eve = server.browser_after_login("admin");
    let token = field(&ada.get("/customers/new").text, "csrf_token");
    let typed = |token: &str| {
        [
            ("csrf_token", token.to_owned()),
            ("name", "Typed".to_owned()),
        ]
    };
    let send = |panel: &mut Browser, token: &str| {
        let fields = typed(token);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        panel.post_bare("/customers/new", &fields)
    };
    // With the login of another administrator, the form is refused.
    assert_eq!(send(&mut eve, &token).status, 403);
    assert!(!eve.get("/customers/new").text.contains("Typed"));
    assert!(ada.get("/customers/new").text.contains("value=\"Typed\""));
    // From another site, with no token or a made-up one, and by the panel's script, nothing is kept.
    let mut other_site = ada.clone();
    other_site.headers = vec![("Sec-Fetch-Site".to_owned(), "cross-site".to_owned())];
    let mut script = ada.clone();
    script.headers.push(("X-Save".to_owned(), "1".to_owned()));
    ada.post("/logout", &[]);
    let mut stranger = server.browser();
    for (browser, token, status) in [
        (&mut other_site, &*token, 303),
        (&mut script, &token, 401),
        (&mut stranger, "", 303),
        (&mut server.browser(), "0123456789abcdef", 303),
    ] {
        let answer = send(browser, token);
        assert_eq!(answer.status, status, "{answer:?}");
        let login = answer.header("location").unwrap_or_default();
        assert!(!login.contains("kept"), "{login}");
    }
    let mut again = server.browser_after_login("owner");
    assert!(!again.get("/customers/new").text.contains("Typed"));
    assert_eq!(database::count(&server, "customers"), 0);
}

#[test]
fn no_form_is_kept_for_a_long_address_or_from_before_a_new_password() {
    let server = Server::start();
    let mut panel = server.browser_after_login("owner");
    let token = field(&panel.get("/customers/new").text, "csrf_token");
    let page = format!("{HOME}/customers/new?{}", "a".repeat(5000));
    let fields = [("csrf_token", &*token), ("name", "Typed"), ("page", &page)];
    let sent = |panel: &mut Browser| panel.post_bare("/customers/new", &fields);
    let mut ended = server.browser();
    let login = sent(&mut ended).header("location").unwrap().to_owned();
    assert!(login.contains("kept=1") && login.len() < 200, "{login}");
    let new = "four unrelated words here";
    let passwords = [("old", PASSWORD), ("password", new), ("again", new)];
    let changed = panel.post("/profile/password", &passwords);
    assert_eq!(changed.status, 303, "{changed:?}");
    assert_eq!(sent(&mut panel).status, 403);
    let login = sent(&mut ended).header("location").unwrap().to_owned();
    assert!(!login.contains("kept"), "{login}");
}

#[test]
fn what_somebody_else_saved_meanwhile_is_a_conflict_with_a_kept_form() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let mut panel = server.browser_after_login("owner");
    let form = Filled {
        page: "/customers/1/edit",
        path: "/customers/1/edit",
        typed: &[("name", "Ada L."), ("company", "Typed")],
        shown: &[],
    };
    let answer = send_too_late(&server, &mut panel, &form, End::Idle);
    let mut other = server.logged_in_browser_as("eve", "admin");
    let page = other.get(form.page).text;
    let theirs = [
        ("seen", field(&page, "seen")),
        ("name", "Augusta".to_owned()),
    ];
    let theirs = theirs
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    assert_eq!(other.post(form.path, &theirs).status, 303);
    let again = log_in_again(&mut panel, "owner", &answer).text;
    let hidden = hidden(&again, form.path, None);
    let hidden = hidden.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let fields: Vec<_> = hidden.chain(form.typed.iter().copied()).collect();
    let late = panel.post_bare(form.path, &fields);
    assert_eq!(late.status, 422, "{}", late.text);
    assert!(
        late.text.contains("Saved meanwhile: Augusta"),
        "{}",
        late.text
    );
    assert_eq!(late.text.matches("class=\"wrong\"").count(), 1);
    assert!(late.text.contains("One field needs attention"));
}
