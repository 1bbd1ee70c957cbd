//! The panel's page of the audit log: actor, values before and after, filters, paging.

use crate::browser::{Browser, field};
use crate::database;
use crate::shop::add_sample_data;
use crate::support::Server;

#[test]
fn every_entry_shows_its_actor_and_the_old_and_new_values() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    panel.post("/customers/new", &[("name", "<i>Ada</i>")]);
    server.json(&["config", "set", "minimum_version=0.9.0"]);
    let page = panel.get("/audit").text;
    assert!(
        page.contains("Customer added") && page.contains("&lt;i&gt;Ada&lt;/i&gt;"),
        "{page}"
    );
    assert!(
        page.contains("<del><bdi>0.0.0</bdi></del>")
            && page.contains("<ins><bdi>0.9.0</bdi></ins>"),
        "{page}"
    );
    assert!(page.contains("Command line") && page.contains("127.0.0.1"));
    for actor in ["command+line", "Command+line"] {
        let of_operator = panel.get(&format!("/audit?actor={actor}")).text;
        assert!(of_operator.contains("0.9.0") && !of_operator.contains("Customer added"));
    }
    let own = panel.get("/audit?actor=admin").text;
    assert!(own.contains("Customer added") && !own.contains("0.9.0"));
    let settings = panel.get("/audit?room=client_config").text;
    assert!(settings.contains("0.9.0") && !settings.contains("Customer added"));
    let table = panel.get("/audit.csv?room=client_config").text;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows[0].contains("\"id\",\"at\",\"who\""), "{table}");
    assert!(rows[1].contains("\"command line\"") && rows[1].contains("client_config.set"));
    assert!(
        panel
            .get("/audit?subject=nothing")
            .text
            .contains("Nothing matches")
    );
    assert!(
        panel
            .get("/audit?since=2999-01-01")
            .text
            .contains("Nothing matches")
    );
}

#[test]
fn entries_name_what_they_are_about_and_lead_there() {
    let server = Server::start();
    let key = server.issue_license(1);
    let mut panel = server.logged_in_browser("owner");
    panel.post("/customers/new", &[("name", "Grace Hopper")]);
    panel.post("/licenses/1/suspend", &[]);
    server.json(&["flag", "set", "beta", "--on"]);
    server.json(&["limit", "set", "login", "--per-minute", "50"]);
    server.json(&["config", "set", "heartbeat_interval=20"]);
    server.json(&["release", "add", "1.2.0", "--notes", ""]);
    let page = panel.get("/audit").text;
    for (link, name) in [
        ("/licenses/1", key.as_str()),
        ("/customers/2", "Grace Hopper"),
        ("/config?at=flags#flags", "beta"),
        ("/config?at=limits#limits", "Logins to this panel"),
        ("/config?at=client#client", "Client configuration"),
        ("/releases/1.2.0", "1.2.0"),
    ] {
        let link = format!("<a href=\"/lizenzserver{link}\"><bdi>{name}</bdi></a>");
        assert!(page.contains(&link), "{link}: {page}");
    }
    panel.set_cookie("lang", "de");
    let german = panel.get("/audit").text;
    assert!(
        german.contains("<bdi>Anmeldungen am Panel</bdi>"),
        "{german}"
    );
    // The subject can be typed as it is shown.
    let found = panel.get(&format!("/audit?subject={key}")).text;
    assert!(
        found.contains(&key) && !found.contains("Grace Hopper"),
        "{found}"
    );
    // Only an owner can open the page of an administrator.
    server.add_admin("eve", "support");
    server.json(&["admin", "set-role", "eve", "admin"]);
    let owner = panel.get("/audit?room=admins").text;
    assert!(owner.contains("href=\"/lizenzserver/admins/"), "{owner}");
    let support = server
        .logged_in_browser("support")
        .get("/audit?room=admins");
    assert!(!support.text.contains("href=\"/lizenzserver/admins/"));
}

#[test]
fn what_changed_nothing_leaves_no_entry() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    panel.post("/customers/new", &[("name", "Ada")]);
    let edit = |panel: &mut Browser, note: &str| {
        let seen = field(&panel.get("/customers/1/edit").text, "seen");
        let fields = [("seen", &*seen), ("name", "Ada"), ("note", note)];
        assert_eq!(panel.post("/customers/1/edit", &fields).status, 303);
    };
    edit(&mut panel, "");
    assert_eq!(database::audited(&server, "customers.edit").len(), 0);
    edit(&mut panel, "pays late");
    edit(&mut panel, "pays late");
    assert_eq!(database::audited(&server, "customers.edit").len(), 1);
    for _ in 0..2 {
        server.json(&["config", "set", "heartbeat_interval=20"]);
        server.json(&["limit", "set", "login", "--per-minute", "50"]);
    }
    assert_eq!(database::audited(&server, "client_config.set").len(), 1);
    assert_eq!(
        database::audited(&server, "client_config.set_limit").len(),
        1
    );
}

