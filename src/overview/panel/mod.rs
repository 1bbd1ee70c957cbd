//! Panel pages that combine several modules: the overview, the figures, and the pages about one license and one customer.

mod customer;
mod figures;
mod home;
mod license;

use rocket::Route;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    [
        home::routes(),
        figures::routes(),
        license::routes(),
        customer::routes(),
    ]
    .concat()
}
