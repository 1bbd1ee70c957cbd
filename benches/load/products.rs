//! A thousand products with a thousand licenses each, against one product with as many licenses: both servers are measured
//! in turns, in one run.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use license_server::db::{Db, Options, Synchronous};
use license_server::licenses::LicenseKey;
use license_server::products::ProgramSettingsCache;
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use crate::drive::Work;
use crate::fill::{Programs, TIMEOUT_S};
use crate::process::{Installation, Process};
use crate::report::{self, Goal, Row};
use crate::{HEARTBEAT, VERSION, folder, installation, median, rounds};

const PRODUCTS: u32 = 1_000;
/// Licenses in all, with one product or many.
const LICENSES: u32 = 1_000_000;
/// Of those, the licenses with a running session.
const WITH_SESSION: u32 = 100_000;
/// And those with a device, for starts; more than there are connections.
const FOR_STARTS: u32 = 2_000;
/// Retired API keys of each product.
const RETIRED_KEYS: u32 = 2;
const CONNECTIONS: usize = 64;
/// Rounds in which both servers take turns.
const ROUNDS: u32 = 10;
/// Least ratio of the server with many products to that with one.
const RATIO: f64 = 0.95;
/// Changes of the settings, of which the median counts.
const CHANGES: usize = 31;

/// The API key of each product, and the bodies of calls: each belongs to the product at its place, over and over.
#[derive(Default)]
struct Shop {
    api_keys: Vec<String>,
    heartbeats: Vec<Bytes>,
    starts: Vec<Bytes>,
}

/// Measures for so many seconds a cell.
pub async fn measure(seconds: f64) {
    let (one_folder, many_folder) = (folder(), folder());
    let (one, many) = (
        installation(one_folder.path()),
        installation(many_folder.path()),
    );
    let (of_one, of_many) = (fill(&one, 1), fill(&many, PRODUCTS));
    report::heading("products");
    for (installation, label) in [
        (&one, "first call after a change, 1 product, ms"),
        (&many, "first call after a change, 1000 products, ms"),
    ] {
        report::small(label, first_call(&installation.database()).await, Some(2.0));
    }
    let (one, many) = (one.serve(), many.serve());
    one.wait_until_ready(VERSION).await;
    many.wait_until_ready(VERSION).await;
    let rows = rows((&one, of_one), (&many, of_many));
    let part = Duration::from_secs_f64(seconds) / ROUNDS;
    report::heading("load");
    let all = rounds(&rows, CONNECTIONS, ROUNDS, part).await;
    for (row, measured) in rows.iter().zip(&all) {
        report::line(row, CONNECTIONS, measured, &all);
    }
    one.stop();
    many.stop();
}

fn rows((one, of_one): (&Process, Shop), (many, of_many): (&Process, Shop)) -> Vec<Row> {
    let row = |label, (process, api_keys): (&Process, &Vec<String>), work, goal| Row {
        label,
        target: process.target_with(api_keys.clone()),
        work,
        goal,
        overload: false,
    };
    let goal = |of, ratio| Goal {
        of,
        ratio,
        p99_ms: None,
    };
    let heartbeats = |bodies| Work::Post(HEARTBEAT, Arc::new(bodies));
    let starts = |bodies| Work::StartAndEnd(Arc::new(bodies));
    let (one, many) = ((one, &of_one.api_keys), (many, &of_many.api_keys));
    vec![
        row(
            "heartbeat, 1",
            one,
            heartbeats(of_one.heartbeats),
            goal(0, None),
        ),
        row(
            "heartbeat, 1000",
            many,
            heartbeats(of_many.heartbeats),
            goal(0, Some(RATIO)),
        ),
        row(
            "start and end, 1",
            one,
            starts(of_one.starts),
            goal(2, None),
        ),
        row(
            "start and end, 1000",
            many,
            starts(of_many.starts),
            goal(2, Some(RATIO)),
        ),
    ]
}