/// That the log shows every field that changed by a name and not by its code, in both languages.
pub fn expect_names_of_fields(server: &Server) {
    let mut owner = server.logged_in_browser("owner");
    for (language, name) in [("de", "Gültig ab:"), ("en", "Valid from:")] {
        owner.post("/appearance", &[("lang", language)]);
        let page = owner.get("/audit?rows=200").text;
        assert!(page.contains(name), "{page}");
        let changes = page.split("<ul class=\"changes\">").skip(1);
        let changes = changes.map(|list| list.split("</ul>").next().unwrap());
        let codes: Vec<&str> = changes.filter(|list| list.contains("<code>")).collect();
        assert!(codes.is_empty(), "{codes:#?}");
    }
}

#[test]
fn fields_that_changed_have_names() {
    let server = Server::start();
    add_sample_data(&server, "");
    expect_names_of_fields(&server);
}

#[test]
fn paging_reaches_every_entry_once_and_leads_back() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    for number in 0..115 {
        let name = format!("customer-{number:03}");
        server.json(&["customer", "add", &name]);
    }
    let link = |page: &str, rel: &str| {
        let end = page.find(&format!("\" rel=\"{rel}\""))?;
        let start = page[..end].rfind("href=\"").unwrap() + 6;
        Some(
            page[start..end]
                .replace("&amp;", "&")
                .replace("/lizenzserver", ""),
        )
    };
    let rows = |page: &str| page.matches("Customer added").count();
    let mut sizes = Vec::new();
    let mut at = "/audit?room=customers".to_owned();
    let last = loop {
        let page = panel.get(&at).text;
        sizes.push(rows(&page));
        match link(&page, "next") {
            Some(next) => at = next,
            None => break page,
        }
    };
    assert_eq!(sizes, [50, 50, 15]);
    let middle = panel.get(&link(&last, "prev").unwrap()).text;
    assert_eq!(rows(&middle), 50);
    let first = panel.get(&link(&middle, "prev").unwrap()).text;
    assert!(
        first.contains("customer-114") && link(&first, "prev").is_none(),
        "{first}"
    );
    // The other way round, the last page is the first one.
    let mut page = panel.get("/audit?room=customers&order=time").text;
    assert_eq!(rows(&page), 50);
    assert!(!page.contains("customer-114"), "{page}");
    while let Some(next) = link(&page, "next") {
        page = panel.get(&next).text;
    }
    assert_eq!(rows(&page), 15);
    assert!(page.contains("customer-114"), "{page}");
    for order in ["actor", "source"] {
        let page = panel
            .get(&format!("/audit?room=customers&order=-{order}"))
            .text;
        assert!(page.contains("customer-114"), "{order}: {page}");
        let head = format!(
            "aria-sort=\"descending\"><a href=\"/lizenzserver/audit?room=customers&amp;order={order}\">"
        );
        assert!(page.contains(&head), "{order}: {page}");
    }
}

#[test]
fn the_section_of_products_is_offered_only_where_there_are_several() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    let offered = "<option value=\"products\"";
    assert!(!panel.get("/audit").text.contains(offered));
    server.json(&["product", "add", "Ledger"]);
    assert!(panel.get("/audit").text.contains(offered));
    let page = panel.get("/audit?room=products").text;
    assert!(page.contains("Product added"), "{page}");
    assert!(page.contains("ledger"), "{page}");
}

#[test]
fn keys_and_trial_runs_have_sections_of_their_own() {
    let server = Server::start();
    server.issue_license(1);
    server.json(&["config", "rotate-signing-key"]);
    let mut panel = server.logged_in_browser("admin");
    assert_eq!(panel.post("/integrate", &[("license", "1")]).status, 200);
    let page = panel.get("/audit").text;
    for (section, action) in [("keys", "keys.rotate"), ("integrate", "integrate.rehearse")] {
        assert!(
            page.contains(&format!("<option value=\"{section}\"")),
            "{page}"
        );
        let table = panel.get(&format!("/audit.csv?room={section}")).text;
        let rows: Vec<&str> = table.lines().skip(1).collect();
        assert!(rows.len() == 1 && rows[0].contains(action), "{table}");
    }
}
