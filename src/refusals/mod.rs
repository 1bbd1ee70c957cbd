//! Refused calls of programs, and failed handshakes of websites: which ones, when and why, so that support can say it. A
//! refusal is queued beside its call, and stored a few seconds later; equal ones of one device within a minute are one
//! row. Also how often programs were refused on each day, which is counted without limits.
//!
//! The API key is in every copy of a program, so callers can make up much of what is stored. Each license, and each
//! network without a known license, therefore keeps a limited number of rows, and pushes out none of others.

pub mod cli;
pub mod client;
mod listing;
pub mod panel;
mod queue;
mod rules;
mod store;

pub use listing::{Filter, Position, RefusalColumn, Scope, count_matching, page, scope};
pub use queue::Queue;
pub use rules::CODES;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixMs;
use crate::db::{Db, Reader, Tx};
use crate::devices;
use crate::error::Result;
use crate::id::{CustomerId, LicenseId, ProductId, SessionToken};
use crate::license_key::LicenseKey;
use crate::metrics::{self, RefusalCounter, Refusals};
use crate::privacy;
use crate::security::client_address::ClientAddress;
use crate::zone::Zone;
use queue::{PendingCall, RecentRow};
use rules::Identity;

/// Most rows of one license.
const OF_LICENSE_MAX: u32 = 200;
/// Most rows of one network without a known license.
const OF_NETWORK_MAX: u32 = 200;
/// Most rows without a known license.
const WITHOUT_LICENSE_MAX: u32 = 10_000;
/// Most rows of all.
const ROWS_MAX: u32 = 100_000;
/// Rows that one transaction adds or deletes; other writes wait meanwhile.
const BATCH: u32 = 500;

/// What a refused call named, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The license key, if it can be one.
    pub license_key: Option<LicenseKey>,
    /// The beginning of the license key, or of the API key if that is wrong.
    pub masked_key: String,
    /// The session.
    pub session: Option<SessionToken>,
    /// The device's fingerprint.
    pub hardware_id: String,
    /// The device's own name.
    pub machine_id: String,
    /// The program's version.
    pub version: String,
    /// The domain of a website, in ASCII.
    pub domain: String,
}

/// A refused call.
#[derive(Clone, Debug)]
pub struct RefusedCall {
    /// When it arrived.
    pub at: UnixMs,
    /// The code of the refusal.
    pub code: &'static str,
    /// The path below `/api/license/` or, for websites, below `/api/`.
    pub call: String,
    /// The product of the API key; `None` without a valid one.
    pub product: Option<ProductId>,
    /// What it named.
    pub named: Named,
    /// Where it came from.
    pub address: ClientAddress,
    /// A word that tells more than the code, such as the name of an invalid field; may be empty.
    pub detail: String,
}

impl RefusedCall {
    /// The network that it came from. Unknown clients behind one proxy share one.
    fn network(&self) -> String {
        let network = self.address.network();
        network.unwrap_or_else(|| self.address.to_string())
    }
}

/// A handshake that ended after the server had called the website.
#[derive(Clone, Copy, Debug)]
pub struct FailedHandshake<'a> {
    /// When the first message arrived.
    pub at: UnixMs,
    /// The domain, in ASCII.
    pub domain: &'a str,
    /// The license whose key was in the first message.
    pub license: Option<LicenseId>,
    /// Where the first message came from.
    pub address: ClientAddress,
    /// Why a call to the website failed, as a code; may be empty.
    pub detail: &'a str,
}

/// Refused calls with what the database knows of them, as they are stored.
struct Resolved {
    /// The first of them.
    call: RefusedCall,
    license: Option<LicenseId>,
    last_at: UnixMs,
    calls: u32,
}

/// A row of refused calls, as administrators see it.
#[derive(Clone, Debug)]
pub struct RecordedRefusal {
    /// The id.
    pub id: i64,
    /// When the first call arrived.
    pub at: UnixMs,
    /// When the last one arrived.
    pub last_at: UnixMs,
    /// How many calls there were.
    pub calls: u32,
    /// The code.
    pub code: String,
    /// As in [`RefusedCall`].
    pub call: String,
    /// The product, if it is known.
    pub product: Option<ProductId>,
    /// The license, if it is known.
    pub license: Option<LicenseId>,
    /// Its key.
    pub license_key: Option<LicenseKey>,
    /// Its customer, if it has one.
    pub customer_id: Option<CustomerId>,
    /// The customer's name.
    pub customer: String,
    /// The beginning of an unknown license key, or of a wrong API key.
    pub masked_key: String,
    /// The device's fingerprint; may be empty, as may the texts below.
    pub hardware_id: String,
    /// The device's own name.
    pub machine_id: String,
    /// The program's version.
    pub version: String,
    /// The domain of a website.
    pub domain: String,
    /// The address.
    pub address: String,
    /// A word that tells more than the code.
    pub detail: String,
}

