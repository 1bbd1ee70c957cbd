//! The command line: what each command prints as text and as JSON, and how it fails.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::database;
use crate::inspect::running;
use crate::manual::documents::Printed;
use crate::setup::{UNKNOWN, started};
use crate::support::{Server, files_below, identity};
use crate::timing::wait_until;
use crate::trials;

/// Runs a command with a umask that would let every user read its files; the program must restrict them itself.
const OPEN_UMASK: &[&str] = &["sh", "-c", "umask 000; exec \"$0\" \"$@\""];

/// The arguments of a command in [`COMMANDS`]: `{}` stands for `tag`, `KEY` for a license key, `#` for the id of a
/// session, `_` for a space and `~` for `_`.
pub fn words(text: &str, tag: &str, key: &str, id: &str) -> Vec<String> {
    let fill = |word: &str| {
        let word = word.replace("{}", tag).replace("KEY", key).replace('#', id);
        word.replace('_', " ").replace('~', "_")
    };
    text.split(' ').map(fill).collect()
}

/// On each line: a command, a text that it prints, and a member of its JSON output with its value.
pub const COMMANDS: &str = r#"customer add Ada-{} --email ada@example.org --company ACME --note a_b | added: Ada- | /customers/0/name | "Ada-{}"
customer list | COMPANY | /customers/1/company | "ACME"
health | ok | /status | "ok"
customer list --search Ada-{} | ada@example.org | /customers/0/licenses | 0
customer list --search nobody | none | /customers | []
license issue --customer Ada-{} --kind trial --devices 3 --domain Bücher.example --note hello | trial | /licenses/0/domain | "xn--bcher-kva.example"
license issue --customer 1 --valid-until 2099-12-31 | 2099-12-31T23:59:59Z | /licenses/0/valid_until | "2099-12-31T23:59:59Z"
license issue --customer 1 --kind trial --days 7 | trial | /licenses/0/kind | "trial"
license issue --customer 1 --count 3 | no end | /licenses/2/kind | "full"
license list | VALID UNTIL | /licenses/0/state | "active"
license list --search xn--bcher | Ada-{} | /licenses/0/note | "hello"
license list --search KEY | KEY | /licenses/0/license_key | "KEY"
plan add pro-{} --name Pro_{} --devices 2 --term-days 365 --term-starts first~activation --updates-days 730 --feature export | plan pro-{} added | /plans/0/code | "pro-{}"
plan list | Pro {} | /plans/0/licenses | 1
plan show pro-{} | 365 days, starts with the first activation | /term_starts | "first_activation"
plan edit pro-{} --devices 3 --feature pro --feature export | plan pro-{} changed | /plans/0/features | ["export", "pro"]
license issue --customer 1 --plan pro-{} | starts with the first activation | /licenses/0/term_days_from_first_activation | 365
plan apply pro-{} --yes | 0 licenses changed | /unchanged | 1
plan archive pro-{} | plan pro-{} is archived | /plans/0/code | "pro-{}"
license edit KEY --note moved | license KEY changed | /licenses/0/note | "moved"
license show KEY | hash of laptop | /devices/0/machine_id | "laptop"
session list | 127.0.0.1 | /sessions/0/address | "127.0.0.1"
session end # | session # ended | /end_reason | "forced"
session history | forced | /sessions/0/end_reason | "forced"
session history --hours 1 --license KEY | KEY | /sessions/0/license_key | "KEY"
license release-device KEY hash_of_laptop | no longer holds a slot | /hardware_id | "hash of laptop"
license extend KEY --until 2098-01-01 | 2098-01-01T23:59:59Z | /licenses/0/valid_until | "2098-01-01T23:59:59Z"
license extend KEY --days 1 | 2098-01-02T23:59:59Z | /licenses/0/valid_until | "2098-01-02T23:59:59Z"
license suspend KEY | is suspended | /licenses/0/state | "suspended"
license suspend KEY | is suspended | /licenses/0/state | "suspended"
license reinstate KEY | is active | /licenses/0/state | "active"
license revoke KEY --yes | is revoked | /licenses/0/state | "revoked"
release add 1.2.{} --notes new --url https://example.org/x.zip --channel beta | added | /releases/0/version | "1.2.{}"
release list | https://example.org/x.zip | /releases/0/channel | "beta"
release yank 1.2.{} | yanked | /state | "yanked"
config show | heartbeat_interval | /session_policy | "reject"
config set session~timeout=90 client~name=Größe_{} | 90 | /client_name | "Größe {}"
config rotate-api-key --overlap-days 1 | lsk_ | /session_timeout | 90
config set offline~days=7 | offline_days | /offline_days | 7
config rotate-signing-key | next_signing_public_key | /offline_days | 7
limit list | PER MINUTE | /limits/0/name | "client"
limit set client~failures --per-minute 70 --burst 130 | 130 | /limits/1/per_minute | 70
limit set client~failures --per-minute 0 | no limit | /limits/1/burst | 130
flag set dark~{} --on --share 50 --description black | 50 % | /flags/0/share_percent | 50
flag list | black | /flags/0/enabled | true
flag set dark~{} --off | off | /flags/0/enabled | false
flag remove dark~{} |  | /flags | []
backup copy-{}.tar | bytes written and checked | /encrypted | false
backup copy-{}.sqlite3 --database-only | database only | /encrypted | false
check | ok    integrity | /ok | true"#;

