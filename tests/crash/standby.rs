//! A warm standby, as the manual describes it: Litestream follows the database beside a second, stopped server, which
//! takes over with `promote` when the first one is lost.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::litestream::{Replication, follow, litestream, replicate};
use crate::support::{Client, Server, eventually, files_below, heartbeat_body};
use crate::wait_for;

/// Sessions that run before the load, and all licenses.
const CALM: usize = 220;
const LICENSES: u32 = 400;
/// What may be lost: the interval in which Litestream copies, and some time for a busy machine.
const LOST_MAX: Duration = Duration::from_secs(4);

/// A start of a session that the server acknowledged.
struct Started {
    key: String,
    token: String,
    at: Instant,
}

fn start(client: &Client, key: &str) -> Started {
    let token = client.session(key, "laptop");
    let (key, at) = (key.to_owned(), Instant::now());
    Started { key, token, at }
}

/// A second server that is stopped, with the keys of the first one.
fn standby_of(server: &Server) -> Server {
    let standby = Server::prepare(&[]);
    copy_keys(server, &standby);
    standby
}

fn copy_keys(from: &Server, to: &Server) {
    for file in files_below(&from.path("data")) {
        let name = file.strip_prefix(from.path("data")).unwrap();
        if file.is_file() && (name.starts_with("tls") || name.starts_with("signing")) {
            let to = to.path("data").join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file, to).unwrap();
        }
    }
}

fn followed(standby: &Server) -> PathBuf {
    standby.path("data/standby.sqlite3")
}

fn running_in(path: &Path) -> Option<usize> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    let count = "select count(*) from active_sessions";
    let found = conn.query_row(count, [], |row| row.get::<_, u32>(0)).ok()?;
    usize::try_from(found).ok()
}

/// What a command that must fail says.
fn refusal(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn expect_refusal(server: &Server, arguments: &[&str], parts: &[&str]) {
    let said = refusal(server, arguments);
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: no {part:?} in {said}");
    }
}

/// Starts sessions until the server is gone; kills it after a second and a half, and what copies it as well.
fn start_until_killed(
    server: &mut Server,
    replicating: Replication,
    keys: &[String],
) -> (Vec<Started>, Instant) {
    let (client, killed) = (server.client(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let killed = &killed;
        let starts = scope.spawn(move || {
            let mut started = Vec::new();
            for key in keys {
                let body = crate::support::identity(key, "laptop");
                let call = |endpoint: &str| {
                    let bytes = body.to_string();
                    client.try_send(endpoint, bytes.as_bytes(), &[])
                };
                if killed.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(response) = call("activate").and_then(|_| call("session/start")) else {
                    break;
                };
                assert_eq!(response.status, 201, "{response:?}");
                let (key, token, at) = (key.clone(), response.token(), Instant::now());
                started.push(Started { key, token, at });
            }
            started
        });
        wait_for(Duration::from_millis(1500));
        server.kill();
        let end = Instant::now();
        drop(replicating);
        killed.store(true, Ordering::SeqCst);
        (starts.join().unwrap(), end)
    })
}

/// A server with sessions, its replica, and a standby that follows.
struct Pair {
    litestream: PathBuf,
    first: Server,
    second: Server,
    replica: String,
    calm: Vec<Started>,
    keys: Vec<String>,
    replicating: Replication,
    following: Replication,
}

impl Pair {
    fn start(litestream: PathBuf) -> Self {
        let first = Server::start();
        first.json(&["limit", "set", "client", "--per-minute", "0"]);
        let keys = first.issue_licenses(1, LICENSES);
        let replica = format!("file://{}", first.path("replica").display());
        let replicating = replicate(&litestream, &first, &replica);
        let client = first.client();
        let calm = keys.iter().take(CALM).map(|key| start(&client, key));
        let calm = calm.collect();
        let second = standby_of(&first);
        eventually("the replica is begun", || first.path("replica").is_dir());
        let following = follow(&litestream, &replica, &followed(&second));
        eventually("the standby has every session", || {
            running_in(&followed(&second)) == Some(CALM)
        });
        Self {
            litestream,
            first,
            second,
            replica,
            calm,
            keys,
            replicating,
            following,
        }
    }
}

/// Before it takes over, a standby neither serves nor creates a database, and its check changes nothing.
fn expect_standby_waits(pair: &Pair) {
    let second = &pair.second;
    for command in [&["serve"][..], &["customer", "add", "Eve"]] {
        expect_refusal(second, command, &["this is a standby", "promote"]);
    }
    let check = second.json(&["promote", "--check"]);
    assert_eq!(
        (check["promoted"].as_bool(), check["sessions"].as_u64()),
        (Some(false), Some(CALM as u64)),
        "{check}"
    );
    assert!(!check["followed_by"].as_array().unwrap().is_empty());
    expect_refusal(second, &["promote"], &["still has", "stop `litestream"]);
    assert!(!second.database().exists());
}