/// The latest rows of a license since a moment, the latest first.
pub fn of_license(
    reader: &Reader<'_>,
    license: LicenseId,
    since: UnixMs,
    limit: u32,
) -> Result<Vec<RecordedRefusal>> {
    store::of_license(reader, license, since, limit)
}

/// A counter for the days of `zone` that knows what earlier processes counted on the day of `now`.
pub fn counter(reader: &Reader<'_>, zone: &Zone, now: UnixMs) -> Result<RefusalCounter> {
    let counter = RefusalCounter::new(zone.clone());
    let earlier = store::counts_since(reader, zone.day(now).start)?;
    counter.add_earlier(counter.day(now), earlier);
    Ok(counter)
}

/// How often programs were refused and logins failed on the day of `now`, by code, most frequent first. With a
/// `product`, only its programs are counted, and all logins.
pub fn counted_today(
    counter: &RefusalCounter,
    product: Option<ProductId>,
    now: UnixMs,
) -> Vec<(String, u32)> {
    let by_code = counter.on(counter.day(now), product).into_iter();
    let mut by_code: Vec<(String, u32)> = by_code.collect();
    by_code.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    by_code
}

/// Stores the counts and the calls since the last call of this. What cannot be stored stays in memory for the next one.
pub async fn flush(
    db: &Db,
    counter: &RefusalCounter,
    queue: &Arc<Queue>,
    now: UnixMs,
) -> Result<()> {
    flush_counts(db, counter).await?;
    // No more than the queue holds, so that this ends while calls are refused.
    for _ in 0..queue::QUEUE_MAX.div_ceil(BATCH as usize) {
        let calls = Arc::new(queue.take(BATCH as usize));
        if calls.is_empty() {
            break;
        }
        let (taken, known) = (calls.clone(), queue.clone());
        let written = db.write("refusals.flush", move |tx| record(tx, &known, &taken, now));
        if let Err(error) = written.await {
            queue.give_back(&calls);
            return Err(error);
        }
    }
    Ok(())
}

/// Stores the counts since the last call of this.
async fn flush_counts(db: &Db, counter: &RefusalCounter) -> Result<()> {
    let taken = counter.take();
    if taken.is_empty() {
        return Ok(());
    }
    let unsaved = taken.clone();
    let written = db
        .write("refusals.flush_counts", move |tx| {
            taken
                .iter()
                .try_for_each(|refusals| store::add_count(tx, refusals))
        })
        .await;
    if written.is_err() {
        counter.give_back(&unsaved);
    }
    written
}

/// Adds calls to the rows of equal ones, or as rows of their own. Those that arrived before a customer was erased are left
/// out, because they may be about that customer.
fn record(tx: &Tx<'_>, queue: &Arc<Queue>, calls: &[PendingCall], now: UnixMs) -> Result<()> {
    let mut added: HashMap<Identity, RecentRow> = HashMap::new();
    let mut changed = Changed::default();
    let mut left_out = 0_u32;
    for pending in calls {
        if privacy::was_erased_since(tx, pending.call.at)? {
            left_out = left_out.saturating_add(pending.calls);
            continue;
        }
        let row = resolve(tx, pending)?;
        let identity = rules::identity_of_row(&row.call, row.license);
        let known = added.get(&identity).copied();
        let known = known.or_else(|| queue.recent(&identity, row.call.at));
        match known {
            Some(known) if store::add_calls(tx, known, &row)? => {}
            _ => {
                added.insert(identity, insert(tx, &row, &mut changed)?);
            }
        }
    }
    changed.trim(tx)?;
    let queue = queue.clone();
    tx.after_commit(move || {
        queue.remember(added, now);
        queue.count_unrecorded(left_out);
    });
    Ok(())
}

