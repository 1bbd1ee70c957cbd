//! The panel's start page: figures, counts of refusals, the chart of sessions, and notices.

use serde_json::json;

use crate::database;
use crate::support::{Response, Server, identity};

/// The big figures in their order: running sessions, licenses in use, refusals today, expiring licenses.
fn figures(page: &Response) -> Vec<String> {
    let big = page.text.split("<div class=\"big\">").skip(1);
    big.map(|rest| rest.split('<').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_start_page_of_an_empty_shop_shows_what_to_do_next() {
    let server = Server::start();
    let page = server.logged_in_browser("admin").get("");
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(figures(&page), ["0", "0", "0", "0"]);
    for expected in [
        "Issue the first license",
        "/lizenzserver/licenses/new",
        "/lizenzserver/integrate",
    ] {
        assert!(page.text.contains(expected), "{expected}");
    }
    let page = server.logged_in_browser("support").get("");
    assert!(!page.text.contains("/lizenzserver/licenses/new"));
}

#[test]
fn the_figures_match_the_database() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 4);
    let client = server.client();
    client.session(&keys[0], "Kasse 1");
    client.session(&keys[1], "Kasse 2");
    server.json(&["license", "suspend", &keys[2]]);
    server.json(&["license", "issue", "--customer", "Ada", "--kind", "trial"]);
    let refused = client.call("activate", &identity(&keys[2], "Kasse 3"));
    assert_eq!(refused.status_and_code(), (403, "license_suspended"));
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("");
    assert_eq!(figures(&page), ["2", "4", "1", "1"], "{}", page.text);
    for expected in [
        "1 suspended or revoked, 0 expired, 5 in total",
        "A program with a suspended or revoked license was refused today.",
        "One license expires within 30 days.",
        "<code>license_suspended</code>",
        "Now: 2.",
    ] {
        assert!(page.text.contains(expected), "{expected}: {}", page.text);
    }
    assert!(page.text.len() < 30_000, "{} bytes", page.text.len());
    panel.set_cookie("lang", "de");
    let german = panel.get("?days=7").text;
    for expected in [
        "Höchstwert der letzten 7 Tage: 2. Jetzt: 2.",
        "Lizenz gesperrt",
    ] {
        assert!(german.contains(expected), "{expected}");
    }
}

#[test]
fn the_chart_counts_running_and_ended_sessions() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 3);
    let client = server.client();
    let tokens: Vec<String> = keys
        .iter()
        .map(|key| client.session(key, "Kasse"))
        .collect();
    // Three concurrent sessions that ran for an hour, eight hours ago; inserted, since no test can wait so long.
    database::add_earlier_sessions(&server);
    assert_eq!(database::count(&server, "session_history"), 3);
    let end = json!({ "session_token": tokens[0], "license_key": keys[0] });
    assert_eq!(client.call("session/end", &end).status, 200);
    let page = server.logged_in_browser("support").get("").text;
    let peak = "Peak in the last 24 hours: 3. Now: 2.";
    assert!(
        page.contains(peak) && page.contains("Show as table"),
        "{page}"
    );
    let figure = page.split("<figure").nth(1).unwrap();
    let table = figure.split("</figure>").next().unwrap();
    let rows = table.matches("<tr><th scope=\"row\">").count();
    assert_eq!(rows, 24, "one for each hour of the clock");
    // A session of one hour that began at any minute lies in one or two of them, and three ran in the present one or the
    // one before.
    let full = table.matches("<td class=\"num\">3</td>").count();
    assert!((2..=4).contains(&full), "{table}");
}

#[test]
fn refusals_are_counted_by_code_and_survive_a_restart() {
    let mut server = Server::start();
    let key = server.issue_license(1);
    let refuse = |server: &Server| {
        let client = server.client();
        client.call("activate", &identity(&key, "Kasse 1"));
        let full = client.call("activate", &identity(&key, "Kasse 2"));
        assert_eq!(full.status_and_code(), (409, "device_limit_reached"));
        let unknown = client
            .with_key("wrong")
            .call("activate", &identity(&key, "Kasse 2"));
        assert_eq!(unknown.status_and_code(), (401, "invalid_api_key"));
    };
    refuse(&server);
    let metrics = server.client().get("/metrics").text;
    let metric = "license_server_refusals_total{code=\"device_limit_reached\"} 1";
    assert!(metrics.contains(metric), "{metrics}");
    let unrecorded = "\nlicense_server_refusals_unrecorded_total 0\n";
    assert!(metrics.contains(unrecorded), "{metrics}");
    server.restart();
    assert!(
        !server.client().get("/metrics").text.contains(metric),
        "since the start"
    );
    let mut panel = server.logged_in_browser("owner");
    assert_eq!(figures(&panel.get(""))[2], "2");
    refuse(&server);
    let page = panel.get("");
    assert_eq!(
        figures(&page)[2],
        "4",
        "counts that are not stored yet are included"
    );
    assert_eq!(page.text.matches("\">2</a></td></tr>").count(), 2);
    assert!(
        page.text
            .contains("Devices were refused 2 times today because no slot was free.")
    );
}

#[test]
fn notices_that_only_owners_can_resolve_are_shown_to_owners_only() {
    let server = Server::start();
    let owner = server.logged_in_browser("owner").get("").text;
    for expected in [
        "There is no recent backup",
        "logs in with a password alone",
        "do not trust this certificate",
    ] {
        assert!(owner.contains(expected), "{expected}");
    }
    let admin = server.logged_in_browser("admin").get("").text;
    assert!(!admin.contains("There is no recent backup") && !admin.contains("password alone"));
}

#[test]
fn notices_about_settings_name_the_product_if_there_are_several() {
    let server = Server::start();
    server.json(&["config", "set", "client_name=Notes & more"]);
    let reversed = "update client_configs set minimum_version = '9.0.0'";
    database::change(&server, reversed);
    let mut panel = server.logged_in_browser("support");
    let notice = "The minimum version is above the version you offer";
    let link = "href=\"/lizenzserver/config\"";
    let page = panel.get("").text;
    assert!(page.contains(&format!("{link}>{notice}")), "{page}");
    server.json(&["product", "add", "Ledger"]);
    let page = panel.get("").text;
    let link = "href=\"/lizenzserver/config?product=notes-more\"";
    let named = format!("{link}>Notes &amp; more: {notice}");
    assert!(page.contains(&named), "{page}");
    assert!(!page.contains("Ledger: "), "its settings are in order");
}
