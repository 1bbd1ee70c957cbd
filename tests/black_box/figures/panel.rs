//! The page of figures: its numbers are those of what was really done, of one product or of all.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::database;
use crate::setup::{FIRST, SECOND, issue_of, two_products};
use crate::support::{Client, Server, eventually, heartbeat_body, identity};

const PERIODS: [&str; 4] = ["1", "7", "30", "90"];

/// The part of the page with the chart of this name.
fn figure<'a>(page: &'a str, name: &str) -> &'a str {
    let rest = page.split(&format!("id=\"c-{name}\"")).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split("</figure>").next().unwrap()
}

/// The numbers in the rows of a table.
fn rows(part: &str) -> Vec<Vec<u32>> {
    let body = part.split("<tbody>").nth(1).unwrap_or_default();
    let rows = body.split("<tr>").skip(1);
    let cells = |row: &str| -> Vec<u32> {
        let cells = row.split("<td class=\"num\">").skip(1);
        let cells = cells.map(|cell| cell.split('<').next().unwrap());
        cells.map(|cell| cell.parse().unwrap_or(0)).collect()
    };
    rows.map(cells).collect()
}

/// The sums of the columns of a chart's table; empty if nothing happened.
fn sums(page: &str, name: &str) -> Vec<u32> {
    let rows = rows(figure(page, name));
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns)
        .map(|column| rows.iter().map(|row| row[column]).sum())
        .collect()
}

fn page(panel: &mut Browser, days: &str, product: &str) -> String {
    let page = panel.get(&format!("/figures?days={days}{product}"));
    assert_eq!(page.status, 200, "{page:?}");
    page.text
}

fn end(client: &Client, key: &str, token: &str) {
    let ended = client.call("session/end", &heartbeat_body(key, token));
    assert_eq!(ended.status, 200, "{ended:?}");
}

/// The body of a program of another version.
fn with_version(key: &str, device: &str, version: &str) -> Value {
    let mut body = identity(key, device);
    body["version"] = json!(version);
    body
}

#[test]
fn the_figures_are_those_of_what_was_done() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 5);
    server.json(&["license", "issue", "--customer", "Ada", "--kind", "trial"]);
    let client = server.client();
    // Two at once, which end; another one that starts twice more and runs.
    let [first, second] = [0, 1].map(|number| client.session(&keys[number], "till"));
    end(&client, &keys[0], &first);
    end(&client, &keys[1], &second);
    for _ in 0..2 {
        let token = client.session(&keys[2], "till");
        end(&client, &keys[2], &token);
    }
    client.session(&keys[2], "till");
    for device in ["laptop", "desktop"] {
        let full = client.call("activate", &identity(&keys[0], device));
        assert_eq!(full.status_and_code(), (409, "device_limit_reached"));
    }
    server.json(&["license", "revoke", "--yes", &keys[3]]);
    let revoked = client.call("activate", &identity(&keys[3], "till"));
    assert_eq!(revoked.status_and_code(), (403, "license_suspended"));
    // Its last moment was a second ago; it was valid from before.
    database::set_license(
        &server,
        5,
        "valid_from_ms = valid_from_ms - 90000, valid_until_ms = valid_from_ms - 1000",
    );
    let mut panel = server.logged_in_browser("support");
    eventually("the refusals", || {
        sums(&page(&mut panel, "1", ""), "refusals") == [2, 1, 3]
    });
    for days in PERIODS {
        let page = page(&mut panel, days, "");
        let highest = rows(figure(&page, "concurrent"));
        let highest = highest.iter().map(|row| row[0]).max();
        assert_eq!(highest, Some(2), "the peak is kept: {days}");
        assert!(figure(&page, "concurrent").contains("Now: 1."), "{page}");
        assert_eq!(sums(&page, "sessions"), [5], "{days}");
        assert_eq!(sums(&page, "activations"), [3], "{days}");
        assert_eq!(sums(&page, "refusals"), [2, 1, 3], "{days}");
        assert_eq!(sums(&page, "issued"), [5, 1, 6], "{days}");
        assert_eq!(sums(&page, "ended"), [1, 0, 1, 2], "{days}");
        let bins = if days == "1" { "24" } else { days };
        let count = rows(figure(&page, "sessions")).len();
        assert_eq!(count.to_string(), bins, "a row for each hour or day");
        let link = "/lizenzserver/refusals?code=device_limit_reached";
        assert!(figure(&page, "refusals").contains(link), "{page}");
    }
    assert_eq!(database::contradictions(&server.database()), 0);
}

