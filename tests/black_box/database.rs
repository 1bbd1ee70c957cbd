//! What tests read in a server's database, and what they change in it from outside. No other file of these tests does.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, Row, named_params};

use crate::support::Server;

mod contents;

pub use contents::{Rows, Watch, rows};

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    // The triggers of the search index call them.
    license_server::db::register_functions(&conn).unwrap();
    conn
}

fn value<T: FromSql>(path: &Path, sql: &str) -> T {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let value = conn.query_row(sql, [], |row| row.get(0));
    value.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn list<T>(path: &Path, sql: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = conn.prepare(sql).unwrap();
    let rows = rows.query_map([], read).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Runs SQL on any file, as a program with the functions of the server.
pub fn execute(path: &Path, sql: &str) -> rusqlite::Result<()> {
    open(path).execute_batch(sql)
}

/// Deletes rows from any file, such as those of `products where product_id = 3`.
pub fn delete(path: &Path, rows: &str) -> rusqlite::Result<()> {
    execute(path, &format!("delete from {rows}"))
}

/// Runs SQL on the server's database, likewise; for tests of what this does.
pub fn change(server: &Server, sql: &str) {
    let done = execute(&server.database(), sql);
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Creates a database with this schema version by these statements.
pub fn create(path: &Path, schema: u32, statements: &[String]) {
    let conn = open(path);
    // As the program does: a migration may replace a table that others refer to.
    conn.execute_batch("pragma foreign_keys = off").unwrap();
    for statement in statements {
        conn.execute_batch(statement).unwrap();
    }
    let marks = format!("pragma application_id = 0x4c696353; pragma user_version = {schema}");
    conn.execute_batch(&marks).unwrap();
}

/// Creates a database that is not one of license-server.
pub fn create_foreign(path: &Path) {
    execute(path, "create table x (y)").unwrap();
}

/// Marks a database as one of a newer version.
pub fn mark_as_newer(path: &Path) {
    execute(path, "pragma user_version = 99").unwrap();
}

/// Another program that has the database open, in a transaction.
pub struct OtherProgram(Connection);

impl OtherProgram {
    /// Takes the write lock.
    pub fn lock(server: &Server) -> Self {
        let conn = open(&server.database());
        conn.execute_batch("begin immediate").unwrap();
        Self(conn)
    }

    /// Reads the customers in a transaction that stays open.
    pub fn read(server: &Server) -> Self {
        let conn = open(&server.database());
        conn.execute_batch("begin; select count(*) from customers")
            .unwrap();
        Self(conn)
    }

    /// Ends the transaction.
    pub fn release(self) {
        self.0.execute_batch("rollback").unwrap();
    }
}

// --- Products

/// The API key of a product.
pub fn api_key(server: &Server, product_id: i64) -> String {
    let sql = format!("select api_key from client_configs where product_id = {product_id}");
    value(&server.database(), &sql)
}

// --- All tables

/// The number of rows of a table.
pub fn count(server: &Server, table: &str) -> u32 {
    count_in(&server.database(), table)
}

/// The number of rows of a table in a copy.
pub fn count_in(path: &Path, table: &str) -> u32 {
    value(path, &format!("select count(*) from {table}"))
}

/// `ok`, or what SQLite finds wrong in the file.
pub fn integrity(path: &Path) -> String {
    value(
        path,
        "select group_concat(integrity_check) from pragma_integrity_check",
    )
}

/// The number of dangling references, of sessions that both run and have ended, and of wrong counts.
pub fn contradictions(path: &Path) -> u32 {
    value(
        path,
        "select (select count(*) from pragma_foreign_key_check)
              + (select count(*) from active_sessions join session_history using (session_token))
              + (select count(*) from running_counts r
                 where running <> (select count(*) from active_sessions join licenses l using (license_id) where r.product_id in (0, l.product_id)))
              + (select count(*) from (
                     select product_id, last_seen_at_ms / 86400000, client_version, count(*) from devices
                     join licenses using (license_id) group by 1, 2, 3
                     except select product_id, day, client_version, devices from version_counts))
              + (select abs(coalesce(sum(devices), 0) - (select count(*) from devices)) from version_counts)",
    )
}

// --- The audit log

/// An entry of the audit log.
#[derive(Debug)]
pub struct AuditEntry {
    pub at_ms: i64,
    pub actor: String,
    pub source: String,
    pub action: String,
    pub subject: String,
    pub before: String,
    pub after: String,
}

/// The audit log, oldest entry first.
pub fn audit_log(server: &Server) -> Vec<AuditEntry> {
    let sql = "select * from audit_log order by audit_id";
    list(&server.database(), sql, |row| {
        Ok(AuditEntry {
            at_ms: row.get("at_ms")?,
            actor: row.get("actor")?,
            source: row.get("source")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            before: row.get("before")?,
            after: row.get("after")?,
        })
    })
}

/// The entries of one action, oldest first.
pub fn audited(server: &Server, action: &str) -> Vec<AuditEntry> {
    let mut entries = audit_log(server);
    entries.retain(|entry| entry.action == action);
    entries
}

/// The actions of the audit log, oldest first.
pub fn audited_actions(server: &Server) -> Vec<String> {
    let entries = audit_log(server).into_iter();
    entries.map(|entry| entry.action).collect()
}

/// Gives an entry another actor.
pub fn forge_actor(server: &Server, entry: i64, actor: &str) {
    let sql = format!("update audit_log set actor = '{actor}' where audit_id = {entry}");
    change(server, &sql);
}

/// Removes an entry.
pub fn remove_audit_entry(server: &Server, entry: i64) {
    let sql = format!("delete from audit_log where audit_id = {entry}");
    change(server, &sql);
}

/// Changes what the first entry says.
pub fn forge_first_audit_entry(server: &Server) {
    change(
        server,
        "update audit_log set after = 'forged' where audit_id = 1",
    );
}

// --- Customers, licenses and devices

/// The names of the customers, oldest first.
pub fn customer_names(path: &Path) -> Vec<String> {
    let sql = "select name from customers order by customer_id";
    list(path, sql, |row| row.get(0))
}

/// Adds customers until there are this many.
pub fn fill_customers(server: &Server, count: i64) {
    let sql = format!(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < {count})
         insert or ignore into customers (customer_id, name, created_at_ms)
         select i, 'customer ' || i, 0 from n"
    );
    change(server, &sql);
}

/// Adds releases `1.0.N` to the product of the first one until there are `count`.
pub fn fill_releases(server: &Server, count: i64) {
    let sql = format!(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < {count})
         insert or ignore into releases (product_id, version, channel, notes, state, released_at_ms)
         select (select min(product_id) from releases), '1.0.' || i, 'stable', '', 'released', 0 from n"
    );
    change(server, &sql);
}

/// Gives the first customer another name, as it is.
pub fn rename_first_customer(server: &Server, name: &str) {
    let sql = format!("update customers set name = '{name}' where customer_id = 1");
    change(server, &sql);
}

/// How many customers the search index has under these three characters, erased ones included.
pub fn indexed_customers(server: &Server, trigram: &str) -> u32 {
    count(
        server,
        &format!("customer_texts where customer_texts match '{trigram}'"),
    )
}

/// Removes the pages of the search index of customers.
pub fn damage_index(server: &Server) {
    change(server, "delete from customer_texts_data where id > 10");
}

/// Removes all customers and leaves their licenses.
pub fn remove_customers_of_licenses(server: &Server) {
    change(server, "pragma foreign_keys = off; delete from customers");
}

/// The id of the oldest license.
pub fn first_license(server: &Server) -> i64 {
    value(&server.database(), "select min(license_id) from licenses")
}

/// The id of the newest license.
pub fn last_license(server: &Server) -> i64 {
    value(&server.database(), "select max(license_id) from licenses")
}

/// The key of the license that is revoked, without hyphens.
pub fn revoked_key(server: &Server) -> String {
    value(
        &server.database(),
        "select license_key from licenses where state = 'revoked'",
    )
}

/// Adds a device to a license whose only device is another one.
pub fn add_device(server: &Server, license: i64) -> rusqlite::Result<()> {
    let sql = "insert into devices (license_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms)
        select license_id, 'other', 'other', client_version, activated_at_ms, last_seen_at_ms from devices where license_id";
    execute(&server.database(), &format!("{sql} = {license}"))
}

/// Sets columns of a license, such as `state = 'suspended'`.
pub fn set_license(server: &Server, license: i64, columns: &str) {
    let sql = format!("update licenses set {columns} where license_id = {license}");
    change(server, &sql);
}

/// Sets columns of every license.
pub fn set_all_licenses(server: &Server, columns: &str) {
    change(server, &format!("update licenses set {columns}"));
}

/// Lets the license on a domain expire.
pub fn expire_license_on(server: &Server, domain: &str) {
    let sql = format!(
        "update licenses set valid_from_ms = 0, valid_until_ms = 1 where domain = '{domain}'"
    );
    change(server, &sql);
}

/// When the transfer of the only license ends.
pub fn transfer_until_ms(server: &Server) -> i64 {
    value(&server.database(), "select transfer_until_ms from licenses")
}

/// Ends the grace period of every transfer at this time.
pub fn end_transfers_at(server: &Server, at_ms: i64) {
    set_all_licenses(server, &format!("transfer_until_ms = {at_ms}"));
}

/// Moves the time at which the only device was last seen to before its activation.
pub fn forget_last_seen(server: &Server) {
    change(
        server,
        "update devices set last_seen_at_ms = activated_at_ms - 60000",
    );
}

/// Whether the only device was seen since its activation.
pub fn is_seen(server: &Server) -> bool {
    value(
        &server.database(),
        "select last_seen_at_ms >= activated_at_ms from devices",
    )
}

/// The number of devices whose fingerprint contains this text.
pub fn devices_named(server: &Server, part: &str) -> u32 {
    count(
        server,
        &format!("devices where hardware_id like '%{part}%'"),
    )
}

// --- Sessions

/// The times of an ended session, and why it ended.
#[derive(Debug)]
pub struct EndedSession {
    pub last_heartbeat_at_ms: i64,
    pub ended_at_ms: i64,
    pub end_reason: String,
}

impl EndedSession {
    /// The time from the last heartbeat to the end.
    pub fn silent_ms(&self) -> i64 {
        self.ended_at_ms - self.last_heartbeat_at_ms
    }
}

/// The ended sessions, oldest first.
pub fn ended_sessions(server: &Server) -> Vec<EndedSession> {
    let sql = "select * from session_history order by ended_at_ms";
    list(&server.database(), sql, |row| {
        Ok(EndedSession {
            last_heartbeat_at_ms: row.get("last_heartbeat_at_ms")?,
            ended_at_ms: row.get("ended_at_ms")?,
            end_reason: row.get("end_reason")?,
        })
    })
}

/// How many sessions timed out.
pub fn timed_out_sessions(server: &Server) -> usize {
    let ended = ended_sessions(server);
    let timed_out = ended.iter().filter(|ended| ended.end_reason == "timeout");
    timed_out.count()
}

/// The latest heartbeat of a running session.
pub fn latest_heartbeat_ms(path: &Path) -> i64 {
    value(
        path,
        "select max(last_heartbeat_at_ms) from active_sessions",
    )
}

/// Moves the last heartbeats of all running sessions into the future.
pub fn advance_heartbeats(server: &Server, by_ms: i64) {
    let sql =
        format!("update active_sessions set last_heartbeat_at_ms = last_heartbeat_at_ms + {by_ms}");
    change(server, &sql);
}

/// Moves all ended sessions into the past.
pub fn age_history(server: &Server, by_ms: i64) {
    let sql = format!(
        "update session_history set started_at_ms = started_at_ms - {by_ms},
         last_heartbeat_at_ms = last_heartbeat_at_ms - {by_ms}, ended_at_ms = ended_at_ms - {by_ms}"
    );
    change(server, &sql);
}

/// Adds for each running session one that ran for an hour, eight hours before.
pub fn add_earlier_sessions(server: &Server) {
    change(
        server,
        "insert into session_history select session_id + 10, randomblob(16), license_id, 'h', 'm',
         client_version, address, started_at_ms - 28800000, started_at_ms - 25200000,
         started_at_ms - 25200000, 'normal', null, null from active_sessions;
         insert into session_counts
         select p.product_id, (max(s.started_at_ms) - 28800000) / 900000 * 900000, count(*), 0, count(*)
         from active_sessions s, (select 0 as product_id union all select 1) p group by p.product_id
         on conflict do update set started = started + excluded.started, peak = excluded.peak",
    );
}

/// Lets a device have been last seen earlier.
pub fn age_device(server: &Server, name: &str, by_ms: i64) {
    let sql = "update devices set last_seen_at_ms = last_seen_at_ms -";
    change(
        server,
        &format!("{sql} {by_ms} where machine_id = '{name}'"),
    );
}

/// Adds more customers, ended sessions and releases than a page shows.
pub fn add_many_rows(server: &Server) {
    change(server, MANY_ROWS);
}

const MANY_ROWS: &str = "
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 200)
    insert into customers (name, email, company, note, created_at_ms)
    select 'Werkstatt Nummer ' || i, 'werkstatt-' || i || '@example.org', 'Werkstatt ' || i || ' GmbH', 'A note', i from n;
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 300)
    insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, client_version,
        address, started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason)
    select 1000 + i, randomblob(16), 1, 'hash of a device ' || i, 'device-' || i, '1.0.0', '192.0.2.7',
        now.ms - i * 60000, now.ms - i * 50000, now.ms - i * 40000, 'normal'
    from n, (select max(started_at_ms) as ms from active_sessions) as now;
    with recursive n(i) as (select 10 union all select i + 1 from n where i < 110)
    insert into releases (product_id, version, channel, notes, download_url, sha256, state, released_at_ms)
    select 1, '2.' || i || '.0', 'stable', 'What is new in it: this, that, and what else there is.',
        'https://example.org/downloads/app-2.' || i || '.0.zip', null, 'released', 1790000000000 + i from n;
