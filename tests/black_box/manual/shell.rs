//! The shell commands in the manual: every block that says that it can be run, `sh run`, is run.

use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};

use license_server::manual::PAGES;

use super::pages::{LANGUAGES, text_of};
use crate::support::Server;

/// The blocks of a page with this marking, in their order.
fn blocks(page: &str, language: &str, marking: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text_of(page, language).lines() {
        match (&mut block, line) {
            (Some(_), "```") => found.extend(block.take()),
            (Some(text), line) => writeln!(text, "{line}").unwrap(),
            (None, line) if line == format!("```{marking}") => block = Some(String::new()),
            (None, _) => {}
        }
    }
    found
}

/// Runs a script beside a server, in its folder.
fn run(server: &Server, script: &str) -> Output {
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_license-server"));
    let folder = executable.parent().unwrap().display();
    let path = std::env::var("PATH").unwrap();
    Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(server.path("."))
        .env("PATH", format!("{folder}:{path}"))
        .env("LICENSE_SERVER_SERVER__PORT", server.port().to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn every_shell_block_that_says_that_it_can_be_run_can_be_run() {
    let mut ran = 0;
    for language in LANGUAGES {
        for page in PAGES {
            let blocks = blocks(page, language, "sh run");
            if blocks.is_empty() {
                continue;
            }
            let server = Server::start();
            // The manual has the shipped port.
            let script = blocks
                .concat()
                .replace(":8443", &format!(":{}", server.port()));
            let output = run(&server, &script);
            assert!(
                output.status.success(),
                "{page} {language}: {script}\n{output:?}"
            );
            ran += blocks.len();
        }
    }
    assert!(ran > 10, "{ran}");
}

#[test]
fn the_first_session_of_the_manual_runs_is_refused_a_second_time_and_ends() {
    for language in LANGUAGES {
        let server = Server::start();
        let script = blocks("start", language, "sh run").concat();
        let script = script.replace(":8443", &format!(":{}", server.port()));
        let output = String::from_utf8(run(&server, &script).stdout).unwrap();
        let expected = [
            "\"device_count\":1",
            "\"code\":\"session_active\"",
            "\"status\":\"ok\"",
            "\"status\":\"ended\"",
        ];
        let places = expected.map(|part| {
            output
                .find(part)
                .unwrap_or_else(|| panic!("{part}: {output}"))
        });
        assert!(places.is_sorted(), "{output}");
    }
}