/// Commands whose documents the manual describes, too, in the form of [`COMMANDS`].
const MORE_COMMANDS: &[&str] = &[
    "admin add ada --role owner --password-stdin",
    "admin add bob --role admin --password-stdin",
    "admin list",
    "admin set-password ada --password-stdin",
    "admin set-role bob support",
    "admin reset-totp bob",
    "admin remove bob",
    "license issue --customer 1 --domain a.example",
    "license sell TRIAL --customer 1",
    "license show KEY",
    "license bind-domain KEY b.example",
    "license transfer-domain KEY c.example",
    "license cancel-transfer KEY",
    "license free-domain KEY",
    "product add Second",
    "product list",
    "product rename second Other",
    "product archive second",
    "customer erase 2 --yes",
    "vacuum",
    "reindex",
];

/// The JSON document of a command that reads a password.
fn document(server: &Server, words: &[&str]) -> Value {
    let mut command = server.command(&[&["--json"], words].concat());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have ended already.
    drop(stdin.write_all(b"seven green bicycles sing\n"));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{words:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a server prints at its start; it is killed then.
fn start_document(server: &Server) -> Value {
    let mut command = server.command(&["--json", "serve"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut printed = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        printed += &line.unwrap();
        if printed.ends_with('}') {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    serde_json::from_str(&printed).unwrap()
}

/// Runs the commands that the manual describes and [`COMMANDS`] does not have, and adds what they print.
fn print_more(mut server: Server, printed: &mut Printed) {
    let issued = server.json(&["license", "issue", "--customer", "First"]);
    let key = issued["licenses"][0]["license_key"].as_str().unwrap();
    let client = server.client();
    let token = client.session(key, "laptop");
    client.call("session/end", &json!({ "session_token": token }));
    server.json(trials::PLAN);
    server.json(trials::OFFER);
    let trial = client.call("trial", &trials::device("desktop"));
    let trial = trial.body["license_key"].as_str().unwrap();
    let mut run = |server: &Server, command: &str| {
        let command = command.replace("TRIAL", trial);
        let words = words(&command, "", key, "");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        printed.add(&words, &document(server, &words));
    };
    for command in MORE_COMMANDS {
        run(&server, command);
    }
    assert_eq!(server.stop(), Some(0));
    let followed = server.path("data/standby.sqlite3");
    std::fs::copy(server.database(), followed).unwrap();
    for command in [
        "promote --check",
        "promote",
        "restore copy-2.tar",
        "config new-authority --replace",
    ] {
        run(&server, command);
    }
    printed.add(&["serve"], &start_document(&server));
}

#[test]
fn every_command_prints_a_table_or_json() {
    let mut printed = Printed::default();
    let mut server = Server::prepare(&[]);
    server.set_launcher(OPEN_UMASK);
    server.run();
    server.json(&["customer", "add", "First"]);
    let client = server.client();
    for (tag, json) in [("1", false), ("2", true)] {
        let issue = ["license", "issue", "--customer", "First", "--devices", "2"];
        let issued = server.json(&issue);
        let key = issued["licenses"][0]["license_key"].as_str().unwrap();
        client.session(key, "laptop");
        let id = running(&server)[0]["id"].to_string();
        let filled = |text: &str| {
            text.replace("{}", tag)
                .replace("KEY", key)
                .replace('#', &id)
        };
        for line in COMMANDS.lines() {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [command, word, pointer, expected] = parts[..] else {
                panic!("{line}");
            };
            let words = words(command, tag, key, &id);
            let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            if json {
                let document = server.json(&arguments);
                printed.add(&arguments, &document);
                let expected: Value = serde_json::from_str(&filled(expected)).unwrap();
                let found = document.pointer(pointer);
                assert_eq!(found, Some(&expected), "{command}: {document:#}");
            } else {
                let output = server.cli(&arguments);
                let text = String::from_utf8(output.stdout).unwrap();
                let error = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(0), "{command}: {error}");
                assert!(text.contains(&filled(word)), "{command}: {text}");
            }
            assert_private(&server);
        }
    }
    print_more(server, &mut printed);
    printed.compare();
}

/// On each line: a command, its exit status (2 if it is invalid, 1 if it fails in the present state), and a part of its
/// error message.
const FAILURES: &str = "nonsense | 2 | --help
restart | 2 | systemctl restart license-server
licence list | 2 | 'license'
license | 2 | Usage
license issue | 2 | --customer
license extend KEY | 2 | --help
license extend KEY --days x | 2 | --help
flag set x --on --off | 2 | --help
session end x | 2 | --help
config set | 2 | heartbeat_interval (seconds, 1..3600)
completions tcsh | 2 | --help
config set nonsense | 2 | KEY=VALUE
config set nothing=1 | 2 | heartbeat_interval
config set api~key=mine | 2 | rotate-api-key
config set heartbeat~interval=0 | 2 | 1..3600
config set session~timeout=30 | 2 | above heartbeat_interval
config set session~timeout=86401 | 2 | 86400
config set offline~days=91 | 2 | 0..90
config rotate-signing-key --lost x | 2 | --help
config set session~policy=some | 2 | replace_same_device
config set current~version=1.0 | 2 | three decimal numbers
config rotate-api-key --overlap-days -1 | 2 | --help
customer add _ | 2 | --help
customer add Ada --email nobody | 2 | name@example.org
license issue --customer Ada --count 0 | 2 | 1..10000
license issue --customer Ada --devices 0 | 2 | 1..100000
license issue --customer Ada --valid-until tomorrow | 2 | 2027-12-31
license issue --customer Ada --valid-until 2020-01-01 | 2 | past
license issue --customer Ada --domain localhost | 2 | www.example.org
license issue --customer Ada --kind gift | 2 | --help
license issue --customer Ada --days 0 | 2 | --help
license issue --customer Ada --days 2 --valid-until 2099-12-31 | 2 | --help
license revoke KEY | 2 | standard input is empty
admin add bob --role admin | 2 | --password-stdin
license issue --customer Ada --feature a/b | 2 | a-z, 0-9
license extend KEY --until 2020-01-01 | 2 | begins
license edit KEY --devices 0 | 2 | 1..100000
license edit KEY --feature Pro! | 2 | a-z, 0-9
license edit KEY --updates-until tomorrow | 2 | 2027-12-31
plan add Pro --name Pro | 2 | a-z, 0-9 and hyphens
plan add pro --name _ | 2 | 1..100 characters
plan add pro | 2 | --help
plan add pro --name Pro --devices 0 | 2 | 1..100000
plan add pro --name Pro --term-days 0 | 2 | 1..36500
plan add pro --name Pro --term-days year | 2 | --help
plan add pro --name Pro --term-starts first~activation | 2 | number of days
plan add pro --name Pro --term-starts soon | 2 | --help
plan add pro --name Pro --updates-days 36501 | 2 | 1..36500
plan add pro --name Pro --feature Größe | 2 | a-z, 0-9
plan add taken --name Taken | 1 | never used twice
plan show nothing | 1 | plan list
plan edit nothing --devices 2 | 1 | plan list
plan edit taken | 2 | name an option
plan archive nothing | 1 | plan list
plan apply nothing | 1 | plan list
license issue --customer Ada --plan nothing | 1 | plan list
license issue --customer Ada --plan gone | 1 | archived
license edit KEY --plan nothing | 1 | plan list
license edit KEY | 2 | name an option
license edit KEY --customer _ | 2 | customer list
license edit KEY --customer 999 | 1 | customer list
release add 1.2 --notes x | 2 | three decimal numbers
release add 1.2.0 --notes x --url http://example.org/ | 2 | https://
flag set a_b | 2 | letters, digits
flag set x --share 101 | 2 | 0..100
limit set client --per-minute 2000000 | 2 | 1000000
limit set client --per-minute 1 --burst 0 | 2 | 1..1000000
--config nowhere.toml config show | 2 | there is no nowhere.toml
--config . config show | 2 | . is a folder
promote | 1 | there is no data/standby.sqlite3
license show UNKNOWN | 1 | license list
license suspend nonsense | 1 | license list
license reinstate REVOKED | 1 | issue a new one
license extend KEY --days 1 | 1 | Set an expiry date
license issue --customer nobody | 1 | customer list
license issue --customer 999 | 1 | customer list
license release-device KEY nothing | 1 | license show
session end 999 | 1 | session list
session history --license UNKNOWN | 1 | license list
release add 1.0.0 --notes x | 1 | already
release yank 9.9.9 | 1 | release list
flag remove nothing | 1 | flag list
limit set nothing --per-minute 1 | 1 | limit list
limit set admin~api --per-minute 1 | 1 | limit list
backup there.sqlite3 | 1 | another file name
restore there.sqlite3 | 1 | stop it first
restore nowhere.sqlite3 | 1 | cannot be read
restore license-server.log | 1 | cannot be read
config new-authority | 1 | stop it first
serve | 1 | stop it first";

#[test]
fn a_command_that_fails_prints_one_line_that_says_what_to_do() {
    let server = Server::start();
    let key = server.issue_license(1);
    server.json(&["license", "revoke", "--yes", &server.issue_license(1)]);
    server.json(&["release", "add", "1.0.0", "--notes", ""]);
    for code in ["taken", "gone"] {
        server.json(&["plan", "add", code, "--name", code]);
    }
    server.json(&["plan", "archive", "gone"]);
    server.json(&["backup", "there.sqlite3"]);
    for line in FAILURES.lines() {
        let parts: Vec<&str> = line.split(" | ").collect();
        let [command, status, hint] = parts[..] else {
            panic!("{line}");
        };
        let status = status.parse().unwrap();
        let revoked = database::revoked_key(&server);
        let command = command
            .replace("UNKNOWN", UNKNOWN)
            .replace("REVOKED", &revoked);
        let words = words(&command, "", &key, "");
        let output = server.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{command}: {error}");
        assert!(error.contains(hint), "{command}: {error}");
        assert!(output.stdout.is_empty(), "{command} printed a result");
        assert!(!error.contains("'restore'"), "a wrong suggestion: {error}");
        let own_message = error.starts_with("license-server: ");
        assert!(
            !own_message || error.trim_end().lines().count() == 1,
            "{command}: {error}"
        );
        assert!(
            own_message || error.contains("--help") || error.contains("Usage"),
            "{command}: {error}"
        );
    }
}

/// Asserts that other users have no access to any file below `data`.
fn assert_private(server: &Server) {
    for path in files_below(&server.path("data")) {
        // The running server may have deleted the file since it was listed.
        let Ok(data) = path.symlink_metadata() else {
            continue;
        };
        let mode = data.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has {mode:o}", path.display());
    }
}

#[test]
fn nothing_of_the_server_is_readable_by_others_after_any_command() {
    let mut server = Server::prepare(&[]);
    server.set_launcher(OPEN_UMASK);
    for command in [
        &["customer", "add", "Ada"][..],
        &["config", "show"],
        &["backup", "data/copy"],
        &["license", "list"],
    ] {
        server.json(command);
        assert_private(&server);
    }
    server.run();
    assert_private(&server);
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
    server.json(&["backup", "data/second"]);
    assert_private(&server);
    assert_eq!(server.stop(), Some(0));
    server.json(&["restore", "data/copy"]);
    assert_private(&server);
    assert!(files_below(&server.path("data")).len() > 5);
}

#[test]
fn check_prints_one_line_for_each_check() {
    let mut server = Server::prepare(&[]);
    let checked = |server: &Server| {
        let output = server.cli(&["check"]);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (status, text) = checked(&server);
    assert_eq!(status, Some(1));
    assert!(
        text.contains("TODO  file ") && text.contains("the first start creates it"),
        "{text}"
    );
    assert!(!server.path("data").exists(), "a check creates nothing");
    server.run();
    let (status, text) = checked(&server);
    assert_eq!(status, Some(0), "{text}");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("ok    "))
        .collect();
    assert_eq!(names.len(), text.lines().count(), "{text}");
    for name in [
        "settings",
        "file",
        "schema",
        "integrity",
        "audit log",
        "disk space",
        "backup",
        "clock",
        "certificate",
        "reachability",
    ] {
        assert!(
            names.iter().any(|line| line.starts_with(name)),
            "{name}: {text}"
        );
    }
    let integrity = names.iter().find(|line| line.starts_with("integrity"));
    assert!(
        integrity.is_some_and(|line| line.contains("SQLite keeps no checksums")),
        "what it cannot see: {text}"
    );
    let document = server.json(&["check"]);
    assert_eq!(
        document["checks"].as_array().map(Vec::len),
        Some(names.len())
    );
    server.issue_license(1);
    server.stop();
    let wrong = |text: &str, name: &str| {
        text.lines()
            .any(|line| line.starts_with(&format!("TODO  {name}")))
    };
    let (status, text) = checked(&server);
    assert!(status == Some(1) && wrong(&text, "reachability"), "{text}");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(server.database(), mode).unwrap();
    assert!(wrong(&checked(&server).1, "file"));
    database::forge_first_audit_entry(&server);
    let (_, text) = checked(&server);
    assert!(
        wrong(&text, "audit log") && text.contains("entry 1 "),
        "{text}"
    );
    database::remove_customers_of_licenses(&server);
    let (_, text) = checked(&server);
    assert!(
        wrong(&text, "integrity") && text.contains("licenses"),
        "{text}"
    );
}

#[test]
fn commands_work_on_the_database_of_a_running_server() {
    let server = started(&[], &[&["customer", "add", "Ada"]]);
    let keys = std::thread::scope(|scope| {
        let issue = || {
            let issued = server.json(&["license", "issue", "--customer", "Ada"]);
            issued["licenses"][0]["license_key"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(issue)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let client = server.client();
    for key in &keys {
        assert_eq!(
            client.call("activate", &identity(key, "laptop")).status,
            201,
            "at once"
        );
    }
    assert_eq!(
        server.json(&["license", "list"])["licenses"]
            .as_array()
            .map(Vec::len),
        Some(8)
    );
}

#[test]
fn a_command_that_was_suspended_for_a_while_goes_on() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    // Each is suspended at another moment of its work, longer than it waits for anything.
    let suspended: Vec<_> = (0..24)
        .map(|number| {
            let mut command = server.command(&["customer", "list"]);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            std::thread::park_timeout(Duration::from_millis(3 * number));
            let pid = Pid::from_child(&child);
            kill_process(pid, Signal::STOP).unwrap();
            (pid, child)
        })
        .collect();
    wait_until(Instant::now(), Duration::from_millis(3500));
    for (pid, _) in &suspended {
        kill_process(*pid, Signal::CONT).unwrap();
    }
    for (_, child) in suspended {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("Ada"));
    }
}

#[test]
fn the_settings_in_force_are_shown_as_a_file_that_can_be_used() {
    let server = Server::prepare(&[("LOG__LEVEL", "\"debug\"")]);
    let output = server.cli(&["settings"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let port = format!("\nport = {} # default: 8443\n", server.port());
    assert!(
        text.contains(&port) && text.contains("level = \"debug\" # default: \"info\""),
        "{text}"
    );
    std::fs::write(server.path("shown.toml"), &text).unwrap();
    let again = server.cli(&["--config", "shown.toml", "settings"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
    assert_eq!(server.json(&["settings"])["server"]["port"], server.port());
    assert!(!server.database().exists());
}

#[test]
fn completions_and_the_man_page_know_every_command() {
    let server = Server::prepare(&[]);
    for arguments in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let output = server.cli(arguments);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for word in ["license", "bind", "rotate", "vacuum", "completions"] {
            assert!(text.contains(word), "{arguments:?}: {word}");
        }
    }
    assert!(!server.database().exists());
}