/// Records a handshake, unless its `outcome`, a word of the log of handshakes, is no failure. In the database transaction
/// of that log; returns what is to be counted after it.
pub fn record_handshake(
    tx: &Tx<'_>,
    outcome: &str,
    failed: &FailedHandshake<'_>,
) -> Result<Option<Refusals>> {
    let Some(code) = rules::handshake_code(outcome) else {
        return Ok(None);
    };
    let (at, license) = (failed.at, failed.license);
    let product = license.map(|license| store::product(tx, license));
    let call = RefusedCall {
        at,
        code,
        call: "site/transaction".to_owned(),
        product: product.transpose()?,
        named: Named {
            domain: failed.domain.to_owned(),
            ..Named::default()
        },
        address: failed.address,
        detail: failed.detail.to_owned(),
    };
    let row = Resolved {
        call,
        license,
        last_at: at,
        calls: 1,
    };
    let mut changed = Changed::default();
    insert(tx, &row, &mut changed)?;
    changed.trim(tx)?;
    let (at, product, count) = (metrics::quarter(at), row.call.product, 1);
    Ok(Some(Refusals {
        at,
        product,
        code,
        count,
    }))
}

fn insert(tx: &Tx<'_>, row: &Resolved, changed: &mut Changed) -> Result<RecentRow> {
    let id = store::insert(tx, row)?;
    match row.license {
        Some(license) => drop(changed.licenses.insert(license)),
        None => drop(changed.networks.insert(row.call.network())),
    }
    Ok(RecentRow {
        id,
        at: row.call.at,
        code: row.call.code,
    })
}

/// Finds the license that calls belong to, by its key, the session or the trial of the device.
fn resolve(reader: &Reader<'_>, pending: &PendingCall) -> Result<Resolved> {
    let mut call = pending.call.clone();
    let key = call.named.license_key.as_ref();
    let by_key = key.map(|key| store::license(reader, key, call.product));
    let mut found = by_key.transpose()?.flatten();
    if let (Some(product), Some(token)) = (call.product, &call.named.session)
        && let Some(session) = store::session(reader, token, product)?
        && found.is_none_or(|(license, _)| license == session.license)
    {
        found = Some((session.license, product));
        call.named.hardware_id = session.hardware_id;
        call.named.machine_id = session.machine_id;
        call.named.version = session.version;
    }
    if let (Some(product), None) = (call.product, key_or_session(&call.named))
        && !call.named.hardware_id.is_empty()
    {
        let digest = devices::fingerprint_digest(product, &call.named.hardware_id);
        let license = store::trial(reader, product, &digest)?;
        found = license.map(|license| (license, product));
    }
    let license = found.map(|(license, _)| license);
    call.product = call.product.or(found.map(|(_, product)| product));
    Ok(Resolved {
        call: rules::for_storage(call, license),
        license,
        last_at: pending.last_at,
        calls: pending.calls,
    })
}

/// Something if the call named a license key or a session; otherwise the device may have a trial.
fn key_or_session(named: &Named) -> Option<()> {
    let names_key = named.license_key.is_some() || !named.masked_key.is_empty();
    (names_key || named.session.is_some()).then_some(())
}

/// Whose rows have become more.
#[derive(Default)]
struct Changed {
    licenses: BTreeSet<LicenseId>,
    /// Networks with rows without a license.
    networks: BTreeSet<String>,
}

impl Changed {
    /// Deletes the oldest rows beyond the limits.
    fn trim(&self, tx: &Tx<'_>) -> Result<()> {
        for license in &self.licenses {
            store::trim_license(tx, *license, OF_LICENSE_MAX)?;
        }
        for network in &self.networks {
            store::trim_network(tx, network, OF_NETWORK_MAX)?;
        }
        if !self.networks.is_empty() {
            store::trim_without_license(tx, WITHOUT_LICENSE_MAX)?;
        }
        if self.licenses.is_empty() && self.networks.is_empty() {
            return Ok(());
        }
        store::trim(tx, ROWS_MAX)
    }
}

