//! Throughput and latency of the server on this machine, compared with a bare Rocket: `cargo bench`.
//!
//! `README.md` beside this folder says what each line means, and how to compare two builds.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a benchmark may stop itself, prints its result, and measures time"
)]

mod calls;
mod connection;
mod crowd;
mod data;
mod disturbances;
mod drive;
mod echo;
mod host;
mod paced;
mod pairs;
mod panel;
mod process;
mod products;
mod report;
mod sites;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use license_server::front::ConnectionLimit;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use calls::Row;
use data::Size;
use process::Installation;
use report::{Format, Report};

/// Seconds per cell of the table, in total.
const SECONDS: f64 = 4.5;
/// Wait before memory is measured, in which every job that runs often has run once.
const SETTLED: Duration = Duration::from_secs(2);
const VERSION: &str = "/api/license/version?version=1.0.0";
const HEARTBEAT: &str = "/api/license/session/heartbeat";

type Measure = fn(&mut Bench);

/// The parts, in the order in which they are measured.
const PARTS: &[(&str, Measure)] = &[
    ("start", calls::starts),
    ("calls", calls::measure),
    ("paced", paced::measure),
    ("crowd", crowd::measure),
    ("growth", pairs::growth),
    ("builds", pairs::builds),
    ("products", products::measure),
    ("sites", sites::measure),
    ("panel", panel::measure),
    ("disturbances", disturbances::measure),
];

fn main() {
    echo::serve_if_asked();
    host::serve_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if !has("--bench") {
        println!("nothing is measured: this is for `cargo bench`");
        return;
    }
    // Raises the limit of file descriptors.
    ConnectionLimit::from_system().unwrap();
    let format = if has("--json") {
        Format::Json
    } else {
        Format::Text
    };
    let is_word = |argument: &String| !argument.starts_with('-');
    let words: Vec<String> = arguments
        .iter()
        .filter(|word| is_word(word))
        .cloned()
        .collect();
    let is_part = |word: &String| PARTS.iter().any(|(part, _)| part == word);
    // Any other word names rows of the calls.
    let names_rows = words.iter().any(|word| !is_part(word));
    let mut bench = Bench::new(words, format);
    for (name, measure) in PARTS {
        let is_named = bench.words.iter().any(|word| word == name);
        if bench.words.is_empty() || is_named || (*name == "calls" && names_rows) {
            bench.report.part(name);
            measure(&mut bench);
        }
    }
}

/// What the parts share.
struct Bench {
    report: Report,
    runtime: Arc<Runtime>,
    /// Seconds per cell.
    seconds: f64,
    words: Vec<String>,
    /// Databases, filled when they are first used.
    folders: Folders,
}

/// Where the filled databases are.
enum Folders {
    /// Deleted at the end.
    Temporary(TempDir),
    /// Used again by the next run.
    Kept(PathBuf),
}

impl Bench {
    fn new(words: Vec<String>, format: Format) -> Self {
        let seconds = std::env::var("LICENSE_BENCH_SECONDS").ok();
        let kept = std::env::var_os("LICENSE_BENCH_FOLDER").map(PathBuf::from);
        Self {
            report: Report::new(format),
            runtime: Arc::new(Runtime::new().unwrap()),
            seconds: seconds.map_or(SECONDS, |text| text.parse().unwrap()),
            words,
            folders: kept.map_or_else(|| Folders::Temporary(folder()), Folders::Kept),
        }
    }

    /// The installation of this name, filled to this size.
    fn filled(&self, name: &str, size: Size) -> Installation {
        let parent = match &self.folders {
            Folders::Temporary(folder) => folder.path(),
            Folders::Kept(folder) => folder,
        };
        let installation = Installation::new(&parent.join(name));
        if !installation.database().exists() {
            std::fs::create_dir_all(&installation.folder).unwrap();
            let divisor = std::env::var("LICENSE_BENCH_DIVIDE").ok();
            data::fill(
                &installation,
                size.divided(divisor.map_or(1, |text| text.parse().unwrap())),
            );
        }
        installation
    }

    /// 100,000 running sessions.
    fn usual(&self) -> Installation {
        self.filled("usual", Size::USUAL)
    }

    fn usual_copy(&self) -> TempDir {
        copy(&self.usual())
    }

    /// 10,000 licenses.
    fn small(&self) -> Installation {
        self.filled("small", Size::SMALL)
    }

    fn small_copy(&self) -> TempDir {
        copy(&self.small())
    }

    /// 1,000,000 licenses.
    fn large(&self) -> Installation {
        self.filled("large", Size::LARGE)
    }

    fn large_copy(&self) -> TempDir {
        copy(&self.large())
    }

    /// The two echoes, and the rows that the words name; all, if they name none.
    fn requested(&self, mut rows: Vec<Row>) -> Vec<Row> {
        let is_part = |word: &String| PARTS.iter().any(|(part, _)| part == word);
        let words: Vec<&String> = self.words.iter().filter(|word| !is_part(word)).collect();
        rows.retain(|row| {
            row.label.starts_with("echo")
                || words.is_empty()
                || words.iter().any(|word| row.label.contains(*word))
        });
        rows
    }
}

/// A folder in the build directory, since the system's temporary folder may not be on a disk.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A copy of what a server that does not run has written.
fn copy(installation: &Installation) -> TempDir {
    let dir = folder();
    let copied = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(installation.folder.join("data"))
        .arg(dir.path())
        .status();
    assert!(copied.unwrap().success());
    dir
}
