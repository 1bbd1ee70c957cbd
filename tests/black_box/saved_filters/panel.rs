//! Filters of lists that administrators save under a name.

use crate::database;
use crate::support::Server;

/// The fields that save a filter.
fn filter<'a>(list: &'a str, name: &'a str, query: &'a str) -> [(&'a str, &'a str); 3] {
    [("list", list), ("name", name), ("query", query)]
}

#[test]
fn a_filter_is_saved_under_a_name_and_shown_above_its_list_to_its_administrator_only() {
    let server = Server::start();
    server.issue_licenses(1, 2);
    let mut support = server.logged_in_browser("support");
    let mut owner = server.logged_in_browser("owner");
    // What can be saved is the query of the list without its page.
    let list = support.get("/licenses?state=unused&q=&order=-key&row=51");
    let form = list.text.split("action=\"/lizenzserver/filters\"").nth(1);
    let form = form.unwrap().split("</form>").next().unwrap();
    assert!(form.contains("name=\"list\" value=\"licenses\""), "{form}");
    let query = "state=unused&amp;order=-key";
    assert!(
        form.contains(&format!("name=\"query\" value=\"{query}\"")),
        "{form}"
    );
    assert!(!support.get("/licenses").text.contains("Save filter"));
    let new = filter("licenses", "Not yet <used>", "state=unused&order=-key");
    let saved = support.post("/filters", &new);
    let shown = "/lizenzserver/licenses?state=unused&order=-key";
    assert_eq!(saved.header("location"), Some(shown), "{}", saved.text);
    assert!(support.follow(&saved).text.contains("Filter saved."));
    let link = format!("href=\"{}\"", shown.replace('&', "&amp;"));
    let all = support.get("/licenses").text;
    assert!(
        all.contains(&link) && all.contains("Not yet &lt;used&gt;"),
        "{all}"
    );
    assert!(!all.contains("Remove saved filter"));
    let chosen = support.get("/licenses?state=unused&order=-key").text;
    assert!(
        chosen.contains(&format!("{link} aria-current=\"true\"")),
        "{chosen}"
    );
    assert!(chosen.contains("/filters/1/remove") && !chosen.contains("Save filter"));
    // Of other lists and other administrators it is none.
    assert!(!support.get("/customers").text.contains("Not yet"));
    assert!(!owner.get("/licenses").text.contains("Not yet"));
    assert_eq!(owner.post("/filters/1/remove", &[]).status, 404);
    // The same name again replaces it.
    support.post(
        "/filters",
        &filter("licenses", "Not yet <used>", "state=expired"),
    );
    assert_eq!(database::count(&server, "saved_filters"), 1);
    let removed = support.post("/filters/1/remove", &[]);
    let back = "/lizenzserver/licenses?state=expired";
    assert_eq!(removed.header("location"), Some(back));
    assert!(
        support
            .follow(&removed)
            .text
            .contains("Saved filter removed.")
    );
    assert_eq!(database::count(&server, "saved_filters"), 0);
}

#[test]
fn an_invalid_filter_is_refused_and_each_list_takes_twenty() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    for (list, name, query) in [
        ("licenses", " ", "state=unused"),
        ("licenses", "x", "row=7"),
        ("nothing", "x", "state=unused"),
    ] {
        let refused = panel.post("/filters", &filter(list, name, query));
        assert_eq!(refused.status, 422, "{list} {name} {query}");
    }
    for number in 1..=20 {
        let name = format!("filter {number}");
        let saved = panel.post("/filters", &filter("audit", &name, "room=licenses"));
        assert_eq!(saved.status, 303, "{number}");
    }
    let refused = panel.post("/filters", &filter("audit", "one more", "room=licenses"));
    assert_eq!(refused.status, 409);
    assert!(refused.text.contains("at most 20"), "{}", refused.text);
    assert_eq!(
        panel
            .post("/filters", &filter("audit", "filter 7", "room=plans"))
            .status,
        303
    );
    assert_eq!(
        panel
            .post("/filters", &filter("plans", "one", "state=archived"))
            .status,
        303
    );
    server.json(&["admin", "remove", "support"]);
    assert_eq!(database::count(&server, "saved_filters"), 0);
}

#[test]
fn a_filter_that_searches_for_an_erased_customer_is_erased_too() {
    let server = Server::start();
    server.json(&[
        "customer",
        "add",
        "K\u{e4}the Wei\u{df}",
        "--email",
        "kaethe@example.org",
    ]);
    let words = ["license", "issue", "--customer", "1"];
    let issued = server.json(&[&words[..], &["--domain", "kaethes.example"]].concat());
    let key = issued["licenses"][0]["license_key"].as_str().unwrap();
    server.client().session(key, "kaethes-laptop");
    let mut panel = server.logged_in_browser("owner");
    for (name, query) in [
        ("mail", "q=kaethe%40example.org"),
        ("number", "customer=1"),
        ("device", "q=kaethes-laptop"),
        ("fingerprint", "q=hash+of+kaethes-laptop"),
        ("domain", "q=www.kaethes.example"),
        ("other", "q=Ada"),
        ("state", "state=expiring"),
    ] {
        panel.post("/filters", &filter("licenses", name, query));
    }
    assert_eq!(database::count(&server, "saved_filters"), 7);
    let export = server.json(&["customer", "export", "1"]);
    let names: Vec<&str> = export["saved_filters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|filter| filter["name"].as_str().unwrap())
        .collect();
    let about = ["mail", "number", "device", "fingerprint", "domain"];
    assert_eq!(names, about, "{export}");
    server.json(&["customer", "erase", "1", "--yes"]);
    assert_eq!(database::count(&server, "saved_filters"), 2);
}
