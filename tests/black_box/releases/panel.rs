//! Releases in the panel: add, edit, make current, make the minimum, withdraw.

use serde_json::json;

use crate::browser::{Browser, field};
use crate::database;
use crate::support::{Server, eventually, identity};

fn add(panel: &mut Browser, version: &str, notes: &str) {
    let url = format!("https://example.org/program-{version}.zip");
    let fields = [
        ("version", version),
        ("channel", "stable"),
        ("notes", notes),
        ("url", &url),
    ];
    let added = panel.post("/releases/new", &fields);
    assert_eq!(added.status, 303, "{added:?}");
}

/// The status that the row of `version` shows.
fn shown_status(panel: &mut Browser, version: &str) -> String {
    let page = panel.get("/releases").text;
    let row = page.split(&format!("\">{version}</a></th>")).nth(1);
    let row = row.unwrap_or_else(|| panic!("no {version} in {page}"));
    let row = row.split("</tr>").next().unwrap();
    let pill = row.split("</svg>").nth(1).unwrap();
    pill.split('<').next().unwrap().to_owned()
}

#[test]
fn a_release_is_added_made_current_and_offered_to_programs() {
    let server = Server::start();
    let key = server.issue_license(1);
    let program = server.client();
    program.call("activate", &identity(&key, "laptop"));
    let mut panel = server.logged_in_browser("admin");
    assert!(panel.get("/releases").text.contains("No releases yet"));
    add(&mut panel, "1.0.0", "First");
    add(&mut panel, "1.9.0", "Nicer\nand <b>faster</b>");
    add(&mut panel, "1.10.0", "Newest");
    for (version, expected) in [
        ("1.0.0", "Current"),
        ("1.9.0", "Preview"),
        ("1.10.0", "Preview"),
    ] {
        assert_eq!(shown_status(&mut panel, version), expected, "{version}");
    }
    let made = panel.post("/releases/1.9.0/current", &[]);
    let location = Some("/lizenzserver/releases/1.9.0");
    assert_eq!((made.status, made.header("location")), (303, location));
    let reported = panel.follow(&made).text;
    assert!(reported.contains("This is now the current version."));
    for (version, expected) in [
        ("1.0.0", "Superseded"),
        ("1.9.0", "Current"),
        ("1.10.0", "Preview"),
    ] {
        assert_eq!(shown_status(&mut panel, version), expected, "{version}");
    }
    eventually("the program is informed", || {
        let response = program.get("/api/license/version?version=1.0.0").body;
        response["whats_new"] == "Nicer\nand <b>faster</b>"
            && response["current_version"] == "1.9.0"
    });
    let page = panel.get("/releases/1.9.0").text;
    assert!(
        page.contains("and &lt;b&gt;faster&lt;/b&gt;")
            && !page.contains("This is now the current version.")
    );
    assert!(page.contains("href=\"https://example.org/program-1.9.0.zip\""));
    let order = panel.get("/releases").text;
    let position = |version: &str| order.find(&format!(">{version}</a>")).unwrap();
    assert!(
        position("1.10.0") < position("1.9.0") && position("1.9.0") < position("1.0.0"),
        "sorted numerically"
    );
}

#[test]
fn older_programs_are_refused_after_a_confirmation_that_counts_their_devices() {
    let server = Server::start();
    let key = server.issue_license(2);
    let program = server.client();
    program.call("activate", &identity(&key, "laptop"));
    program.call("activate", &identity(&key, "desktop"));
    let mut panel = server.logged_in_browser("admin");
    add(&mut panel, "0.9.0", "");
    add(&mut panel, "1.1.0", "");
    let question = panel.get("/releases/1.1.0/minimum").text;
    assert!(
        question.contains("2 devices last ran an older version"),
        "{question}"
    );
    assert!(
        question.contains("is newer than the current version"),
        "{question}"
    );
    assert!(
        panel
            .get("/releases/0.9.0/minimum")
            .text
            .contains("No device last ran")
    );
    panel.post("/releases/1.1.0/current", &[]);
    assert_eq!(panel.post("/releases/1.1.0/minimum", &[]).status, 303);
    eventually("older programs are refused", || {
        let response = program.call("session/start", &identity(&key, "laptop"));
        response.status_and_code() == (403, "version_too_old")
            && response.body["download_url"] == "https://example.org/program-1.1.0.zip"
    });
    let page = panel.get("/releases").text;
    assert!(
        page.contains("Minimum version") && page.contains("Programs of this version are refused")
    );
}

