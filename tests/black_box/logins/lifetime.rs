//! Logins: their tokens, how they end, and throttling.

use std::time::{Duration, Instant};

use crate::admins::accounts::{
    BEHIND_A_PROXY, KNOWN, NO_LOGIN_LIMIT, SESSION, between, is_in, location, run_with_input,
};
use crate::admins::setup::without_date;
use crate::browser::PASSWORD;
use crate::database;
use crate::setup::{limit, started};
use crate::support::{Server, rounds};
use crate::timing::run_together;

#[test]
fn a_login_always_gets_a_fresh_token() {
    let server = Server::start();
    server.add_admin("ada", "admin");
    let mut browser = server.browser();
    let planted = "ab".repeat(32);
    browser.set_cookie(SESSION, &planted);
    browser.set_cookie(KNOWN, &planted);
    let answer = browser.log_in("ada", PASSWORD);
    assert_eq!(answer.status, 303);
    let cookies: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, cookie)| cookie.as_str())
        .collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    for cookie in cookies {
        for word in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(word), "{word} in {cookie}");
        }
    }
    assert_ne!(browser.cookie(SESSION).unwrap(), planted);
    assert_ne!(browser.cookie(KNOWN).unwrap(), planted);
    let mut old = browser.clone();
    assert!(is_in(&mut old));
    browser.log_in("ada", PASSWORD);
    assert!(
        is_in(&mut browser) && !is_in(&mut old),
        "a new login ends the one before"
    );
    let mut attacker = server.browser();
    attacker.set_cookie(SESSION, &planted);
    assert!(!is_in(&mut attacker));
    let stored = database::login_token(&server);
    let token = browser.cookie(SESSION).unwrap();
    assert!(
        !stored.eq_ignore_ascii_case(&token),
        "the database has only a digest"
    );
}

#[test]
fn a_login_ends_by_logout_a_new_password_a_new_role_and_removal() {
    let server = Server::start();
    let mut owner = server.browser_after_login("owner");
    let mut admin = server.browser_after_login("admin");
    let mut elsewhere = server.browser();
    elsewhere.log_in("admin", PASSWORD);

    let mut copy = admin.clone();
    assert_eq!(admin.post("/logout", &[]).status, 303);
    assert!(!is_in(&mut copy), "replayed after logout");
    assert!(is_in(&mut elsewhere), "other logins stay");

    let new = "nine purple tractors";
    let mut copy = elsewhere.clone();
    let fields = [("old", PASSWORD), ("password", new), ("again", new)];
    let wrong = [
        ("old", "ten grey tractors"),
        ("password", new),
        ("again", new),
    ];
    let response = elsewhere.post("/profile/password", &wrong);
    assert!(
        response.status == 422 && response.text.contains("not your current"),
        "{response:?}"
    );
    let mut third = server.browser();
    third.log_in("admin", PASSWORD);
    let response = elsewhere.post("/profile/password", &fields);
    assert_eq!(location(&response), "/lizenzserver/profile");
    assert!(is_in(&mut elsewhere), "under a new token");
    assert_ne!(copy.cookie(SESSION), elsewhere.cookie(SESSION));
    assert!(
        !is_in(&mut copy) && !is_in(&mut third),
        "replayed after a change of password"
    );
    assert_eq!(third.log_in("admin", PASSWORD).status, 422);
    assert_eq!(third.log_in("admin", new).status, 303);

    let id = database::admin_id(&server, "admin");
    let role = format!("/admins/{id}/role");
    let seen = between(&owner.get(&role).text, "name=\"seen\" value=\"");
    let response = owner.post(&role, &[("role", "support"), ("seen", &seen)]);
    assert_eq!(response.status, 303, "{}", response.text);
    assert!(!is_in(&mut elsewhere), "another role");
    let response = owner.post(&role, &[("role", "owner"), ("seen", &seen)]);
    assert!(response.status == 422 && response.text.contains("Someone else changed this"));

    third.log_in("admin", new);
    assert!(is_in(&mut third));
    let response = owner.post(
        &format!("/admins/{id}/password"),
        &[("password", PASSWORD), ("again", PASSWORD)],
    );
    assert_eq!(response.status, 303, "{}", response.text);
    assert!(!is_in(&mut third), "a password set by an owner");

    third.log_in("admin", PASSWORD);
    let path = format!("/admins/{id}/remove");
    assert_eq!(owner.post(&path, &[("confirm", "admi")]).status, 422);
    assert!(is_in(&mut third));
    let response = owner.post(&path, &[("confirm", "admin")]);
    assert_eq!(location(&response), "/lizenzserver/admins");
    assert!(!is_in(&mut third), "removed");
    assert_eq!(third.log_in("admin", PASSWORD).status, 422);
}

