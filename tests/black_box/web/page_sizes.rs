//! Size limits of the panel's pages in a large shop.

use std::fmt::Write as _;

use crate::database;
use crate::shop;
use crate::support::Server;

/// Maximum size of a page in bytes.
const PAGE_MAX: usize = 30 * 1024;
/// The same for a list with 50 rows: 1.4 kB for each, since it has what is shown on narrow and on wide screens, and the
/// whole text of what is cut short; and 10 kB around them.
pub const LIST_MAX: usize = 80 * 1024;

/// The same for a page with the whole file for a program.
const PROGRAM_MAX: usize = 40 * 1024;

#[test]
fn every_page_of_a_large_shop_is_under_30_kb_and_every_list_under_80_kb() {
    let server = Server::start();
    let shop = shop::add_sample_data(&server, "");
    let programs = server.client();
    let arguments = ["license", "issue", "--customer", "1", "--count", "130"];
    let issued = server.json(&arguments);
    for (number, license) in issued["licenses"].as_array().unwrap().iter().enumerate() {
        let key = license["license_key"].as_str().unwrap();
        programs.session(key, &format!("desk-{number}.office.example.org"));
    }
    database::add_many_rows(&server);
    let mut panel = server.logged_in_browser("owner");
    let mut wrong = String::new();
    let mut seen = 0;
    for (_, route) in shop::routes().iter().filter(|(method, _)| method == "GET") {
        let Some(path) = shop.path(route) else {
            continue;
        };
        let answer = panel.get(&path);
        let kind = answer.header("content-type").unwrap_or_default();
        if kind.starts_with("text/html") {
            seen += 1;
            let is_list = answer.text.contains("aria-label=\"Rows per page\"");
            let max = if is_list { LIST_MAX } else { PAGE_MAX };
            if answer.text.len() > max {
                writeln!(wrong, "{path}: {}", answer.text.len()).unwrap();
            }
        }
    }
    let integrate = panel.get("/integrate").text;
    let tabs = integrate.split("/lizenzserver/integrate/program?").skip(1);
    for tab in tabs.map(|rest| rest.split('"').next().unwrap()) {
        let page = panel.get(&format!("/integrate/program?{tab}"));
        seen += 1;
        if page.text.len() > PROGRAM_MAX {
            writeln!(wrong, "{tab}: {}", page.text.len()).unwrap();
        }
    }
    assert!(wrong.is_empty() && seen > 5, "{seen}\n{wrong}");
}
