//! The architecture as a test: which modules may import which, what belongs in which file, and whether every query
//! is used and served by an index. A change of the architecture is a change of the tables below.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a test may stop the test run"
)]

#[path = "architecture/audit.rs"]
mod audit;
#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/field_limits.rs"]
mod field_limits;
#[path = "architecture/operations.rs"]
mod operations;
#[path = "architecture/queries.rs"]
mod queries;
#[path = "architecture/sizes.rs"]
mod sizes;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up. A module may import from its own layer and from lower ones.
const LAYERS: &[&[&str]] = &[
    &[
        "error", "clock", "zone", "id", "version", "domain", "config", "metrics", "memory",
        "logging", "paging",   // pages of lists
        "revision", // edit conflicts, the same for forms and scripts
        "terms", // what is typed into a search, the same for every list, and the form in which texts are indexed
        "text",  // how text is stored and compared, the same for the database, forms and commands
        "features", // what was sold, as words; the same for licenses and plans
        "digest", // a hash over several fields, the same for the code and for SQL
    ],
    &["db"],
    // `archive` is the file format of a backup, and knows nothing of the contents.
    &[
        "security",
        "license_key", // how a license key is made and read, the same for all that takes one
        "net",
        "archive",
        "tls",
        "i18n",
        "web",
        "console",
    ],
    CORE,
    &[
        "front", "server", "jobs", "doctor", "monitor", "demo",
        "app",   // the parts of a running server; every handler may look up to it
        "panel", // the frame and the guards of every page, likewise; and the set-up
    ],
    &["cli"],
];
const CORE_LAYER: usize = 3;
const CORE: &[&str] = &[
    "activations",
    "admins",
    "audit",
    "backups", // the backup folder, and backups made and downloaded in the panel
    "products",
    "product_state", // whether a product is archived, for the modules that `products` builds on
    "api_keys",
    "figures", // counts over time, which the database keeps itself
    "flags",
    "limits",
    "customers",
    "devices",
    "domains",
    "handshake",
    "signing_keys", // a core module, since the database knows which key pair is current
    "integrate",    // how programs call the API; a dry run uses several modules
    "idempotency", // stored responses of activations and starts, so neither of their modules owns them
    "leases",
    "licenses",
    "license_lists", // the orders of the list of licenses, each by an index
    "live_sessions", // the heartbeats in memory; `sessions` writes them to the database
    "manual",        // rendered, shown and searched; it reads no data
    "logins",        // passwords, second factors and logins of administrators
    "overview",
    "plans",    // what a shop sells; it issues licenses, so `licenses` knows nothing of it
    "privacy",  // what a person may ask for: a copy of the data, and its erasure
    "refusals", // which calls were refused; below `handshake`, which records its failures there
    "releases",
    "saved_filters", // filters of lists, each administrator's own
    "search",        // one search for customers, licenses, devices and sessions
    "session_history",
    "session_lists", // the orders of the list of running sessions
    "sessions",
    "trials", // licenses without a key and a customer; `sell` gives them one
    "verification",
    "standby",
    "timelines",    // which servers wrote the database, one after the other
    "server_state", // the server's own row: its start time and the latest date seen
];
/// Which core modules may import which others, their handlers apart, which may look up; one that is not listed imports
/// none.
const CORE_IMPORTS: &[(&str, &[&str])] = &[
    // A device that gives back its slot loses its session.
    (
        "activations",
        &[
            "audit",
            "devices",
            "idempotency",
            "licenses",
            "live_sessions",
            "session_history",
            "sessions",
        ],
    ),
    // The set-up asks for the default language, too.
    ("admins", &["audit", "logins", "server_state"]),
    ("logins", &["audit"]),
    // A restore ends sessions and logins, determines the latest change in the copy from several modules, checks that
    // the signing keys exist, and erases again who was erased after the copy was made.
    (
        "backups",
        &[
            "logins",
            "audit",
            "devices",
            "signing_keys",
            "privacy",
            "sessions",
            "server_state",
            "timelines", // a copy of a server that was replaced is refused
        ],
    ),
    // A standby takes over like a restore, with the sessions.
    (
        "standby",
        &[
            "audit",
            "backups",
            "logins",
            "server_state",
            "sessions",
            "timelines",
        ],
    ),
    // An erasure releases devices, ends their sessions, revokes licenses and erases audit entries.
    (
        "privacy",
        &[
            "activations",
            "audit",
            "customers",
            "devices",
            "licenses",
            "live_sessions",
            "saved_filters", // which may search for the person
        ],
    ),
    // What programs are told comes from these modules.
    (
        "products",
        // The plan of trials must be one of the kind trial; a higher minimum version concerns devices.
        &[
            "api_keys",
            "audit",
            "devices",
            "flags",
            "licenses",
            "limits",
            "plans",
            "product_state",
            "releases",
        ],
    ),
    // Nothing of an archived product is changed or sold.
    ("api_keys", &["audit", "product_state"]),
    ("flags", &["audit", "product_state"]),
    ("limits", &["audit"]),
    ("customers", &["audit"]),
    ("devices", &["licenses"]),
    ("domains", &["audit", "licenses"]),
    ("figures", &["devices"]),
    // A handshake that failed is recorded in the transaction of its log, unless a customer was erased meanwhile.
    (
        "handshake",
        &[
            "audit", "products", "domains", "licenses", "privacy", "refusals", "releases",
        ],
    ),
    (
        "integrate",
        &[
            "activations",
            "audit",
            "products",
            "devices",
            "licenses",
            "live_sessions",
            "sessions",
            "session_history",
        ],
    ),
    ("signing_keys", &["audit"]),
    ("leases", &["licenses", "products"]),
    (
        "licenses",
        &["audit", "customers", "license_lists", "product_state"],
    ),
    ("live_sessions", &["licenses"]),
    (
        "overview",
        &[
            "admins",
            "audit",
            "products",
            "customers",
            "devices",
            "domains",
            "figures",
            "flags",
            "handshake",
            "licenses",
            "live_sessions",
            "refusals",
            "sessions",
            "session_history",
        ],
    ),
    // A call for a trial names a device only; what was refused before an erasure is not recorded after it. Refusals are
    // found by customer and license.
    ("refusals", &["customers", "devices", "licenses", "privacy"]),
    // Licenses are issued by plans, and plans are applied to their licenses.
    ("plans", &["audit", "licenses", "product_state"]),
    ("releases", &["audit", "product_state"]),
    // What is found belongs to these modules.
    (
        "search",
        &[
            "customers",
            "devices",
            "licenses",
            "session_history",
            "sessions",
        ],
    ),
    ("session_lists", &["session_history"]),
    (
        "sessions",
        &[
            "audit",
            "products",
            "customers",
            "devices",
            "idempotency",
            "leases",
            "licenses",
            "live_sessions",
            "session_history",
            "session_lists",
        ],
    ),
    ("session_history", &["customers", "idempotency", "licenses"]),
    // A trial is issued by a plan, takes the slot of its device, and is answered twice like an activation.
    (
        "trials",
        &[
            "audit",
            "devices",
            "idempotency",
            "licenses",
            "plans",
            "products",
        ],
    ),
    (
        "verification",
        &["devices", "leases", "licenses", "live_sessions", "products"],
    ),
];
/// The file names that a core module may have.
const FILE_NAMES: &[&str] = &[
    "mod",
    "rules",
    "programs",
    "recent", // what was read lately, kept in memory
    "store",
    "client",
    "site",
    "api",
    "panel",
    "cli",
    "json",
    // In `handshake`: what runs handshakes, those that are open, how often a domain is called, the log, and the messages
    // to sites.
    "service",
    "open_handshakes",
    "budget",
    "log",
    "messages",
    // In `products`: what programs are told, and its cache.
    "program_settings",
    // And the settings of a product.
    "settings",
    // In `sessions`: one file per operation or group of them.
    "start",
    "heartbeat",
    "upkeep",
    // In `session_history`: the folding of one license's history.
    "fold",
    // In `logins`: second factors, login throttling; in `admins`: the one-time link of the first start.
    "factors",
    "throttle",
    "setup_link",
    // In `refusals`: the calls that are not stored yet.
    "queue",
    // In `licenses`: one file per operation.
    "issue",
    "change",
    "listing",
    "selection", // The same change to several licenses.
    "sale",      // In `plans`, too; and applying a plan to its licenses.
    "apply",
    // In `audit`: who changes something, when, in which transaction; and what proves the log.
    "act",
    "chain",
    "erasures",
    // In `privacy`: one file per operation or group of them.
    "erase",
    "erased_list",
    "markdown", // In `manual`: rendering, and the parts that are made from elsewhere.
    "reference",
    "export",
    "retention", // In `backups`: one file per operation.
    "create",
    "restore", // And the folder of scheduled backups.
    "folder",  // And which copies of the database exist.
    "copies",
];
/// `json` is what several handlers of a module build their JSON with.
const HANDLERS: &[&str] = &["client", "site", "api", "panel", "cli", "json"];
/// The modules above the core that handlers may import.
const LOOKED_UP_TO: &[&str] = &["app", "panel"];
/// The tools that only handlers may use.
const HANDLERS_ONLY: &[&str] = &["web", "console"];

