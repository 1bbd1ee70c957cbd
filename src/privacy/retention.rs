//! What is deleted after the times in the settings. Each is kept unless a time is set.

use std::time::Duration;

use serde_json::{Value, json};

use super::store;
use crate::audit::{self, Act, Actor, Change};
use crate::clock::UnixMs;
use crate::db::Db;
use crate::devices;
use crate::error::Result;
use crate::zone::Zone;

/// Rows that one transaction changes; other writes wait meanwhile.
const BATCH: u32 = 500;

/// For how long data is kept; `None`: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What an entry of the audit log says.
    pub audit: Option<Duration>,
    /// A device, since it was last seen.
    pub unseen_devices: Option<Duration>,
    /// The zone whose days entries of the audit log are deleted by: the shop's.
    pub zone: Zone,
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Entries of the audit log that were erased.
    pub audit_entries: usize,
    /// Devices that were released.
    pub devices: usize,
}

/// Erases audit entries, and releases devices, that are older than they may be. A device with a session stays.
///
/// # Errors
/// If a write fails; what was deleted stays deleted.
pub async fn delete_expired(db: &Db, retention: &Retention, now: UnixMs) -> Result<Deleted> {
    let mut deleted = Deleted::default();
    if let Some(unseen) = retention.unseen_devices {
        let before = now.minus(unseen);
        loop {
            let release = db.write("privacy.release_unseen", move |tx| {
                release_unseen(&Act::new(tx, &Actor::server(), now), before)
            });
            let released = release.await?;
            deleted.devices += released;
            if released < BATCH as usize {
                break;
            }
        }
    }
    if let Some(span) = retention.audit {
        // Whole days, so that there is one entry about this a day, not one an hour.
        let before = retention.zone.day(now.minus(span)).start;
        loop {
            let erase = db.write("privacy.erase_audit", move |tx| {
                audit::expire(&Act::new(tx, &Actor::server(), now), before, BATCH)
            });
            let erased = erase.await?;
            deleted.audit_entries += erased;
            if erased < BATCH as usize {
                break;
            }
        }
    }
    Ok(deleted)
}

