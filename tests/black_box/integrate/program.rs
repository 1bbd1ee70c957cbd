//! The example program on the page *Integrate*: copied from the page, and run by Python against the real server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::database;
use crate::inspect::{end_reasons, running};
use crate::integrate::panel::{copied, download_certificate, is_installed};
use crate::setup::started;
use crate::support::{Server, eventually};
use crate::trials;

/// The body of the example's function `work`, which tests replace.
const WORK: &str = "stop.wait(3)";
/// Works until the program is told to stop.
const FOR_EVER: &str = "stop.wait(600)";

/// Saves the program of the page in the server's folder, with the first license filled in and the body `work`; returns
/// its text.
fn program(server: &Server, work: &str) -> String {
    let mut panel = server.logged_in_browser("admin");
    download_certificate(server, &mut panel);
    let text = copied(&panel.get("/integrate?license=1").text, "program");
    assert!(text.contains(WORK), "{text}");
    let text = text.replace(WORK, work);
    save(server, &text);
    text
}

fn save(server: &Server, text: &str) {
    std::fs::write(server.path("program.py"), text).unwrap();
}

/// Runs Python in `folder`, with its home in the server's folder and without a language setting.
fn python(server: &Server, folder: &Path, arguments: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python
        .args(["-u", "-B"])
        .args(arguments)
        .current_dir(folder);
    for name in ["LC_ALL", "LC_MESSAGES", "LANG", "XDG_DATA_HOME"] {
        python.env_remove(name);
    }
    python.env("HOME", server.path("home"));
    python
}

/// The exit status, standard output and standard error of a run.
type Outcome = (Option<i32>, String, String);