/// Whether a file of this name holds handlers.
fn is_handler(file: &str) -> bool {
    HANDLERS.contains(&file)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` with this extension, by its path from the top of the repository.
fn files(folder: &str, extension: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root().join(folder)];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(path.strip_prefix(root()).unwrap().to_owned(), text);
        }
    }
    assert!(!found.is_empty(), "{folder} has no .{extension} files");
    found
}

/// The module of `src/` that a file belongs to, and the name of the file; for a file below a handler with several
/// pages, the name of the handler.
fn address(path: &Path) -> (String, String) {
    let mut parts = path.strip_prefix("src").unwrap().components();
    let first = parts.next().unwrap().as_os_str().to_str().unwrap();
    let second = parts.next().map(|part| part.as_os_str().to_str().unwrap());
    let file = match second {
        Some(handler) if HANDLERS.contains(&handler) => handler,
        _ => path.file_stem().unwrap().to_str().unwrap(),
    };
    (first.trim_end_matches(".rs").to_owned(), file.to_owned())
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
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
    let known: Vec<&str> = LAYERS
        .iter()
        .flat_map(|layer| layer.iter().copied())
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
fn imports_go_down_and_core_modules_import_only_listed_ones() {
    let mut violations = Vec::new();
    let mut used = BTreeSet::new();
    for (path, text) in files("src", "rs") {
        let (from, file) = address(&path);
        if ["lib", "main"].contains(&from.as_str()) {
            continue;
        }
        let from_layer = layer_of(&from).unwrap_or_else(|| panic!("{from} has no layer"));
        for to in imports(&code(&text)).into_iter().filter(|to| *to != from) {
            let to_layer = layer_of(&to).unwrap();
            let within_core = from_layer == CORE_LAYER && to_layer == CORE_LAYER;
            let listed = CORE_IMPORTS
                .iter()
                .any(|(module, imports)| *module == from && imports.contains(&to.as_str()));
            let core_file = from_layer == CORE_LAYER && !HANDLERS.contains(&file.as_str());
            let allowed = if within_core {
                listed || !core_file
            } else {
                to_layer <= from_layer
                    || (LOOKED_UP_TO.contains(&to.as_str()) && HANDLERS.contains(&file.as_str()))
            };
            if !allowed || (core_file && HANDLERS_ONLY.contains(&to.as_str())) {
                violations.push(format!("{} imports {to}", path.display()));
            }
            if within_core && core_file {
                used.insert((from.clone(), to));
            }
        }
    }
    for (module, imports) in CORE_IMPORTS {
        for to in imports
            .iter()
            .filter(|to| !used.contains(&((*module).to_owned(), (**to).to_owned())))
        {
            violations.push(format!("{module} may import {to}, and does not"));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn core_modules_do_not_import_each_other_in_circles() {
    let graph = CORE_IMPORTS.iter().map(|(module, imports)| {
        let imports = imports.iter().map(|to| (*to).to_owned());
        ((*module).to_owned(), imports.collect())
    });
    let circles = source::circles(&graph.collect());
    assert!(circles.is_empty(), "{circles:?}");
}

#[test]
fn every_file_has_the_name_and_the_contents_of_its_kind() {
    let mut violations = Vec::new();
    for (path, text) in files("src", "rs") {
        let (module, file) = address(&path);
        let name = path.display();
        let is_core = CORE.contains(&module.as_str());
        if is_core && !FILE_NAMES.contains(&file.as_str()) {
            violations.push(format!("{name} is not a file name of a core module"));
        }
        let is_handler = is_core && HANDLERS.contains(&file.as_str());
        let store = is_core && file == "store";
        let http = (is_handler && file != "cli")
            || ["web", "app", "panel", "server", "front", "monitor"].contains(&module.as_str());
        let code = code(&text);
        for (word, allowed) in [
            ("rocket::", http),
            ("rusqlite::", store || module == "db"),
            ("sql!(", store || module == "db"),
            (
                "clap::",
                file == "cli" || ["cli", "main"].contains(&module.as_str()),
            ),
            ("std::env::", ["config", "main"].contains(&module.as_str())),
            // Wrong behind a proxy: `ClientAddress` is the client's address.
            (".client_ip()", false),
        ] {
            if code.contains(word) && !allowed {
                violations.push(format!("{name} uses {word}"));
            }
        }
        if store && code.contains(".ok()") {
            violations.push(format!("{name} turns a failure into `None`"));
        }
        if store
            && code
                .lines()
                .any(|line| line.trim_start().starts_with("pub fn"))
        {
            violations.push(format!("{name} exposes the database to other modules"));
        }
        if !text.starts_with("//! ") {
            violations.push(format!("{name} does not begin with a description"));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}
