//! The search in the bar and its page: what is found by what, in which product, and by whom.

use serde_json::Value;

use crate::browser::Browser;
use crate::database;
use crate::support::{Server, identity};
use crate::web::text::percent_encode;

/// Each result on the page: the kind of its group, and its name or key.
fn results(browser: &mut Browser, typed: &str) -> Vec<(String, String)> {
    let page = browser.get(&format!("/search?q={}", percent_encode(typed)));
    assert_eq!(page.status, 200, "{typed}: {page:?}");
    let mut found = Vec::new();
    for group in page.text.split("id=\"results-").skip(1) {
        let kind = group.split('"').next().unwrap();
        for name in group.split("<span class=\"name\">").skip(1) {
            let name = name.split("</span>").next().unwrap();
            let name = name.replace("<code>", "").replace("</code>", "");
            found.push((kind.to_owned(), name));
        }
    }
    found
}

fn names_of(found: &[(String, String)], kind: &str) -> Vec<String> {
    let of_kind = found.iter().filter(|(group, _)| group == kind);
    of_kind.map(|(_, name)| name.clone()).collect()
}

/// Customers, licenses, a device and a session that share no word.
struct Shop {
    server: Server,
    keys: Vec<String>,
    token: String,
}

fn shop() -> Shop {
    let server = Server::start();
    for (name, email, company, note) in [
        (
            "M\u{fc}ller & S\u{f6}hne",
            "j.mueller@wei\u{df}.example",
            "Wei\u{df}b\u{e4}r GmbH",
            "zahlt \"sofort\" 100%",
        ),
        ("Ada", "", "", ""),
        (
            "Ada Lovelace",
            "ada@example.org",
            "Badada AG",
            "it's 50_50 \\ fine",
        ),
    ] {
        server.json(&[
            "customer",
            "add",
            name,
            "--email",
            email,
            "--company",
            company,
            "--note",
            note,
        ]);
    }
    for (customer, note, domain) in [
        ("1", "Messe Hannover", "B\u{fc}cher.example"),
        ("3", "per Telefon", "shop.example.net"),
    ] {
        server.json(&[
            "license",
            "issue",
            "--customer",
            customer,
            "--note",
            note,
            "--domain",
            domain,
        ]);
    }
    let listed = server.json(&["license", "list"]);
    let key = |license: &Value| license["license_key"].as_str().unwrap().to_owned();
    let mut keys: Vec<String> = listed["licenses"]
        .as_array()
        .unwrap()
        .iter()
        .map(key)
        .collect();
    keys.reverse();
    let client = server.client();
    let token = client.session(&keys[1], "Caf\u{e9}-Kasse 3");
    Shop {
        server,
        keys,
        token,
    }
}

