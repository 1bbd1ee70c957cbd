//! Several products in the panel: the address says which one is chosen, every link, form and redirect keeps it, and a shop
//! with one product sees nothing of it.

use serde_json::Value;

use crate::browser::{HOME, field};
use crate::database;
use crate::shop::{self, Shop};
use crate::support::{Client, Server, identity};

/// A server with the products `my-program` and `second`, of which each has one license with a session, one domain, one
/// release and one flag.
struct TwoProducts {
    server: Server,
    first: Owned,
    second: Owned,
}

/// What belongs to one product.
struct Owned {
    license: i64,
    key: String,
    program: Client,
}

impl TwoProducts {
    fn start() -> Self {
        let server = Server::start();
        server.json(&["customer", "add", "Ada Lovelace"]);
        server.json(&["customer", "add", "Konrad Zuse"]);
        let added = server.json(&["product", "add", "Second", "--slug", "second"]);
        let api_key = added["api_key"].as_str().unwrap().to_owned();
        let first = Owned::add(&server, "my-program", "Ada Lovelace", server.client());
        let program = server.client().with_key(&api_key);
        let second = Owned::add(&server, "second", "Konrad Zuse", program);
        Self {
            server,
            first,
            second,
        }
    }

    fn settings(&self, product: &str) -> Value {
        self.server.json(&["config", "show", "--product", product])
    }
}

impl Owned {
    fn add(server: &Server, product: &str, customer: &str, program: Client) -> Self {
        let domain = format!("{product}.example.org");
        let issue = [
            "license",
            "issue",
            "--customer",
            customer,
            "--domain",
            &domain,
            "--product",
            product,
        ];
        let issued = server.json(&issue);
        let license = &issued["licenses"][0];
        let key = license["license_key"].as_str().unwrap().to_owned();
        let flag = format!("flag-of-{product}");
        server.json(&["flag", "set", &flag, "--product", product]);
        let (notes, version) = (format!("Notes of {product}"), "1.0.0");
        server.json(&[
            "release",
            "add",
            version,
            "--notes",
            &notes,
            "--product",
            product,
        ]);
        let device = format!("device of {product}");
        let ended = program.session(&key, &device);
        program.call("session/end", &crate::support::heartbeat_body(&key, &ended));
        program.session(&key, &device);
        Self {
            license: license["id"].as_i64().unwrap(),
            key,
            program,
        }
    }
}

/// The addresses within the panel that a page leads to: those of links, forms and live regions. A form that is sent with
/// `GET` is listed with its hidden field, as a browser would send it.
fn addresses(page: &str) -> Vec<String> {
    let value = |tag: &str, name: &str| {
        let rest = tag.split(&format!(" {name}=\"")).nth(1)?;
        let value = rest.split('"').next()?.replace("&amp;", "&");
        value.starts_with(HOME).then_some(value)
    };
    let mut found = Vec::new();
    for piece in page.split('<').skip(1) {
        let tag = piece.split('>').next().unwrap();
        let name = tag.split_ascii_whitespace().next().unwrap_or_default();
        match name {
            "a" => found.extend(value(tag, "href")),
            "form" if tag.contains("method=\"post\"") => found.extend(value(tag, "action")),
            "link" | "script" => {}
            _ => found.extend(value(tag, "data-live")),
        }
    }
    for form in page.split("<form").skip(1) {
        let form = form.split("</form>").next().unwrap();
        let is_switcher = form.contains("<select id=\"product\"");
        if !form.contains("method=\"") && !is_switcher {
            let hidden = form.split("name=\"product\" value=\"").nth(1);
            let product = hidden.and_then(|rest| rest.split('"').next());
            let product = product.unwrap_or("MISSING");
            found.push(format!("{HOME}/a-form?product={product}"));
        }
    }
    found
}

/// The product in an address.
fn product_of(address: &str) -> Option<&str> {
    let query = address.split('#').next().unwrap().split_once('?')?.1;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| *name == "product")
        .map(|(_, value)| value)
        .next()
}

