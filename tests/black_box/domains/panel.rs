//! The panel's pages about websites: the domains of licenses, the handshake log, and the files to copy.

use serde_json::json;

use crate::browser::{Browser, field};
use crate::database;
use crate::handshake::messages::{domains_of, issue_license, start_server};
use crate::licenses::panel_lists::link;
use crate::sites::{Behavior, SiteClient, Sites, complete_handshake};
use crate::support::{Server, eventually};
use crate::web::page_sizes::LIST_MAX;

#[test]
fn a_license_is_bound_transferred_and_unbound_on_its_page() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    let key = issue_license(&server, None);
    let mut panel = server.logged_in_browser("admin");
    assert!(
        panel
            .get("/sites")
            .text
            .contains("No licenses are bound to a domain yet")
    );
    assert!(
        panel
            .get("/licenses/1")
            .text
            .contains("not bound to a domain")
    );
    let wrong = panel.post("/licenses/1/bind", &[("domain", "https://example.org/")]);
    assert!(wrong.status == 422 && wrong.text.contains("value=\"https://example.org/\""));
    assert_eq!(panel.get("/licenses/1/free").status, 409, "it is not bound");
    let seen = |panel: &mut Browser, form: &str| {
        field(&panel.get(&format!("/licenses/1/{form}")).text, "seen")
    };

    let first = seen(&mut panel, "bind");
    let name = ("domain", "WWW.B\u{fc}cher.example");
    let bound = panel.post("/licenses/1/bind", &[name, ("seen", &first)]);
    let target = Some("/lizenzserver/licenses/1");
    assert_eq!((bound.status, bound.header("location")), (303, target));
    assert_eq!(domains_of(&server, &key).0, "www.xn--bcher-kva.example");
    let page = panel.get("/sites").text;
    for text in [
        "www.xn--bcher-kva.example",
        "www.b\u{fc}cher.example",
        "Not verified yet",
        &key,
        "href=\"/lizenzserver/customers/1\"",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let other = ("domain", "other.example");
    let late = panel.post("/licenses/1/bind", &[other, ("seen", &first)]);
    assert!(late.status == 422 && late.text.contains("Someone else changed this"));
    let now = seen(&mut panel, "bind");
    let other = panel.post("/licenses/1/bind", &[other, ("seen", &now)]);
    assert!(other.status == 422 && other.text.contains("bound to another domain"));

    let stale = seen(&mut panel, "free");
    let now = seen(&mut panel, "transfer");
    let moved = panel.post(
        "/licenses/1/transfer",
        &[("domain", "new.example"), ("seen", &now)],
    );
    assert_eq!(moved.status, 303, "{moved:?}");
    assert_eq!(domains_of(&server, &key).1, "new.example");
    let page = panel.get("/sites").text;
    assert!(page.contains("Transfers in progress") && page.contains("Not confirmed yet"));
    let page = panel.get("/licenses/1").text;
    assert!(page.contains("Moving to") && page.contains("Transfer to another domain started"));
    let question = panel.get("/licenses/1/free").text;
    assert!(
        question.contains("The transfer to new.example is canceled, too"),
        "{question}"
    );
    assert_eq!(panel.post("/licenses/1/cancel-transfer", &[]).status, 303);
    assert_eq!(
        domains_of(&server, &key),
        (json!("www.xn--bcher-kva.example"), json!(null))
    );
    let now = seen(&mut panel, "free");
    assert_eq!(stale, now, "the same binding has the same revision");
    server.json(&["license", "free-domain", &key]);
    server.json(&["license", "bind-domain", &key, "elsewhere.example"]);
    let late = panel.post("/licenses/1/free", &[("seen", &stale)]);
    assert_eq!(
        late.status, 409,
        "the binding has changed since the form was opened"
    );
    assert_eq!(domains_of(&server, &key).0, "elsewhere.example");
    let now = seen(&mut panel, "free");
    assert_eq!(
        panel.post("/licenses/1/free", &[("seen", &now)]).status,
        303
    );
    assert_eq!(domains_of(&server, &key).0, json!(null));
    for action in ["bind", "transfer", "cancel_transfer", "free"] {
        let mut entries = database::audited(&server, &format!("handshake.{action}"));
        // The command line did some of this too.
        entries.retain(|entry| entry.actor == "admin");
        assert_eq!(entries.len(), 1, "{action}");
        assert_eq!(entries[0].subject, "1");
    }
}

