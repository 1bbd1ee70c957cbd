//! Keeps the house in order: who may import whom, what belongs in which file, whether every query is used
//! and served by an index. This is the plan of the house; a change of the plan is a change here.

#![expect(clippy::unwrap_used, reason = "a test may stop the test run")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Floors from the ground up. A module may import from its own floor and from lower ones.
const FLOORS: &[&[&str]] = &[
    &[
        "error", "clock", "id", "version", "domain", "config", "metrics", "logging",
        "text", // how text is stored and compared: the database, forms and commands do it alike
    ],
    &["db"],
    // `archive` is the form of a backup as a file, and knows nothing of what is in it.
    &["security", "archive", "tls", "i18n", "web", "console"],
    ROOMS,
    &["front", "server", "jobs", "doctor", "monitor", "demo"],
    &["cli"],
];
const ROOM_FLOOR: usize = 3;
const ROOMS: &[&str] = &[
    "admins",
    "audit",
    "backups", // their folder, and what the panel makes and hands out
    "client_config",
    "customers",
    "devices",
    "handshake",
    "signing_keys", // what is signed with; a room, since the database knows which pair is in force
    "integrate",    // how programs are taught to ask; a rehearsal is a deed of several rooms
    "idempotency", // first answers: activations and starts both keep them, so neither room owns them
    "licenses",
    "overview",
    "releases",
    "sessions",
    "server_state", // the server's own row: since when it runs, which date it has seen
];
/// Which room may call which: a room that is not listed calls nobody.
const CALLS: &[(&str, &[&str])] = &[
    // Every panel door asks `admins` who is there; the frame of its pages shows the counts of `overview`.
    // The set-up ends with the first license; the limit of logins is one of the client configuration's.
    (
        "admins",
        &[
            "audit",
            "client_config",
            "customers",
            "licenses",
            "overview",
        ],
    ),
    ("audit", &["admins"]),
    // A file that is put back has its sessions and logins ended, and every room may know its last moment; its keys
    // have to be there.
    (
        "backups",
        &[
            "admins",
            "audit",
            "devices",
            "signing_keys",
            "sessions",
            "server_state",
        ],
    ),
    (
        "client_config",
        &["admins", "audit", "signing_keys", "overview", "releases"],
    ),
    ("customers", &["admins", "audit"]),
    // Its panel door frees slots, which may end a session: that deed is of `sessions`.
    (
        "devices",
        &[
            "admins",
            "client_config",
            "idempotency",
            "licenses",
            "sessions",
        ],
    ),
    (
        "handshake",
        &["admins", "audit", "client_config", "licenses", "releases"],
    ),
    (
        "integrate",
        &[
            "admins",
            "audit",
            "client_config",
            "devices",
            "signing_keys",
            "licenses",
            "sessions",
        ],
    ),
    ("signing_keys", &["audit"]),
    // Lists mark licenses on which a session runs, which counts from the start of the server at the earliest.
    (
        "licenses",
        &["admins", "audit", "customers", "server_state"],
    ),
    (
        "overview",
        &[
            "admins",
            "audit",
            "backups",
            "client_config",
            "customers",
            "devices",
            "handshake",
            "licenses",
            "releases",
            "sessions",
            "server_state",
        ],
    ),
    // Its panel only: which release is current is a matter of `client_config`.
    (
        "releases",
        &["admins", "audit", "client_config", "overview"],
    ),
    (
        "sessions",
        &[
            "admins",
            "audit",
            "client_config",
            "devices",
            "idempotency",
            "licenses",
            "server_state",
        ],
    ),
];
/// What the files of a room are called. Of `sessions`, `live` is the memory, who was heard when, and `views`
/// what people are shown, which only looks; of `handshake`, `live` knows which ids are open.
const KINDS: &[&str] = &[
    "mod", "rules", "store", "client", "site", "api", "panel", "cli", "live", "views",
    // Of `sessions`: what a program may show itself while it cannot reach the server, and how the history of
    // one license is kept small.
    "lease", "fold",
    // Of `admins`: logins, second factors, the memory of guesses, the one-time link of the first start.
    "logins", "factors", "throttle", "setup", // Of `backups`: one file an operation.
    "create", "restore", // And where scheduled copies go.
    "folder",
];
const DOORS: &[&str] = &["client", "site", "api", "panel", "cli"];
/// The tools that only doors may use.
const AT_DOORS: &[&str] = &["web", "console"];
const LINES_MAX: usize = 1000;

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `root` with this extension, by its path from the top of the repository.
fn files(root: &str, extension: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![home().join(root)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(path.strip_prefix(home()).unwrap().to_owned(), text);
        }
    }
    assert!(!found.is_empty(), "{root} holds no .{extension}");
    found
}

