//! The panel's pages for running sessions, their end by an administrator, and the history.

use serde_json::json;

use crate::browser::Browser;
use crate::database;
use crate::support::{Response, Server, eventually, identity};
use crate::web::page_sizes::LIST_MAX;

/// How often `word` occurs in a page.
fn occurrences(page: &Response, word: &str) -> usize {
    page.text.matches(word).count()
}

/// A request for part of a page, as the panel's script makes it.
fn fragment(panel: &mut Browser, path: &str, tag: &str) -> Response {
    let before = panel.headers.clone();
    for (name, value) in [("X-Fragment", "1"), ("If-None-Match", tag)] {
        panel.headers.push((name.to_owned(), value.to_owned()));
    }
    let answer = panel.get(path);
    panel.headers = before;
    answer
}

#[test]
fn a_running_session_is_shown_and_found_by_any_part_of_key_customer_device_or_address() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    let empty = panel.get("/sessions");
    assert!(empty.text.contains("No running sessions"), "{empty:?}");
    let keys = server.issue_licenses(1, 2);
    server.client().session(&keys[0], "Kasse 1");
    server.client().session(&keys[1], "Kasse 2");
    let page = panel.get("/sessions");
    assert_eq!(page.status, 200);
    for shown in [
        &*keys[0],
        "Kasse 1",
        "127.0.0.1",
        "Running",
        "/licenses/1\"",
    ] {
        assert!(page.text.contains(shown), "{shown} is not in {}", page.text);
    }
    assert!(page.text.contains("2 sessions are running"));
    let part = keys[1].split('-').nth(2).unwrap().to_lowercase();
    for (search, found) in [
        (&*part, 1),
        ("kasse", 2),
        ("KASSE+2", 1),
        ("ada", 2),
        ("127.0", 2),
        ("nobody", 0),
    ] {
        let page = panel.get(&format!("/sessions?q={search}"));
        assert_eq!(
            occurrences(&page, "<tr><th scope=\"row\">"),
            found,
            "{search}"
        );
    }
    let no_match = panel.get("/sessions?q=nobody");
    assert!(no_match.text.contains("Nothing matches") && no_match.text.contains("Clear filter"));
    panel.set_cookie("lang", "de");
    assert!(
        panel
            .get("/sessions")
            .text
            .contains("Es laufen 2 Sitzungen")
    );
}

#[test]
fn sessions_are_sorted_by_links_in_the_column_heads_and_paged_both_ways() {
    let server = Server::start();
    let client = server.client();
    for (number, key) in server.issue_licenses(1, 55).iter().enumerate() {
        client.session(key, &format!("device {:02}", number + 1));
    }
    let mut panel = server.logged_in_browser("admin");
    let devices = |page: &Response| -> Vec<String> {
        let cells = page
            .text
            .split("<td class=\"p2\"><span class=\"clip\">device ")
            .skip(1);
        cells.map(|rest| rest[..2].to_owned()).collect()
    };
    let link = |page: &Response, rel: &str| {
        let before = page
            .text
            .split(&format!("\" rel=\"{rel}\""))
            .next()
            .unwrap();
        let href = before.rsplit("href=\"").next().unwrap();
        href.replace("&amp;", "&").replace("/lizenzserver", "")
    };
    for (order, first, sort) in [
        ("", "55", "descending"),
        ("started", "01", "ascending"),
        ("-last_heartbeat", "55", "descending"),
        ("last_heartbeat", "01", "ascending"),
        ("device", "01", "ascending"),
        ("-device", "55", "descending"),
        // All of one customer and address: by their ids.
        ("customer", "01", "ascending"),
        ("-address", "55", "descending"),
    ] {
        let page = panel.get(&format!("/sessions?order={order}"));
        let top = devices(&page);
        assert_eq!((top.len(), &*top[0]), (50, first), "{order}");
        assert_eq!(
            occurrences(&page, &format!("aria-sort=\"{sort}\"")),
            1,
            "{order}"
        );
        assert_eq!(occurrences(&page, "rel=\"prev\""), 0);
        assert!(page.text.len() < LIST_MAX, "{} bytes", page.text.len());
        assert!(page.text.contains("1\u{2013}50 of 55"), "{}", page.text);
        let below = panel.get(&link(&page, "next"));
        assert_eq!(devices(&below).len(), 5, "{order}");
        assert_eq!(occurrences(&below, "rel=\"next\""), 0);
        assert_eq!(devices(&panel.get(&link(&below, "prev"))), top, "{order}");
    }
}

