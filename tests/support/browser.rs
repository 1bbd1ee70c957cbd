//! A simulated browser for the panel: cookies, forms and logins, without rendering.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::Agent;

use crate::support::{Response, Server, agent, read_response};

impl Server {
    /// Creates an administrator of this name by command.
    pub fn add_admin(&self, name: &str, role: &str) {
        let words = ["admin", "add", name, "--role", role, "--password-stdin"];
        let mut child = self
            .command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A browser without a login.
    pub fn browser(&self) -> Browser {
        let ca = std::fs::read(self.path("data/tls/ca.pem")).unwrap();
        Browser::new(&ca, self.port())
    }

    /// A browser after logging in with the password of an administrator with this role and name, who is created by
    /// command if missing. For tests of logins; others use [`Server::logged_in_browser`], which is faster.
    pub fn browser_after_login(&self, role: &str) -> Browser {
        let admins = self.json(&["admin", "list"]);
        let known = admins["admins"].as_array().unwrap();
        if !known.iter().any(|admin| admin["name"] == role) {
            self.add_admin(role, role);
        }
        let mut browser = self.browser();
        let answer = browser.log_in(role, PASSWORD);
        assert_eq!(answer.status, 303, "{answer:?}");
        browser
    }

    /// A browser in which an administrator with this role and [`PASSWORD`] is logged in. Account and login are written
    /// into the database directly, since hashing a password is slow on purpose.
    pub fn logged_in_browser(&self, role: &str) -> Browser {
        self.logged_in_browser_as(role, role)
    }

    /// The same for an administrator of this name.
    pub fn logged_in_browser_as(&self, name: &str, role: &str) -> Browser {
        let file = rusqlite::Connection::open(self.database()).unwrap();
        file.busy_timeout(Duration::from_secs(30)).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_millis()).unwrap();
        let add =
            "insert into admins (name, role, password_hash, created_at_ms, password_set_at_ms)
                   values (?1, ?2, ?3, ?4, ?4) on conflict (name) do nothing";
        file.execute(add, (name, role, HASH, now)).unwrap();
        let random = || rand::random::<u128>();
        let token = format!("{:032x}{:032x}", random(), random());
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let begin = "insert into admin_sessions
                     (token_hash, admin_id, stage, address, browser, created_at_ms, seen_at_ms, proved_at_ms)
                     select ?1, admin_id, 'full', '127.0.0.1', 'a test', ?2, ?2, ?2 from admins where name = ?3";
        file.execute(begin, (digest.as_ref(), now, name)).unwrap();
        let mut browser = self.browser();
        browser.set_cookie("__Host-session", &token);
        browser
    }
}

/// The hash of [`PASSWORD`], as `admin add` creates it.
const HASH: &str = "$argon2id$v=19$m=65536,t=3,p=1$SJQLaXsPMvdKdawnZXxwMg$9Ay7JaOK33hXEc5eMv1phGf7haRw9h2QBbg8yVoufo4";

pub use crate::support::PASSWORD;
/// The path of the panel.
pub const HOME: &str = "/lizenzserver";

/// A browser that keeps cookies and marks its forms as same-origin.
#[derive(Clone)]
pub struct Browser {
    agent: Agent,
    /// The address of the server, without a path.
    pub url: String,
    cookies: Vec<(String, String)>,
    /// Headers of every request; without `Sec-Fetch-Site` every form is refused.
    pub headers: Vec<(String, String)>,
}

impl Browser {
    fn new(ca: &[u8], port: u16) -> Self {
        let headers = [("Sec-Fetch-Site", "same-origin"), ("Accept-Language", "en")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            agent: agent(ca),
            url: format!("https://localhost:{port}"),
            cookies: Vec::new(),
            headers: headers.to_vec(),
        }
    }

    /// `GET` of a path below the panel's, such as `/licenses`, or empty for the overview.
    pub fn get(&mut self, path: &str) -> Response {
        let mut request = self.agent.get(format!("{}{HOME}{path}", self.url));
        for (name, value) in self.sent() {
            request = request.header(name, value);
        }
        let response = request.call();
        self.keep(response.and_then(read_response).unwrap())
    }

    /// The page that a redirect leads to.
    pub fn follow(&mut self, redirect: &Response) -> Response {
        let location = redirect.header("location").unwrap();
        let path = location.split('#').next().unwrap();
        self.get(path.strip_prefix(HOME).unwrap())
    }

    /// `POST` of a form to a path below the panel's, with the CSRF token of this login.
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let csrf_token = self.csrf_token();
        let mut all = fields.to_vec();
        all.push(("csrf_token", &csrf_token));
        self.post_bare(path, &all)
    }

    /// The same without the CSRF token.
    pub fn post_bare(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut request = self.agent.post(format!("{}{HOME}{path}", self.url));
        for (name, value) in self.sent() {
            request = request.header(name, value);
        }
        let response = request.send_form(fields.iter().copied());
        self.keep(response.and_then(read_response).unwrap())
    }

    /// Logs in; 303 if the password was right.
    pub fn log_in(&mut self, name: &str, password: &str) -> Response {
        self.post_bare("/login", &[("name", name), ("password", password)])
    }

    /// The CSRF token of this login, read from a page.
    pub fn csrf_token(&mut self) -> String {
        let page = self.get("/customers");
        let found = page.text.split("name=\"csrf_token\" value=\"").nth(1);
        found
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_default()
            .to_owned()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let found = self.cookies.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    /// Sets a cookie by hand.
    pub fn set_cookie(&mut self, name: &str, value: &str) {
        self.cookies.retain(|(known, _)| known != name);
        self.cookies.push((name.to_owned(), value.to_owned()));
    }

    fn sent(&self) -> Vec<(String, String)> {
        let pairs = self.cookies.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut headers = self.headers.clone();
        if !pairs.is_empty() {
            headers.push(("Cookie".to_owned(), pairs.join("; ")));
        }
        headers
    }

    fn keep(&mut self, answer: Response) -> Response {
        let set = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie");
        for (_, cookie) in set {
            let pair = cookie.split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.set_cookie(name, value);
        }
        answer
    }
}

/// The value of the first hidden field of this name.
pub fn field(page: &str, name: &str) -> String {
    let begin = format!("name=\"{name}\" value=\"");
    let rest = page.split(&begin).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no field {name} in {page}"));
    rest.split('"').next().unwrap().to_owned()
}