#[test]
fn a_standby_takes_over_with_its_sessions_and_takes_nothing_from_the_replaced_server() {
    let Some(litestream) = litestream() else {
        return;
    };
    let pair = Pair::start(litestream);
    expect_standby_waits(&pair);
    let Pair {
        litestream,
        mut first,
        mut second,
        replica,
        calm,
        keys,
        replicating,
        following,
    } = pair;
    let (recent, killed_at) = start_until_killed(&mut first, replicating, &keys[CALM..]);
    // As in the manual: what Litestream has copied is applied within its interval.
    wait_for(Duration::from_secs(2));
    following.stop();
    let began = Instant::now();
    let promoted = second.json(&["promote"]);
    let took = began.elapsed();
    second.run();
    let client = second.client();
    let alive = |started: &Started| {
        let body = heartbeat_body(&started.key, &started.token);
        client.call("session/heartbeat", &body).status == 200
    };
    assert!(alive(&calm[0]));
    let answered = began.elapsed();
    assert!(calm.iter().all(alive));
    let lost: Vec<&Started> = recent.iter().filter(|started| !alive(started)).collect();
    for started in &lost {
        let before = killed_at.saturating_duration_since(started.at);
        assert!(before < LOST_MAX, "lost {before:?} before the end");
    }
    let kept = recent.len() - lost.len();
    assert_eq!(promoted["sessions"], CALM + kept, "{promoted}");
    assert!(!followed(&second).exists());
    eprintln!(
        "promote took {took:?}, the first answer came after {answered:?}; {} of {CALM} sessions alive, and {kept} of {} \
         that were started in the last 1.5 s; {} were lost, the oldest {:?} before the end",
        calm.len(),
        recent.len(),
        lost.len(),
        lost.iter()
            .map(|it| killed_at.saturating_duration_since(it.at))
            .max()
    );
    expect_nothing_is_taken(&litestream, &mut first, &mut second, &replica);
    first_takes_over_again(&litestream, first, second, &calm);
}

/// The replaced server comes back, and is used and copied for a while.
fn expect_nothing_is_taken(
    litestream: &Path,
    first: &mut Server,
    second: &mut Server,
    replica: &str,
) {
    first.run();
    first.json(&["customer", "add", "Made by the replaced server"]);
    let copy = first.path("late.tar").display().to_string();
    first.json(&["backup", &copy]);
    let replicating = replicate(litestream, first, replica);
    let following = follow(litestream, replica, &followed(second));
    let late = |path: &Path| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let conn = Connection::open_with_flags(path, flags).ok()?;
        let sql = "select count(*) from customers where name like 'Made%'";
        conn.query_row(sql, [], |row| row.get::<_, u32>(0)).ok()
    };
    eventually("the replaced server is followed", || {
        late(&followed(second)) == Some(1)
    });
    following.stop();
    drop(replicating);
    assert_eq!(first.stop(), Some(0));
    assert_eq!(second.stop(), Some(0));
    expect_refusal(
        second,
        &["promote"],
        &[
            "comes from a server that was replaced",
            "Nothing was changed",
        ],
    );
    expect_refusal(
        second,
        &["restore", &copy],
        &["comes from a server that was replaced", "--replaced-server"],
    );
    // A copy that is left where a standby follows does not keep the server from starting.
    second.run();
    assert!(second.log().contains("is an older copy than the database"));
    assert_eq!(late(&second.database()), Some(0));
    for suffix in ["", "-txid", "-wal", "-shm"] {
        let name = format!("{}{suffix}", followed(second).display());
        drop(fs::remove_file(name));
    }
}

/// The replaced machine becomes the standby of the other one, and takes over in its turn.
fn first_takes_over_again(
    litestream: &Path,
    mut first: Server,
    mut second: Server,
    calm: &[Started],
) {
    let replica = format!("file://{}", second.path("replica").display());
    let replicating = replicate(litestream, &second, &replica);
    eventually("the new replica is begun", || {
        second.path("replica").is_dir()
    });
    let following = follow(litestream, &replica, &followed(&first));
    eventually("the first server follows", || {
        running_in(&followed(&first)).is_some()
    });
    expect_refusal(&first, &["serve"], &["this is a standby"]);
    assert_eq!(second.stop(), Some(0));
    wait_for(Duration::from_secs(2));
    following.stop();
    drop(replicating);
    let promoted = first.json(&["promote"]);
    let old = promoted["kept"].as_str().unwrap();
    assert!(Path::new(old).exists() && old.contains(".before-restore-"));
    first.run();
    let body = heartbeat_body(&calm[0].key, &calm[0].token);
    let response = first.call("session/heartbeat", &body);
    assert_eq!(response.status, 200, "{response:?}");
    // What is wanted all the same is taken, and the timelines of both are still told apart.
    let copy = first.path("late.tar").display().to_string();
    assert_eq!(first.stop(), Some(0));
    expect_refusal(&first, &["restore", &copy], &["--replaced-server"]);
    first.json(&["restore", &copy, "--replaced-server"]);
    let again = first.path("again.tar").display().to_string();
    first.json(&["backup", &again]);
    first.json(&["restore", &again]);
}