/// Deletes rows that are older than `retention`. Returns how many.
///
/// # Errors
/// If a write fails; rows already deleted stay deleted.
pub async fn purge(db: &Db, retention: Duration, now: UnixMs) -> Result<usize> {
    let before = now.minus(retention);
    let mut deleted = 0;
    loop {
        let purge = db.write("refusals.purge", move |tx| store::purge(tx, before, BATCH));
        let of_batch = purge.await?;
        deleted += of_batch;
        if of_batch < BATCH as usize {
            return Ok(deleted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Options, Synchronous};
    use crate::products;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    /// A database with two licenses: of no customer, since only their ids matter.
    fn database(dir: &std::path::Path) -> Db {
        let options = Options {
            synchronous: Synchronous::Normal,
            ..Options::in_folder(dir)
        };
        let db = Db::open_as_server(&options).unwrap();
        db.write_blocking("test", |tx| {
            products::ensure(tx, NOW)?;
            for key in ["0".repeat(25), "1".repeat(25)] {
                tx.run(
                    "insert into licenses (license_key, product_id, kind, state, device_limit, valid_from_ms, created_at_ms)
                     values (?1, 1, 'trial', 'active', 1, 0, 0)",
                    [key],
                )?;
            }
            Ok(())
        })
        .unwrap();
        db
    }

    fn pending(call: RefusedCall) -> PendingCall {
        PendingCall {
            last_at: call.at,
            call,
            calls: 1,
        }
    }

    fn call(key: Option<u8>, device: u32, network: u8) -> RefusedCall {
        let key = key.map(|digit| char::from(digit).to_string().repeat(25));
        RefusedCall {
            at: NOW.plus(Duration::from_millis(u64::from(device))),
            code: "license_expired",
            call: "verify".to_owned(),
            product: Some(ProductId::FIRST),
            named: Named {
                license_key: key.and_then(|key| LicenseKey::from_stored(&key)),
                masked_key: "ABC… (25)".to_owned(),
                hardware_id: device.to_string(),
                ..Named::default()
            },
            address: ClientAddress::Direct([192, 0, 2, network].into()),
            detail: String::new(),
        }
    }

    fn store_all(db: &Db, queue: &Arc<Queue>, calls: Vec<RefusedCall>) {
        let queue = queue.clone();
        let calls: Vec<PendingCall> = calls.into_iter().map(pending).collect();
        db.write_blocking("test", move |tx| record(tx, &queue, &calls, NOW))
            .unwrap();
    }

    fn count(db: &Db, condition: &'static str) -> u32 {
        let sql = match condition {
            "" => "select count(*) from refusals",
            "license" => "select count(*) from refusals where license_id = 1",
            _ => "select count(*) from refusals where license_id is null",
        };
        db.read_blocking(|reader| reader.one(sql, [], |row| row.get(0)))
            .unwrap()
    }

    #[test]
    fn a_license_and_a_network_keep_their_latest_rows_and_push_out_none_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let (db, queue) = (database(dir.path()), Arc::new(Queue::default()));
        store_all(&db, &queue, vec![call(Some(b'1'), 1, 1), call(None, 2, 2)]);
        let of_license = (10..OF_LICENSE_MAX + 20).map(|device| call(Some(b'0'), device, 1));
        store_all(&db, &queue, of_license.collect());
        assert_eq!(count(&db, "license"), OF_LICENSE_MAX);
        let of_network = (10..OF_NETWORK_MAX + 20).map(|device| call(None, device, 3));
        store_all(&db, &queue, of_network.collect());
        assert_eq!(count(&db, "none"), OF_NETWORK_MAX + 1);
        assert_eq!(count(&db, ""), OF_LICENSE_MAX + OF_NETWORK_MAX + 2);
        let newest = db.read_blocking(|reader| of_license_of(reader, 1)).unwrap();
        let last = (OF_LICENSE_MAX + 19).to_string();
        assert_eq!(newest.hardware_id, last, "the oldest were deleted");
        assert_eq!(newest.masked_key, "", "no part of a key that is known");
    }

    fn of_license_of(reader: &Reader<'_>, license: i64) -> Result<RecordedRefusal> {
        let mut rows = of_license(reader, LicenseId(license), UnixMs(0), 1)?;
        Ok(rows.remove(0))
    }

    #[test]
    fn equal_calls_within_a_minute_are_one_row_and_an_erasure_forgets_those_that_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (db, queue) = (database(dir.path()), Arc::new(Queue::default()));
        for _ in 0..3 {
            store_all(&db, &queue, vec![call(Some(b'0'), 1, 1)]);
        }
        let row = db.read_blocking(|reader| of_license_of(reader, 1)).unwrap();
        assert_eq!((row.calls, count(&db, "")), (3, 1));
        // The row was deleted meanwhile.
        db.write_blocking("test", |tx| tx.run("delete from refusals", []))
            .unwrap();
        store_all(&db, &queue, vec![call(Some(b'0'), 1, 1)]);
        assert_eq!(count(&db, ""), 1);
        db.write_blocking("test", |tx| {
            let erased =
                "insert into erased_customers (customer_id, created_at_ms, erased_at_ms, licenses)
                          values (9, 0, ?1, 'keep')";
            tx.run(erased, [NOW.plus(Duration::from_millis(5))])
        })
        .unwrap();
        store_all(
            &db,
            &queue,
            vec![call(Some(b'1'), 4, 1), call(Some(b'1'), 6, 1)],
        );
        assert_eq!(count(&db, ""), 2);
        assert_eq!(queue.unrecorded(), 1);
    }
}