#[test]
fn the_page_of_a_release_speaks_only_of_what_would_happen() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        add(&mut panel, version, "");
    }
    panel.post("/releases/1.1.0/current", &[]);
    panel.post("/releases/1.1.0/minimum", &[]);
    for (version, [current, minimum]) in [
        (
            "1.0.0",
            [
                "only programs older than 1.0.0 will be told about an update",
                "programs from 1.0.0 on will be accepted again. At present programs older than 1.1.0 are refused.",
            ],
        ),
        (
            "1.1.0",
            [
                "Programs with older versions are told about this release.",
                "Programs older than this one are refused.",
            ],
        ),
        (
            "1.2.0",
            [
                "older programs will be told about 1.2.0.",
                "It cannot become the minimum version yet: it is newer than the current version, 1.1.0.",
            ],
        ),
    ] {
        let page = panel.get(&format!("/releases/{version}")).text;
        assert!(page.contains(current), "{version}: {page}");
        assert!(page.contains(minimum), "{version}: {page}");
    }
    let question = panel.get("/releases/1.0.0/minimum").text;
    assert!(question.contains("Accept programs from 1.0.0 on again?"));
    assert!(
        !question.contains("last ran an older version"),
        "{question}"
    );
    let lowered = panel.post("/releases/1.0.0/minimum", &[]);
    let reported = panel.follow(&lowered).text;
    assert!(reported.contains("Programs from this version on are accepted again."));
    // Somebody who cannot change anything reads what is, and not what could be.
    let mut support = server.logged_in_browser("support");
    let page = support.get("/releases/1.2.0").text;
    assert!(!page.contains("Effect on programs"), "{page}");
    let page = support.get("/releases/1.0.0").text;
    assert!(page.contains("Programs older than this one are refused."));
    assert!(!page.contains("If you"), "{page}");
}

#[test]
fn a_withdrawn_release_is_not_offered_and_stays_withdrawn() {
    let server = Server::start();
    let program = server.client();
    let mut panel = server.logged_in_browser("admin");
    add(&mut panel, "2.0.0", "Broken");
    panel.post("/releases/2.0.0/current", &[]);
    let question = panel.get("/releases/2.0.0/withdraw").text;
    assert!(
        question.contains("This is the current version"),
        "{question}"
    );
    assert_eq!(panel.post("/releases/2.0.0/withdraw", &[]).status, 303);
    eventually("the release is no longer offered", || {
        program.get("/api/license/version?version=1.0.0").body["whats_new"].is_null()
    });
    assert_eq!(shown_status(&mut panel, "2.0.0"), "Withdrawn");
    let settings = panel.get("/config").text;
    assert!(settings.contains("No release 2.0.0 is published"));
    let response = server.cli(&["config", "show"]);
    let response = String::from_utf8_lossy(&response.stderr).into_owned();
    assert!(
        response.contains("current_version is not a published release"),
        "{response}"
    );
    for action in ["current", "minimum", "withdraw"] {
        let response = panel.post(&format!("/releases/2.0.0/{action}"), &[]);
        assert_eq!(response.status, 409, "{action}");
        assert!(
            response.text.contains("Release 2.0.0 has been withdrawn"),
            "{action}"
        );
    }
    panel.set_cookie("lang", "de");
    let response = panel.post("/releases/2.0.0/current", &[]).text;
    assert!(
        response.contains("Version 2.0.0 ist zurückgezogen"),
        "{response}"
    );
    assert!(
        panel
            .get("/releases?state=yanked")
            .text
            .contains(">2.0.0</a>")
    );
    assert!(
        panel
            .get("/releases?state=released")
            .text
            .contains("Nichts passt zu diesem Filter")
    );
    for path in [
        "/releases/9.9.9",
        "/releases/x",
        "/releases/9.9.9/edit",
        "/releases/9.9.9/withdraw",
    ] {
        assert_eq!(panel.get(path).status, 404, "{path}");
    }
}

#[test]
fn an_invalid_field_of_a_release_is_reported_in_both_languages_and_the_input_is_kept() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    add(&mut panel, "1.0.0", "");
    for (name, value, english, german) in [
        (
            "version",
            "1.0",
            "Please enter three numbers",
            "Bitte geben Sie drei Zahlen",
        ),
        (
            "version",
            "1.0.0",
            "Release 1.0.0 already exists",
            "Version 1.0.0 gibt es schon",
        ),
        (
            "channel",
            "Stable",
            "a word of lowercase letters",
            "ein Wort aus Kleinbuchstaben",
        ),
        (
            "url",
            "http://example.org/x.zip",
            "an address such as https://",
            "eine Adresse wie https://",
        ),
        (
            "url",
            "javascript:alert(1)",
            "an address such as https://",
            "eine Adresse wie https://",
        ),
        (
            "sha256",
            "abc",
            "64 hexadecimal digits of",
            "64 hexadezimalen Ziffern der",
        ),
    ] {
        for (language, text) in [("en", english), ("de", german)] {
            panel.set_cookie("lang", language);
            let mut fields = vec![
                ("version", "3.0.0"),
                ("channel", "stable"),
                ("notes", "<i>kept</i>"),
            ];
            fields.retain(|(known, _)| *known != name);
            fields.push((name, value));
            let response = panel.post("/releases/new", &fields);
            assert_eq!(response.status, 422, "{name}={value}");
            assert!(
                response.text.contains(text),
                "{name}={value}: {}",
                response.text
            );
            assert!(
                response.text.contains("&lt;i&gt;kept&lt;/i&gt;"),
                "{name}={value}"
            );
        }
    }
    let one = server.json(&["release", "list"]);
    assert_eq!(
        one["releases"].as_array().unwrap().len(),
        1,
        "nothing was added"
    );
    let again = server.cli(&["release", "add", "1.0.0", "--notes", ""]);
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && error.contains("Release 1.0.0 already exists"),
        "{error}"
    );
}