/// The paths of all pages that a `GET` of an owner gets.
fn page_paths(shop: &Shop) -> Vec<String> {
    let routes = shop::routes().into_iter();
    let pages = routes.filter(|(method, path)| {
        method == "GET"
            && !path.contains(".csv")
            && !path.starts_with("/login")
            && !path.contains('.')
    });
    pages.map(|(_, path)| shop.path(&path).unwrap()).collect()
}

#[test]
fn a_shop_with_one_product_sees_no_word_of_products() {
    let server = Server::start();
    let shop = shop::add_sample_data(&server, "");
    let mut panel = server.logged_in_browser("owner");
    let mut pages = 0;
    for path in page_paths(&shop) {
        let page = panel.get(&path);
        if page.status != 200 {
            continue;
        }
        pages += 1;
        for word in [
            "?product=",
            "&amp;product=",
            "name=\"product\"",
            "class=\"switch\"",
        ] {
            let own = path.starts_with("/products") && word.ends_with("product=");
            assert!(own || !page.text.contains(word), "{word} on {path}");
        }
        let leads_there = page.text.contains(&format!("{HOME}/products"));
        let may_lead = path == "/config" || path.starts_with("/products");
        assert!(!leads_there || may_lead, "{path} leads to the products");
        assert!(!page.text.contains("All products"), "{path}");
    }
    assert!(pages > 40, "{pages} pages");
    let settings = panel.get("/config").text;
    let link = format!("<a href=\"{HOME}/products/new\">Add a second product</a>");
    assert!(settings.contains(&link), "{settings}");
    let support = server.logged_in_browser("support").get("/config").text;
    assert!(!support.contains("Add a second product"), "{support}");
    for path in ["/licenses.csv", "/sessions/history.csv"] {
        let csv = panel.get(path).text;
        assert!(!csv.lines().next().unwrap().contains("product"), "{csv}");
    }
    // Its own slug is accepted, but not repeated.
    let page = panel.get("/licenses?product=my-program");
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("product=my-program"), "{}", page.text);
    assert_eq!(panel.get("/licenses?product=other").status, 404);
}

#[test]
fn every_link_form_and_live_region_keeps_the_chosen_product() {
    let server = Server::start();
    let shop = shop::add_sample_data(&server, "");
    server.json(&["product", "add", "Second", "--slug", "second"]);
    server.json(&["product", "archive", "second"]);
    server.json(&["product", "add", "Third", "--slug", "third"]);
    let mut panel = server.logged_in_browser("owner");
    let (mut pages, mut kept) = (0, 0);
    for path in page_paths(&shop) {
        let page = panel.get(&format!("{path}?product=my-program"));
        if let Some(location) = page.header("location") {
            let product = product_of(location);
            assert_eq!(
                product,
                Some("my-program"),
                "{path} redirects to {location}"
            );
        }
        if page.status != 200 {
            continue;
        }
        pages += 1;
        for address in addresses(&page.text) {
            let product = product_of(&address);
            // An entry of the audit log leads to the product that it is about.
            let to_other = ["/products", "/audit"].contains(&path.as_str()) && product.is_some();
            assert!(
                to_other || product == Some("my-program"),
                "{address} on {path}"
            );
            kept += 1;
        }
        let chosen = "<option value=\"my-program\" selected>My program</option>";
        let has_bar = page.text.contains("class=\"bar\"");
        assert_eq!(page.text.contains(chosen), has_bar, "{path}: {}", page.text);
    }
    assert!(pages > 40 && kept > 500, "{pages} pages, {kept} addresses");
}

/// The count beside a section in the navigation of a page.
fn count_beside(page: &str, section: &str) -> String {
    let link = format!("{HOME}/{section}");
    let (_, after) = page.split_once(&link).unwrap();
    let (_, count) = after.split_once("class=\"count\">").unwrap();
    count.split('<').next().unwrap().to_owned()
}

