//! A thousand products with a thousand licenses each, against one product with as many licenses: both servers are measured
//! in turns, in one run.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use license_server::db::{Db, Options, Synchronous};
use license_server::licenses::LicenseKey;
use license_server::products::ProgramSettingsCache;
use rusqlite::{Transaction, params};
use uuid::Uuid;

use crate::calls::{Row, measure_rows, median_ms};
use crate::data;
use crate::drive::Work;
use crate::process::{Installation, Process};
use crate::report::Line;
use crate::{Bench, HEARTBEAT, VERSION, folder};

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
const RATIO: &[(usize, f64)] = &[(CONNECTIONS, 0.95)];
/// Changes of the settings, of which the median counts.
const CHANGES: usize = 31;

/// The API key of each product, and the bodies of calls: each belongs to the product at its place, over and over.
#[derive(Default)]
struct Shop {
    api_keys: Vec<String>,
    heartbeats: Vec<Bytes>,
    starts: Vec<Bytes>,
}

/// Measures calls of programs of one product, and of those of a thousand.
pub fn measure(bench: &mut Bench) {
    let runtime = bench.runtime.clone();
    runtime.block_on(measure_both(bench));
}

async fn measure_both(bench: &mut Bench) {
    let (one_folder, many_folder) = (folder(), folder());
    let (one, many) = (
        Installation::new(one_folder.path()),
        Installation::new(many_folder.path()),
    );
    let (of_one, of_many) = (fill(&one, 1), fill(&many, PRODUCTS));
    for (installation, label) in [
        (&one, "first call after a change, 1 product"),
        (&many, "first call after a change, 1000 products"),
    ] {
        let span = (first_call(&installation.database()).await, "ms");
        bench.report.add(Line::value(label, span, Some(2.0)));
    }
    let (one, many) = (one.serve(), many.serve());
    one.wait_until_ready(VERSION).await;
    many.wait_until_ready(VERSION).await;
    let rows = rows((&one, of_one), (&many, of_many));
    let part = Duration::from_secs_f64(bench.seconds) / ROUNDS;
    measure_rows(bench, &rows, CONNECTIONS, (ROUNDS, part)).await;
    one.stop();
    many.stop();
}

fn rows((one, of_one): (&Process, Shop), (many, of_many): (&Process, Shop)) -> Vec<Row> {
    let row = |label: &str, (process, api_keys): (&Process, &Vec<String>), work, of: &str| Row {
        label: label.to_owned(),
        target: process.target_with(api_keys.clone()),
        work,
        of: (!of.is_empty()).then(|| of.to_owned()),
        wanted: if of.is_empty() { &[] } else { RATIO },
        p99_wanted: None,
    };
    let heartbeats = |bodies| Work::Post(HEARTBEAT, Arc::new(bodies));
    let starts = |bodies| Work::StartAndEnd(Arc::new(bodies));
    let (one, many) = ((one, &of_one.api_keys), (many, &of_many.api_keys));
    vec![
        row(
            "heartbeat, 1 product",
            one,
            heartbeats(of_one.heartbeats),
            "",
        ),
        row(
            "heartbeat, 1000 products",
            many,
            heartbeats(of_many.heartbeats),
            "heartbeat, 1 product",
        ),
        row("start and end, 1 product", one, starts(of_one.starts), ""),
        row(
            "start and end, 1000 products",
            many,
            starts(of_many.starts),
            "start and end, 1 product",
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
    median_ms(&spans)
}

/// Fills the database, which no server may be using.
fn fill(installation: &Installation, products: u32) -> Shop {
    data::create(installation);
    let mut connection = data::open(installation);
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
        let now_ms = data::now_ms();
        let mut license = tx
            .prepare(
                "insert into licenses (license_id, license_key, product_id, customer_id, kind, state, device_limit, \
                 valid_from_ms, created_at_ms) values (?1, ?2, ?3, 1, 'full', 'active', 2, ?4, ?4)",
            )
            .unwrap();
        let mut programs = data::Programs::new(tx, now_ms);
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
