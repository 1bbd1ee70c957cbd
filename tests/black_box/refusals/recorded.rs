//! What a refused call leaves: a row in the lists of the command line and the panel, and at most one line in the log.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::database;
use crate::licenses::panel_lists::link;
use crate::privacy::person::{BEHIND_A_PROXY, holders};
use crate::setup::started;
use crate::sites::{SiteClient, id};
use crate::support::{Response, Server, eventually, heartbeat_body, identity};

/// A key with a valid check character that was never issued.
const UNKNOWN: &str = "T6FXC-WD5PK-9KM86-55VVN-QC4MM";
const WRONG_API_KEY: &str = "lsk_wrongwrongwrongwrongwrongwrongwrong";
const ADDRESS: (&str, &str) = ("X-Forwarded-For", "203.0.113.5");

/// The refused calls as `session history --refused` lists them.
fn listed(server: &Server, more: &[&str]) -> Vec<Value> {
    let mut words = vec!["session", "history", "--refused"];
    words.extend(more);
    server.json(&words)["refusals"].as_array().unwrap().clone()
}

/// The only listed call with a code.
fn only(rows: &[Value], code: &str) -> Value {
    let mut rows = rows.iter().filter(|row| row["code"] == code);
    let row = rows.next().unwrap_or_else(|| panic!("no {code}")).clone();
    assert!(rows.next().is_none(), "several {code}");
    row
}

/// Makes a refused call of every kind, and returns the key of the license.
fn refuse(server: &Server) -> String {
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "till");
    for _ in 0..3 {
        let full = client.call_with("activate", &identity(&key, "laptop"), &[ADDRESS]);
        assert_eq!(full.status_and_code(), (409, "device_limit_reached"));
    }
    let unknown = client.call("activate", &identity(UNKNOWN, "desk"));
    assert_eq!(unknown.status_and_code(), (404, "license_not_found"));
    let body = heartbeat_body(&key, &token);
    assert_eq!(client.call("session/end", &body).status, 200);
    let ended = client.call("session/heartbeat", &body);
    assert_eq!(ended.status_and_code(), (410, "session_ended"));
    let tablet = json!({ "machine_id": "tablet", "hardware_hash": "h", "version": "1.0.0" });
    let trial = client.call("trial", &tablet);
    assert_eq!(trial.status_and_code(), (403, "trial_not_offered"));
    let verified = client.call("verify", &identity(&key, "phone"));
    assert_eq!(
        verified.body["code"], "device_not_activated",
        "{verified:?}"
    );
    let invalid = client.call(
        "verify",
        &json!({ "license_key": key, "hardware_hash": "h" }),
    );
    assert_eq!(invalid.status_and_code(), (422, "invalid_field"));
    let outdated = client.with_key(WRONG_API_KEY);
    let refused = outdated.call("verify", &identity(&key, "museum"));
    assert_eq!(refused.status_and_code(), (401, "invalid_api_key"));
    for device in ["made-up-1", "made-up-2", "made-up-3"] {
        outdated.call_with("verify", &identity(UNKNOWN, device), &[ADDRESS]);
    }
    client.call("session/begin", &identity(&key, "till"));
    client.call("verify/", &identity(&key, "till"));
    let request = json!({ "domain": "shop.example", "request_id": id(), "license_key": null });
    let site = SiteClient::new(server).from("203.0.113.6");
    assert_eq!(site.send_request(&request), 503);
    key
}

fn check_rows(rows: &[Value], key: &str) {
    let full = only(rows, "device_limit_reached");
    for (member, value) in [
        ("calls", json!(3)),
        ("call", json!("activate")),
        ("license_key", json!(key)),
        ("customer", json!("Ada")),
        ("product", json!("my-program")),
        ("machine_id", json!("laptop")),
        ("hardware_id", json!("hash of laptop")),
        ("version", json!("1.0.0")),
        ("address", json!("203.0.113.5")),
        ("masked_key", json!("")),
    ] {
        assert_eq!(full[member], value, "{member} of {full}");
    }
    let unknown = only(rows, "license_not_found");
    assert_eq!(unknown["masked_key"], "T6FXC… (25)");
    assert_eq!(unknown["license_key"], Value::Null);
    assert_eq!(unknown["machine_id"], "desk");
    let ended = only(rows, "session_ended");
    assert_eq!(
        (&ended["machine_id"], &ended["detail"]),
        (&json!("till"), &json!("normal"))
    );
    assert_eq!(ended["license_key"], key);
    let trial = only(rows, "trial_not_offered");
    assert_eq!(trial["machine_id"], "tablet");
    assert_eq!(only(rows, "device_not_activated")["call"], "verify");
    let invalid = only(rows, "invalid_field");
    assert_eq!(
        (&invalid["detail"], &invalid["license_key"]),
        (&json!("machine_id"), &json!(key))
    );
    let of_shop = rows
        .iter()
        .find(|row| row["machine_id"] == "museum")
        .unwrap();
    assert_eq!(of_shop["license_key"], key);
    assert_eq!(of_shop["masked_key"], "lsk_wron… (39)");
    let stranger = rows
        .iter()
        .find(|row| row["code"] == "invalid_api_key" && row["calls"] == 3);
    let stranger = stranger.unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(
        (&stranger["machine_id"], &stranger["hardware_id"]),
        (&json!(""), &json!(""))
    );
    assert_eq!(stranger["product"], Value::Null);
    let site = only(rows, "domain_not_licensed");
    assert_eq!(
        (&site["domain"], &site["address"]),
        (&json!("shop.example"), &json!("203.0.113.6"))
    );
}