#[test]
fn the_question_about_a_session_and_the_forms_of_its_license_link_to_license_and_customer() {
    let server = Server::start();
    let key = server.issue_license(1);
    server.client().session(&key, "Kasse 1");
    let mut panel = server.logged_in_browser("admin");
    for path in [
        "/sessions/1/terminate",
        "/licenses/1/edit",
        "/licenses/1/extend",
        "/licenses/1/bind",
    ] {
        let page = panel.get(path);
        for link in [
            "<a href=\"/lizenzserver/licenses/1\"><code>",
            "<a href=\"/lizenzserver/customers/1\">Ada</a>",
        ] {
            assert!(page.text.contains(link), "{path} {link}: {}", page.text);
        }
    }
}

#[test]
fn a_session_is_ended_after_a_confirmation_and_its_program_learns_that_it_was_forced() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "Kasse 1");
    let mut panel = server.logged_in_browser("admin");
    let confirmation = panel.get("/sessions/1/terminate");
    for text in ["Ada", "Kasse 1", "with its next heartbeat", "End session"] {
        assert!(
            confirmation.text.contains(text),
            "{text}: {}",
            confirmation.text
        );
    }
    let dialog = fragment(&mut panel, "/sessions/1/terminate", "");
    assert!(dialog.text.contains("<form") && !dialog.text.contains("<html"));
    let heartbeat = json!({ "session_token": token, "license_key": key });
    assert_eq!(client.call("session/heartbeat", &heartbeat).status, 200);
    let ended = panel.post("/sessions/1/terminate", &[]);
    assert_eq!(ended.header("location"), Some("/lizenzserver/sessions"));
    let heartbeat = client.call("session/heartbeat", &heartbeat);
    assert_eq!(heartbeat.status_and_code(), (410, "session_ended"));
    assert_eq!(heartbeat.body["end_reason"], "forced");
    let after = panel.follow(&ended);
    assert!(after.text.contains("Session ended.") && !after.text.contains("Kasse 1"));
    let history = server.json(&["session", "history"]);
    assert_eq!(history["sessions"][0]["end_reason"], "forced");
    let audit = panel.get("/audit?room=sessions");
    assert!(audit.text.contains("Session ended") && audit.text.contains("admin"));
}

#[test]
fn the_confirmation_says_if_the_session_has_ended_meanwhile() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "Kasse 1");
    let mut panel = server.logged_in_browser("admin");
    assert!(
        panel
            .get("/sessions/1/terminate")
            .text
            .contains("<form class")
    );
    let end = json!({ "session_token": token, "license_key": key });
    assert_eq!(client.call("session/end", &end).status, 200);
    let before = "/lizenzserver/licenses/1";
    let late = panel.post("/sessions/1/terminate", &[("back", before)]);
    assert_eq!(late.status, 303);
    let page = panel.follow(&late);
    assert!(page.text.contains("has already ended") && page.text.contains("Ended by the program"));
    // From there one returns to where one was.
    let back = format!("href=\"{before}\" autofocus");
    assert!(page.text.contains(&back), "{}", page.text);
    assert_eq!(panel.get("/sessions/7/terminate").status, 404);
    assert_eq!(panel.post("/sessions/7/terminate", &[]).status, 303);
}

#[test]
fn support_sees_sessions_and_cannot_end_them() {
    let server = Server::start();
    let key = server.issue_license(1);
    server.client().session(&key, "Kasse 1");
    let mut panel = server.logged_in_browser("support");
    assert!(!panel.get("/sessions").text.contains("/terminate"));
    assert_eq!(panel.get("/sessions/1/terminate").status, 403);
    assert_eq!(panel.post("/sessions/1/terminate", &[]).status, 403);
    let sessions = server.json(&["session", "list"]);
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
}