#[test]
fn support_sees_websites_but_cannot_change_them() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    issue_license(&server, Some("www.example.org"));
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("/sites").text;
    assert!(page.contains("www.example.org") && !page.contains("/free"));
    let page = panel.get("/licenses/1").text;
    assert!(page.contains("www.example.org") && !page.contains("/licenses/1/transfer"));
}

#[test]
fn handshakes_are_shown_with_their_outcome_and_domains_with_their_proof() {
    let (shop, refusing) = ("shop.localhost", "refusing.localhost");
    let sites = Sites::start(&[shop, refusing]);
    let server = start_server(&sites);
    let site_client = SiteClient::new(&server);
    let key = issue_license(&server, Some(shop));
    issue_license(&server, Some(refusing));
    let information = complete_handshake(
        &sites,
        &site_client,
        shop,
        "license",
        &json!({ "license_key": key }),
    );
    assert!(information.is_some());
    sites.behave(refusing, Behavior::Status(404));
    assert_eq!(
        site_client.send_request(&json!({ "domain": refusing, "request_id": crate::sites::id() })),
        202
    );
    let mut panel = server.logged_in_browser("admin");
    eventually("both are in the log", || {
        let page = panel.get("/sites").text;
        page.contains("Delivered") && page.contains("it responded with 404")
    });
    let page = panel.get("/sites").text;
    let row = |domain: &str| {
        let rows = page.split("<tr>").filter(|row| row.contains("/free"));
        let mut rows = rows.filter(|row| row.contains(domain));
        rows.next().unwrap().to_owned()
    };
    assert!(row(shop).contains("Verified") && row(refusing).contains("Not verified yet"));
    let mut log = |query: &str| {
        let page = panel.get(&format!("/sites/handshakes{query}")).text;
        assert!(page.contains("1–2 of 2"), "{page}");
        let rows = page.split("<tr><th").skip(1);
        rows.map(|row| row.contains(shop)).collect::<Vec<_>>()
    };
    let newest_first = log("");
    let mut oldest_first = log("?order=time");
    oldest_first.reverse();
    assert_eq!(newest_first, oldest_first);
    // Words of outcomes: delivered, undelivered.
    assert_eq!(log("?order=result"), [true, false]);
    assert_eq!(log("?order=-result"), [false, true]);
    assert_eq!(log("?order=-operation"), [true, false]);
    assert_eq!(log("?order=-source").len(), 2);
    let of_one = panel
        .get("/sites/handshakes?domain=Refusing.localhost")
        .text;
    assert!(of_one.contains("Not accepted") && !of_one.contains("Delivered"));
    assert!(
        panel
            .get("/sites/handshakes?domain=nobody.example")
            .text
            .contains("Nothing matches")
    );
    let page = panel.get("/licenses/1").text;
    assert!(page.contains("Website requested its license"), "{page}");
}