#[test]
fn lists_and_figures_speak_of_the_chosen_product_or_of_all() {
    let two = TwoProducts::start();
    let mut panel = two.server.logged_in_browser("admin");
    let keys = [&two.first.key, &two.second.key];
    for (path, marks) in [
        ("/licenses", keys.map(String::as_str)),
        ("/sessions", keys.map(String::as_str)),
        ("/sessions/history", keys.map(String::as_str)),
        ("/sessions/history?reason=normal", keys.map(String::as_str)),
        ("/sessions/history?order=ended", keys.map(String::as_str)),
        ("/sites", ["my-program.example.org", "second.example.org"]),
        ("/licenses.csv", keys.map(String::as_str)),
        ("/sessions/history.csv", keys.map(String::as_str)),
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        for (slug, shown) in [
            ("", [true, true]),
            ("my-program", [true, false]),
            ("second", [false, true]),
        ] {
            let page = panel.get(&format!("{path}{joint}product={slug}"));
            assert_eq!(page.status, 200, "{path} {slug}: {page:?}");
            for (mark, is_shown) in marks.iter().zip(shown) {
                assert_eq!(
                    page.text.contains(mark),
                    is_shown,
                    "{mark} in {path} of {slug:?}: {}",
                    page.text
                );
            }
        }
        let all = panel.get(path).text;
        let (name, slug) = if path.contains(".csv") {
            ("\"my-program\"", "\"second\"")
        } else {
            (">My program</span>", ">Second</span>")
        };
        assert!(all.contains(name) && all.contains(slug), "{path}: {all}");
    }
    for (slug, count) in [("", "2"), ("my-program", "1"), ("second", "1")] {
        let home = panel.get(&format!("?product={slug}")).text;
        for section in ["licenses", "sessions", "sites"] {
            assert_eq!(count_beside(&home, section), count, "{section} of {slug:?}");
        }
        let figures: Vec<&str> = home.split("class=\"big\">").skip(1).collect();
        assert!(figures[0].starts_with(count), "running, {slug:?}");
        assert!(figures[1].starts_with(count), "active, {slug:?}");
        let now = format!("now: {count}");
        assert!(
            home.to_lowercase().contains(&now),
            "the chart of {slug:?}: {home}"
        );
    }
}

#[test]
fn pages_of_one_product_show_the_chosen_one() {
    let two = TwoProducts::start();
    let mut panel = two.server.logged_in_browser("admin");
    for (slug, own, foreign) in [
        // Without a choice, the first product.
        ("", "my-program", "second"),
        ("my-program", "my-program", "second"),
        ("second", "second", "my-program"),
    ] {
        let query = format!("?product={slug}");
        let settings = panel.get(&format!("/config{query}")).text;
        let own_key = two.settings(own)["api_key"].as_str().unwrap().to_owned();
        assert!(settings.contains(&own_key), "{slug:?}");
        assert!(settings.contains(&format!("flag-of-{own}")), "{slug:?}");
        assert!(
            !settings.contains(&format!("flag-of-{foreign}")),
            "{slug:?}"
        );
        let release = panel.get(&format!("/releases/1.0.0{query}")).text;
        assert!(release.contains(&format!("Notes of {own}")), "{slug:?}");
        let integrate = panel.get(&format!("/integrate{query}")).text;
        assert!(integrate.contains(&own_key), "{slug:?}");
        // Whoever comes from a page of all products sees which one this is, and cannot choose all here.
        for page in [settings, integrate] {
            let chosen = format!("<option value=\"{own}\" selected>");
            assert!(page.contains(&chosen), "{slug:?}: {page}");
            assert!(!page.contains("All products"), "{slug:?}");
        }
    }
    // The page of one license is about its product, whatever is chosen.
    let license = two.second.license;
    let page = panel.get(&format!("/licenses/{license}?product=my-program"));
    assert!(page.text.contains("flag-of-second"), "{}", page.text);
    assert!(!page.text.contains("flag-of-my-program"), "{}", page.text);
    let settings = format!("<a href=\"{HOME}/config?product=second\">Second</a>");
    assert!(page.text.contains(&settings), "{}", page.text);
    let path = format!("/integrate?license={license}&product=my-program");
    let moved = panel.get(&path);
    let own = format!("{HOME}/integrate?license={license}&product=second");
    assert_eq!(moved.header("location"), Some(own.as_str()), "{moved:?}");
}

/// The address of the form on `page` that `mark` is in.
fn form_address(page: &str, mark: &str) -> String {
    let form = page.split("<form").find(|form| form.contains(mark));
    let action = form.unwrap().split("action=\"").nth(1).unwrap();
    let address = action.split('"').next().unwrap().replace("&amp;", "&");
    address.strip_prefix(HOME).unwrap().to_owned()
}

