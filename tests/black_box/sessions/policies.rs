//! Session policies: what a second session start on a license does.

use crate::database;
use crate::inspect::end_reasons;
use crate::support::{Server, heartbeat_body, identity};

#[test]
fn the_policy_decides_which_device_may_replace_a_session() {
    let server = Server::start();
    let client = server.client();
    for (policy, same_device, other_device) in [
        ("reject", 409, 409),
        ("replace_same_device", 201, 409),
        ("replace", 201, 201),
    ] {
        server.json(&["config", "set", &format!("session_policy={policy}")]);
        for (device, expected) in [("laptop", same_device), ("desktop", other_device)] {
            let key = server.issue_license(2);
            let first = client.session(&key, "laptop");
            client.call("activate", &identity(&key, "desktop"));
            // The policy takes effect with the first write after the command.
            let second = client.call("session/start", &identity(&key, device));
            assert_eq!(second.status, expected, "{policy} {device}: {second:?}");
            let old = client.call("session/heartbeat", &heartbeat_body(&key, &first));
            if expected == 409 {
                assert_eq!(old.status, 200, "{policy} {device}");
                continue;
            }
            assert_eq!(
                old.status_and_code(),
                (410, "session_ended"),
                "{policy} {device}"
            );
            assert_eq!(old.body["end_reason"], "replaced");
            let new = client.call("session/heartbeat", &heartbeat_body(&key, &second.token()));
            assert_eq!(new.status, 200, "{policy} {device}");
        }
    }
    assert_eq!(end_reasons(&server), ["replaced", "replaced", "replaced"]);
}

#[test]
fn no_policy_admits_a_device_without_a_slot() {
    let server = Server::start();
    server.json(&["config", "set", "session_policy=replace"]);
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let refused = client.call("session/start", &identity(&key, "thief"));
    assert_eq!(refused.status_and_code(), (403, "device_not_activated"));
    assert_eq!(
        client
            .call("session/heartbeat", &heartbeat_body(&key, &token))
            .status,
        200
    );
    assert_eq!(database::count(&server, "session_history"), 0);
}
