//! Drives a real browser over WebDriver, which is JSON over HTTP to a chromedriver process. What WebDriver lacks (page
//! width, color scheme, disabling scripts) goes through Chromium's `DevTools` protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::support::eventually;

/// The key of an element's id in WebDriver's responses.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Script that records violations of the page's content security policy, in addition to the browser's log.
const RECORD_VIOLATIONS: &str = "window.refusals = []; document.addEventListener('securitypolicyviolation', \
     (e) => window.refusals.push(e.violatedDirective + ' ' + e.blockedURI));";
/// Longest wait for one response of chromedriver; an axe check of a long page takes longest.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Keys as WebDriver writes them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const DOWN: &str = "\u{e015}";
pub const SPACE: &str = " ";
const SHIFT: &str = "\u{e008}";

/// An element of a page; stale when the page is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Element(String);

/// A window of a browser, for one test.
pub struct Chrome {
    /// `Some` until drop.
    browser: Option<Browser>,
    agent: Agent,
    session: String,
    home: String,
    /// Clicks and filled fields so far, to estimate a person's effort.
    pub clicks: u32,
    pub typed: u32,
}

/// A browser with a profile of its own, and its chromedriver.
struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
    /// The browser's data; removed on drop.
    _profile: TempDir,
}

/// Pool of browsers: starting one is slower than many tests, so tests reuse them.
struct Browsers {
    idle: Vec<Browser>,
    in_use: usize,
}

static BROWSERS: Mutex<Browsers> = Mutex::new(Browsers {
    idle: Vec::new(),
    in_use: 0,
});

/// The path of the first of these programs in `PATH`.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let at = |name: &&str| folders.iter().map(|folder| folder.join(name)).collect();
    let all = names.iter().flat_map(|name| -> Vec<PathBuf> { at(name) });
    all.into_iter().find(|file| file.is_file())
}

