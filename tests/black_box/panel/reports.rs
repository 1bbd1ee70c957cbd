//! What the panel reports after a form was saved.

use crate::browser::Browser;
use crate::support::Server;

const SUSPENDED: &str = "License suspended.";

/// The page at `path` with the headers of the panel's script.
fn fragment(panel: &mut Browser, path: &str) -> String {
    let usual = panel.headers.clone();
    panel
        .headers
        .push(("X-Fragment".to_owned(), "1".to_owned()));
    let text = panel.get(path).text;
    panel.headers = usual;
    text
}

#[test]
fn what_was_done_is_reported_once_and_only_to_whom_it_concerns() {
    let server = Server::start();
    server.issue_license(1);
    let mut panel = server.logged_in_browser("admin");
    let mut support = server.logged_in_browser("support");
    let done = panel.post("/licenses/1/suspend", &[]);
    assert_eq!(done.header("location"), Some("/lizenzserver/licenses/1"));
    assert!(!support.get("/licenses/1").text.contains(SUSPENDED));
    assert!(!panel.get("/licenses").text.contains(SUSPENDED));
    assert!(!fragment(&mut panel, "/licenses/1").contains(SUSPENDED));
    let reported = panel.get("/licenses/1").text;
    assert!(reported.contains(SUSPENDED), "{reported}");
    assert!(!panel.get("/licenses/1").text.contains(SUSPENDED));
}

#[test]
fn an_address_reports_nothing_and_a_canceled_question_says_nothing() {
    let server = Server::start();
    server.issue_license(1);
    let mut panel = server.logged_in_browser("admin");
    for path in ["/licenses/1?done=suspended", "/config?at=client"] {
        let page = panel.get(path).text;
        assert!(!page.contains("role=\"status\">L"), "{path}: {page}");
        assert!(!page.contains("role=\"status\">Saved."), "{path}: {page}");
    }
    let question = panel.get("/licenses/1/suspend?done=suspended").text;
    let back = question.split(" data-close autofocus").next().unwrap();
    let back = back.rsplit("href=\"").next().unwrap();
    let path = back.split('"').next().unwrap();
    assert_eq!(path, "/lizenzserver/licenses/1");
    assert!(!panel.get("/licenses/1").text.contains(SUSPENDED));
    let page = panel.get("/licenses/1").text;
    assert!(page.contains("/licenses/1/suspend"), "it is not suspended");
}

#[test]
fn the_settings_report_in_the_part_that_was_saved() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let flag = [
        ("part", "new_flag"),
        ("name", "beta"),
        ("share", "100"),
        ("enabled", "1"),
    ];
    let saved = panel.post("/config/update", &flag);
    assert_eq!(saved.status, 303, "{}", saved.text);
    let page = panel.follow(&saved).text;
    let flags = page.split("<details id=\"flags\"").nth(1).unwrap();
    let flags = flags.split("</details>").next().unwrap();
    assert_eq!(page.matches(">Saved.<").count(), 1, "{page}");
    assert!(flags.contains(">Saved.<"), "{flags}");
    let again = panel.follow(&saved).text;
    assert!(!again.contains(">Saved.<"), "{again}");
}
