//! What the database itself refuses, whatever program writes to it.

use crate::database;
use crate::setup::{FIRST, SECOND, issue_of, two_products};
use crate::support::{Server, identity};
use crate::trials;

#[test]
fn the_database_keeps_products_their_slugs_and_the_product_of_a_license() {
    let (server, _) = two_products(&[], &[]);
    issue_of(&server, FIRST, &[]);
    server.json(&["product", "add", "Third"]);
    server.json(&["product", "archive", SECOND]);
    let rows = || {
        let mut rows = database::rows(&server.database());
        // The latest known date moves on.
        rows.remove("server_state");
        rows
    };
    let before = rows();
    for (sql, message) in [
        (
            "update licenses set product_id = 2",
            "a license belongs to one product for ever",
        ),
        (
            "update products set slug = 'other' where product_id = 1",
            "the slug of a product never changes",
        ),
        (
            "update products set slug = 'other' where product_id = 3",
            "the slug of a product never changes",
        ),
        (
            "update products set archived_at_ms = null where product_id = 2",
            "an archived product stays archived",
        ),
        (
            "update products set archived_at_ms = archived_at_ms + 1 where product_id = 2",
            "an archived product stays archived",
        ),
    ] {
        let refused = database::execute(&server.database(), sql).unwrap_err();
        assert_eq!(refused.to_string(), message, "{sql}");
    }
    let refused = database::delete(&server.database(), "products where product_id = 3");
    assert_eq!(
        refused.unwrap_err().to_string(),
        "a product is archived, never deleted"
    );
    assert_eq!(rows(), before);
}

#[test]
fn the_database_keeps_trials_erasures_and_the_devices_of_a_license_with_its_customer() {
    let server = Server::start();
    let trial = trials::start(&server);
    for name in ["Ada", "Bob", "Cyd"] {
        server.json(&["customer", "add", name]);
    }
    server.json(&["customer", "erase", "3", "--yes"]);
    let key = server.issue_license(1);
    let activated = server.client().call("activate", &identity(&key, "laptop"));
    assert_eq!(activated.status, 201, "{activated:?}");
    let license = database::last_license(&server);
    let database = server.database();
    for (refused, message) in [
        (
            database::add_device(&server, license),
            "every device slot of the license is taken",
        ),
        (
            database::execute(
                &database,
                &format!("update licenses set customer_id = 2 where license_id = {license}"),
            ),
            "a license takes no devices to another customer",
        ),
        (
            database::execute(
                &database,
                "update customers set name = 'Cyd' where customer_id = 3",
            ),
            "an erased customer stays erased",
        ),
        (
            database::delete(&database, "customers where customer_id = 3"),
            "the row of an erased customer stays",
        ),
        (
            database::delete(&database, &format!("trials where license_id = {trial}")),
            "the trial of a device is never deleted",
        ),
    ] {
        assert_eq!(refused.unwrap_err().to_string(), message);
    }
}
