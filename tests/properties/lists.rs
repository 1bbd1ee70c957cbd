//! Lists of licenses and customers: whatever the order, the filter and the direction, walking over their pages gives each row
//! once, in the order in which all of them would be sorted; and what triggers count is what there is.

use std::path::Path;

use license_server::clock::UnixMs;
use license_server::customers::{self, CustomerColumn, CustomerQuery};
use license_server::db::{Db, Options, Reader, Synchronous};
use license_server::error::Result;
use license_server::figures;
use license_server::id::{LicenseId, ProductId};
use license_server::licenses::{self, COLUMNS, LicenseFilter, LicenseQuery, LicenseRow};
use license_server::paging::{Cursor, Direction, Page, PageRequest, SortPosition, Total};
use license_server::text::sort_key;
use rusqlite::{Connection, params};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const NOW: UnixMs = UnixMs(20_000 * DAY + 7 * HOUR + 1234);
const LICENSES: i64 = 240;

/// Customers of whom several have one name, or one that differs in case or marks only.
const NAMES: [&str; 9] = [
    "Ann", "ann", "\u{c4}nn", "Ann Lee", "Anna", "Zoe", "zo\u{eb}", "1 & 1", "Ann",
];

fn open(path: &Path) -> Db {
    let options = Options {
        path: path.to_owned(),
        synchronous: Synchronous::Full,
        read_connections: 1,
    };
    Db::open_as_server(&options).unwrap()
}

/// Fills the database with licenses of two products in every state.
fn fill(path: &Path) {
    let conn = Connection::open(path).unwrap();
    license_server::db::register_functions(&conn).unwrap();
    conn.execute_batch(
        "insert into products (product_id, slug, created_at_ms) values (1, 'first', 1), (2, 'second', 1)",
    )
    .unwrap();
    for name in NAMES {
        let add =
            "insert into customers (name, company, email, created_at_ms) values (?1, ?2, ?3, 1)";
        let company = if name.len() > 3 { "Acme" } else { "" };
        conn.execute(
            add,
            params![name, company, format!("{}@example.org", name.len())],
        )
        .unwrap();
    }
    let ends = [
        None,
        Some(NOW.0 - 1),
        Some(NOW.0),
        Some(NOW.0 + 1),
        Some(NOW.0 - 3 * DAY),
        Some(NOW.0 + 29 * DAY),
        Some(NOW.0 + 30 * DAY),
        Some(NOW.0 + 30 * DAY + 1),
        Some(NOW.0 - NOW.0 % HOUR),
        Some(NOW.0 + 400 * DAY),
        Some(NOW.0 + HOUR),
        Some(NOW.0 - 400 * DAY),
    ];
    for id in 1..=LICENSES {
        let at = |number: i64| usize::try_from(id * number % 1009).unwrap();
        let customer = 1 + id * 31 % 1009 % 9;
        let customer = Some(customer).filter(|_| id % 7 != 0);
        let kind = if customer.is_some() { "full" } else { "trial" };
        let state = ["active", "active", "active", "suspended", "revoked"][at(17) % 5];
        let until = ends[at(53) % ends.len()];
        let from = if id % 11 == 0 {
            NOW.0 + 1
        } else {
            NOW.0 - 500 * DAY
        };
        let until = until.map(|until| until.max(from));
        conn.execute(
            "insert into licenses (license_id, license_key, product_id, customer_id, kind, state, device_limit, valid_from_ms,
             valid_until_ms, created_at_ms) values (?1, ?2, ?3, ?4, ?5, 'active', 3, ?6, ?7, 1)",
            params![id, format!("{:025}", id * 7919 % 1009), 1 + i64::from(id % 5 == 0), customer, kind, from, until],
        )
        .unwrap();
        for device in 0..id * 71 % 1009 % 4 {
            let add = "insert into devices (license_id, hardware_id, machine_id, client_version, activated_at_ms,
                       last_seen_at_ms) values (?1, ?2, 'm', '1.0.0', 1, 1)";
            conn.execute(add, params![id, format!("h{device}")])
                .unwrap();
        }
        conn.execute(
            "update licenses set state = ?2 where license_id = ?1",
            params![id, state],
        )
        .unwrap();
    }
    change(&conn);
}

/// Changes everything that triggers count.
fn change(conn: &Connection) {
    conn.execute_batch(
        "delete from devices where license_id % 13 = 0 and hardware_id = 'h0';
         update licenses set valid_until_ms = null where license_id % 29 = 0;
         update licenses set device_limit = 9 where license_id % 31 = 0;
         update licenses set customer_id = 3 where license_id % 37 = 0 and customer_id is not null
             and not exists (select 1 from devices d where d.license_id = licenses.license_id);
         update customers set name = 'Anne' where customer_id = 9;
         insert into customers (name, created_at_ms) values ('gone', 1), ('erased', 1);
         delete from customers where name = 'gone';
         update customers set name = '#11', erased_at_ms = 5 where name = 'erased';",
    )
    .unwrap();
}

/// The ids of all rows, page by page to the end and back to the beginning.
fn walk<T>(
    page: impl Fn(&PageRequest<SortPosition>) -> Result<Page<T>>,
    position: impl Fn(&T) -> SortPosition,
) -> (Vec<i64>, Vec<i64>) {
    let ids =
        |page: &Page<T>| -> Vec<i64> { page.rows.iter().map(|row| position(row).id).collect() };
    let mut request = PageRequest::first(7);
    let mut current = page(&request).unwrap();
    let mut forward = ids(&current);
    while let Some(last) = current.next_edge() {
        request.from = Cursor::After(position(last));
        current = page(&request).unwrap();
        forward.extend(ids(&current));
    }
    let mut back = ids(&current);
    while let Some(first) = current.previous_edge() {
        request.from = Cursor::Before(position(first));
        current = page(&request).unwrap();
        back.splice(0..0, ids(&current));
    }
    (forward, back)
}