fn outcome_of(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn run(server: &Server, arguments: &[&str]) -> Outcome {
    outcome_of(python(server, &server.path("."), arguments))
}

/// Starts the program and waits until its session runs.
fn start_program(server: &Server) -> Child {
    let mut command = python(server, &server.path("."), &["program.py"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    eventually("a session", || !running(server).is_empty());
    child
}

/// Waits for the end of a program that was started.
fn end(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Stops the process, as if its machine were asleep, until its session has timed out.
fn sleep_through_the_timeout(server: &Server, child: &Child) {
    signal(child, "STOP");
    eventually("the timeout", || running(server).is_empty());
}

/// The path of a file in which the program has stored something.
fn stored_file(server: &Server, name: &str) -> std::path::PathBuf {
    let folders = std::fs::read_dir(server.path("home/.local/share")).unwrap();
    let folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].join(name)
}

#[test]
fn the_example_runs_on_the_trial_of_its_device_while_its_user_has_no_key() {
    if !is_installed("python3") {
        return;
    }
    let server = started(&[], &[trials::PLAN, trials::OFFER]);
    let mut panel = server.logged_in_browser("admin");
    download_certificate(&server, &mut panel);
    let text = copied(&panel.get("/integrate").text, "program").replace(WORK, "stop.wait(0)");
    let lines = text.lines().map(|line| {
        if line.starts_with("LICENSE_KEY = ") {
            "LICENSE_KEY = \"\""
        } else {
            line
        }
    });
    save(&server, &lines.collect::<Vec<_>>().join("\n"));
    for _ in 0..2 {
        let (status, out, error) = run(&server, &["program.py"]);
        assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains("normal"), "{out}");
    }
    let licenses = &server.json(&["license", "list"])["licenses"];
    assert_eq!(licenses.as_array().unwrap().len(), 1, "{licenses}");
    assert!(licenses[0]["customer_id"].is_null());
    let key = std::fs::read_to_string(stored_file(&server, "trial")).unwrap();
    assert_eq!(licenses[0]["license_key"], json!(key));
    // Once the trial was stopped, the program explains why it does not start.
    server.json(&["license", "suspend", &key]);
    let (status, _, error) = run(&server, &["program.py"]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains("gesperrt") || error.contains("suspended"),
        "{error}"
    );
}

#[test]
fn the_example_runs_a_session_and_explains_a_refusal() {
    if !is_installed("python3") {
        return;
    }
    let server = Server::start();
    let key = server.issue_license(2);
    program(&server, "stop.wait(0)");
    let before = std::fs::read_dir(server.path(".")).unwrap().count();
    let (status, out, error) = run(&server, &["program.py"]);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert!(
        out.contains("running, features: {}") && out.contains("normal"),
        "{out}"
    );
    // It runs from any folder, and writes no files beside itself.
    let elsewhere = tempfile::tempdir().unwrap();
    let script = server.path("program.py");
    let script = script.to_str().unwrap();
    let (status, out, error) = outcome_of(python(&server, elsewhere.path(), &[script]));
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    let count = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(
        (count(elsewhere.path()), count(&server.path("."))),
        (0, before + 1),
        "only its home was added"
    );
    server.client().session(&key, "laptop");
    for (language, words) in [
        (None, "Es ist nur eine Sitzung erlaubt"),
        (Some("C"), "Es ist nur eine Sitzung erlaubt"),
        (Some("de_AT.UTF-8"), "Es ist nur eine Sitzung erlaubt"),
        (Some("en_US.UTF-8"), "Only one session"),
    ] {
        let mut command = python(&server, elsewhere.path(), &[script]);
        if let Some(language) = language {
            command.env("LANG", language);
        }
        let (status, _, error) = outcome_of(command);
        assert_eq!(status, Some(1));
        assert!(error.starts_with(words), "{language:?}: {error}");
    }
}

#[test]
fn the_example_starts_a_new_session_after_a_sleep_and_stops_if_refused_or_ended() {
    if !is_installed("python3") {
        return;
    }
    let hurry = &["config", "set", "heartbeat_interval=1", "session_timeout=4"];
    let server = started(&[], &[hurry]);
    let key = server.issue_license(2);
    program(&server, FOR_EVER);
    let mut child = start_program(&server);
    sleep_through_the_timeout(&server, &child);
    signal(&child, "CONT");
    eventually("another session", || running(&server).len() == 1);
    assert!(child.try_wait().unwrap().is_none(), "still at work");
    assert!(
        end_reasons(&server)
            .iter()
            .all(|reason| reason == "timeout")
    );
    // Another device has started a session meanwhile.
    sleep_through_the_timeout(&server, &child);
    let other = server.client().session(&key, "laptop");
    signal(&child, "CONT");
    let (status, out, error) = end(child);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(out.contains("Es ist nur eine Sitzung erlaubt"), "{out}");
    server
        .client()
        .call("session/end", &json!({ "session_token": other }));
    // A session that an administrator has ended is not started again.
    let child = start_program(&server);
    let id = running(&server)[0]["id"].to_string();
    server.json(&["session", "end", &id]);
    let (status, out, error) = end(child);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with("forced\n"), "{out}");
    assert_eq!(running(&server).len(), 0);
}

#[test]
fn the_example_uses_what_was_sold_and_names_the_version_to_install() {
    if !is_installed("python3") {
        return;
    }
    let url = "https://example.org/1.0.0.zip";
    let server = started(
        &[],
        &[
            &["release", "add", "1.0.0", "--notes", "", "--url", url],
            &["release", "add", "1.1.0", "--notes", ""],
            &["config", "set", "current_version=1.1.0", "offline_days=7"],
        ],
    );
    database::change(
        &server,
        "update releases set released_at_ms = released_at_ms + 60000 where version = '1.1.0'",
    );
    server.issue_license(2);
    let until = "(select released_at_ms from releases where version = '1.0.0')";
    let sold = format!("features = 'export pro', updates_until_ms = {until}");
    database::set_license(&server, 1, &sold);
    let text = program(&server, "stop.wait(0)");
    let covered = text.replace("VERSION = \"1.1.0\"", "VERSION = \"1.0.0\"");
    assert_ne!(covered, text);
    save(&server, &covered);
    let (status, out, error) = run(&server, &["program.py"]);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("with export"), "{out}");
    let lease = || std::fs::read_to_string(stored_file(&server, "lease")).unwrap();
    assert!(lease().len() > 100, "{}", lease());
    save(&server, &text);
    let (status, _, error) = run(&server, &["program.py"]);
    assert_eq!(status, Some(1), "{error}");
    assert!(error.starts_with("Diese Lizenz gilt für"), "{error}");
    assert!(error.contains("Version 1.0.0") && error.contains(url));
    assert_eq!(lease(), "", "nor does this version run without the server");
}

