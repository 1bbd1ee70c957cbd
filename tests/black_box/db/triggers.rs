//! What the database itself refuses, whatever program writes to it.

use crate::database;
use crate::setup::{FIRST, SECOND, issue_of, two_products};

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
            "; delete from products where product_id = 3",
            "a product is archived, never deleted",
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
    assert_eq!(rows(), before);
}
