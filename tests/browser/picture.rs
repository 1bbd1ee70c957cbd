//! The screenshot of the panel in the README, taken from the demo. A test run writes it to `target/`; with
//! `PANEL_PICTURE=1` it replaces the one in the repository.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::driver::Chrome;
use crate::support::Server;
use crate::tables::expect_all_fits;

/// Limit for the screenshot, so that the README loads quickly.
const BYTES_MAX: usize = 120_000;

/// A demo process; killed on drop.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_demo_gives_a_screenshot_of_the_panel_and_its_tables_fit() {
    let server = Server::prepare(&[]);
    let Some(mut chrome) = Chrome::open(server.port()) else {
        return;
    };
    let child = server
        .command(&["demo"])
        .env("LC_ALL", "en_GB.UTF-8")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut demo = Demo(child.unwrap());
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap());
    // The address and the login that the demo prints.
    let address = lines.find(|line| line.contains("/lizenzserver")).unwrap();
    assert!(address.contains(&server.port().to_string()), "{address}");
    let login = lines.next().unwrap();
    let (name, password) = login.trim().split_once(", password ").unwrap();
    let name = name.strip_prefix("name ").unwrap();
    chrome.open_page("/login?next=/lizenzserver/licenses");
    chrome.fill("Name", name);
    chrome.fill("Password", password);
    chrome.press("Log in");
    chrome.until_at("/lizenzserver/licenses");
    chrome.size(1280, 640);
    let picture = chrome.screenshot();
    assert!(
        picture.starts_with(b"\x89PNG") && picture.len() < BYTES_MAX,
        "{}",
        picture.len()
    );
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::write(home.join("target/panel.png"), &picture).unwrap();
    if std::env::var_os("PANEL_PICTURE").is_some() {
        std::fs::write(home.join("tests/browser/panel.png"), &picture).unwrap();
    }
    let pages = [
        "",
        "/licenses",
        "/licenses/1",
        "/customers",
        "/customers/1",
        "/sessions",
        "/sessions/history?span=all",
        "/sites",
        "/sites/handshakes",
        "/sites/transfers",
        "/releases",
        "/plans",
        "/config",
        "/audit",
        "/admins",
        "/profile",
    ];
    expect_all_fits(&chrome, &pages.map(str::to_owned));
}