";

/// The id of an administrator.
pub fn admin_id(server: &Server, name: &str) -> i64 {
    let sql = format!("select admin_id from admins where name = '{name}'");
    value(&server.database(), &sql)
}

/// The language that an administrator has chosen.
pub fn admin_language(server: &Server, name: &str) -> Option<String> {
    let sql = format!("select language from admins where name = '{name}'");
    value(&server.database(), &sql)
}

/// Gives an administrator a name that the server would refuse.
pub fn rename_admin(server: &Server, old: &str, new: &str) {
    let sql = format!("update admins set name = '{new}' where name = '{old}'");
    change(server, &sql);
}

/// Gives all administrators, of whom there is one, another name.
pub fn rename_only_admin(server: &Server, new: &str) {
    change(server, &format!("update admins set name = '{new}'"));
}

/// Lets the latest one-time codes be used again.
pub fn forget_used_codes(server: &Server) {
    change(server, "update admins set totp_last_step = 0");
}

/// The stored recovery codes, as hexadecimal digits.
pub fn recovery_codes(server: &Server) -> Vec<String> {
    let sql = "select hex(code_hash) from recovery_codes";
    list(&server.database(), sql, |row| row.get(0))
}

/// The stored token of the only login, as hexadecimal digits.
pub fn login_token(server: &Server) -> String {
    value(
        &server.database(),
        "select hex(token_hash) from admin_sessions",
    )
}