#[test]
fn a_login_ends_by_inactivity_and_by_age() {
    let server = Server::start();
    for (column, hours) in [("seen_at_ms", 1), ("created_at_ms", 12)] {
        let mut admin = server.browser_after_login("admin");
        let ms = hours * 3_600_000;
        database::age_logins(&server, column, ms - 60_000);
        assert!(is_in(&mut admin), "{column}");
        database::age_logins(&server, column, ms);
        let answer = admin.get("/profile");
        assert_eq!(
            location(&answer),
            "/lizenzserver/login?next=%2Flizenzserver%2Fprofile"
        );
    }
}

#[test]
fn own_logins_are_listed_and_ended() {
    let server = Server::start();
    let mut here = server.browser_after_login("admin");
    let mut there = server.browser();
    there
        .headers
        .push(("User-Agent".to_owned(), "Lynx <b>2.9</b>".to_owned()));
    there.log_in("admin", PASSWORD);
    let mut third = server.browser();
    third.log_in("admin", PASSWORD);
    let page = here.get("/profile").text;
    assert!(
        page.contains("Lynx &lt;b&gt;2.9") && page.contains("This session"),
        "{page}"
    );
    let id = database::login_of_browser(&server, "Lynx");
    let mut stranger = server.browser_after_login("support");
    let path = format!("/profile/logins/{id}/end");
    stranger.post(&path, &[]);
    assert!(is_in(&mut there), "only one's own logins can be ended here");
    here.post(&path, &[]);
    assert!(!is_in(&mut there) && is_in(&mut third));
    here.post("/profile/logins/end-others", &[]);
    assert!(!is_in(&mut third) && is_in(&mut here) && is_in(&mut stranger));
}

#[test]
fn guessing_from_many_addresses_is_slowed_and_the_administrator_can_still_log_in() {
    let few = limit("login", "1", "1");
    let server = started(&[BEHIND_A_PROXY], &[&few]);
    server.add_admin("ada", "owner");
    let from = |source: &str| {
        let mut browser = server.browser();
        browser
            .headers
            .push(("X-Forwarded-For".to_owned(), source.to_owned()));
        browser
    };
    let mut known = from("192.0.2.1");
    assert_eq!(known.log_in("ada", PASSWORD).status, 303);
    // 5,000 from 250 with LICENSE_TEST_ROUNDS=250.
    let sources = rounds(24);
    let statuses = run_together(4, |thread| {
        let mut statuses = Vec::new();
        for source in 0..sources / 4 {
            let address = format!("198.51.{thread}.{source}");
            let name = if source % 6 == 5 { "nobody" } else { "ada" };
            let mut guesser = from(&address);
            for number in 0..20 {
                statuses.push(
                    guesser
                        .log_in(name, &format!("guess number {number}"))
                        .status,
                );
            }
        }
        statuses
    });
    let statuses: Vec<u16> = statuses.into_iter().flatten().collect();
    let evaluated = statuses.iter().filter(|status| **status == 422).count();
    let waiting = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(evaluated + waiting, statuses.len(), "{statuses:?}");
    assert!(
        evaluated <= 2 * sources as usize,
        "{evaluated} of {}",
        statuses.len()
    );
    // The address of the last guesses is limited now; it may try again after a minute.
    let last = format!("198.51.0.{}", sources / 4 - 1);
    let again = from(&last).log_in("ada", PASSWORD);
    assert!(
        again.status == 429 && again.text.contains("Too many"),
        "{again:?}"
    );
    // Not limited: a known browser behind the address of the guesses, any browser at another address, and the command.
    let mut known_browser = known.clone();
    known_browser.headers.pop();
    known_browser
        .headers
        .push(("X-Forwarded-For".to_owned(), last.clone()));
    assert_eq!(known_browser.log_in("ada", PASSWORD).status, 303);
    assert_eq!(from("203.0.113.9").log_in("ada", PASSWORD).status, 303);
    let words = ["admin", "set-password", "ada", "--password-stdin"];
    assert!(
        run_with_input(&server, &words, "nine purple tractors")
            .status
            .success()
    );
    assert_eq!(
        from("203.0.113.10")
            .log_in("ada", "nine purple tractors")
            .status,
        303
    );
    assert_eq!(
        known_browser.log_in("ada", "nine purple tractors").status,
        429,
        "a new password makes the browser unknown again"
    );
}

#[test]
fn an_unknown_name_and_a_wrong_password_get_the_same_response_after_the_same_time() {
    let server = started(&[], &[NO_LOGIN_LIMIT]);
    server.add_admin("ada", "owner");
    let ask = |name: &str| {
        let mut browser = server.browser();
        let began = Instant::now();
        let answer = browser.log_in(name, "ten grey tractors");
        (without_date(&answer), began.elapsed())
    };
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..9 {
        for (times, name) in times.iter_mut().zip(["ada", "eve"]) {
            let ((status, headers, text), took) = ask(name);
            times.push(took);
            let other = ask("zoe").0;
            assert_eq!(status, 422);
            assert_eq!((status, headers, text.replace(name, "zoe")), other);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (known, unknown) = (median(&mut times[0]), median(&mut times[1]));
    let ratio = known / unknown;
    assert!((0.5..2.0).contains(&ratio), "{known} s and {unknown} s");
}