#[test]
fn the_example_resumes_its_session_after_a_crash_but_a_second_copy_cannot_take_it() {
    if !is_installed("python3") {
        return;
    }
    let server = Server::start();
    server.issue_license(2);
    program(&server, FOR_EVER);
    let mut child = start_program(&server);
    let id = running(&server)[0]["id"].clone();
    let (status, _, error) = run(&server, &["program.py"]);
    assert_eq!(status, Some(1), "a second copy");
    assert!(
        error.starts_with("Es ist nur eine Sitzung erlaubt"),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let work = "stop.wait(0)";
    save(&server, &program(&server, work));
    let (status, out, error) = run(&server, &["program.py"]);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert_eq!(
        end_reasons(&server),
        ["normal"],
        "it was the same session: {id}"
    );
}

#[test]
fn the_example_continues_after_a_restore_to_a_backup_without_its_device() {
    if !is_installed("python3") {
        return;
    }
    let hurry = &["config", "set", "heartbeat_interval=1", "session_timeout=4"];
    let mut server = started(&[], &[hurry]);
    server.issue_license(2);
    let copy = server.path("before").display().to_string();
    server.json(&["backup", &copy]);
    program(&server, "sys.stdin.read()");
    let mut child = start_program(&server);
    assert_eq!(server.stop(), Some(0));
    server.json(&["restore", &copy]);
    server.run();
    eventually("another session", || running(&server).len() == 1);
    drop(child.stdin.take());
    let (status, out, error) = end(child);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert_eq!(end_reasons(&server), ["normal"]);
}

#[test]
fn the_example_ends_cleanly_while_the_server_is_down() {
    if !is_installed("python3") {
        return;
    }
    let mut server = Server::start();
    server.issue_license(2);
    program(&server, "sys.stdin.read()");
    let mut child = start_program(&server);
    assert_eq!(server.stop(), Some(0));
    drop(child.stdin.take());
    let (status, out, error) = end(child);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
}

#[test]
fn the_example_repeats_a_call_whose_connection_was_closed() {
    if !is_installed("python3") {
        return;
    }
    let server = Server::start();
    server.issue_license(2);
    let text = program(&server, "stop.wait(0)");
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = relay.local_addr().unwrap().port();
    let behind = server.port();
    std::thread::spawn(move || {
        for (number, line) in relay.incoming().enumerate() {
            let Ok(line) = line else { return };
            if number % 2 == 1 {
                relay_to(behind, line);
            }
        }
    });
    save(
        &server,
        &text.replace(&format!(":{behind}\""), &format!(":{port}\"")),
    );
    let (status, out, error) = run(&server, &["program.py"]);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("normal"), "{out}");
    assert_eq!(end_reasons(&server), ["normal"]);
}

/// Forwards the bytes of both directions.
fn relay_to(port: u16, line: TcpStream) {
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let ends = [
        (line.try_clone(), server.try_clone()),
        (Ok(server), Ok(line)),
    ];
    for (from, to) in ends {
        let (mut from, mut to) = (from.unwrap(), to.unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 16_384];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            drop(to.shutdown(Shutdown::Write));
        });
    }
}

#[test]
fn the_device_fingerprint_is_the_same_with_and_without_a_network() {
    if !is_installed("python3") {
        return;
    }
    let server = Server::start();
    server.issue_license(2);
    let text = program(&server, "stop.wait(0)");
    let ask = "import program; print(program.DEVICE['hardware_hash'])";
    let fingerprint = |text: &str| {
        save(&server, text);
        let (status, out, error) = run(&server, &["-c", ask]);
        assert_eq!(status, Some(0), "{error}");
        assert_eq!(out.trim().len(), 64, "{out}");
        out
    };
    let product = "PRODUCT = \"";
    assert!(text.contains(product), "{text}");
    let other = text.replace(product, "PRODUCT = \"Other ");
    // A machine without a machine id.
    let bare = text.replace("/etc/machine-id", "/nowhere/machine-id");
    assert_ne!(bare, text);
    for text in [&text, &other, &bare] {
        let first = fingerprint(text);
        assert_eq!(fingerprint(text), first);
        for line in [["-r", "-n"], ["-n", "--"]] {
            let mut alone = Command::new("unshare");
            alone.args(line).args(["python3", "-B", "-c", ask]);
            alone
                .current_dir(server.path("."))
                .env("HOME", server.path("home"));
            alone.env_remove("XDG_DATA_HOME");
            match outcome_of(alone) {
                (Some(0), out, _) => assert_eq!(out, first, "without a network"),
                (_, _, error) => std::io::stderr()
                    .write_all(
                        format!("SKIPPED: no network of its own ({line:?}): {error}").as_bytes(),
                    )
                    .unwrap(),
            }
        }
    }
    assert_ne!(
        fingerprint(&text),
        fingerprint(&other),
        "fingerprints of different products cannot be linked"
    );
    assert_ne!(fingerprint(&text), fingerprint(&bare));
    // If nothing can be stored it still works, though as a new device each time.
    let full = bare.replace("pathlib.Path(base or", "pathlib.Path(\"/dev/null\" or");
    assert_ne!(full, bare);
    fingerprint(&full);
}

