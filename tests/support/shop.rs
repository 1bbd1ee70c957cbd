//! Sample data with at least one item of every kind, and the panel's routes to it.

use license_server::server;
use serde_json::Value;

use crate::support::{Server, identity};

/// Text that becomes markup on a page that forgets to escape it.
pub const MARKUP: &str = "<img src=x onerror=alert(1)>\"><script>alert(2)</script>{{7*14287}}";

/// The release with notes and a download address.
const RELEASE: &str = "1.1.0";
/// The domain of the first license.
const SITE: &str = "www.b\u{fc}cher.example";
/// The only plan, by which the first license was issued.
const PLAN: &str = "pro";
/// The only feature flag.
const FLAG: &str = "exporter";

/// The customer that a test may erase.
const TO_BE_ERASED: i64 = 3;

/// The name of an administrator that tests may change and remove.
pub const ADMIN: &str = "eve";

/// The ids of the sample data.
pub struct Shop {
    /// A license with devices and a session.
    pub license: i64,
    /// A license that can be sold, if a test has a trial; otherwise `license`.
    pub trial: i64,
    pub key: String,
    pub token: String,
    /// The session of this license.
    pub session: i64,
    /// A device of this license without a session.
    pub device: i64,
    pub customer: i64,
    /// A customer without a license.
    pub customer_without_license: i64,
    /// The id of [`ADMIN`].
    pub admin: i64,
    /// The file name of a backup.
    pub backup: String,
    /// The slug of a product.
    pub product: String,
}

/// Adds the sample data to a running server; every text contains `word`.
pub fn add_sample_data(server: &Server, word: &str) -> Shop {
    let customer = format!("Ada Lovelace {word}");
    server.json(&["customer", "add", &customer]);
    let names = [
        "K\u{e4}the Wei\u{df} & S\u{f6}hne, Werkstatt f\u{fc}r Feinmechanik",
        "Zuse Apparatebau",
    ];
    for name in names {
        server.json(&["customer", "add", name]);
    }
    server.json(&["customer", "add", "Heinz Nixdorf"]);
    let issue = |customer: &str, more: &[&str]| {
        let mut words = vec!["license", "issue", "--customer", customer];
        words.extend(more);
        let issued = server.json(&words);
        let key = issued["licenses"][0]["license_key"].as_str().unwrap();
        key.to_owned()
    };
    let plan = format!("Pro {word}");
    let terms = ["--name", &plan, "--devices", "2", "--feature", "export"];
    server.json(&[&["plan", "add", PLAN][..], &terms].concat());
    let order = ["--plan", PLAN, "--devices", "3", "--domain", SITE];
    let key = issue(&customer, &order);
    let other = issue(names[0], &["--devices", "40", "--domain", "example.org"]);
    issue(names[0], &["--kind", "trial"]);
    let suspended = issue(names[1], &[]);
    server.json(&["license", "suspend", &suspended]);
    let revoked = issue(names[1], &[]);
    server.json(&["license", "revoke", "--yes", &revoked]);
    add_releases_and_flag(server, word);
    // Machine names are input from outside, too.
    let client = server.client();
    let ended = client.session(&key, &format!("laptop {word}"));
    client.call("session/end", &crate::support::heartbeat_body(&key, &ended));
    let token = client.session(&key, &format!("desk {word}"));
    client.session(&other, "till");
    client.call("session/start", &identity(&revoked, "old"));
    let backup = "license-server-20261124T030000Z.sqlite3".to_owned();
    std::fs::create_dir_all(server.path("data/backups")).unwrap();
    let path = server.path("data/backups").join(&backup);
    server.json(&["backup", path.to_str().unwrap()]);
    let sessions = server.json(&["session", "list"]);
    let sessions = sessions["sessions"].as_array().unwrap();
    let own_session = sessions
        .iter()
        .find(|session| session["license_key"] == *key);
    let id = |value: &Value| {
        value
            .as_i64()
            .unwrap_or_else(|| panic!("{value} in {sessions:?}"))
    };
    Shop {
        license: 1,
        trial: 1,
        session: id(&own_session.unwrap()["id"]),
        device: 1,
        customer: 1,
        customer_without_license: 4,
        admin: add_admin(server),
        backup,
        product: "my-program".to_owned(),
        key,
        token,
    }
}

fn add_releases_and_flag(server: &Server, word: &str) {
    let add = |version: &str, more: &[&str]| {
        let mut words = vec!["release", "add", version, "--notes"];
        words.extend(more);
        server.json(&words);
    };
    add("1.0.0", &["The first one."]);
    let notes = format!("Quicker.\n\nAnd {word}");
    add(
        RELEASE,
        &[&notes, "--url", "https://example.org/app-1.1.0.zip"],
    );
    let description = format!("The new exporter {word}");
    server.json(&["flag", "set", FLAG, "--description", &description]);
}

/// Creates [`ADMIN`]; the id.
fn add_admin(server: &Server) -> i64 {
    server.add_admin(ADMIN, "support");
    let admins = server.json(&["admin", "list"]);
    let mut admins = admins["admins"].as_array().unwrap().iter();
    let admin = admins.find(|admin| admin["name"] == ADMIN);
    admin.unwrap()["id"].as_i64().unwrap()
}

/// Every route of the panel, as `("GET", "/licenses/<id>")`; without the query.
pub fn routes() -> Vec<(String, String)> {
    let routes = server::panel().into_iter();
    let mut all: Vec<_> = routes
        .map(|route| {
            let path = route.uri.to_string();
            let path = path.split('?').next().unwrap().to_owned();
            (route.method.to_string(), path)
        })
        .collect();
    all.sort();
    all
}

impl Shop {
    /// The path of a route with the ids of the sample data; `None` if the route has an unknown parameter.
    pub fn path(&self, route: &str) -> Option<String> {
        if route == "/licenses/selected" {
            return Some("/licenses/selected?action=extend&ids=1&ids=2".to_owned());
        }
        let mut path = String::new();
        let mut before = "";
        for named in route.split('/').skip(1) {
            let part = match (before, named) {
                ("licenses", "<id>") if route.ends_with("/sell") => self.trial.to_string(),
                ("licenses", "<id>") => self.license.to_string(),
                ("issued", "<first>") | ("logins" | "filters", "<id>") => "1".to_owned(),
                ("<first>", "<last>") => "2".to_owned(),
                ("sessions", "<id>") => self.session.to_string(),
                ("devices", "<_>" | "<id>" | "<device>") => self.device.to_string(),
                ("customers", "<id>") if route.ends_with("/remove") => {
                    self.customer_without_license.to_string()
                }
                ("customers", "<id>") if route.ends_with("/erase") => TO_BE_ERASED.to_string(),
                ("customers", "<id>") => self.customer.to_string(),
                ("admins", "<id>") => self.admin.to_string(),
                ("backups", "<name>") => self.backup.clone(),
                ("releases", "<version>") => RELEASE.to_owned(),
                ("flags", "<name>") => FLAG.to_owned(),
                ("plans", "<code>") => PLAN.to_owned(),
                ("help", "<page>") => "program".to_owned(),
                ("products", "<slug>") => self.product.clone(),
                (_, named) if named.starts_with('<') => return None,
                (_, named) => named.to_owned(),
            };
            path.push('/');
            path.push_str(&part);
            before = named;
        }
        Some(path)
    }
}