/// The id of the login of a browser whose name begins like this.
pub fn login_of_browser(server: &Server, begin: &str) -> i64 {
    let sql = format!("select admin_session_id from admin_sessions where browser like '{begin}%'");
    value(&server.database(), &sql)
}

/// Moves a time of all logins into the past: `seen_at_ms` or `created_at_ms`.
pub fn age_logins(server: &Server, column: &str, by_ms: i64) {
    let sql = format!("update admin_sessions set {column} = {column} - {by_ms}");
    change(server, &sql);
}

/// Moves the last re-authentication of all logins five minutes into the past.
pub fn age_reauthentication(server: &Server) {
    age_logins(server, "proved_at_ms", 301_000);
}

/// Removes a table, so that what needs it fails.
pub fn break_table(server: &Server, table: &str) {
    change(server, &format!("alter table {table} rename to gone"));
}

/// Puts a removed table back.
pub fn mend_table(server: &Server, table: &str) {
    change(server, &format!("alter table gone rename to {table}"));
}

/// Adds a handshake for a domain to the log, and its source to the known ones.
pub fn add_handshake(server: &Server, domain: &str, source: &str) {
    let log = format!(
        "insert into handshakes values (null, 1, '{domain}', '{source}', 'license', 'delivered', '', null);"
    );
    let known = format!("insert into known_sources values ('{domain}', '{source}', 1)");
    change(server, &(log + &known));
}