#[test]
fn everything_is_found_by_what_a_customer_may_name() {
    let Shop {
        server,
        keys,
        token,
    } = shop();
    let mut panel = server.logged_in_browser("support");
    let bare = keys[0].replace('-', "");
    let (mueller, ada, lovelace) = ("M\u{fc}ller &amp; S\u{f6}hne", "Ada", "Ada Lovelace");
    let (first, second) = (keys[0].as_str(), keys[1].as_str());
    let device = "Caf\u{e9}-Kasse 3";
    let upper_token = token.to_uppercase();
    // What is typed, and what is found of each kind: customers, licenses, devices, sessions.
    let cases: &[(&str, [&[&str]; 4])] = &[
        ("m\u{fc}ller", [&[mueller], &[first], &[], &[]]),
        ("MU\u{308}LLER", [&[mueller], &[first], &[], &[]]),
        ("s\u{f6}hne m\u{fc}ll", [&[mueller], &[first], &[], &[]]),
        (
            "\"m\u{fc}ller & s\u{f6}hne\"",
            [&[mueller], &[first], &[], &[]],
        ),
        ("\"s\u{f6}hne m\u{fc}ller\"", [&[], &[], &[], &[]]),
        ("m\u{fc}", [&[mueller], &[first], &[], &[]]),
        ("M", [&[mueller], &[first], &[], &[]]),
        ("\u{fc}l", [&[], &[], &[], &[]]),
        ("weissb\u{e4}r gm", [&[mueller], &[first], &[], &[]]),
        ("WEI\u{1e9e}B\u{c4}R", [&[mueller], &[first], &[], &[]]),
        ("j.mueller@WEISS.example", [&[mueller], &[first], &[], &[]]),
        (
            "Jo <j.mueller@wei\u{df}.example>",
            [&[mueller], &[first], &[], &[]],
        ),
        ("\"sofort\"", [&[mueller], &[first], &[], &[]]),
        ("100%", [&[mueller], &[first], &[], &[]]),
        ("00%s", [&[], &[], &[], &[]]),
        ("0_5", [&[lovelace], &[second], &[], &[]]),
        ("it's", [&[lovelace], &[second], &[], &[]]),
        ("\\ fine", [&[lovelace], &[second], &[], &[]]),
        ("fine 50_50", [&[lovelace], &[second], &[], &[]]),
        ("ada NOT love*", [&[], &[], &[], &[]]),
        ("name:ada", [&[], &[], &[], &[]]),
        ("ada", [&[ada, lovelace], &[second], &[], &[]]),
        ("ada l", [&[lovelace], &[second], &[], &[]]),
        ("#2", [&[ada], &[], &[], &[]]),
        ("messe", [&[], &[first], &[], &[]]),
        ("b\u{fc}cher", [&[], &[first], &[], &[]]),
        ("xn--bcher-kva", [&[], &[first], &[], &[]]),
        ("BU\u{308}CHER.example", [&[], &[first], &[], &[]]),
        (
            "https://b\u{fc}cher.example/kasse?x=1",
            [&[], &[first], &[], &[]],
        ),
        (&bare[..12], [&[], &[first], &[], &[]]),
        (&bare[7..20].to_lowercase(), [&[], &[first], &[], &[]]),
        (
            &first[6..17].replace('-', "\u{2013} "),
            [&[], &[first], &[], &[]],
        ),
        ("caf\u{e9}-kasse", [&[], &[], &[device], &[]]),
        ("kasse cafe\u{301}", [&[], &[], &[device], &[]]),
        (&token, [&[], &[], &[], &[device]]),
        (&upper_token, [&[], &[], &[], &[device]]),
        ("nobody", [&[], &[], &[], &[]]),
        ("<script>", [&[], &[], &[], &[]]),
        // Words that begin words, but too short for the index.
        ("a l", [&[], &[], &[], &[]]),
        ("\u{ad}", [&[], &[], &[], &[]]),
    ];
    for (typed, expected) in cases {
        let found = results(&mut panel, typed);
        for (kind, names) in ["customers", "licenses", "devices", "sessions"]
            .iter()
            .zip(expected)
        {
            assert_eq!(names_of(&found, kind), *names, "{kind} by {typed}");
        }
    }
    // A device that was released is found, and gone once the entry of the audit log is erased.
    let mut owner = server.logged_in_browser("owner");
    assert_eq!(owner.post("/licenses/2/devices/1/release", &[]).status, 303);
    for typed in ["caf\u{e9}-kasse", "kasse cafe\u{301}"] {
        let found = results(&mut panel, typed);
        assert!(names_of(&found, "devices").is_empty(), "{typed}");
        assert_eq!(names_of(&found, "released"), [device], "{typed}");
    }
    server.json(&["customer", "erase", "3", "--yes"]);
    assert!(names_of(&results(&mut panel, "kasse"), "released").is_empty());
    let long = "x".repeat(5000);
    assert!(results(&mut panel, &long).is_empty());
}

#[test]
fn a_whole_key_opens_its_license_however_it_is_typed_and_suggestions_show_it() {
    let Shop {
        server,
        keys,
        token,
    } = shop();
    let mut panel = server.logged_in_browser("support");
    let bare = keys[0].replace('-', "");
    for typed in [
        keys[0].clone(),
        bare.to_lowercase(),
        format!(" \u{201e}{}\u{201c} ", keys[0].replace('-', " \u{2011} ")),
    ] {
        let opened = panel.get(&format!("/search?q={}", percent_encode(&typed)));
        assert_eq!(opened.status, 303, "{typed}");
        assert_eq!(
            opened.header("location"),
            Some("/lizenzserver/licenses/1"),
            "{typed}"
        );
    }
    let empty = panel.get("/search");
    assert!(empty.text.contains("Finds license keys"), "{}", empty.text);
    // An ended session is found as well, and a device that its program released or that lost its slot when the license moved,
    // until its customer is erased.
    let client = server.client();
    client.call(
        "session/end",
        &crate::support::heartbeat_body(&keys[1], &token),
    );
    let found = results(&mut panel, &token);
    assert_eq!(names_of(&found, "sessions").len(), 1);
    let expect_released = |panel: &mut Browser, times: usize| {
        let found = results(panel, "kasse");
        assert_eq!(
            names_of(&found, "released"),
            vec!["Caf\u{e9}-Kasse 3"; times]
        );
        assert_eq!(found.len(), times, "{found:?}");
    };
    client.call("deactivate", &identity(&keys[1], "Caf\u{e9}-Kasse 3"));
    expect_released(&mut panel, 1);
    client.call("activate", &identity(&keys[1], "Caf\u{e9}-Kasse 3"));
    server.json(&["license", "edit", &keys[1], "--customer", "1"]);
    expect_released(&mut panel, 2);
    let page = panel.get("/licenses/2").text;
    assert!(page.contains("Device released by its program"), "{page}");
    server.json(&["reindex"]);
    expect_released(&mut panel, 2);
    // What the customer who has the license now may see says nothing about the device.
    let exported = server.json(&["customer", "export", "1"]).to_string();
    assert!(!exported.contains("Caf\u{e9}-Kasse"), "{exported}");
    server.json(&["customer", "erase", "3", "--yes"]);
    expect_released(&mut panel, 0);
}