#[test]
fn websites_are_searched_by_domain_and_customer_and_paged() {
    let server = Server::start();
    server.json(&["customer", "add", "Ada"]);
    server.json(&["customer", "add", "Grace"]);
    for number in 0..60 {
        issue_license(&server, Some(&format!("site-{number:02}.example")));
    }
    let order = [
        "license",
        "issue",
        "--customer",
        "Grace",
        "--domain",
        "f\u{e4}hre.example",
    ];
    server.json(&order);
    let mut panel = server.logged_in_browser("admin");
    let page = panel.get("/sites").text;
    assert!(page.len() < LIST_MAX, "{}", page.len());
    assert!(page.contains("site-49.example") && !page.contains("site-50.example"));
    let next = page.split("rel=\"next\"").next().unwrap();
    let next = next.rsplit("href=\"/lizenzserver").next().unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let page = panel.get(&next).text;
    assert!(page.contains("site-50.example") && page.contains("xn--fhre-loa.example"));
    assert!(!page.contains(">site-49.example</a>"), "{page}");
    let mut first = |query: &str| {
        let page = panel.get(&format!("/sites?{query}")).text;
        assert_eq!(page.matches("aria-sort").count(), 1, "{query}");
        let row = page.split("<tr><th scope=\"row\">").nth(1).unwrap();
        let name = row.split('>').nth(1).unwrap();
        name.split('<').next().unwrap().to_owned()
    };
    for (query, domain) in [
        ("order=-domain", "xn--fhre-loa.example"),
        ("order=customer", "site-00.example"),
        ("order=-customer", "xn--fhre-loa.example"),
        // None was verified: by their ids.
        ("order=-verified", "xn--fhre-loa.example"),
        ("order=verified&q=site-1", "site-10.example"),
    ] {
        assert_eq!(first(query), domain, "{query}");
    }
    expect_all_transfers(&server, &mut panel);
    for (search, hits) in [
        ("GRACE", 1),
        ("F\u{c4}HRE", 1),
        ("site-1", 10),
        ("nobody", 0),
    ] {
        let page = panel.get(&format!("/sites?q={}", percent(search))).text;
        assert_eq!(page.matches("/free\"").count(), hits, "{search}");
    }
}

/// The first 20 of 55 transfers are above the list, which leads to all of them.
fn expect_all_transfers(server: &Server, panel: &mut Browser) {
    let set = |until: &str| {
        let change = format!(
            "update licenses set transfer_domain = {until}, transfer_until_ms = {until} where license_id <= 55"
        );
        database::change(server, &change);
    };
    let moved = |page: &str| page.matches(" \u{2192} ").count();
    set("4000000000000 + license_id / 10");
    let page = panel.get("/sites").text;
    assert_eq!(moved(&page), 20);
    assert!(page.contains("All 55 transfers"), "{page}");
    let top = panel.get("/sites/transfers");
    assert_eq!(moved(&top.text), 50);
    let below = panel.get(&link(&top, "next").unwrap());
    assert_eq!(moved(&below.text), 5);
    assert!(below.text.contains("51\u{2013}55 of 55"), "{below:?}");
    let back = panel.get(&link(&below, "prev").unwrap()).text;
    assert_eq!(moved(&back), 50);
    set("null");
    assert!(
        panel
            .get("/sites/transfers")
            .text
            .contains("No transfers in progress")
    );
}

fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut all = String::new();
    for byte in text.bytes() {
        write!(all, "%{byte:02X}").unwrap();
    }
    all
}

#[test]
fn the_files_to_copy_have_everything_filled_in() {
    let server = Server::start_with(&[("SERVER__PUBLIC_URL", "https://licenses.shop.example")]);
    server.json(&["customer", "add", "Ada"]);
    let key = issue_license(&server, Some("www.site.example"));
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("/integrate/site?license=1").text;
    let shown = server.json(&["config", "show"]);
    let key_of = |name: &str| shown[name].as_str().unwrap().to_owned();
    let (current, next) = (
        key_of("signing_public_key"),
        key_of("next_signing_public_key"),
    );
    let public = format!("{current} {next}");
    for text in [
        key.as_str(),
        "https://www.site.example/.well-known/license-server",
        &public,
    ] {
        assert!(page.contains(text), "{text}");
    }
    for (address, authority) in [
        ("site.php", "const AUTHORITY = __DIR__ . '/ca.pem';"),
        (
            "site.py",
            "os.path.join(os.path.dirname(os.path.abspath(__file__)), \"ca.pem\")",
        ),
    ] {
        let file = panel.get(&format!("/integrate/{address}?domain=www.site.example"));
        assert_eq!(file.status, 200);
        for text in [
            "https://licenses.shop.example",
            &public,
            "https://www.site.example",
            authority,
        ] {
            assert!(file.text.contains(text), "{address}: {text}");
        }
        for placeholder in ["licenses.example.org", "AAAA=", "www.example.org"] {
            assert!(!file.text.contains(placeholder), "{address}: {placeholder}");
        }
    }
    let wrong = panel.get("/integrate/site?domain=localhost");
    assert!(wrong.status == 200 && wrong.text.contains("This is not a host name"));
    assert_eq!(panel.get("/integrate/site.php?domain=a'b").status, 422);
}