#[test]
fn two_tabs_with_different_products_stay_apart() {
    let two = TwoProducts::start();
    let mut panel = two.server.logged_in_browser("admin");
    // Both tabs are open before either form is sent.
    let tabs = ["my-program", "second"];
    let pages = tabs.map(|slug| panel.get(&format!("/config?product={slug}")).text);
    for (slug, page) in tabs.iter().zip(&pages).rev() {
        let client = "name=\"part\" value=\"client\"";
        let address = form_address(page, client);
        let form = page.split(client).nth(1).unwrap();
        let name = format!("Renamed {slug}");
        let saved = panel.post(
            &address,
            &[
                ("part", "client"),
                ("seen", &field(form, "seen")),
                ("client_name", &name),
                ("current_version", "1.0.0"),
                ("minimum_version", "0.0.0"),
                ("heartbeat_interval", "30"),
                ("session_timeout", "60"),
                ("session_policy", "reject"),
                ("offline_days", "0"),
            ],
        );
        let back = format!("{HOME}/config?at=client&product={slug}#client");
        assert_eq!(saved.header("location"), Some(back.as_str()), "{saved:?}");
        let flag = format!("new-in-{slug}");
        let address = form_address(page, "name=\"part\" value=\"new_flag\"");
        let fields = [("part", "new_flag"), ("name", &*flag), ("share", "100")];
        let added = panel.post(&address, &fields);
        assert_eq!(added.status, 303, "{added:?}");
    }
    for slug in tabs {
        assert_eq!(two.settings(slug)["client_name"], format!("Renamed {slug}"));
        let flags = two.server.json(&["flag", "list", "--product", slug]);
        let own = [format!("flag-of-{slug}"), format!("new-in-{slug}")];
        let flags = flags["flags"].as_array().unwrap().iter();
        let names: Vec<&str> = flags.map(|flag| flag["name"].as_str().unwrap()).collect();
        assert_eq!(names, own);
    }
    // The same for forms of their own pages, and for what asks first.
    for (slug, version) in [("second", "2.0.0"), ("my-program", "3.0.0")] {
        let form = panel.get(&format!("/releases/new?product={slug}")).text;
        let address = form_address(&form, "name=\"version\"");
        let fields = [("version", version), ("channel", "stable"), ("notes", "")];
        let added = panel.post(&address, &fields);
        let page = format!("{HOME}/releases/{version}?product={slug}");
        assert_eq!(added.header("location"), Some(page.as_str()), "{added:?}");
        let ask = panel.get(&format!("/releases/{version}/withdraw?product={slug}"));
        let address = form_address(&ask.text, "type=\"submit\">Withdraw");
        assert_eq!(panel.post(&address, &[]).status, 303);
    }
    for (slug, withdrawn) in [("second", "2.0.0"), ("my-program", "3.0.0")] {
        let releases = two.server.json(&["release", "list", "--product", slug]);
        let releases = releases["releases"].as_array().unwrap().iter();
        let found: Vec<(&str, &str)> = releases
            .map(|one| {
                (
                    one["version"].as_str().unwrap(),
                    one["state"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(found, [(withdrawn, "yanked"), ("1.0.0", "released")]);
    }
}

#[test]
fn a_form_from_before_the_second_product_means_the_first_one() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let form = panel.get("/releases/new").text;
    let address = form_address(&form, "name=\"version\"");
    assert_eq!(address, "/releases/new");
    server.json(&["product", "add", "Second", "--slug", "second"]);
    let release = [("version", "1.0.0"), ("channel", "stable"), ("notes", "")];
    assert_eq!(panel.post(&address, &release).status, 303);
    let of = |slug: &str| server.json(&["release", "list", "--product", slug]);
    assert_eq!(of("my-program")["releases"][0]["version"], "1.0.0");
    assert_eq!(of("second")["releases"].as_array().unwrap().len(), 0);
    // Also when the first one is archived meanwhile: never another one.
    server.json(&["product", "archive", "my-program"]);
    let release = [("version", "2.0.0"), ("channel", "stable"), ("notes", "")];
    let refused = panel.post(&address, &release);
    assert!(refused.text.contains("archived for good"), "{refused:?}");
    assert_eq!(of("second")["releases"].as_array().unwrap().len(), 0);
}

#[test]
fn re_authentication_leads_back_to_the_chosen_product() {
    let two = TwoProducts::start();
    let mut panel = two.server.logged_in_browser("admin");
    database::change(
        &two.server,
        "update admin_sessions set proved_at_ms = proved_at_ms - 3600000",
    );
    let asked = panel.get("/config/key?product=second");
    let prove = asked.header("location").unwrap();
    assert_eq!(product_of(prove), Some("second"), "{asked:?}");
    let page = panel.get(prove.strip_prefix(HOME).unwrap()).text;
    let address = form_address(&page, "name=\"next\"");
    let next = field(&page, "next");
    let proved = panel.post(
        &address,
        &[("next", &next), ("old", crate::browser::PASSWORD)],
    );
    let back = format!("{HOME}/config/key?product=second");
    assert_eq!(proved.header("location"), Some(back.as_str()), "{proved:?}");
    let form = panel.get("/config/key?product=second").text;
    assert!(form.contains("Second"), "{form}");
}

#[test]
fn an_unknown_product_is_not_found_and_an_archived_one_can_only_be_looked_at() {
    let server = Server::start();
    server.json(&["product", "add", "Second", "--slug", "second"]);
    server.json(&["flag", "set", "old-flag", "--product", "second"]);
    server.json(&["product", "archive", "second"]);
    let mut panel = server.logged_in_browser("owner");
    for path in ["", "/licenses", "/config", "/releases/new", "/customers"] {
        let page = panel.get(&format!("{path}?product=third"));
        assert_eq!(page.status, 404, "{path}: {page:?}");
        assert!(page.text.contains("<main"), "a page: {page:?}");
    }
    let unknown = panel.post("/config/update?product=third", &[("part", "client")]);
    assert_eq!(unknown.status, 404, "{unknown:?}");
    for path in ["", "/licenses", "/config", "/releases", "/integrate"] {
        let page = panel.get(&format!("{path}?product=second"));
        assert_eq!(page.status, 200, "{path}: {page:?}");
        let option = "<optgroup label=\"Archived\"><option value=\"second\" selected>Second";
        let one_line: String = page.text.lines().map(str::trim).collect();
        assert!(one_line.contains(option), "{path}: {one_line}");
    }
    let page = panel.get("/config?product=second").text;
    assert!(page.contains("old-flag"), "{page}");
    assert!(page.contains("This product is archived"), "{page}");
    assert!(
        !page.contains("/config/update"),
        "no form for changes: {page}"
    );
    let fields = [("part", "new_flag"), ("name", "new-flag"), ("share", "100")];
    let refused = panel.post("/config/update?product=second", &fields);
    assert!(refused.text.contains("archived for good"), "{refused:?}");
    // Without a choice, the page of one product is that of the first in use.
    assert!(!panel.get("/config").text.contains("old-flag"));
}

#[test]
fn a_product_whose_programs_run_is_not_archived() {
    let two = TwoProducts::start();
    let mut panel = two.server.logged_in_browser("owner");
    let typed = [("typed", "second")];
    let refused = panel.post("/products/second/archive", &typed);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.text.contains("Programs are running"), "{refused:?}");
    let device = identity(&two.second.key, "device of second");
    let verified = two.second.program.call("verify", &device);
    assert_eq!(verified.status, 200, "{verified:?}");
    let sessions = two.server.json(&["session", "list", "--product", "second"]);
    let id = sessions["sessions"][0]["id"].as_i64().unwrap();
    let ended = panel.post(&format!("/sessions/{id}/terminate"), &[]);
    assert_eq!(ended.status, 303, "{ended:?}");
    let archived = panel.post("/products/second/archive", &typed);
    assert_eq!(archived.status, 303, "{archived:?}");
    let refused = two.second.program.call("verify", &device);
    assert_eq!(refused.status_and_code(), (401, "invalid_api_key"));
    let still = identity(&two.first.key, "device of my-program");
    assert_eq!(two.first.program.call("verify", &still).status, 200);
}