/// An entry of the handshake log.
#[derive(Debug)]
pub struct Handshake {
    pub domain: String,
    pub source: String,
    pub operation: Option<String>,
    pub outcome: String,
    pub reason: String,
}

/// The handshake log, oldest entry first.
pub fn handshakes(server: &Server) -> Vec<Handshake> {
    let sql = "select * from handshakes order by handshake_id";
    list(&server.database(), sql, |row| {
        Ok(Handshake {
            domain: row.get("domain")?,
            source: row.get("source")?,
            operation: row.get("operation")?,
            outcome: row.get("ending")?,
            reason: row.get("reason")?,
        })
    })
}

/// How many handshakes had this outcome.
pub fn handshakes_with_outcome(server: &Server, outcome: &str) -> usize {
    let handshakes = handshakes(server);
    let found = handshakes.iter().filter(|entry| entry.outcome == outcome);
    found.count()
}

/// How many handshakes had this outcome for this reason.
pub fn handshakes_with_reason(server: &Server, outcome: &str, reason: &str) -> usize {
    let handshakes = handshakes(server);
    let found = handshakes
        .iter()
        .filter(|entry| entry.outcome == outcome && entry.reason == reason);
    found.count()
}

// --- Keys, and the server itself

/// When the only retired API key ends.
pub fn retired_key_until_ms(server: &Server) -> i64 {
    value(
        &server.database(),
        "select valid_until_ms from retired_api_keys",
    )
}

/// Ends the overlap of every retired API key.
pub fn end_retired_keys(server: &Server) {
    change(server, "update retired_api_keys set valid_until_ms = 0");
}

/// Moves the retirement of every previous signing key far into the past.
pub fn age_previous_signing_keys(server: &Server) {
    change(
        server,
        "update signing_keys set retired_at_ms = 1 where role = 'previous'",
    );
}

/// Removes the digest of the certificate authority, as in a database of an earlier version.
pub fn forget_authority(server: &Server) {
    change(server, "update server_state set authority = null");
}

/// The latest date that the server has seen, in milliseconds after the newest license was issued.
pub fn latest_date_since_last_license_ms(server: &Server) -> i64 {
    value(
        &server.database(),
        "select high_water_ms - (select max(created_at_ms) from licenses) from server_state",
    )
}

/// Sets the latest date that the server has seen.
pub fn set_latest_date(server: &Server, at_ms: i64) {
    let conn = open(&server.database());
    let sql = "update server_state set high_water_ms = :at_ms";
    conn.execute(sql, named_params! { ":at_ms": at_ms })
        .unwrap();
}
