//! Names of administrators: none can be confused with another actor in the audit log.

use crate::admins::accounts::run_with_input;
use crate::browser::{Browser, PASSWORD};
use crate::database;
use crate::support::{Response, Server};

fn add(owner: &mut Browser, name: &str) -> Response {
    let fields = [
        ("name", name),
        ("role", "support"),
        ("password", PASSWORD),
        ("again", PASSWORD),
    ];
    owner.post("/admins/new", &fields)
}

#[test]
fn a_name_cannot_resemble_the_server_a_site_the_command_line_or_another_administrator() {
    let server = Server::start();
    let mut owner = server.logged_in_browser("owner");
    assert_eq!(add(&mut owner, "paul").status, 303);
    for (name, words) in [
        ("server", "Please choose another one"),
        ("S.e.r.v.e.r", "Please choose another one"),
        ("site", "Please choose another one"),
        ("s\u{456}t\u{435}", "letters of one script"),
        ("site.example.org", "Please choose another one"),
        ("command-line", "Please choose another one"),
        ("ser\u{200b}ver", "letters of one script"),
        ("x\u{202e}revres", "letters of one script"),
        ("p\u{430}ul", "letters of one script"),
        ("Paul", "easily confused with \u{201c}paul\u{201d}"),
        ("pau1", "easily confused with \u{201c}paul\u{201d}"),
        ("0wner", "easily confused with \u{201c}owner\u{201d}"),
    ] {
        let refused = add(&mut owner, name);
        assert_eq!(refused.status, 422, "{name:?}");
        assert!(refused.text.contains(words), "{name:?}: {}", refused.text);
        // The command line refuses it as well.
        let command = [
            "admin",
            "add",
            name,
            "--role",
            "support",
            "--password-stdin",
        ];
        let output = run_with_input(&server, &command, PASSWORD);
        assert!(!output.status.success(), "{name:?}");
    }
    owner.set_cookie("lang", "de");
    let refused = add(&mut owner, "Paul");
    assert!(
        refused
            .text
            .contains("leicht mit \u{201e}paul\u{201c} zu verwechseln"),
        "{}",
        refused.text
    );
    let list = server.json(&["admin", "list"]);
    assert_eq!(list["admins"].as_array().unwrap().len(), 2, "{list}");
}

#[test]
fn an_old_name_with_invisible_characters_still_logs_in_and_they_are_visible_in_the_audit_log() {
    let server = Server::start();
    server.add_admin("eve", "owner");
    let old = "x\u{202e}revres\u{200b}y";
    database::rename_admin(&server, "eve", old);
    let mut browser = server.browser();
    assert_eq!(browser.log_in(old, PASSWORD).status, 303);
    let page = browser.get("/audit").text;
    let table = page.split("<tbody>").nth(1).unwrap();
    assert!(
        table.contains("<bdi>x[U+202E]revres[U+200B]y</bdi>"),
        "{table}"
    );
    assert!(!table.contains('\u{202e}'), "{table}");
    // Also at the start and end of a name, where forms strip such characters.
    for old in ["\u{200b}eve", "eve\u{200b}", "\u{202a}eve\u{202c}"] {
        database::rename_only_admin(&server, old);
        let mut browser = server.browser();
        assert_eq!(browser.log_in(old, PASSWORD).status, 303, "{old:?}");
    }
    database::rename_only_admin(&server, "eve");
    assert_eq!(
        server.browser().log_in(" eve\u{200b}", PASSWORD).status,
        303
    );
}