#[test]
fn the_fragment_with_the_rows_is_answered_with_304_until_a_session_starts_or_ends() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 2);
    let client = server.client();
    client.session(&keys[0], "Kasse 1");
    let mut panel = server.logged_in_browser("support");
    let path = "/sessions?part=true";
    let first = fragment(&mut panel, path, "");
    assert_eq!(first.status, 200);
    assert!(!first.text.contains("<html") && !first.text.contains(" ago"));
    let tag = first.header("etag").unwrap().to_owned();
    let quiet = fragment(&mut panel, path, &tag);
    assert_eq!((quiet.status, &*quiet.text), (304, ""));
    client.session(&keys[1], "Kasse 2");
    let busy = fragment(&mut panel, path, &tag);
    assert_eq!(busy.status, 200);
    assert!(busy.text.contains("Kasse 2"));
    let page = panel.get("/sessions?q=kasse&order=started").text;
    assert!(
        page.contains(
            "data-live=\"/lizenzserver/sessions?q=kasse&amp;order=started&amp;part=true\""
        )
    );
}

#[test]
fn a_session_that_timed_out_leaves_the_list_before_any_sweep() {
    let server = Server::start();
    server.json(&["config", "set", "heartbeat_interval=1", "session_timeout=8"]);
    let key = server.issue_license(1);
    let client = server.client();
    let body = identity(&key, "Kasse 1");
    client.session(&key, "Kasse 1");
    let mut panel = server.logged_in_browser("support");
    let mut was_late = false;
    eventually("a session that timed out leaves the list", || {
        let page = panel.get("/sessions").text;
        was_late |= page.contains("Heartbeat late");
        !page.contains("Kasse 1")
    });
    assert!(
        was_late,
        "before it times out, its heartbeat is shown as late"
    );
    // No sweep has run yet; a start is accepted, because the session has timed out.
    assert_eq!(client.call("session/start", &body).status, 201);
    assert!(panel.get("/sessions").text.contains("Kasse 1"));
}

/// Starts and ends a session on each license.
fn start_and_end_sessions(server: &Server, keys: &[String]) {
    let client = server.client();
    for key in keys {
        let token = client.session(key, "=cmd|calc");
        let end = json!({ "session_token": token, "license_key": key });
        assert_eq!(client.call("session/end", &end).status, 200);
    }
}

/// How many rows a page of the history has.
fn rows(page: &Response) -> usize {
    occurrences(page, "<tr><th scope=\"row\">")
}

#[test]
fn the_history_is_filtered_by_key_customer_reason_and_span() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 2);
    start_and_end_sessions(&server, &keys);
    server.client().session(&keys[0], "=cmd|calc");
    let mut panel = server.logged_in_browser("admin");
    panel.post("/sessions/3/terminate", &[]);
    let part = keys[0][6..14].to_lowercase();
    // In the zone of the panel: in the last hours of a day of UTC, the next one has begun there.
    let today = jiff::Timestamp::now().in_tz("Europe/Berlin").unwrap();
    let today = today.date();
    for (query, found) in [
        ("", 3),
        (&*format!("license={part}"), 2),
        ("customer=AD", 3),
        ("customer=nobody", 0),
        ("reason=forced", 1),
        ("reason=normal", 2),
        ("reason=timeout", 0),
        (&format!("license={part}&customer=ada&reason=normal"), 1),
        ("span=7", 3),
        ("span=all", 3),
        (&format!("from={today}&to={today}"), 3),
        ("to=2020-01-01", 0),
        ("from=2100-01-01", 0),
    ] {
        let page = panel.get(&format!("/sessions/history?{query}"));
        assert_eq!((page.status, rows(&page)), (200, found), "{query}");
        if found == 0 {
            assert!(page.text.contains("Nothing matches"), "{query}");
        }
    }
    let invalid = panel.get("/sessions/history?from=yesterday");
    assert_eq!(invalid.status, 422);
    assert!(
        invalid.text.contains("Please enter a date")
            && invalid.text.contains("value=\"yesterday\"")
    );
    panel.set_cookie("lang", "de");
    assert!(
        panel
            .get("/sessions/history")
            .text
            .contains("Vom Server beendet")
    );
}

