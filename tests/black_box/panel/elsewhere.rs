//! Paths without a page: for administrators who are logged in the frame stays, for strangers nothing is there.

use crate::browser::HOME;
use crate::support::Server;
use crate::wire;

/// The frame of the pages, which no page without a login has.
const NAVIGATION: &str = "<nav class=\"rail\"";

#[test]
fn errors_keep_the_navigation_of_an_administrator_who_is_logged_in() {
    let server = Server::start();
    server.issue_license(1);
    let mut support = server.logged_in_browser("support");
    for (path, status) in [
        ("/licencses", 404),
        ("/licenses/", 404),
        ("//licenses", 404),
        ("/licenses/1/nothing", 404),
        ("/licenses/seven", 404),
        ("/licenses/77", 404),
        ("/licenses?product=nothing", 404),
        ("/logout", 404),
        ("/admins", 403),
        ("/licenses/1/suspend", 403),
    ] {
        let page = support.get(path);
        assert_eq!(page.status, status, "{path}: {page:?}");
        assert!(page.text.contains(NAVIGATION), "{path}: {page:?}");
        assert!(page.text.contains("name=\"q\""), "{path}: the search too");
    }
    let refused = support.post("/licenses/1/suspend", &[]);
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains(NAVIGATION), "{refused:?}");
}

#[test]
fn strangers_get_no_answer_to_a_path_without_a_page() {
    let server = Server::start();
    let mut stranger = server.browser();
    stranger.set_cookie("__Host-session", &"0".repeat(64));
    for path in ["/licencses", "/licenses/", "//licenses", "/logout"] {
        let answer = stranger.get(path);
        assert_eq!((answer.status, answer.text.as_str()), (503, ""), "{path}");
    }
}

#[test]
fn the_switch_of_the_language_keeps_the_page_and_its_filter() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("owner");
    let back = |page: &str| {
        let value = page.split("name=\"back\" value=\"").nth(1).unwrap();
        value.split('"').next().unwrap().replace("&amp;", "&")
    };
    let list = panel.get("/licenses?q=a%26b&state=suspended").text;
    assert_eq!(
        back(&list),
        format!("{HOME}/licenses?q=a%26b&state=suspended")
    );
    let wrong = panel.post("/licenses/1/suspend", &[]);
    assert_eq!(wrong.status, 404, "{wrong:?}");
    assert_eq!(back(&wrong.text), format!("{HOME}/licenses/1/suspend"));
    let refused = panel.post("/filters", &[("list", "nothing")]);
    assert_eq!(
        back(&refused.text),
        HOME,
        "/filters is no page: {refused:?}"
    );
    let wrong = panel.post("/customers/new", &[("name", "")]);
    assert_eq!(back(&wrong.text), format!("{HOME}/customers/new"));

    let switched = panel.post("/appearance", &[("lang", "de"), ("back", &back(&list))]);
    let location = switched.header("location");
    assert_eq!(location, Some(back(&list).as_str()));
    assert!(panel.follow(&switched).text.contains("lang=\"de\""));
}

#[test]
fn a_browser_on_the_machine_of_the_server_is_told_where_the_panel_is() {
    let server = Server::start();
    let mut tls = wire::tls(&server);
    let mut get = |path: &str, lines: &str| {
        let answer = wire::exchange(&mut tls, &wire::get(&server, path, lines)).unwrap();
        (answer.status, answer.body)
    };
    let (status, page) = get("/", "");
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("href=\"/lizenzserver\""), "{page}");
    let (_, german) = get("/", "accept-language: de\r\n");
    assert!(german.contains("Das Panel dieses Servers"), "{german}");
    let nothing = (503, String::new());
    assert_eq!(get("/", "x-forwarded-for: 192.0.2.1\r\n"), nothing);
    assert_eq!(get("/index.html", ""), nothing);
}

#[test]
fn before_the_set_up_the_login_says_how_to_begin() {
    let server = Server::start();
    let mut first = server.browser();
    let redirect = first.get("");
    let page = first.follow(&redirect);
    assert!(page.text.contains("admin add"), "{page:?}");
    assert!(
        !page.text.contains("type=\"password\""),
        "nobody could log in"
    );
    server.add_admin("ada", "owner");
    let page = first.get("/login");
    assert!(page.text.contains("type=\"password\""), "{page:?}");
    assert!(!page.text.contains("admin add"));
}