/// Releases a batch of devices that were last seen before `before` and have no session.
fn release_unseen(act: &Act<'_>, before: UnixMs) -> Result<usize> {
    let unseen = store::unseen_devices(act.tx, before, BATCH)?;
    for device in &unseen {
        devices::remove(act.tx, *device)?;
    }
    if !unseen.is_empty() {
        act.changed(&Change {
            action: "devices.expire",
            subject: "",
            before: Value::Null,
            after: json!({ "devices": unseen.len(), "last_seen_before": before.rfc3339() }),
        })?;
    }
    Ok(unseen.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Now, Tick};
    use crate::customers::SameName;
    use crate::db::{Options, Synchronous};
    use crate::devices::{ClientIdentity, SlotRequest};
    use crate::id::ProductId;
    use crate::licenses::{self, Buyer, Order};
    use crate::products;
    use crate::security::rate_limit::Quota;

    const DAY: Duration = Duration::from_hours(24);

    fn day(number: u32) -> UnixMs {
        UnixMs(1_800_000_000_000).plus(DAY * number)
    }

    /// A database with a license, and a device that was last seen on each of these days. The first has a session.
    fn database(dir: &std::path::Path, days: &[u32]) -> Db {
        let options = Options {
            synchronous: Synchronous::Normal,
            ..Options::in_folder(dir)
        };
        let db = Db::open_as_server(&options).unwrap();
        let days = days.to_vec();
        db.write_blocking("test", move |tx| {
            products::ensure(tx, day(0))?;
            let actor = Actor::server();
            let act = Act::new(tx, &actor, day(0));
            let order = Order::one(ProductId::FIRST, 9);
            let license = licenses::sell(&act, &Buyer::NewNamed("Ada".to_owned(), SameName::Ask), &order)?.remove(0);
            for (number, seen) in days.iter().enumerate() {
                let client = ClientIdentity {
                    license_key: Some(license.key),
                    machine_id: format!("machine {number}"),
                    hardware_id: format!("hash {number}"),
                    version: "1.0.0".parse().unwrap(),
                };
                let now = Now {
                    wall: day(*seen),
                    tick: Tick::START,
                    awake: Duration::ZERO,
                };
                let quota = Quota::unlimited();
                let request = SlotRequest {
                    client: &client,
                    quota: &quota,
                    now,
                };
                devices::take_slot(tx, license.clone(), &request)?;
            }
            let session = "insert into active_sessions
                select 1, randomblob(16), 1, 1, '1.0.0', '', 1, 1, 60 from devices where device_id = 1";
            tx.run(session, []).map(drop)
        })
        .unwrap();
        db
    }

    fn machines(db: &Db) -> Vec<String> {
        let list = |reader: &crate::db::Reader<'_>| {
            reader.list(
                "select machine_id from devices order by device_id",
                [],
                |row| row.get(0),
            )
        };
        db.read_blocking(list).unwrap()
    }

    fn run(db: &Db, retention: &Retention, now: UnixMs) -> Deleted {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime
            .block_on(delete_expired(db, retention, now))
            .unwrap()
    }

    #[test]
    fn everything_is_kept_unless_a_time_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let db = database(dir.path(), &[0, 0]);
        assert_eq!(
            run(&db, &Retention::default(), day(30_000)),
            Deleted::default()
        );
        assert_eq!(machines(&db).len(), 2);
        assert_eq!(
            db.read_blocking(audit::verify).unwrap(),
            audit::Verified::default()
        );
    }

    #[test]
    fn a_device_that_was_not_seen_for_so_long_is_released_unless_it_has_a_session() {
        let dir = tempfile::tempdir().unwrap();
        let db = database(dir.path(), &[1, 2, 3, 4]);
        let retention = Retention {
            unseen_devices: Some(DAY * 10),
            ..Retention::default()
        };
        assert_eq!(run(&db, &retention, day(13)).devices, 1);
        assert_eq!(machines(&db), ["machine 0", "machine 2", "machine 3"]);
        assert_eq!(run(&db, &retention, day(13)).devices, 0);
        let entry = db
            .read_blocking(|reader| audit::entries_about(reader, "devices", "", 10))
            .unwrap();
        assert_eq!(entry.len(), 1);
        assert!(entry[0].after.contains("\"devices\":1"), "{entry:?}");
    }

    #[test]
    fn old_audit_entries_are_erased_in_batches_and_the_chain_stays_provable() {
        let dir = tempfile::tempdir().unwrap();
        let db = database(dir.path(), &[]);
        let note = |tx: &crate::db::Tx<'_>, at: UnixMs, subject: &str| {
            let change = Change {
                action: "customers.edit",
                subject,
                before: Value::Null,
                after: Value::Null,
            };
            audit::note(tx, at, &Actor::server(), &change)
        };
        db.write_blocking("test", move |tx| {
            for number in 0..BATCH + 7 {
                note(tx, day(1), &number.to_string())?;
            }
            note(tx, day(9), "young")
        })
        .unwrap();
        let retention = Retention {
            audit: Some(DAY * 10),
            ..Retention::default()
        };
        // The two entries of the sale as well.
        let expected = BATCH as usize + 9;
        assert_eq!(run(&db, &retention, day(12)).audit_entries, expected);
        assert_eq!(run(&db, &retention, day(12)).audit_entries, 0);
        let verified = db.read_blocking(audit::verify).unwrap();
        assert_eq!((verified.first_altered, verified.unaccounted), (None, None));
        assert_eq!((verified.erased, verified.expired), (0, expected));
        let left = db
            .read_blocking(|reader| audit::entries_about(reader, "customers", "young", 10))
            .unwrap();
        assert_eq!(left.len(), 1);
        // What accounts for them stays, however old it is.
        assert_eq!(run(&db, &retention, day(90)).audit_entries, 1);
        assert_eq!(run(&db, &retention, day(180)).audit_entries, 0);
        let verified = db.read_blocking(audit::verify).unwrap();
        assert_eq!(verified.unaccounted, None);
        assert_eq!(verified.expired, expected + 1);
    }
}
