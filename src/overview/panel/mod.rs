//! Panel pages that combine several modules: the overview, and the pages about one license and one customer.

mod customer;
mod home;
mod license;

use rocket::Route;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    [home::routes(), license::routes(), customer::routes()].concat()
}