#[test]
fn a_refused_call_leaves_a_row_with_what_it_named_and_no_secret() {
    let server = started(&[BEHIND_A_PROXY], &[]);
    let key = refuse(&server);
    eventually("the refusals are stored", || {
        listed(&server, &[]).len() >= 9
    });
    let rows = listed(&server, &[]);
    assert_eq!(rows.len(), 9, "{rows:#?}");
    check_rows(&rows, &key);
    let of_license = listed(&server, &["--license", &key, "--hours", "1"]);
    assert_eq!(of_license.len(), 5, "{of_license:?}");
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["refusals"].as_array(), Some(&of_license));
    let text = server.cli(&["license", "show", &key]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("refused "))
            .count(),
        5,
        "{text}"
    );
    let secrets = [
        WRONG_API_KEY,
        UNKNOWN,
        "T6FXCWD5PK9KM8655VVNQC4MM",
        "made-up-2",
    ];
    assert_eq!(
        holders(&server, "license-server.sqlite3", &secrets),
        Vec::<String>::new()
    );
    check_log(&server);
    check_panel(&server, &key);
}

/// One line for each kind of wrong call, without keys.
fn check_log(server: &Server) {
    let log = server.log();
    for (part, lines) in [
        ("X-API-Key is missing or wrong: invalid_api_key", 1),
        (
            "a program's call verify is wrong: a field is missing or wrong (machine_id)",
            1,
        ),
        ("there is no POST /api/license/session/begin", 1),
        ("there is no POST /api/license/verify/", 0),
    ] {
        assert_eq!(log.matches(part).count(), lines, "{part}: {log}");
    }
}

fn check_panel(server: &Server, key: &str) {
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("/refusals").text;
    for expected in [
        "<code>device_limit_reached</code>",
        "3 calls within a minute",
        "T6FXC… (25)",
        "shop.example",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    for (query, expected) in [
        ("code=session_ended", 1),
        ("customer=ada&span=all", 5),
        ("device=LAPTOP", 1),
        ("device=hash+of+desk", 1),
        ("device=desk+hash", 1),
        ("device=shop.example", 1),
        ("device=shop.example+desk", 0),
        ("license=T6FXC", 0),
        ("to=2020-01-01", 0),
        ("code=invalid_api_key&customer=ada", 1),
    ] {
        let page = panel.get(&format!("/refusals?{query}")).text;
        assert_eq!(
            page.matches("<tr><th scope=\"row\">").count(),
            expected,
            "{query}: {page}"
        );
        let csv = panel.get(&format!("/refusals.csv?{query}")).text;
        assert_eq!(csv.lines().count(), 1 + expected, "{query}: {csv}");
    }
    for query in [
        "code=nonsense",
        "span=2",
        "license=-",
        "before_id=x",
        "order=address",
    ] {
        assert_eq!(
            panel.get(&format!("/refusals?{query}")).status,
            422,
            "{query}"
        );
    }
    assert_eq!(panel.get("/refusals?from=yesterday").status, 422);
    let part = &key[12..23];
    let license = panel.get("/licenses/1").text;
    assert!(
        license.contains("<h2 id=\"refusals\">Refusals</h2>"),
        "{license}"
    );
    assert!(
        license.contains(&format!(
            "/lizenzserver/refusals?license={part}&amp;span=all"
        )),
        "{license}"
    );
    assert!(
        license.contains("Call refused: Device limit reached"),
        "{license}"
    );
    let home = panel.get("").text;
    let link = home
        .split("/lizenzserver/refusals?code=device_limit_reached&amp;")
        .nth(1)
        .unwrap();
    let query = link.split('"').next().unwrap().replace("&amp;", "&");
    let found = panel
        .get(&format!("/refusals?code=device_limit_reached&{query}"))
        .text;
    assert!(found.contains("3 calls within a minute"), "{found}");
    check_pages(server, &mut panel);
    panel.set_cookie("lang", "de");
    let german = panel.get("/refusals").text;
    assert!(german.contains("<h1>Ablehnungen</h1>"), "{german}");
}

/// A walk forward shows each row once, in both orders, also rows of the same moment; and so does one back.
fn check_pages(server: &Server, panel: &mut Browser) {
    database::change(
        server,
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 120)
         insert into refusals (at_ms, last_at_ms, calls, code, call, masked_key, hardware_id, machine_id, client_version,
                               domain, address, network, detail)
         select 1700000000000 + i / 7, 1700000000000 + i / 7, 1, 'invalid_field', 'verify', '', 'walker ' || i, '', '', '',
                '192.0.2.1', '192.0.2.1', '' from n",
    );
    let shown = |page: &Response| -> Vec<u32> {
        let parts = page.text.split(">walker ").skip(1);
        parts
            .map(|part| part.split('<').next().unwrap().parse().unwrap())
            .collect()
    };
    for (order, expected) in [
        ("", (1..=120).rev().collect::<Vec<u32>>()),
        ("time", (1..=120).collect()),
        // Equal values are in the order of the ids.
        ("reason", (1..=120).collect()),
        ("-call", (1..=120).rev().collect()),
        ("-customer", (1..=120).rev().collect()),
    ] {
        let mut page = panel.get(&format!("/refusals?device=walker&span=all&order={order}"));
        let mut found = shown(&page);
        assert!(page.text.contains("1\u{2013}50 of 120"), "{}", page.text);
        while let Some(next) = link(&page, "next") {
            page = panel.get(&next);
            found.extend(shown(&page));
        }
        assert_eq!(found, expected);
        let mut back = shown(&page);
        while let Some(previous) = link(&page, "prev") {
            page = panel.get(&previous);
            back.splice(0..0, shown(&page));
        }
        assert_eq!(back, expected);
    }
}