/// Prints that a test is skipped. In CI that is a failure.
pub fn skip_for_missing_tool(what: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{what} is missing: .ci/run installs it"
    );
    // Not `eprintln!`: the output of a test that passes is not shown.
    let line = format!("SKIPPED, a browser test: {what} is not installed; see .ci/run\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

impl Chrome {
    /// Opens a window for `https://localhost:<port>`; `None` if no browser is installed.
    pub fn open(port: u16) -> Option<Self> {
        let idle = browsers().idle.pop();
        let browser = match idle {
            Some(browser) => browser,
            None => Browser::start()?,
        };
        browsers().in_use += 1;
        let chrome = Self {
            agent: browser.agent.clone(),
            session: browser.session.clone(),
            browser: Some(browser),
            home: format!("https://localhost:{port}"),
            clicks: 0,
            typed: 0,
        };
        chrome.on_every_page(RECORD_VIOLATIONS);
        chrome.width(1280);
        // A new window may stand behind another one, and then nothing in it matches :focus.
        chrome.devtools(
            "Emulation.setFocusEmulationEnabled",
            &json!({ "enabled": true }),
        );
        Some(chrome)
    }

    /// Replaces the window by a new one, which resets a test's sizes, colors and scripts, and clears cookies,
    /// permissions and the log.
    fn renew(&self) -> Result<(), String> {
        let made = self.try_send("/window/new", &json!({ "type": "tab" }))?;
        let closed = self.agent.delete(format!("{}/window", self.session)).call();
        value(closed)?;
        self.try_send("/window", &json!({ "handle": made["handle"] }))?;
        for command in ["Network.clearBrowserCookies", "Browser.resetPermissions"] {
            let call = json!({ "cmd": command, "params": {} });
            self.try_send("/goog/cdp/execute", &call)?;
        }
        self.try_send("/se/log", &json!({ "type": "browser" }))?;
        Ok(())
    }

    fn send(&self, path: &str, body: &Value) -> Value {
        self.try_send(path, body)
            .unwrap_or_else(|error| panic!("{path} {body:.300}: {error}"))
    }

    fn try_send(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let sent = self.agent.post(&url).send(body.to_string().as_bytes());
        value(sent)
    }

    fn ask(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.session);
        value(self.agent.get(&url).call()).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a command of the `DevTools` protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.send(
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    /// Runs a script in each page from the next one on, before the page's own; returns its identifier.
    pub fn on_every_page(&self, script: &str) -> Value {
        let source = json!({ "source": script });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &source)
    }

    /// Ends what `on_every_page` began.
    pub fn on_no_page(&self, script: &Value) {
        self.devtools("Page.removeScriptToEvaluateOnNewDocument", script);
    }

    /// Sets the page's width in CSS pixels.
    pub fn width(&self, pixels: u32) {
        self.size(pixels, 800);
    }

    /// Sets the page's size in CSS pixels.
    pub fn size(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets the preferred color scheme.
    pub fn dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// Shows the page as it would be printed.
    pub fn print(&self) {
        self.devtools("Emulation.setEmulatedMedia", &json!({ "media": "print" }));
    }

    /// Disables scripts from the next page on.
    pub fn without_script(&self) {
        let off = json!({ "value": true });
        self.devtools("Emulation.setScriptExecutionDisabled", &off);
    }

    /// Opens a path below `https://localhost:<port>`, and waits until it has loaded.
    pub fn go(&self, path: &str) {
        self.send("/url", &json!({ "url": format!("{}{path}", self.home) }));
    }

    /// Loads the page again.
    pub fn reload(&self) {
        self.send("/refresh", &json!({}));
    }

    /// The path and the query of the page.
    pub fn path(&self) -> String {
        let url = self.ask("/url");
        let url = url.as_str().unwrap();
        url.strip_prefix(&self.home).unwrap_or(url).to_owned()
    }

    /// Runs a function body in the page; awaits a promise.
    pub fn script(&self, body: &str, arguments: &Value) -> Value {
        let call = json!({ "script": body, "args": arguments });
        self.send("/execute/sync", &call)
    }

    /// The value of an expression in the page.
    pub fn eval(&self, expression: &str) -> Value {
        self.script(&format!("return {expression};"), &json!([]))
    }

    /// Waits until an expression is true in the page.
    pub fn until(&self, expression: &str) {
        let body = json!({ "script": format!("return Boolean({expression});"), "args": [] });
        eventually(&format!("{expression} on {}", self.described()), || {
            // Fails while the page is being replaced.
            self.try_send("/execute/sync", &body) == Ok(Value::Bool(true))
        });
    }

    /// Waits until the page's text contains `words`.
    pub fn until_text(&self, words: &str) {
        self.until(&format!(
            "document.body.innerText.includes({})",
            json!(words)
        ));
    }

    /// Waits until the address begins with `path`.
    pub fn until_at(&self, path: &str) {
        let path = json!(path);
        self.until(&format!(
            "(location.pathname + location.search).startsWith({path}) && document.readyState === 'complete'"
        ));
    }

    fn described(&self) -> String {
        let shown = "({ at: location.href, text: document.body?.innerText.slice(0, 400) })";
        let body = json!({ "script": format!("return {shown};"), "args": [] });
        self.try_send("/execute/sync", &body)
            .map_or_else(|error| error, |value| value.to_string())
    }

    /// Waits until a script returns an element.
    fn found(&self, body: &str, arguments: &Value) -> Element {
        let call = json!({ "script": body, "args": arguments });
        let mut element = None;
        eventually(&format!("{arguments} on {}", self.described()), || {
            let answer = self.try_send("/execute/sync", &call).unwrap_or_default();
            element = answer[ELEMENT].as_str().map(|id| Element(id.to_owned()));
            element.is_some()
        });
        element.unwrap()
    }

    /// The first element of a CSS selector.
    pub fn find(&self, css: &str) -> Element {
        self.found(
            "return document.querySelector(arguments[0]);",
            &json!([css]),
        )
    }

    /// The field with this label.
    pub fn field(&self, label: &str) -> Element {
        self.found(
            "return [...document.querySelectorAll('label')].find((l) => l.control && l.control.checkVisibility() \
               && l.textContent.trim().startsWith(arguments[0]))?.control;",
            &json!([label]),
        )
    }

    /// The visible button or link with this text; in an open dialog, if there is one.
    pub fn named(&self, text: &str) -> Element {
        self.found(
            "const root = document.querySelector('dialog[open]') ?? document; \
             const all = [...root.querySelectorAll('main button, main a, dialog button, dialog a, button, a, summary')] \
               .filter((e) => e.checkVisibility()); \
             const label = (e) => (e.getAttribute('aria-label') ?? e.textContent).trim(); \
             return all.find((e) => label(e) === arguments[0]) ?? all.find((e) => label(e).startsWith(arguments[0]));",
            &json!([text]),
        )
    }

    /// Clicks an element, which must be in view and not covered.
    pub fn click(&mut self, element: &Element) {
        self.clicks += 1;
        self.send(&format!("/element/{}/click", element.0), &json!({}));
    }

    /// Clicks the button or link with this text.
    pub fn press(&mut self, text: &str) {
        let element = self.named(text);
        self.click(&element);
    }

    /// Replaces the contents of the field with this label by typing.
    pub fn fill(&mut self, label: &str, text: &str) {
        let element = self.field(label);
        self.write(&element, text);
    }

    /// The same for an element.
    pub fn write(&mut self, element: &Element, text: &str) {
        self.typed += 1;
        self.send(&format!("/element/{}/clear", element.0), &json!({}));
        let keys = json!({ "text": text });
        self.send(&format!("/element/{}/value", element.0), &keys);
    }

    /// Chooses the option with this value in the list with this label.
    pub fn choose(&mut self, label: &str, value: &str) {
        let list = self.field(label);
        let option = self.script(
            "return [...arguments[0].options].find((o) => o.value === arguments[1]);",
            &json!([{ ELEMENT: list.0 }, value]),
        );
        let id = option[ELEMENT].as_str().unwrap().to_owned();
        self.click(&Element(id));
    }

    /// Presses keys one after another in the focused element.
    pub fn keys(&self, keys: &str) {
        let mut actions = Vec::new();
        for key in keys.chars() {
            actions.push(json!({ "type": "keyDown", "value": key }));
            actions.push(json!({ "type": "keyUp", "value": key }));
        }
        self.send_keys(&actions);
    }

    /// Presses Shift+Tab.
    pub fn back_tab(&self) {
        let pair = |kind, key| json!({ "type": kind, "value": key });
        self.send_keys(&[
            pair("keyDown", SHIFT),
            pair("keyDown", TAB),
            pair("keyUp", TAB),
            pair("keyUp", SHIFT),
        ]);
    }

    /// Presses Tab until the link, button or field with this text has the focus.
    pub fn tab_to(&self, text: &str) {
        let there = format!(
            "const e = document.activeElement; \
             return (e.labels?.[0]?.textContent ?? e.getAttribute('aria-label') ?? e.textContent).trim() === {};",
            json!(text)
        );
        let found = (0..300).any(|_| {
            self.keys(TAB);
            self.script(&there, &json!([])) == json!(true)
        });
        assert!(found, "Tab never reaches {text:?}");
    }

    fn send_keys(&self, actions: &[Value]) {
        let source = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.send("/actions", &json!({ "actions": [source] }));
    }

    /// The value of an expression about an element, which it names `e`.
    pub fn eval_on(&self, element: &Element, expression: &str) -> Value {
        let body = format!("const e = arguments[0]; return {expression};");
        self.script(&body, &json!([{ ELEMENT: element.0 }]))
    }

    /// Sets a cookie of the panel by hand.
    pub fn cookie(&self, name: &str, value: &str) {
        let cookie = json!({ "name": name, "value": value, "url": self.home, "secure": true });
        self.devtools("Network.setCookie", &cookie);
    }

    /// Clears all cookies.
    pub fn clear_cookies(&self) {
        self.devtools("Network.clearBrowserCookies", &json!({}));
    }

    /// Policy violations and script errors since the last call, from the page and from the browser's log.
    pub fn page_errors(&self) -> Vec<String> {
        let mut found = Vec::new();
        let refused = self.eval("window.refusals ?? []");
        found.extend(refused.as_array().unwrap().iter().map(Value::to_string));
        let log = self.send("/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().unwrap().iter();
        // The response 422 to a form and remarks about typed input are no faults of the page.
        let own = lines.filter(|line| line["source"] != "network" && line["source"] != "rendering");
        found.extend(own.map(|line| line["message"].to_string()));
        found
    }

    /// Lets the page read and write the clipboard.
    pub fn allow_clipboard(&self) {
        for name in ["clipboard-read", "clipboard-write"] {
            let grant = json!({ "descriptor": { "name": name }, "state": "granted" });
            self.send("/permissions", &grant);
        }
    }

    /// A screenshot of the page, in PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
        decode(shot["data"].as_str().unwrap())
    }
}

impl Drop for Chrome {
    fn drop(&mut self) {
        let mut browser = self.browser.take();
        if std::thread::panicking() {
            let line = format!("the browser showed {}\n", self.described());
            drop(std::io::stderr().write_all(line.as_bytes()));
            drop(browser.take());
        } else if self.renew().is_err() {
            drop(browser.take());
        }
        let mut all = browsers();
        all.in_use -= 1;
        all.idle.extend(browser);
        // The last window closes all browsers, since nothing runs after the last test.
        let unused = if all.in_use == 0 {
            std::mem::take(&mut all.idle)
        } else {
            Vec::new()
        };
        drop(all);
        drop(unused);
    }
}

impl Browser {
    /// Starts a browser; `None` if none is installed.
    fn start() -> Option<Self> {
        let Some(browser) = program(&["chromium", "chromium-browser", "google-chrome"]) else {
            skip_for_missing_tool("chromium");
            return None;
        };
        let Some(driver) = program(&["chromedriver"]) else {
            skip_for_missing_tool("chromedriver");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        let requested = capabilities(&browser, profile.path());
        let mut started = Self {
            driver,
            agent,
            session: String::new(),
            _profile: profile,
        };
        let url = format!("{}/session", listening(&mut started.driver));
        let made = started
            .agent
            .post(&url)
            .send(requested.to_string().as_bytes());
        let made = value(made).unwrap_or_else(|error| panic!("{error}"));
        let id = made["sessionId"].as_str().unwrap();
        started.session = format!("{url}/{id}");
        Some(started)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.agent.delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// The pool of this test run.
fn browsers() -> MutexGuard<'static, Browsers> {
    BROWSERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until chromedriver prints its port; its address.
fn listening(driver: &mut Child) -> String {
    let mut reader = BufReader::new(driver.stdout.take().unwrap());
    let mut line = String::new();
    let port = loop {
        line.clear();
        assert!(
            reader.read_line(&mut line).unwrap() > 0,
            "chromedriver ended"
        );
        if let Some(rest) = line.split("successfully on port ").nth(1) {
            break rest.trim().trim_end_matches('.').to_owned();
        }
    };
    std::thread::spawn(move || drop(reader.read_to_end(&mut Vec::new())));
    format!("http://127.0.0.1:{port}")
}

fn capabilities(browser: &Path, profile: &Path) -> Value {
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // Saves resources: no window frame, no GPU process, no spare renderer, no cache for "back".
        "--kiosk",
        "--in-process-gpu",
        "--disable-features=SpareRendererForSitePerProcess,BackForwardCache",
        "--force-device-scale-factor=1",
        "--hide-scrollbars",
        "--window-size=1280,800",
        "--accept-lang=en",
        &format!("--user-data-dir={}", profile.display()),
    ];
    json!({ "capabilities": { "alwaysMatch": {
        "acceptInsecureCerts": true,
        "timeouts": { "script": 100_000, "pageLoad": 60_000 },
        "goog:loggingPrefs": { "browser": "ALL" },
        "goog:chromeOptions": { "binary": browser, "args": arguments },
    } } })
}

fn value(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let limit = 64 * 1024 * 1024;
    let text = answer
        .body_mut()
        .with_config()
        .limit(limit)
        .read_to_string();
    let text = text.map_err(|error| error.to_string())?;
    let mut body: Value =
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let value = body["value"].take();
    match value["error"].as_str() {
        Some(error) if !answer.status().is_success() => {
            let message = value["message"].as_str().unwrap_or_default();
            Err(format!("{error}: {message:.400}"))
        }
        _ => Ok(value),
    }
}

/// Decodes Base64.
fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut accumulator, mut bits) = (0_u32, 0);
    for digit in text
        .bytes()
        .filter_map(|c| DIGITS.iter().position(|d| *d == c))
    {
        accumulator = (accumulator << 6 | u32::try_from(digit).unwrap()) & 0xFFFF;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(accumulator >> bits & 0xFF).unwrap());
        }
    }
    bytes
}