#[test]
fn the_example_works_without_the_server_and_starts_a_session_once_it_is_back() {
    if !is_installed("python3") {
        return;
    }
    let mut server = started(&[], &[&["config", "set", "offline_days=7"]]);
    server.issue_license(2);
    let text = program(&server, "stop.wait(0)").replace("PATIENCE = 4", "PATIENCE = 0");
    save(&server, &text);
    assert_eq!(run(&server, &["program.py"]).0, Some(0));
    assert_eq!(server.stop(), Some(0));
    let wait = "session.get(\"heartbeat_interval\", 30)";
    assert!(text.contains(wait));
    save(
        &server,
        &text
            .replace("stop.wait(0)", "sys.stdin.read()")
            .replace(wait, "0.2"),
    );
    let mut command = python(&server, &server.path("."), &["program.py"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It prints that before it starts its work.
    let mut out = [0; 18];
    child.stdout.as_mut().unwrap().read_exact(&mut out).unwrap();
    assert_eq!(String::from_utf8_lossy(&out), "without the server");
    server.run();
    eventually("a session", || running(&server).len() == 1);
    drop(child.stdin.take());
    let (status, out, error) = end(child);
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    assert_eq!(end_reasons(&server), ["normal", "normal"]);
}

#[test]
fn the_example_trusts_only_its_server_and_works_without_it_for_a_limited_time() {
    if !is_installed("python3") {
        return;
    }
    let mut server = started(&[], &[&["config", "set", "offline_days=7"]]);
    server.issue_license(2);
    let text = program(&server, "stop.wait(0)").replace("PATIENCE = 4", "PATIENCE = 0");
    save(&server, &text);
    let run = || self::run(&server, &["program.py"]);
    let gone = |(status, _, error): (Option<i32>, String, String)| {
        assert_eq!(status, Some(1), "{error}");
        assert!(error.contains("cannot be reached"), "{error}");
        error
    };
    // The program expects other keys, as if the server had been replaced by an impostor.
    let shown = server.json(&["config", "show"]);
    let key = |name: &str| shown[name].as_str().unwrap().to_owned();
    let (own, next) = (key("signing_public_key"), key("next_signing_public_key"));
    std::fs::write(server.path("stranger.py"), text.replace(&own, &next)).unwrap();
    let error = gone(self::run(&server, &["stranger.py"]));
    assert!(
        error.contains("not signed by the license server"),
        "{error}"
    );
    // The program knows the next key already.
    assert_eq!(run().0, Some(0));
    server.json(&["config", "rotate-signing-key"]);
    eventually("the next key", || {
        let answer = server.client().call_with(
            "verify",
            &json!({}),
            &[("Signature-Nonce", "AAAAAAAAAAAAAAAAAAAAAA==")],
        );
        let input = answer.header("signature-input").unwrap().to_owned();
        input.contains(&key("next_signing_key_id"))
    });
    let (status, out, error) = run();
    assert_eq!(status, Some(0), "{out}{error}");
    let lease = std::fs::read_to_string(stored_file(&server, "lease")).unwrap();
    assert_eq!(server.stop(), Some(0));
    let run = || self::run(&server, &["program.py"]);
    let (status, out, error) = run();
    assert_eq!(status, Some(0), "{error}");
    assert!(out.contains("without the server"), "{out}");
    // The lease is not accepted after its end, before it was issued, or if it was altered.
    let later = |seconds: i64| {
        let code = format!(
            "import time, runpy; now = time.time; time.time = lambda: now() + {seconds}; runpy.run_path('program.py', run_name='__main__')"
        );
        self::run(&server, &["-c", &code])
    };
    assert_eq!(later(7 * 86_400 - 600).0, Some(0));
    gone(later(7 * 86_400 + 600));
    gone(later(-86_400));
    let parts: Vec<&str> = lease.split('.').collect();
    let other = |part: usize| {
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let swapped = if parts[part].starts_with('A') {
            "B"
        } else {
            "A"
        };
        parts[part].replace_range(0..1, swapped);
        parts.join(".")
    };
    for forged in [
        other(0),
        other(1),
        other(2),
        parts[..2].join("."),
        String::new(),
    ] {
        std::fs::write(stored_file(&server, "lease"), forged).unwrap();
        gone(run());
    }
    // It is not accepted with another license or on another device.
    std::fs::write(stored_file(&server, "lease"), &lease).unwrap();
    let own = text.split("LICENSE_KEY = \"").nth(1).unwrap();
    let own = own.split('"').next().unwrap();
    for (word, other) in [
        (own, "00000-00000-00000-00000-00000"),
        ("sha256(f\"{PRODUCT}", "sha256(f\"other {PRODUCT}"),
    ] {
        save(&server, &text.replace(word, other));
        gone(run());
    }
    // After the server has said that the license is suspended, the program does not work offline either.
    save(&server, &text);
    let mut server = server;
    server.run();
    server.json(&["license", "suspend", own]);
    let (status, _, error) = self::run(&server, &["program.py"]);
    assert!(
        status == Some(1) && !error.contains("cannot be reached"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_to_string(stored_file(&server, "lease")).unwrap(),
        ""
    );
}
