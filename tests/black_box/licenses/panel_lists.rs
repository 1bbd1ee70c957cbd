//! The lists of licenses in the panel: search, filters, pages, CSV.

use crate::browser::Browser;
use crate::database;
use crate::licenses::panel::licenses;
use crate::support::{Response, Server, identity};

/// The ids of the licenses in a list, in its order.
fn rows(page: &Response) -> Vec<u32> {
    let links = page
        .text
        .split("<span class=\"sub slim\"><a href=\"/lizenzserver/licenses/")
        .skip(1);
    links
        .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
        .collect()
}

/// The address of the link with this `rel`; `None` if there is none.
pub fn link(page: &Response, rel: &str) -> Option<String> {
    let before = page.text.split(&format!("\" rel=\"{rel}\"")).next()?;
    if before.len() == page.text.len() {
        return None;
    }
    let address = before.rsplit("href=\"").next()?;
    let address = address.strip_prefix("/lizenzserver")?;
    Some(address.replace("&amp;", "&"))
}

#[test]
fn a_search_finds_a_license_by_part_of_its_key_customer_note_or_domain() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    server.json(&[
        "customer",
        "add",
        "K\u{e4}the Wei\u{df}",
        "--company",
        "\u{c4}rztehaus S\u{fc}d",
    ]);
    server.json(&["customer", "add", "Bob"]);
    let order = ["license", "issue", "--customer"];
    let words = [
        "1",
        "--note",
        "Best\u{e4}ndig 4711",
        "--domain",
        "shop.example.org",
    ];
    server.json(&[&order[..], &words[..]].concat());
    server.json(&[&order[..], &["2"][..]].concat());
    let key = licenses(&server)[1]["license_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let bare = key.replace('-', "");
    for part in [
        key.as_str(),
        &bare,
        &bare.to_lowercase(),
        &key[3..14],
        &bare[5..20],
        "K\u{c4}THE",
        "the wei",
        "\u{e4}rztehaus",
        "S\u{dc}D",
        "BEST\u{c4}NDIG",
        "471",
        "hop.Example",
    ] {
        let query: String = form_urlencoded::byte_serialize(part.as_bytes()).collect();
        let found = panel.get(&format!("/licenses?q={query}"));
        assert_eq!(rows(&found), [1], "{part}");
    }
    let none = panel.get("/licenses?q=nobody+%3Cb%3E");
    assert!(none.text.contains("Nothing matches this filter") && rows(&none).is_empty());
    assert!(none.text.contains("nobody &lt;b&gt;"));
}

#[test]
fn each_state_has_a_filter_with_a_count_and_a_badge() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    let empty = panel.get("/licenses");
    assert!(empty.text.contains("No licenses yet"));
    let keys = server.issue_licenses(2, 9);
    let client = server.client();
    client.session(&keys[0], "laptop");
    for (number, columns) in [
        (3, "valid_until_ms = valid_from_ms + 6 * 86400000 + 3600000"),
        (4, "state = 'suspended'"),
        (5, "state = 'revoked'"),
        (6, "valid_from_ms = 0, valid_until_ms = 1"),
        (7, "valid_from_ms = valid_from_ms + 3 * 86400000"),
        (
            8,
            "kind = 'trial', valid_until_ms = valid_from_ms + 29 * 86400000",
        ),
        // A trial that nobody bought: there is no customer to write to before it expires.
        (
            9,
            "kind = 'trial', customer_id = null, valid_until_ms = valid_from_ms + 6 * 86400000",
        ),
    ] {
        database::set_license(&server, number, columns);
    }
    client.call("activate", &identity(&keys[7], "laptop"));
    for (filter, numbers) in [
        ("", &[9, 8, 7, 6, 5, 4, 3, 2, 1][..]),
        ("active", &[9, 8, 3, 2, 1]),
        ("expiring", &[8, 3]),
        ("unused", &[9, 7, 3, 2]),
        ("stopped", &[5, 4]),
        ("expired", &[6]),
    ] {
        let page = panel.get(&format!("/licenses?state={filter}"));
        assert_eq!(rows(&page), numbers, "{filter}");
        let count = format!("<span>{}</span>", numbers.len());
        let chosen = page.text.split("aria-current=\"true\">").nth(1).unwrap();
        assert!(
            chosen.split("</a>").next().unwrap().contains(&count),
            "{filter}"
        );
    }
    let all = panel.get("/licenses").text;
    for word in [
        "Active",
        "Trial",
        "Expires in 6 days",
        "Not activated",
        "Suspended",
        "Revoked",
        "Expired",
        "Starts in 3 days",
        "Running",
        "1 of 2 in use",
    ] {
        assert!(all.contains(&format!("{word}</span>")), "{word}");
    }
}

/// Walks a list forward and back; the licenses in its order.
fn walk(panel: &mut Browser, query: &str) -> Vec<u32> {
    let mut pages = vec![panel.get(&format!("/licenses{query}"))];
    while let Some(next) = link(pages.last().unwrap(), "next") {
        pages.push(panel.get(&next));
    }
    let forward: Vec<u32> = pages.iter().flat_map(rows).collect();
    assert_eq!(link(&pages[0], "prev"), None);
    let mut backward = vec![rows(pages.last().unwrap())];
    let mut page = pages.pop().unwrap();
    while let Some(previous) = link(&page, "prev") {
        page = panel.get(&previous);
        backward.push(rows(&page));
    }
    let backward: Vec<u32> = backward.into_iter().rev().flatten().collect();
    assert_eq!(backward, forward, "{query}, backward");
    forward
}

