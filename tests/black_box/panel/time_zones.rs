//! The time zones of the panel: the administrator's for times, the shop's for days.

use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::browser::Browser;
use crate::setup::started;
use crate::support::{Server, eventually, identity};

/// The zone in which the day begins first: UTC+14, always.
const FIRST: &str = "Pacific/Kiritimati";
/// And last: UTC-11, always.
const LAST: &str = "Pacific/Pago_Pago";

fn zone_of_hours(hours: i8) -> UtcOffset {
    UtcOffset::from_hms(hours, 0, 0).unwrap()
}

/// The moment in the first `<time>` element of a page, and its text.
fn first_time(page: &str) -> (OffsetDateTime, String) {
    let element = page.split("<time datetime=\"").nth(1).unwrap();
    let (written, rest) = element.split_once('"').unwrap();
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let at = PrimitiveDateTime::parse(written, format).unwrap();
    let title = format!(
        " title=\"{} UTC\">",
        written.trim_end_matches('Z').replace('T', " ")
    );
    let text = rest
        .strip_prefix(&title)
        .unwrap_or_else(|| panic!("{title}: {rest:.80}"));
    (at.assume_utc(), text.split('<').next().unwrap().to_owned())
}

fn written(at: OffsetDateTime, offset: UtcOffset) -> String {
    let format =
        format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute]");
    at.to_offset(offset).format(format).unwrap()
}

fn date_text(date: Date) -> String {
    let format = format_description!("[year]-[month]-[day]");
    date.format(format).unwrap()
}

/// A server of a shop in this zone that has refused a call.
fn shop_with_a_refusal(zone: &str) -> Server {
    let server = started(&[("PANEL__TIME_ZONE", zone)], &[]);
    let key = server.issue_license(1);
    let client = server.client();
    client.call("activate", &identity(&key, "Kasse 1"));
    let full = client.call("activate", &identity(&key, "Kasse 2"));
    assert_eq!(full.status_and_code(), (409, "device_limit_reached"));
    server
}

fn choose(panel: &mut Browser, zone: &str) {
    let chosen = panel.post("/profile/taste", &[("language", "en"), ("time_zone", zone)]);
    assert_eq!(chosen.status, 303, "{}", chosen.text);
}

#[test]
fn times_are_those_of_the_shop_or_of_the_zone_that_the_administrator_chose() {
    let server = shop_with_a_refusal(FIRST);
    let mut panel = server.logged_in_browser("support");
    eventually("the refusal is stored", || {
        panel.get("/refusals?span=all").text.contains("<time")
    });
    let (at, text) = first_time(&panel.get("/refusals?span=all").text);
    assert_eq!(text, written(at, zone_of_hours(14)));
    let page = panel.get("").text;
    assert!(page.contains("Time zone: Pacific/Kiritimati</a>"), "{page}");
    let profile = panel.get("/profile").text;
    assert!(
        profile.contains("<option value=\"\">Same as the shop (Pacific/Kiritimati)"),
        "{profile}"
    );
    choose(&mut panel, LAST);
    let page = panel.get("/refusals?span=all").text;
    assert_eq!(first_time(&page), (at, written(at, zone_of_hours(-11))));
    let named = "Time zone: Pacific/Pago_Pago · days: Pacific/Kiritimati</a>";
    assert!(page.contains(named), "{page}");
    let profile = panel.get("/profile").text;
    assert!(
        profile.contains("<option selected>Pacific/Pago_Pago</option>"),
        "{profile}"
    );
    // Another administrator sees the shop's times.
    let page = server
        .logged_in_browser("owner")
        .get("/refusals?span=all")
        .text;
    assert_eq!(first_time(&page), (at, written(at, zone_of_hours(14))));
    // Files have UTC.
    let csv = panel.get("/refusals.csv?span=all").text;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    assert!(csv.contains(&at.format(format).unwrap()), "{csv}");
    choose(&mut panel, "");
    let page = panel.get("/refusals?span=all").text;
    assert_eq!(first_time(&page), (at, written(at, zone_of_hours(14))));
}

#[test]
fn days_in_figures_and_filters_and_names_of_files_are_the_days_of_the_shop() {
    for (zone, hours) in [(FIRST, 14), (LAST, -11)] {
        let server = shop_with_a_refusal(zone);
        let mut panel = server.logged_in_browser("owner");
        // Whatever the administrator's own zone is.
        choose(&mut panel, "UTC");
        eventually("the refusal is stored", || {
            panel.get("/refusals?span=all").text.contains("<time")
        });
        let (at, _) = first_time(&panel.get("/refusals?span=all").text);
        let day = at.to_offset(zone_of_hours(hours)).date();
        let today = date_text(day);
        let link = format!("/refusals?code=device_limit_reached&from={today}&to={today}");
        let home = panel.get("").text;
        assert!(home.contains(&link.replace('&', "&amp;")), "{link}: {home}");
        assert!(panel.get(&link).text.contains("<time"), "{link}");
        for other in [day.previous_day().unwrap(), day.next_day().unwrap()] {
            let other = date_text(other);
            let page = panel
                .get(&format!("/refusals?from={other}&to={other}"))
                .text;
            assert!(page.contains("Nothing matches"), "{other}: {page}");
        }
        let entries = panel.get(&format!("/audit?since={today}")).text;
        assert!(entries.contains("<time"), "{entries}");
        let tomorrow = date_text(day.next_day().unwrap());
        let none = panel.get(&format!("/audit?since={tomorrow}")).text;
        assert!(!none.contains("<time"), "{none}");
        let file = panel.get("/customers.csv");
        let name = file.header("content-disposition").unwrap();
        assert!(name.contains(&format!("customers-{today}.csv")), "{name}");
    }
}

#[test]
fn a_zone_that_does_not_exist_is_refused_where_it_is_set() {
    let server = Server::prepare(&[]);
    let settings = "[panel]\ntime_zone = \"Berlin\"\n";
    std::fs::write(server.path("license-server.toml"), settings).unwrap();
    let output = server.cli(&["check"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    let expected = "there is no time zone \"Berlin\"; did you mean \"Europe/Berlin\"?";
    let place = "license-server.toml:2: ";
    assert!(
        message.contains(place) && message.contains(expected),
        "{message}"
    );
    let server = Server::prepare(&[("PANEL__TIME_ZONE", "Mars")]);
    let output = server.cli(&["check"]);
    let message = String::from_utf8(output.stderr).unwrap();
    let expected = "LICENSE_SERVER_PANEL__TIME_ZONE in the environment: there is no time zone \"Mars\"; \
                    names are those of the IANA database, such as \"Europe/Berlin\"";
    assert!(message.contains(expected), "{message}");

    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    let refused = panel.post(
        "/profile/taste",
        &[("language", "en"), ("time_zone", "Mars")],
    );
    assert_eq!(refused.status, 422, "{}", refused.text);
    let page = panel.get("/profile").text;
    assert!(page.contains("Time zone: Europe/Berlin</a>"), "{page}");
}
