//! Refused calls belong to the customer of the license that they named, or of whose devices they came.

use crate::database;
use crate::support::{Server, eventually, identity};

use super::person::{OTHER_WORDS, Person, WORDS, holders, shop};

/// The device that the person uses, and devices that only refused calls have named.
const OWN_DEVICE: &str = WORDS[8];
const REFUSED: [&str; 2] = ["zzyzx-refused", "yonder-refused"];
const ADDRESSES: [&str; 3] = ["203.0.113.70", "203.0.113.71", "203.0.113.95"];
const UNKNOWN: &str = "T6FXC-WD5PK-9KM86-55VVN-QC4MM";

/// Refused calls on a license of each customer, and one of the person's device with a wrong key.
fn refuse(server: &Server, person: &Person) {
    let client = server.client();
    for (key, device, address) in [
        (&*person.keys[0], REFUSED[0], ADDRESSES[0]),
        (UNKNOWN, OWN_DEVICE, ADDRESSES[1]),
        (&*person.other_key, REFUSED[1], ADDRESSES[2]),
    ] {
        let headers = [("X-Forwarded-For", address)];
        let refused = client.call_with("session/start", &identity(key, device), &headers);
        assert!(refused.status >= 400, "{refused:?}");
    }
}

#[test]
fn refused_calls_are_exported_and_erased_with_their_customer_also_those_that_wait() {
    let (server, person) = shop();
    refuse(&server, &person);
    eventually("the refusals are stored", || {
        database::count(&server, "refusals") >= 3
    });
    let own = server.json(&["customer", "export", "1"]);
    let text = own.to_string();
    for word in [REFUSED[0], ADDRESSES[0], ADDRESSES[1]] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    assert!(!text.contains(ADDRESSES[2]), "{text}");
    assert_eq!(own["refusals_without_license"][0]["machine_id"], OWN_DEVICE);
    let other = server.json(&["customer", "export", "2"]).to_string();
    assert!(
        other.contains(REFUSED[1]) && other.contains(ADDRESSES[2]),
        "{other}"
    );
    assert!(!other.contains("zzyzx"), "{other}");
    // Another one waits while the customer is erased.
    let late = [("X-Forwarded-For", "203.0.113.72")];
    let body = identity(&person.keys[0], "zzyzx-late");
    let refused = server.client().call_with("session/start", &body, &late);
    assert_eq!(refused.status, 403, "{refused:?}");
    server.json(&["customer", "erase", "1", "--yes"]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    server.json(&["vacuum"]);
    let mut words = vec![REFUSED[0], "zzyzx-late", OWN_DEVICE, "203.0.113.72"];
    words.extend(&ADDRESSES[..2]);
    assert_eq!(
        holders(&server, "license-server.sqlite3", &words),
        Vec::<String>::new()
    );
    for word in [REFUSED[1], ADDRESSES[2], OTHER_WORDS[0]] {
        assert!(
            !holders(&server, "license-server.sqlite3", &[word]).is_empty(),
            "{word}"
        );
    }
}