/// The module of `src/` that a file belongs to, and the name of the file; of a file below a door that has
/// several pages, the name of the door.
fn address(path: &Path) -> (String, String) {
    let mut parts = path.strip_prefix("src").unwrap().components();
    let first = parts.next().unwrap().as_os_str().to_str().unwrap();
    let second = parts.next().map(|part| part.as_os_str().to_str().unwrap());
    let file = match second {
        Some(door) if DOORS.contains(&door) => door,
        _ => path.file_stem().unwrap().to_str().unwrap(),
    };
    (first.trim_end_matches(".rs").to_owned(), file.to_owned())
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The code of a file: no comments, no tests.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]").next().unwrap();
    let lines = body
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// Modules named as `crate::<module>`, also inside `use crate::{…}`.
fn imports(code: &str) -> BTreeSet<String> {
    let known: Vec<&str> = FLOORS
        .iter()
        .flat_map(|floor| floor.iter().copied())
        .collect();
    let mut found = BTreeSet::new();
    for piece in code.split("crate::").skip(1) {
        let names = match piece.strip_prefix('{') {
            Some(list) => list.split("};").next().unwrap().to_owned(),
            None => piece
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
                .to_owned(),
        };
        let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        found.extend(words.filter(|word| known.contains(word)).map(str::to_owned));
    }
    found
}