#[test]
fn a_shop_without_programs_has_figures_that_say_so() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    let english = page(&mut panel, "7", "");
    for expected in [
        "No device was active in the last 30 days.",
        "No session ran in the last 7 days.",
        "No session started in the last 7 days.",
        "No call was refused in the last 7 days.",
        "No license ended in the last 7 days.",
    ] {
        assert!(english.contains(expected), "{expected}: {english}");
    }
    assert!(!english.contains("<table>"), "{english}");
    panel.set_cookie("lang", "de");
    let german = page(&mut panel, "1", "");
    let nothing = "In den letzten 24 Stunden wurde keine Lizenz ausgestellt.";
    assert!(german.contains(nothing) && german.contains("<h1>Zahlen</h1>"));
    assert!(
        panel
            .get("")
            .text
            .contains("href=\"/lizenzserver/figures?days=1\"")
    );
}

#[test]
fn versions_are_those_of_active_devices_with_what_each_would_lock_out() {
    let server = Server::start();
    server.json(&["config", "set", "current_version=2.0.0"]);
    let keys = server.issue_licenses(3, 2);
    let client = server.client();
    let activate = |key: &str, device: &str, version: &str| {
        let answer = client.call("activate", &with_version(key, device, version));
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    };
    activate(&keys[0], "desk", "1.9.0");
    activate(&keys[0], "laptop", "1.10.0");
    activate(&keys[0], "tablet", "2.0.0");
    activate(&keys[1], "till", "1.0.0");
    activate(&keys[1], "old", "1.0.0");
    // An update of the program counts once.
    activate(&keys[1], "till", "1.10.0");
    let mut panel = server.logged_in_browser("support");
    // Each version, its devices, and the devices with older ones.
    let mut shown = || -> Vec<(String, Vec<u32>)> {
        let page = page(&mut panel, "1", "");
        let part = page.split("id=\"versions\"").nth(1).unwrap();
        let part = part.split("</section>").next().unwrap();
        let heads = part.split("<th scope=\"row\">").skip(1);
        let heads = heads.map(|head| head.split('<').next().unwrap().trim().to_owned());
        heads.zip(rows(part)).collect()
    };
    let row = |version: &str, devices, older| (version.to_owned(), vec![devices, older]);
    let newest = [row("2.0.0", 1, 4), row("1.10.0", 2, 2), row("1.9.0", 1, 1)];
    assert_eq!(shown(), [&newest[..], &[row("1.0.0", 1, 0)]].concat());
    // Not active any more, and released.
    database::age_device(&server, "old", 32 * 86_400_000);
    let expected = [row("2.0.0", 1, 3), row("1.10.0", 2, 1), row("1.9.0", 1, 0)];
    assert_eq!(shown(), expected);
    let released = json!({ "license_key": keys[0], "hardware_hash": "hash of desk" });
    assert_eq!(client.call("deactivate", &released).status, 200);
    assert_eq!(shown(), [row("2.0.0", 1, 2), row("1.10.0", 2, 0)]);
    assert_eq!(database::contradictions(&server.database()), 0);
}

#[test]
fn figures_are_those_of_the_chosen_product_or_of_all() {
    let (server, [first, second]) = two_products(&[], &[]);
    let of_first = issue_of(&server, FIRST, &[]);
    let of_second = issue_of(&server, SECOND, &[]);
    let token = first.session(&of_first, "till");
    let other = second.session(&of_second, "till");
    end(&second, &of_second, &other);
    let full = second.call("activate", &identity(&of_second, "laptop"));
    assert_eq!(full.status_and_code(), (409, "device_limit_reached"));
    let unknown = first
        .with_key("wrong")
        .call("activate", &identity(&of_first, "till"));
    assert_eq!(unknown.status_and_code(), (401, "invalid_api_key"));
    let mut panel = server.logged_in_browser("support");
    eventually("the refusals", || {
        sums(&page(&mut panel, "7", ""), "refusals") == [1, 1, 2]
    });
    let [first_only, second_only] = [FIRST, SECOND].map(|slug| format!("&product={slug}"));
    // Highest number of sessions at once, sessions, activations, refusals, new licenses.
    for (product, expected) in [
        ("", [2, 2, 2, 2, 2]),
        (&*first_only, [1, 1, 1, 0, 1]),
        (&*second_only, [1, 1, 1, 1, 1]),
    ] {
        let page = page(&mut panel, "7", product);
        let highest = rows(figure(&page, "concurrent"));
        let highest = highest.iter().map(|row| row[0]).max();
        let sum = |name| sums(&page, name).last().copied().unwrap_or(0);
        let found = [
            highest.unwrap(),
            sum("sessions"),
            sum("activations"),
            sum("refusals"),
            sum("issued"),
        ];
        assert_eq!(found, expected, "{product}");
    }
    end(&first, &of_first, &token);
    let refused_today = |panel: &mut Browser, query: &str| -> String {
        let page = panel.get(query).text;
        let card = page.split("<div class=\"big\">").nth(3).unwrap();
        card.split('<').next().unwrap().to_owned()
    };
    for (slug, count) in [(FIRST, "0"), (SECOND, "1")] {
        assert_eq!(
            refused_today(&mut panel, &format!("?product={slug}")),
            count
        );
    }
    assert_eq!(refused_today(&mut panel, ""), "2");
}