/// The time of reading the settings again after a change of anything, in milliseconds.
async fn first_call(database: &Path) -> f64 {
    let db = Db::open_as_command(&Options {
        path: database.to_owned(),
        synchronous: Synchronous::Normal,
        read_connections: 1,
    });
    let (db, cache) = (db.unwrap(), Arc::<ProgramSettingsCache>::default());
    let mut spans = Vec::new();
    for _ in 0..CHANGES {
        let changed = db.write("bench.change", |tx| {
            tx.invalidate_caches();
            Ok(())
        });
        changed.await.unwrap();
        let begun = Instant::now();
        cache.shared(&db).await.unwrap();
        spans.push(begun.elapsed());
    }
    median(spans)
}

/// Fills the database, which no server may be using.
fn fill(installation: &Installation, products: u32) -> Shop {
    installation.run(&["customer", "add", "Ada"]);
    installation.run(&["config", "set", &format!("session_timeout={TIMEOUT_S}")]);
    for group in ["client", "client_failures"] {
        installation.run(&["limit", "set", group, "--per-minute", "0"]);
    }
    let mut connection = Connection::open(installation.database()).unwrap();
    // The triggers of the search index call them.
    license_server::db::register_functions(&connection).unwrap();
    let tx = connection.transaction().unwrap();
    let mut shop = Shop {
        api_keys: add_products(&tx, products),
        ..Shop::default()
    };
    shop.add_licenses(&tx);
    tx.commit().unwrap();
    shop
}

/// Adds products like the first one; the API key of each.
fn add_products(tx: &Transaction<'_>, products: u32) -> Vec<String> {
    let first = "select api_key from client_configs where product_id = 1";
    let mut api_keys = vec![tx.query_row(first, [], |row| row.get(0)).unwrap()];
    let mut product = tx
        .prepare("insert into products (product_id, slug, created_at_ms) values (?1, 'product-' || ?1, 0)")
        .unwrap();
    let mut settings = tx
        .prepare(
            "insert into client_configs (product_id, client_name, api_key, heartbeat_interval, session_timeout, \
             current_version, minimum_version, session_policy, reviewed, updated_at_ms) \
             select ?1, 'Product ' || ?1, ?2, heartbeat_interval, session_timeout, current_version, minimum_version, \
             session_policy, reviewed, updated_at_ms from client_configs where product_id = 1",
        )
        .unwrap();
    let mut retired = tx
        .prepare("insert into retired_api_keys (api_key, product_id, valid_until_ms) values (?1, ?2, ?3)")
        .unwrap();
    for id in 1..=products {
        if id > 1 {
            let api_key = Uuid::new_v4().to_string();
            product.execute([id]).unwrap();
            settings.execute(params![id, api_key]).unwrap();
            api_keys.push(api_key);
        }
        for _ in 0..RETIRED_KEYS {
            let api_key = Uuid::new_v4().to_string();
            retired.execute(params![api_key, id, i64::MAX]).unwrap();
        }
    }
    api_keys
}

impl Shop {
    /// Adds [`LICENSES`], in turn for each product; directly in the database, since a command for each would take long.
    fn add_licenses(&mut self, tx: &Transaction<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_ms = i64::try_from(now.as_millis()).unwrap();
        let mut license = tx
            .prepare(
                "insert into licenses (license_id, license_key, product_id, customer_id, kind, state, device_limit, \
                 valid_from_ms, created_at_ms) values (?1, ?2, ?3, 1, 'full', 'active', 2, ?4, ?4)",
            )
            .unwrap();
        let mut programs = Programs::new(tx, now_ms);
        let products = u32::try_from(self.api_keys.len()).unwrap();
        for number in 0..LICENSES {
            let (id, product) = (number + 1, number % products + 1);
            let key = LicenseKey::new().unwrap();
            license
                .execute(params![id, key.stored(), product, now_ms])
                .unwrap();
            if number >= WITH_SESSION + FOR_STARTS {
                continue;
            }
            let identity = programs.add_device(id, &key);
            if number >= WITH_SESSION {
                self.starts.push(identity);
            } else {
                self.heartbeats.push(programs.add_session(id, &key));
            }
        }
    }
}