#[test]
fn imports_go_down_and_only_listed_rooms_call_each_other() {
    let mut wrong = Vec::new();
    let mut arrows = BTreeSet::new();
    for (path, text) in files("src", "rs") {
        let (from, file) = address(&path);
        if ["lib", "main"].contains(&from.as_str()) {
            continue;
        }
        let from_floor = floor_of(&from).unwrap_or_else(|| panic!("{from} has no floor"));
        for to in imports(&code(&text)).into_iter().filter(|to| *to != from) {
            let to_floor = floor_of(&to).unwrap();
            let between_rooms = from_floor == ROOM_FLOOR && to_floor == ROOM_FLOOR;
            let listed = CALLS
                .iter()
                .any(|(room, may)| *room == from && may.contains(&to.as_str()));
            let core = from_floor == ROOM_FLOOR && !DOORS.contains(&file.as_str());
            let allowed = if between_rooms {
                listed
            } else {
                to_floor <= from_floor
            };
            if !allowed || (core && AT_DOORS.contains(&to.as_str())) {
                wrong.push(format!("{} imports {to}", path.display()));
            }
            if between_rooms {
                arrows.insert((from.clone(), to));
            }
        }
    }
    for (room, may) in CALLS {
        for to in may
            .iter()
            .filter(|to| !arrows.contains(&((*room).to_owned(), (**to).to_owned())))
        {
            wrong.push(format!("{room} may call {to}, and does not"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_line_is_in_the_file_of_its_kind() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", "rs") {
        let (module, file) = address(&path);
        let name = path.display();
        let room = ROOMS.contains(&module.as_str());
        if room && !KINDS.contains(&file.as_str()) {
            wrong.push(format!("{name} is no file of a room"));
        }
        let door = room && DOORS.contains(&file.as_str());
        let store = room && file == "store";
        let http = (door && file != "cli")
            || ["web", "server", "front", "monitor"].contains(&module.as_str());
        let code = code(&text);
        for (word, allowed) in [
            ("rocket::", http),
            ("rusqlite::", store || module == "db"),
            ("sql!(", store || module == "db"),
            (
                "clap::",
                ["cli"].contains(&file.as_str()) || module == "main",
            ),
            ("std::env::", ["config", "main"].contains(&module.as_str())),
            // Behind a proxy it is nobody's: `ClientAddress` says who calls.
            (".client_ip()", false),
        ] {
            if code.contains(word) && !allowed {
                wrong.push(format!("{name} uses {word}"));
            }
        }
        if store && code.contains(".ok()") {
            wrong.push(format!("{name} turns a failure into an absence"));
        }
        if store
            && code
                .lines()
                .any(|line| line.trim_start().starts_with("pub fn"))
        {
            wrong.push(format!("{name} lets others at the database"));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not say what lives in it"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_has_outgrown_its_room() {
    for (path, text) in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_query_is_used_once_prepares_and_is_served_by_an_index() {
    let source: String = files("src", "rs").into_values().collect();
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    license_server::db::register_functions(&conn).unwrap();
    for text in files("sql/migrations", "sql").into_values() {
        conn.execute_batch(&text).unwrap();
    }
    let mut wrong = Vec::new();
    for (path, text) in files("sql/queries", "sql") {
        let name = path.strip_prefix("sql/queries").unwrap().with_extension("");
        let uses = source
            .matches(&format!("sql!(\"{}\")", name.display()))
            .count();
        if uses != 1 {
            wrong.push(format!("{} is used {uses} times", name.display()));
        }
        if !text.starts_with("-- ") {
            wrong.push(format!("{} does not say what it is for", name.display()));
        }
        let statement: String = text
            .lines()
            .filter(|line| !line.starts_with("--"))
            .collect();
        if statement.trim_end().find(';') != Some(statement.trim_end().len() - 1) {
            wrong.push(format!("{} is not one statement", name.display()));
        }
        if ["datetime(", "strftime(", "current_timestamp", "unixepoch("]
            .iter()
            .any(|w| text.contains(w))
        {
            wrong.push(format!("{} asks for the time", name.display()));
        }
        let mut plan = conn.prepare(&format!("explain query plan {text}")).unwrap();
        let steps: Vec<String> = plan
            .raw_query()
            .mapped(|row| row.get(3))
            .collect::<Result<_, _>>()
            .unwrap();
        let scans = steps
            .iter()
            .any(|s| s.starts_with("SCAN") && !s.contains("USING") && !s.contains("CONSTANT"));
        if scans && !text.contains("-- scan ok: ") {
            wrong.push(format!("{} scans: {steps:?}", name.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_readme_names_what_is_there() {
    let readme = fs::read_to_string(home().join("README.md")).unwrap();
    for word in [
        "cargo run --release",
        "cargo test",
        "cargo bench",
        "CHANGELOG.md",
        "license-server.toml",
    ] {
        assert!(readme.contains(word), "{word}");
    }
    for room in ROOMS {
        assert!(
            readme.contains(&format!("`{room}`")),
            "the README does not name the room {room}"
        );
    }
}

#[test]
fn every_deed_of_the_audit_log_has_a_name_for_people() {
    let source: String = files("src", "rs").into_values().collect();
    let texts = files("assets/i18n", "toml");
    let quoted = |rest: &str| rest.split('"').next().unwrap().to_owned();
    let deeds: BTreeSet<String> = source
        .split("what: \"")
        .skip(1)
        .map(quoted)
        .filter(|deed| deed.contains('.'))
        .collect();
    for (path, text) in &texts {
        for deed in &deeds {
            let line = format!("\n{} = ", deed.replace('.', "_"));
            assert!(
                text.contains(&line),
                "{} has no name for {deed}",
                path.display()
            );
        }
    }
    assert!(deeds.len() > 5, "the test looks for the wrong words");
}

/// Actions in the audit logs of shops that bear the earlier name of a module.
const RENAMED: &[&str] = &["keys"];

#[test]
fn every_room_that_is_audited_can_be_asked_for() {
    let source: String = files("src", "rs").into_values().collect();
    let audited: BTreeSet<&str> = source
        .split('"')
        .filter_map(|quoted| {
            let (room, verb) = quoted.split_once('.')?;
            let word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            ((ROOMS.contains(&room) || RENAMED.contains(&room)) && !verb.is_empty() && word(verb))
                .then_some(room)
        })
        .collect();
    let noted = files("assets/i18n", "toml");
    let page = fs::read_to_string(home().join("src/audit/panel.rs")).unwrap();
    let list = page.split("const ROOMS: &[&str] = &[").nth(1).unwrap();
    let list: BTreeSet<&str> = list.split("];").next().unwrap().split('"').collect();
    let mut wrong = Vec::new();
    for text in noted.values() {
        let deeds = text.split("\n[actions]\n").nth(1).unwrap();
        let deeds = deeds.split("\n[").next().unwrap();
        for room in &audited {
            let has_deed = deeds
                .lines()
                .any(|line| line.starts_with(&format!("{room}_")));
            if has_deed && !list.contains(room) {
                wrong.push(format!(
                    "the page of the audit log cannot be filtered by {room}"
                ));
            }
            if list.contains(room) && !text.contains(&format!("\nsection_{room} = ")) {
                wrong.push(format!("a language has no name for {room}"));
            }
        }
    }
    assert!(audited.len() > 8, "the test looks for the wrong words");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every row of the promises, as `tests/README.md` has to name them.
const PROMISES: &[(char, u32)] = &[('N', 8), ('C', 8), ('K', 6), ('P', 11), ('D', 8)];

#[test]
fn every_promise_names_tests_that_are_there() {
    let table = fs::read_to_string(home().join("tests/README.md")).unwrap();
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .flat_map(|(names, rest)| names.split(", ").map(move |name| (name, rest)))
        .collect();
    let mut wrong = Vec::new();
    for (letter, count) in PROMISES {
        for number in 1..=*count {
            let row = format!("{letter}{number}");
            match rows.get(row.as_str()) {
                Some(told) if told.contains("::") => {}
                _ => wrong.push(format!("{row} names no test")),
            }
        }
    }
    let sources: Vec<_> = ["src", "tests"]
        .map(|root| files(root, "rs"))
        .into_iter()
        .flatten()
        .collect();
    for named in table.split('`').filter(|piece| piece.contains("::")) {
        let (file, test) = named.split_once("::").unwrap();
        let file = if file.starts_with("src/") {
            file.to_owned()
        } else {
            format!("tests/{file}")
        };
        let known = sources.iter().any(|(path, text)| {
            let place = path.with_extension("");
            let here = place == Path::new(&file) || place == Path::new(&file).join("mod");
            here && text.contains(&format!("fn {test}("))
        });
        if !known {
            wrong.push(format!("there is no test {named}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