#[test]
fn an_edit_conflict_of_a_release_is_reported() {
    let server = Server::start();
    let (mut one, mut other) = (
        server.logged_in_browser("admin"),
        server.logged_in_browser("owner"),
    );
    add(&mut one, "1.0.0", "First");
    let seen = field(&one.get("/releases/1.0.0/edit").text, "seen");
    let sum = "A1".repeat(32);
    let quick = [
        ("seen", &*seen),
        ("channel", "beta"),
        ("notes", "Quick"),
        ("sha256", &sum),
    ];
    assert_eq!(other.post("/releases/1.0.0/edit", &quick).status, 303);
    let slow = [("seen", &*seen), ("channel", "stable"), ("notes", "Slow")];
    let conflict = one.post("/releases/1.0.0/edit", &slow);
    assert_eq!(conflict.status, 422);
    assert!(
        conflict.text.contains("Someone else changed this") && conflict.text.contains("Slow"),
        "{}",
        conflict.text
    );
    assert!(conflict.text.contains("Saved meanwhile: Quick"));
    let saved = &server.json(&["release", "list"])["releases"][0];
    assert_eq!(
        (&saved["notes"], &saved["sha256"]),
        (&json!("Quick"), &json!("a1".repeat(32)))
    );
    let seen = field(&conflict.text, "seen");
    let again = [("seen", &*seen), ("channel", "stable"), ("notes", "Slow")];
    assert_eq!(one.post("/releases/1.0.0/edit", &again).status, 303);
}

#[test]
fn the_support_role_can_read_but_not_change_releases() {
    let server = Server::start();
    server.json(&["release", "add", "1.0.0", "--notes", "First"]);
    let mut support = server.logged_in_browser("support");
    for path in ["/releases", "/releases/1.0.0"] {
        let page = support.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(
            !page.text.contains("/releases/new") && !page.text.contains("1.0.0/"),
            "{path}"
        );
    }
    for action in ["edit", "current", "minimum", "withdraw"] {
        let response = support.post(&format!("/releases/1.0.0/{action}"), &[]);
        assert_eq!(response.status, 403, "{action}");
    }
    assert_eq!(
        support
            .post("/releases/new", &[("version", "2.0.0")])
            .status,
        403
    );
    let releases = &server.json(&["release", "list"])["releases"];
    assert_eq!(
        (releases.as_array().unwrap().len(), &releases[0]["state"]),
        (1, &json!("released"))
    );
}

#[test]
fn the_list_of_releases_is_paged() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    for minor in 0..53 {
        server.json(&[
            "release",
            "add",
            &format!("1.{minor}.0"),
            "--notes",
            "More of the same",
        ]);
    }
    let first = panel.get("/releases").text;
    assert!(
        first.contains(">1.52.0</a>")
            && first.contains(">1.3.0</a>")
            && !first.contains(">1.2.0</a>")
    );
    assert!(first.len() < 30_000, "{}", first.len());
    let next = first.split("\" rel=\"next\"").next().unwrap();
    let next = next.rsplit("href=\"/lizenzserver").next().unwrap();
    let second = panel.get(&next.replace("&amp;", "&")).text;
    assert!(
        second.contains(">1.2.0</a>")
            && second.contains(">1.0.0</a>")
            && !second.contains(">1.3.0</a>")
    );
    assert!(second.contains("rel=\"prev\"") && !second.contains("rel=\"next\""));
}

/// How many releases `release list` prints at most.
const LIST_MAX: i64 = 10_000;

#[test]
fn a_command_that_does_not_list_all_releases_says_so() {
    let server = Server::prepare(&[]);
    server.json(&["release", "add", "1.0.1", "--notes", "First"]);
    for (count, truncated) in [(LIST_MAX, false), (LIST_MAX + 1, true)] {
        database::fill_releases(&server, count);
        let listed = server.json(&["release", "list"]);
        let rows = listed["releases"].as_array().unwrap().len();
        assert_eq!(i64::try_from(rows).unwrap(), LIST_MAX);
        assert_eq!(listed["releases"][0]["version"], format!("1.0.{count}"));
        assert_eq!(listed["truncated"] == true, truncated, "{count}");
        let message = server.cli(&["release", "list"]).stderr;
        let message = String::from_utf8(message).unwrap();
        assert_eq!(
            message.contains("only the first 10000"),
            truncated,
            "{message}"
        );
    }
}