#[test]
fn a_search_is_about_the_chosen_product_or_about_all() {
    let Shop { server, keys, .. } = shop();
    server.json(&["product", "add", "Second", "--slug", "second"]);
    server.json(&[
        "license",
        "issue",
        "--product",
        "second",
        "--customer",
        "3",
        "--note",
        "Messe",
    ]);
    let mut panel = server.logged_in_browser("support");
    let licenses = |panel: &mut Browser, query: &str| {
        let page = panel.get(&format!("/search?{query}"));
        page.text.matches("<span class=\"name\"><code>").count()
    };
    assert_eq!(licenses(&mut panel, "q=messe"), 2);
    assert_eq!(licenses(&mut panel, "q=messe&product=second"), 1);
    assert_eq!(licenses(&mut panel, "q=kasse&product=second"), 0);
    // A key says which license is meant, and so which product.
    let opened = panel.get(&format!("/search?q={}&product=second", keys[0]));
    assert_eq!(opened.status, 303, "{opened:?}");
    assert!(
        !opened.header("location").unwrap().contains("second"),
        "{opened:?}"
    );
}

#[test]
fn what_changes_is_found_as_it_is_now_and_what_is_erased_is_in_no_file() {
    let Shop { server, .. } = shop();
    let mut panel = server.logged_in_browser("support");
    database::rename_first_customer(&server, "Quendoline Zzyzx");
    assert_eq!(
        names_of(&results(&mut panel, "quendoline"), "customers"),
        ["Quendoline Zzyzx"]
    );
    assert!(names_of(&results(&mut panel, "s\u{f6}hne"), "customers").is_empty());
    server.json(&["customer", "erase", "1", "--yes"]);
    assert!(results(&mut panel, "quendoline").is_empty());
    server.json(&["vacuum"]);
    let bytes = std::fs::read(server.database()).unwrap();
    for word in [
        "quendoline",
        "Quendoline",
        "wei\u{df}.example",
        "weiss.example",
        "hannover",
        "zahlt",
    ] {
        let is_there = bytes
            .windows(word.len())
            .any(|window| window == word.as_bytes());
        assert!(!is_there, "{word}");
    }
    // Not even as a posting: three characters that only the erased name had.
    assert_eq!(database::indexed_customers(&server, "zzy"), 0);
    assert_eq!(database::integrity(&server.database()), "ok");
}

#[test]
fn a_damaged_index_is_reported_with_its_remedy_which_mends_it() {
    let Shop { server, .. } = shop();
    database::damage_index(&server);
    let report = server.cli(&["check"]);
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(report.contains("run `license-server reindex`"), "{report}");
    assert!(!report.contains("restore a backup"), "{report}");
    let mut panel = server.logged_in_browser("support");
    assert_eq!(panel.get("/search?q=lovelace").status, 503);
    let health = server.client().get("/health");
    assert!(health.text.contains("license-server reindex"), "{health:?}");
    for form in [
        &["backup", "all.tar"][..],
        &["backup", "one.sqlite3", "--database-only"],
    ] {
        let output = server.cli(form);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("run `license-server reindex`"), "{said}");
    }
    server.json(&["reindex"]);
    assert_eq!(database::integrity(&server.database()), "ok");
    assert_eq!(
        names_of(&results(&mut panel, "lovelace"), "customers"),
        ["Ada Lovelace"]
    );
}