/// Whether a license is one of a filter, written once more.
fn matches(row: &LicenseRow, filter: LicenseFilter) -> bool {
    let license = &row.license;
    let is_active = license.state.as_str() == "active";
    let has_ended = license.valid_until.is_some_and(|until| until < NOW);
    match filter {
        LicenseFilter::All => true,
        LicenseFilter::Active => is_active && !has_ended && license.valid_from <= NOW,
        LicenseFilter::Expiring => {
            let soon = UnixMs(NOW.0 + 30 * DAY);
            let ends_soon = license.valid_until.is_some_and(|until| until <= soon);
            is_active && !has_ended && ends_soon && license.customer_id.is_some()
        }
        LicenseFilter::Unused => is_active && !has_ended && row.taken == 0,
        LicenseFilter::Stopped => !is_active,
        LicenseFilter::Expired => is_active && has_ended,
    }
}

/// Every list of licenses of `product` in one order.
fn check_order(
    reader: &Reader<'_>,
    product: Option<i64>,
    order: Option<(&'static str, Direction)>,
) {
    let rows: Vec<LicenseRow> = (1..=LICENSES)
        .map(|id| licenses::find_row(reader, LicenseId(id), NOW).unwrap())
        .filter(|row| product.is_none_or(|product| row.license.product == ProductId(product)))
        .collect();
    for filter in LicenseFilter::ALL {
        let query = LicenseQuery {
            filter,
            product: product.map(ProductId),
            order,
            ..LicenseQuery::default()
        };
        let mut expected: Vec<SortPosition> = rows
            .iter()
            .filter(|row| matches(row, filter))
            .map(|row| row.position(order))
            .collect();
        expected.sort();
        if order.is_none_or(|(_, direction)| direction == Direction::Descending) {
            expected.reverse();
        }
        let expected: Vec<i64> = expected.into_iter().map(|position| position.id).collect();
        let (forward, back) = walk(
            |request| licenses::page(reader, &query, request, NOW),
            |row| row.position(order),
        );
        assert_eq!(forward, expected, "{filter:?} of {product:?} by {order:?}");
        assert_eq!(
            back, expected,
            "{filter:?} of {product:?} by {order:?}, back"
        );
        let counts = licenses::count_by_filter(reader, &query, NOW).unwrap();
        assert_eq!(
            counts.matching(filter) as usize,
            expected.len(),
            "{filter:?} of {product:?}"
        );
    }
}

#[test]
fn every_order_of_licenses_gives_each_once_and_every_count_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite3");
    let db = open(&path);
    fill(&path);
    db.read_blocking(|reader| {
        assert_eq!(figures::wrong_counts(reader)?, Vec::<String>::new());
        for product in [None, Some(1), Some(2)] {
            check_order(reader, product, None);
            for column in COLUMNS {
                check_order(reader, product, Some((column, Direction::Ascending)));
                check_order(reader, product, Some((column, Direction::Descending)));
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn every_order_of_customers_gives_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite3");
    let db = open(&path);
    fill(&path);
    db.read_blocking(|reader| {
        let all = CustomerQuery::default();
        let (everyone, total) = customers::page(reader, &all, &PageRequest::first(100))?;
        assert_eq!(total, Total::Exactly(9), "the erased one has no license");
        assert_eq!(everyone.rows.len(), 9);
        let names: Vec<String> = everyone
            .rows
            .iter()
            .map(|one| sort_key(&one.name))
            .collect();
        assert!(names.is_sorted(), "{names:?}");
        for column in CustomerColumn::ALL {
            for direction in [Direction::Ascending, Direction::Descending] {
                let mut expected: Vec<SortPosition> = everyone
                    .rows
                    .iter()
                    .map(|one| one.position(column))
                    .collect();
                expected.sort();
                if direction == Direction::Descending {
                    expected.reverse();
                }
                let expected: Vec<i64> = expected.into_iter().map(|position| position.id).collect();
                let query = CustomerQuery {
                    found: None,
                    order: (column, direction),
                };
                let (forward, back) = walk(
                    |request| Ok(customers::page(reader, &query, request)?.0),
                    |one| one.position(column),
                );
                assert_eq!(forward, expected, "{column:?} {direction:?}");
                assert_eq!(back, expected, "{column:?} {direction:?}, back");
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_wrong_count_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite3");
    let db = open(&path);
    fill(&path);
    for (damage, name) in [
        (
            "update license_counts set slots = slots + 1",
            "license_counts",
        ),
        (
            "update term_counts set unused = unused + 1 where product_id = 2",
            "term_counts",
        ),
        (
            "delete from term_counts where product_id = 2",
            "term_counts",
        ),
        (
            "update customers set sort_name = 'x' where customer_id = 1",
            "customers.sort_name",
        ),
        (
            "update customer_counts set customers = 0",
            "customer_counts",
        ),
        ("update version_counts set devices = 0", "version_counts"),
    ] {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("begin").unwrap();
        conn.execute_batch(damage).unwrap();
        conn.execute_batch("commit").unwrap();
        let wrong = db.read_blocking(figures::wrong_counts).unwrap();
        assert!(wrong.contains(&name.to_owned()), "{damage}: {wrong:?}");
    }
}