#[test]
fn the_history_is_paged_both_ways_under_every_kind_of_filter() {
    let server = Server::start();
    start_and_end_sessions(&server, &server.issue_licenses(1, 55));
    let mut panel = server.logged_in_browser("support");
    let link = |page: &Response, rel: &str| {
        let before = page
            .text
            .split(&format!("\" rel=\"{rel}\""))
            .next()
            .unwrap();
        let href = before.rsplit("href=\"").next().unwrap();
        href.replace("&amp;", "&").replace("/lizenzserver", "")
    };
    for query in [
        "",
        "customer=ada",
        "reason=normal&span=all",
        "order=ended",
        "order=ended&customer=ada",
        "order=ended&reason=normal",
        "order=started",
        "order=customer&customer=ada",
        "order=-device",
        "order=address",
        "order=-reason&span=all",
    ] {
        let top = panel.get(&format!("/sessions/history?{query}"));
        assert_eq!(
            (rows(&top), occurrences(&top, "rel=\"prev\"")),
            (50, 0),
            "{query}"
        );
        assert!(top.text.len() < LIST_MAX, "{} bytes", top.text.len());
        let below = panel.get(&link(&top, "next"));
        assert_eq!(
            (rows(&below), occurrences(&below, "rel=\"next\"")),
            (5, 0),
            "{query}"
        );
        let back = panel.get(&link(&below, "prev"));
        let table = |page: &Response| page.text.split("<tbody>").nth(1).unwrap().to_owned();
        assert_eq!(
            table(&back).split("</tbody>").next(),
            table(&top).split("</tbody>").next()
        );
    }
    let first = |query: &str| {
        let page = panel.get(&format!("/sessions/history?{query}")).text;
        let row = page.split("<tr><th scope=\"row\">").nth(1).unwrap();
        row.split("<code>").nth(1).unwrap()[..29].to_owned()
    };
    let mut first = first;
    let (latest, earliest) = (first(""), first("order=ended"));
    assert_ne!(latest, earliest);
    assert_eq!(first("order=started"), earliest);
    assert_eq!(first("order=-started"), latest);
    let last_page = panel.get("/sessions/history?order=ended&rows=100").text;
    let at = |key: &str| last_page.find(&format!("<code>{key}</code>")).unwrap();
    assert!(at(&earliest) < at(&latest));
    // So many are sorted by their ends only.
    database::change(
        &server,
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 5000)
         insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, client_version, address,
                                      started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason)
         select 1000 + i, randomblob(16), 1, '', '', '1.0.0', '', i, i, i, 'normal' from n",
    );
    let note = "only up to 5,000 rows";
    for (query, is_sorted) in [
        ("order=device&span=all", false),
        ("order=device", true),
        ("order=ended&span=all", true),
    ] {
        let page = panel.get(&format!("/sessions/history?{query}"));
        assert_eq!(page.text.contains(note), !is_sorted, "{query}");
        let sort = "aria-sort=\"descending\"><a href=\"/lizenzserver/sessions/history?span=all&amp;order=ended\"";
        assert_eq!(page.text.contains(sort), !is_sorted, "{query}: {page:?}");
        assert_eq!(occurrences(&page, "aria-sort"), 1, "{query}");
    }
}

#[test]
fn the_csv_of_the_history_contains_no_formula() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 2);
    start_and_end_sessions(&server, &keys);
    let mut panel = server.logged_in_browser("support");
    let all = panel.get("/sessions/history.csv");
    assert_eq!(all.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines: Vec<&str> = all.text.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("\"id\",\"license_key\",\"customer\",\"machine_id\""));
    assert!(
        lines[1].starts_with(&format!("\"2\",\"{}\",\"Ada\",\"'=cmd|calc\",", keys[1])),
        "{lines:?}"
    );
    let one = panel.get(&format!("/sessions/history.csv?license={}", keys[0]));
    assert_eq!(one.text.lines().count(), 2);
    let page = panel.get(&format!("/sessions/history?license={}&span=all", keys[0]));
    assert!(
        page.text
            .contains(&format!(".csv?license={}&amp;span=all\"", keys[0]))
    );
}