#[test]
fn paging_shows_each_license_once_in_both_directions_under_every_order() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    server.issue_licenses(20, 120);
    for name in ["Zoe", "\u{c4}rzte", "arm"] {
        server.json(&["customer", "add", name]);
    }
    // Many equal values. No key contains a U, so that the search finds only notes.
    let columns = "note = case license_id % 2 when 1 then 'uneven' else note end,
        customer_id = 2 + license_id % 3,
        valid_until_ms = case license_id % 4 when 0 then null else valid_from_ms + (license_id % 4) * 86400000 end";
    database::set_all_licenses(&server, columns);
    let newest: Vec<u32> = (1..=120).rev().collect();
    assert_eq!(walk(&mut panel, ""), newest);
    let uneven: Vec<u32> = newest.iter().copied().filter(|n| n % 2 == 1).collect();
    assert_eq!(walk(&mut panel, "?q=uneven"), uneven);
    for column in ["customer", "key", "devices", "valid_until"] {
        let ascending = walk(&mut panel, &format!("?order={column}"));
        let mut descending = walk(&mut panel, &format!("?order=-{column}"));
        descending.reverse();
        assert_eq!(ascending, descending, "{column}");
        let mut all = ascending.clone();
        all.sort_unstable();
        assert_eq!(all, (1..=120).collect::<Vec<u32>>(), "{column}");
    }
    let by_customer = walk(&mut panel, "?order=customer");
    // The one with an umlaut stands between the others: customer 3, of the licenses with remainder 1.
    let remainders: Vec<u32> = by_customer.iter().map(|id| id % 3).collect();
    let expected = [vec![2; 40], vec![1; 40], vec![0; 40]].concat();
    assert_eq!(remainders, expected);
    let by_end = walk(&mut panel, "?order=-valid_until");
    assert!(by_end[..30].iter().all(|id| id % 4 == 0), "{by_end:?}");
    let unknown = panel.get("/licenses?order=note");
    assert_eq!(unknown.status, 422, "{}", unknown.text);
}

#[test]
fn a_list_says_which_rows_it_shows_of_how_many_and_how_many_a_page_has() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    server.issue_licenses(1, 120);
    let first = panel.get("/licenses?order=-key");
    assert!(first.text.contains("1\u{2013}50 of 120"), "{}", first.text);
    assert!(first.text.contains("aria-sort=\"descending\""));
    let second = panel.get(&link(&first, "next").unwrap());
    assert!(
        second.text.contains("51\u{2013}100 of 120"),
        "{}",
        second.text
    );
    let last = panel.get(&link(&second, "next").unwrap());
    assert!(last.text.contains("101\u{2013}120 of 120"), "{}", last.text);
    assert_eq!(rows(&last).len(), 20);
    let again = panel.get(&link(&last, "prev").unwrap());
    assert!(
        again.text.contains("51\u{2013}100 of 120"),
        "{}",
        again.text
    );
    let longer = panel.get("/licenses?rows=100");
    assert!(
        longer.text.contains("1\u{2013}100 of 120"),
        "{}",
        longer.text
    );
    // A search keeps the length of the pages.
    assert!(longer.text.contains("name=\"rows\" value=\"100\""));
    assert!(link(&longer, "next").unwrap().contains("rows=100"));
    assert_eq!(rows(&panel.get("/licenses?rows=200")).len(), 120);
    assert_eq!(panel.get("/licenses?rows=1000").status, 422);
    let none = panel.get("/licenses?q=nobody");
    assert!(!none.text.contains(" of 0"), "{}", none.text);
}

#[test]
fn the_csv_of_a_list_has_the_same_licenses_and_no_formula() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    server.json(&[
        "customer",
        "add",
        "=HYPERLINK(\"http://x\")",
        "--company",
        "@x, y",
    ]);
    let words = [
        "license",
        "issue",
        "--customer",
        "1",
        "--note",
        "+1\n\"two\"",
    ];
    server.json(&words);
    server.json(&["customer", "add", "Bob"]);
    server.json(&["license", "issue", "--customer", "2"]);
    let file = panel.get("/licenses.csv?q=two");
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    let name = file.header("content-disposition").unwrap();
    assert!(
        name.starts_with("attachment; filename=\"licenses-2"),
        "{name}"
    );
    let head = "license_key,customer,company,kind,state,device_limit,device_count,valid_from,valid_until,domain,note,\
                created_at,plan,features,updates_until,term_days_from_first_activation,email";
    let head = format!("\u{feff}\"{}\"\n", head.replace(',', "\",\""));
    assert!(file.text.starts_with(&head), "{}", file.text);
    let key = licenses(&server)[1]["license_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let row = format!(
        "\n\"{key}\",\"'=HYPERLINK(\"\"http://x\"\")\",\"'@x, y\",\"full\",\"active\",\"1\",\"0\",\"2"
    );
    assert!(file.text.contains(&row), "{}", file.text);
    assert!(
        file.text.contains(",\"\",\"\",\"'+1\n\"\"two\"\"\",\"2"),
        "{}",
        file.text
    );
    assert!(!file.text.contains("Bob"));
    assert!(panel.get("/licenses.csv").text.contains(",\"Bob\","));
}
