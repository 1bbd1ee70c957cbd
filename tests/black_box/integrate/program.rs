//! Programs in every language of the page *Integrate*, run against the real server in the situations in which customers
//! use them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::clock;
use crate::database;
use crate::inspect::{end_reasons, running};
use crate::integrate::first_starts::{
    asks_again_for_a_key_that_it_cannot_forget, asks_the_server_nothing_if_the_user_cancels,
    names_the_missing_certificate,
};
use crate::integrate::harness::{Bench, Circumstances, Language, Run, report};
use crate::integrate::languages::{CPP, JAVA, JAVASCRIPT, PYTHON, RUST, csharp};
use crate::setup::{NO_LIMIT, UNKNOWN};
use crate::support::{eventually, identity, is_installed, stalls};

/// A name, and what happens to a program.
type Scenario = (&'static str, fn(&mut Bench));

/// What happens to a program; each leaves no session behind, and the key stored.
const SCENARIOS: &[Scenario] = &[
    ("asks for the key once", asks_for_the_key_once),
    ("canceled", asks_the_server_nothing_if_the_user_cancels),
    ("stuck key", asks_again_for_a_key_that_it_cannot_forget),
    ("no certificate", names_the_missing_certificate),
    ("three heartbeats", sends_three_heartbeats),
    ("forced end", stops_within_an_interval_of_a_forced_end),
    ("sleep", starts_again_after_a_sleep),
    ("used elsewhere", stops_if_used_elsewhere_after_a_sleep),
    ("server restarted", survives_a_restart_of_the_server),
    ("keys and backup", survives_other_keys_and_an_older_backup),
    ("network cut", survives_a_cut_of_the_network),
    ("closed connections", survives_closed_connections),
    ("a proxy", survives_what_a_proxy_responds),
    ("busy server", waits_while_the_server_is_busy),
    (
        "silent network",
        ends_soon_in_a_network_that_answers_nothing,
    ),
    ("crash", resumes_its_session_after_a_crash),
    ("user's language", speaks_the_language_of_its_user),
    ("without the server", works_without_the_server_for_a_while),
    ("one device", is_the_same_device_after_all_this),
    ("no machine id", keeps_a_random_id_without_a_machine_id),
    ("trial", runs_on_the_trial_of_its_device),
    ("suspended", stops_if_its_license_is_suspended),
];

fn run_scenarios(language: &'static Language) {
    if !is_installed(language.needs) {
        return;
    }
    let mut bench = Bench::start(language);
    for (name, scenario) in SCENARIOS {
        report(&format!("{}: {name}", language.word));
        scenario(&mut bench);
        assert!(running(&bench.server).is_empty(), "{name} leaves a session");
    }
    if language.word == JAVASCRIPT.word {
        report("javascript: Electron");
        runs_in_the_main_process_of_electron(&bench);
    }
}

#[test]
fn a_program_in_each_language_runs_under_its_license() {
    // Side by side, since most of the time each waits for a timeout.
    std::thread::scope(|scope| {
        for language in [&PYTHON, &JAVASCRIPT, &JAVA, csharp(), &RUST, &CPP] {
            let named = std::thread::Builder::new().name(language.word.to_owned());
            named
                .spawn_scoped(scope, move || run_scenarios(language))
                .unwrap();
        }
    });
}

fn asks_for_the_key_once(bench: &mut Bench) {
    let mut run = bench.run(&Circumstances::default());
    run.says("License key");
    run.enter(UNKNOWN);
    eventually("the question again", || {
        run.out().matches("License key").count() == 2
    });
    assert!(run.out().contains("gibt es nicht"), "{}", run.out());
    bench.relay.cut();
    run.enter(&bench.key.to_lowercase());
    std::thread::sleep(std::time::Duration::from_secs(1));
    bench.relay.restore();
    run.says("Running. Press Enter to end.");
    assert_eq!(run.out().matches("License key").count(), 2);
    assert_eq!(running(&bench.server).len(), 1);
    run.finish();
    bench.assert_ended("normal");
    let again = bench.running_program();
    assert!(!again.out().contains("License key"), "{}", again.out());
    again.finish();
    let folder = bench.stored("home", "key").parent().unwrap().to_owned();
    let mode = folder.metadata().unwrap().permissions().mode();
    // .NET 6 has no way to say it, and on Windows the folder is the user's alone.
    if bench.language.word != "csharp" {
        assert_eq!(mode & 0o777, 0o700, "others can read the key");
    }
}

fn sends_three_heartbeats(bench: &mut Bench) {
    let run = bench.running_program();
    let (id, before) = (bench.session(), bench.relay.connections());
    eventually("three heartbeats", || {
        bench.relay.connections() >= before + 3
    });
    assert_eq!(bench.session(), id);
    run.finish();
    bench.assert_ended("normal");
}

fn stops_within_an_interval_of_a_forced_end(bench: &mut Bench) {
    let run = bench.running_program();
    let id = bench.session();
    bench.server.json(&["session", "end", &id]);
    let ended = std::time::Instant::now();
    let message = run.refusal();
    // An interval of one second, and what a busy machine needs for a call and an exit.
    let took = stalls::awake_since(ended);
    assert!(took.as_secs() < 4, "{took:?}");
    assert!(message.contains("beendet"), "{message}");
    bench.assert_ended("forced");
}

/// Stops the program until its session has timed out.
fn stop_until_timeout(bench: &Bench, run: &Run) {
    let before = database::count(&bench.server, "session_history");
    run.signal("STOP");
    // Not before it is stored: if this machine stalls, the server may give the session its time once more.
    eventually("the timeout", || {
        database::count(&bench.server, "session_history") > before
    });
}

fn starts_again_after_a_sleep(bench: &mut Bench) {
    let run = bench.running_program();
    stop_until_timeout(bench, &run);
    // As by `forget_key`, which the next session of the same key must not undo.
    let stored = bench.stored("home", "key");
    std::fs::write(&stored, "").unwrap();
    run.signal("CONT");
    eventually("another session", || running(&bench.server).len() == 1);
    assert_eq!(end_reasons(&bench.server)[0], "timeout");
    run.finish();
    bench.assert_ended("normal");
    assert_eq!(std::fs::read_to_string(&stored).unwrap(), "");
    std::fs::write(&stored, &bench.key).unwrap();
}

fn stops_if_used_elsewhere_after_a_sleep(bench: &mut Bench) {
    let run = bench.running_program();
    stop_until_timeout(bench, &run);
    let client = bench.server.client();
    let token = client.session(&bench.key, "laptop");
    run.signal("CONT");
    let message = run.refusal();
    assert!(
        message.contains("Es ist nur eine Sitzung erlaubt"),
        "{message}"
    );
    let ended = client.call("session/end", &json!({ "session_token": token }));
    assert_eq!(ended.status, 200, "{ended:?}");
    let device = identity(&bench.key, "laptop");
    assert_eq!(client.call("deactivate", &device).status, 200);
}

fn survives_a_restart_of_the_server(bench: &mut Bench) {
    let run = bench.running_program();
    let id = bench.session();
    bench.server.restart();
    let (before, connections) = (end_reasons(&bench.server).len(), bench.relay.connections());
    eventually("three heartbeats after the restart", || {
        bench.relay.connections() >= connections + 3
    });
    assert_eq!(bench.session(), id);
    assert_eq!(end_reasons(&bench.server).len(), before);
    run.finish();
    bench.assert_ended("normal");
}

fn survives_other_keys_and_an_older_backup(bench: &mut Bench) {
    let copy = bench.server.path("older.tar").display().to_string();
    bench.server.json(&["backup", &copy]);
    let run = bench.running_program();
    let id = bench.session();
    bench.server.json(&["config", "rotate-signing-key"]);
    bench.server.json(&["config", "rotate-api-key"]);
    let before = bench.relay.connections();
    eventually("three heartbeats after the rotations", || {
        bench.relay.connections() >= before + 3
    });
    assert_eq!(bench.session(), id);
    // The backup has the former keys, and knows nothing of the session.
    assert_eq!(bench.server.stop(), Some(0));
    bench.server.json(&["restore", &copy]);
    bench.server.run();
    eventually("another session", || running(&bench.server).len() == 1);
    assert_eq!(run.error(), "");
    run.finish();
    bench.assert_ended("normal");
}

fn survives_a_cut_of_the_network(bench: &mut Bench) {
    let run = bench.running_program();
    bench.relay.cut();
    // One second less than the timeout.
    std::thread::sleep(std::time::Duration::from_secs(7));
    bench.relay.restore();
    let before = bench.relay.connections();
    eventually("two heartbeats after the cut", || {
        bench.relay.connections() >= before + 2
    });
    eventually("its session", || running(&bench.server).len() == 1);
    assert_eq!(run.error(), "");
    run.finish();
    bench.assert_ended("normal");
}

fn survives_closed_connections(bench: &mut Bench) {
    bench.relay.close_every_second_connection("on");
    let run = bench.running_program();
    std::thread::sleep(std::time::Duration::from_secs(3));
    bench.relay.close_every_second_connection("off");
    bench.session();
    run.finish();
    bench.assert_ended("normal");
}

/// The program waits for as long as it likes, and its language may have no such number of seconds.
const BUSY_PROXY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 99999999999\r\n\
    Content-Type: text/html\r\nContent-Length: 11\r\n\r\n<p>busy</p>";
/// It announces more than it sends.
const BROKEN_PROXY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1000\r\n\r\n<p>broken</p>";
const FOREIGN_PROXY: &str = "HTTP/1.1 200 OK\r\nSignature: sig1=:AAAA:\r\n\
    Signature-Input: sig1=();nonce=\"\"\r\nContent-Length: 2\r\n\r\n{}";

fn survives_what_a_proxy_responds(bench: &mut Bench) {
    bench.respond_instead(BROKEN_PROXY);
    let run = bench.run(&Circumstances::default());
    run.says("Running without the server. Press Enter to end.");
    bench.relay.restore();
    eventually("a session", || running(&bench.server).len() == 1);
    let id = bench.session();
    for response in [BUSY_PROXY, FOREIGN_PROXY] {
        let before = bench.relay.connections();
        bench.respond_instead(response);
        eventually("a call", || bench.relay.connections() > before);
        bench.relay.restore();
    }
    let before = bench.relay.connections();
    eventually("two heartbeats", || bench.relay.connections() >= before + 2);
    assert_eq!((bench.session(), run.error()), (id, String::new()));
    run.finish();
    bench.assert_ended("normal");
}

fn waits_while_the_server_is_busy(bench: &mut Bench) {
    let run = bench.running_program();
    let id = bench.session();
    let limit = [
        "limit",
        "set",
        "client",
        "--per-minute",
        "20",
        "--burst",
        "1",
    ];
    bench.server.json(&limit);
    let (before, begun) = (bench.relay.connections(), std::time::Instant::now());
    std::thread::sleep(std::time::Duration::from_secs(5));
    let calls = bench.relay.connections() - before;
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    bench.server.json(NO_LIMIT);
    // One every three seconds is let through. One a second and a second try of each would be ten in five seconds.
    assert!((1..=seconds + 1).contains(&calls), "{calls} in {seconds} s");
    assert_eq!(bench.session(), id);
    run.finish();
    bench.assert_ended("normal");
}

fn ends_soon_in_a_network_that_answers_nothing(bench: &mut Bench) {
    let run = bench.running_program();
    bench.relay.swallow();
    let before = bench.relay.connections();
    eventually("a heartbeat without an answer", || {
        bench.relay.connections() > before
    });
    let quit = std::time::Instant::now();
    run.finish();
    // Three and a half seconds for the heartbeat and the end of the session, and what a busy machine needs.
    let took = stalls::awake_since(quit);
    report(&format!("{} ended after {took:?}", bench.language.word));
    assert!(took.as_secs() < 7, "{took:?}");
    // While that session times out. Ten seconds for the only call, and again what a busy machine needs.
    let started = std::time::Instant::now();
    let offline = bench.run(&Circumstances::default());
    offline.says("Running without the server. Press Enter to end.");
    let took = stalls::awake_since(started);
    report(&format!("{} started after {took:?}", bench.language.word));
    assert!(took.as_secs() < 18, "{took:?}");
    offline.finish();
    bench.relay.restore();
    // The end of the session did not get through.
    eventually("the timeout", || {
        database::count(&bench.server, "active_sessions") == 0
    });
    bench.assert_ended("timeout");
}

fn resumes_its_session_after_a_crash(bench: &mut Bench) {
    bench.set_timeout(60);
    let before = end_reasons(&bench.server).len();
    let first = bench.running_program();
    let second = bench.run(&Circumstances::default());
    let message = second.refusal();
    assert!(
        message.contains("Es ist nur eine Sitzung erlaubt"),
        "{message}"
    );
    let id = bench.session();
    first.kill();
    let run = bench.running_program();
    assert_eq!(bench.session(), id);
    run.finish();
    bench.assert_ended("normal");
    assert_eq!(end_reasons(&bench.server).len(), before + 1);
    bench.set_timeout(8);
}

fn speaks_the_language_of_its_user(bench: &mut Bench) {
    bench.set_timeout(60);
    let client = bench.server.client();
    for (language, words) in [
        ("de_AT.UTF-8", "Es ist nur eine Sitzung erlaubt"),
        ("en_US.UTF-8", "Only one session"),
    ] {
        let token = client.session(&bench.key, "laptop");
        let mut run = bench.run(&Circumstances {
            language,
            home: language,
            ..Circumstances::default()
        });
        run.says("License key");
        run.enter(&bench.key);
        let message = run.refusal();
        assert!(message.contains(words), "{language}: {message}");
        // It is a license, so that it is not asked for again.
        let stored = std::fs::read_to_string(bench.stored(language, "key"));
        assert_eq!(stored.unwrap(), bench.key);
        client.call("session/end", &json!({ "session_token": token }));
    }
    bench.set_timeout(8);
    let device = identity(&bench.key, "laptop");
    assert_eq!(client.call("deactivate", &device).status, 200);
}

/// The lease with the first character of one of its three parts changed.
fn forged(lease: &str, part: usize) -> String {
    let mut parts: Vec<String> = lease.split('.').map(str::to_owned).collect();
    let swapped = if parts[part].starts_with('A') {
        "B"
    } else {
        "A"
    };
    parts[part].replace_range(0..1, swapped);
    parts.join(".")
}

fn works_without_the_server_for_a_while(bench: &mut Bench) {
    bench.running_program().finish();
    let lease = std::fs::read_to_string(bench.stored("home", "lease")).unwrap();
    let homes = [
        "gone-a", "gone-b", "forged-0", "forged-1", "forged-2", "damaged",
    ];
    for home in homes {
        bench.copy_home(home);
    }
    for part in 0..3 {
        let file = bench.stored(&format!("forged-{part}"), "lease");
        std::fs::write(file, forged(&lease, part)).unwrap();
    }
    // JSON, but no objects.
    std::fs::write(bench.stored("damaged", "lease"), "W10.W10.W10").unwrap();
    // With keys of another server, even the genuine one is a stranger.
    let shown = bench.server.json(&["config", "show"]);
    let keys = ["signing_public_key", "next_signing_public_key"].map(|name| {
        let key = shown[name].as_str().unwrap();
        let turned: String = key[..43].chars().rev().collect();
        (key, format!("{turned}="))
    });
    let changes = keys.each_ref().map(|(key, turned)| (*key, &**turned));
    bench.install_changed("other-keys", &changes);
    let other_keys = Circumstances {
        folder: "other-keys",
        home: "gone-a",
        ..Circumstances::default()
    };
    let before = bench.relay.connections();
    let message = bench.run(&other_keys).refusal();
    assert!(message.contains("nicht erreichbar."), "{message}");
    // It has answered: the response is not signed with one of these keys.
    assert!(bench.relay.connections() > before, "{message}");
    assert_eq!(bench.server.stop(), Some(0));
    // Without the wrapper `faketime`, which gives up where a killed program of the same number has left its semaphore; the
    // library goes on.
    let library = clock::at_start::library();
    let path = library.as_deref().map(Path::display);
    let preload = path.map_or_else(String::new, |path| format!("LD_PRELOAD={path}"));
    let with_clock = |clock| ["env", preload.as_str(), clock];
    let (later, much_later) = (with_clock("FAKETIME=+6d"), with_clock("FAKETIME=+8d"));
    let earlier = with_clock("FAKETIME=-1d");
    let at = |home, launcher| {
        bench.run(&Circumstances {
            home,
            launcher,
            ..Circumstances::default()
        })
    };
    // All at once, since each waits for the server for a few seconds.
    let mut valid = vec![("now", at("home", &[]))];
    let mut refused = vec![("other keys", bench.run(&other_keys))];
    for home in ["forged-0", "forged-1", "forged-2", "damaged"] {
        refused.push((home, at(home, &[])));
    }
    if library.is_some() {
        valid.push(("in six days", at("gone-a", &later)));
        refused.push(("in eight days", at("gone-a", &much_later)));
        refused.push(("yesterday", at("gone-a", &earlier)));
    }
    let unshare: &[&str] = &["unshare", "-r", "-n"];
    if Command::new("unshare")
        .args(["-r", "-n", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        valid.push(("without a network", at("gone-b", unshare)));
    } else {
        report("SKIPPED: no network of its own for a program on this machine");
    }
    for (when, run) in refused {
        let message = run.refusal();
        assert!(message.contains("nicht erreichbar."), "{when}: {message}");
    }
    for (when, run) in &valid {
        report(&format!("valid {when}"));
        run.says("Running without the server. Press Enter to end.");
    }
    let mut others = valid.split_off(1);
    for (_, run) in &mut others {
        run.enter("");
    }
    for (when, run) in others {
        let (status, _, error) = run.end();
        assert_eq!((status, error.as_str()), (Some(0), ""), "{when}");
    }
    bench.server.run();
    eventually("a session", || running(&bench.server).len() == 1);
    for (_, run) in valid {
        run.finish();
    }
    eventually("the end of the session", || {
        running(&bench.server).is_empty()
    });
}

/// The fingerprints of the devices of the license.
fn devices(bench: &Bench) -> Vec<String> {
    let shown = bench.server.json(&["license", "show", &bench.key]);
    let devices = shown["devices"].as_array().unwrap();
    let ids = devices.iter().map(|device| device["hardware_id"].as_str());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

fn is_the_same_device_after_all_this(bench: &mut Bench) {
    let hash = "printf '%s\\n%s' 'Prüf \"Stand\" \\ 1' \"$(cat /etc/machine-id)\" | sha256sum";
    let output = Command::new("sh").args(["-c", hash]).output().unwrap();
    let expected = String::from_utf8(output.stdout).unwrap();
    // The same in every language, so that a program can be rewritten in another one.
    if std::fs::read_to_string("/etc/machine-id").is_ok_and(|id| id.trim().len() == 32) {
        assert_eq!(devices(bench), [&expected[..64]]);
    }
    assert_eq!(devices(bench).len(), 1);
}

fn keeps_a_random_id_without_a_machine_id(bench: &mut Bench) {
    bench.install_changed("bare", &[("/etc/machine-id", "/nil/machine-id")]);
    for _ in 0..2 {
        let run = bench.run(&Circumstances {
            folder: "bare",
            ..Circumstances::default()
        });
        run.says("Running. Press Enter to end.");
        run.finish();
        assert_eq!(devices(bench).len(), 2);
    }
}

fn runs_on_the_trial_of_its_device(bench: &mut Bench) {
    let newcomer = Circumstances {
        home: "newcomer",
        ..Circumstances::default()
    };
    let mut run = bench.run(&newcomer);
    run.says("License key");
    run.enter("");
    run.says("Running. Press Enter to end.");
    run.finish();
    let key = std::fs::read_to_string(bench.stored("newcomer", "key")).unwrap();
    assert_ne!(key, bench.key);
    let run = bench.run(&newcomer);
    run.says("Running. Press Enter to end.");
    run.finish();
}

fn stops_if_its_license_is_suspended(bench: &mut Bench) {
    let run = bench.running_program();
    assert!(bench.stored("home", "lease").metadata().unwrap().len() > 100);
    bench.server.json(&["license", "suspend", &bench.key]);
    let message = run.refusal();
    assert!(message.contains("gesperrt"), "{message}");
    let lease = bench.stored("home", "lease").metadata().unwrap().len();
    assert_eq!(lease, 0, "nor does it run without the server");
}

/// A stand-in for Electron, whose package downloads the executable from elsewhere.
fn runs_in_the_main_process_of_electron(bench: &Bench) {
    let example = include_str!("../../../assets/clients/electron.cjs");
    bench.install(
        "electron",
        &example.replace("./license.cjs", "./copied.cjs"),
    );
    let folder = bench.server.path("electron");
    std::fs::write(folder.join("copied.cjs"), bench.downloaded()).unwrap();
    std::fs::create_dir_all(folder.join("node_modules")).unwrap();
    let stand_in = include_str!("../../clients/electron.cjs");
    std::fs::write(folder.join("node_modules/electron.js"), stand_in).unwrap();
    bench.server.json(&["license", "reinstate", &bench.key]);
    let at_home = Circumstances {
        folder: "electron",
        home: "electron-home",
        ..Circumstances::default()
    };
    let mut run = bench.run(&at_home);
    run.says("License key");
    run.cancel();
    let (status, _, error) = run.end();
    assert_eq!((status, error.as_str()), (Some(0), ""), "canceled");
    let mut run = bench.run(&at_home);
    run.says("License key");
    run.enter(UNKNOWN);
    run.says("gibt es nicht");
    run.enter(&bench.key);
    run.says("Running. Press Enter to end.");
    run.finish();
    bench.assert_ended("normal");
    let run = bench.run(&at_home);
    run.says("Running. Press Enter to end.");
    let id = bench.session();
    bench.server.json(&["session", "end", &id]);
    let message = run.refusal();
    assert!(message.contains("beendet"), "{message}");
}