#[test]
fn a_file_that_cannot_be_taken_over_is_refused_and_nothing_is_changed() {
    let mut first = Server::start();
    let copy = first.path("copy.sqlite3");
    first.json(&["backup", &copy.display().to_string(), "--database-only"]);
    let second = Server::prepare(&[]);
    let file = followed(&second);
    expect_refusal(
        &second,
        &["promote"],
        &["there is no", "litestream restore -f"],
    );
    fs::create_dir_all(&file).unwrap();
    expect_refusal(&second, &["promote"], &["is a folder"]);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "text").unwrap();
    expect_refusal(&second, &["promote"], &["is no database"]);
    fs::copy(&copy, &file).unwrap();
    expect_refusal(
        &second,
        &["promote"],
        &[
            "signing has no private key",
            "tls has no certificate",
            "copy",
        ],
    );
    copy_keys(&first, &second);
    let txid = second.path("data/standby.sqlite3-txid");
    fs::write(&txid, "1").unwrap();
    let touched = fs::metadata(&txid).unwrap().modified().unwrap() + Duration::from_secs(1);
    let opened = fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(touched).unwrap();
    drop(opened);
    expect_refusal(&second, &["promote"], &["has half of a change"]);
    fs::remove_file(&txid).unwrap();
    let wal = second.path("data/standby.sqlite3-wal");
    fs::write(&wal, "x").unwrap();
    expect_refusal(&second, &["promote"], &["another program than Litestream"]);
    fs::remove_file(&wal).unwrap();
    // Keys that were replaced after they were copied.
    first.json(&["config", "rotate-signing-key"]);
    let rotated = first.path("rotated.sqlite3");
    first.json(&["backup", &rotated.display().to_string(), "--database-only"]);
    fs::copy(&rotated, &file).unwrap();
    expect_refusal(
        &second,
        &["promote", "--check"],
        &["signing has no private key"],
    );
    // Damage.
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    let said = refusal(&second, &["promote"]);
    assert!(
        said.contains("damaged") || said.contains("cannot be read"),
        "{said}"
    );
    assert!(!second.database().exists());
    assert!(file.exists());
    assert_eq!(first.stop(), Some(0));
    nothing_older_is_taken_over(&first, &second, &copy);
}

/// Neither its own database nor a copy that is older than it is taken over, and a copy that cannot be read keeps a server
/// from serving what may be an old database.
fn nothing_older_is_taken_over(first: &Server, second: &Server, copy: &Path) {
    let file = followed(second);
    // What Litestream has restored, others may read.
    fs::copy(copy, &file).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    second.json(&["promote"]);
    let own = second.database();
    assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o600);
    assert!(!file.exists());
    expect_refusal(
        second,
        &["promote", &own.display().to_string()],
        &["is the database of this server itself"],
    );
    // Of the same server, without a promotion in between.
    let first_file = followed(first);
    wait_for(Duration::from_millis(5));
    first.json(&["customer", "add", "Later"]);
    fs::copy(copy, &first_file).unwrap();
    for arguments in [&["promote"][..], &["promote", "--check"]] {
        expect_refusal(first, arguments, &["is older than", "Nothing was changed"]);
    }
    let customers = first.json(&["customer", "list"]);
    assert_eq!(customers["customers"].as_array().unwrap().len(), 1);
    // A file that nothing follows stays: it may be somebody's only backup.
    let stored = first.path("stored.sqlite3");
    first.json(&["backup", &stored.display().to_string(), "--database-only"]);
    let third = Server::prepare(&[]);
    copy_keys(first, &third);
    let unreadable = followed(&third);
    third.json(&["promote", &stored.display().to_string()]);
    assert!(stored.exists() && third.database().exists());
    fs::write(&unreadable, &fs::read(copy).unwrap()[..20_000]).unwrap();
    expect_refusal(&third, &["serve"], &["whether this is a standby"]);
}
