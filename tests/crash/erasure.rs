//! `kill -9` in the middle of an erasure: the person is erased, or everything is still there.

use std::time::Instant;

use rusqlite::Connection;

use crate::support::{Server, files_below, rounds};
use crate::{random_up_to, run_interrupted, wait_for};

const NAME: &str = "Quendoline Zzyzx";
const ERASE: &[&str] = &["customer", "erase", "1", "--yes"];
/// What names the person, and how many cells of the database do.
const COUNTS: &str = "select
    (select count(*) from customers where name like '%zzyzx%' and email like '%zzyzx%')
    + (select count(*) from licenses where note like '%zzyzx%')
    + (select count(*) from devices where machine_id like '%zzyzx%' and hardware_id like '%zzyzx%')
    + (select count(*) from session_history where machine_id like '%zzyzx%' and address = '203.0.113.77')
    + (select count(*) from audit_log where before || after like '%zzyzx%')";

fn cells(server: &Server) -> u32 {
    let conn = Connection::open(server.database()).unwrap();
    conn.query_row(COUNTS, [], |row| row.get(0)).unwrap()
}

/// A person with so many licenses that an erasure takes a while. Returns the number of cells that name the person.
fn add_person(server: &Server) -> u32 {
    server.json(&["customer", "add", NAME, "--email", "q@zzyzx.example"]);
    let licenses = [
        "license",
        "issue",
        "--customer",
        "1",
        "--note",
        "zzyzx",
        "--count",
        "400",
    ];
    server.json(&licenses);
    let conn = Connection::open(server.database()).unwrap();
    // The triggers of the search index call them.
    license_server::db::register_functions(&conn).unwrap();
    conn.execute_batch(
        "insert into devices (license_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms)
             select license_id, 'zzyzx-hash', 'zzyzx-laptop', '1.0.0', 1, 1 from licenses;
         with recursive n (n) as (select 1 union all select n + 1 from n where n < 50)
         insert into session_history (session_token, license_id, hardware_id, machine_id, client_version, address,
                                      started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason)
             select randomblob(16), license_id, 'zzyzx-hash', 'zzyzx-laptop', '1.0.0', '203.0.113.77', n, n, n, 'normal'
             from licenses, n;",
    )
    .unwrap();
    drop(conn);
    cells(server)
}

#[test]
fn an_erasure_that_is_killed_leaves_all_or_nothing() {
    let server = Server::prepare(&[]);
    let all = add_person(&server);
    assert!(all > 20_000, "{all}");
    server.json(&["backup", "before"]);
    let began = Instant::now();
    server.json(ERASE);
    let usual = began.elapsed();
    assert_eq!(cells(&server), 0);
    let (mut erased, mut left) = (0, 0);
    for _ in 0..rounds(8) {
        // Without the list, so that the restore does not erase the person itself.
        drop(std::fs::remove_file(
            server.path("data/license-server.sqlite3.erased"),
        ));
        for file in files_below(&server.path("data")) {
            if file
                .display()
                .to_string()
                .contains("license-server.sqlite3")
            {
                std::fs::remove_file(file).unwrap();
            }
        }
        server.json(&["restore", "before"]);
        assert_eq!(cells(&server), all);
        run_interrupted(&server, ERASE, None, || wait_for(random_up_to(usual)));
        let found = cells(&server);
        assert!(
            found == 0 || found == all,
            "{found} of {all} cells are left"
        );
        if found == 0 {
            erased += 1;
        } else {
            left += 1;
            server.json(ERASE);
            assert_eq!(cells(&server), 0);
        }
        let check = String::from_utf8(server.cli(&["check"]).stdout).unwrap();
        assert!(check.contains("no entry was altered"), "{check}");
    }
    eprintln!(
        "an erasure takes {usual:?}; {erased} interrupted ones were complete, {left} did nothing"
    );
}
