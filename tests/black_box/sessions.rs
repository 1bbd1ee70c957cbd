//! Starting, keeping alive, ending.

use serde_json::json;

use crate::support::{Server, beat, claim};

#[test]
fn a_session_starts_lives_and_ends_and_a_second_one_is_refused() {
    let server = Server::start();
    let key = server.license(2);
    let client = server.client();
    let token = client.session(&key, "laptop");
    client.call("activate", &claim(&key, "desktop"));
    let refused = client.call("session/start", &claim(&key, "desktop"));
    assert_eq!(refused.told(), (409, "session_active"));
    let sentence =
        "Es ist nur eine Sitzung erlaubt, stelle sicher, dass nirgendwo sonst das Programm läuft";
    assert_eq!(refused.body["detail"], sentence);
    assert_eq!(
        client.call("session/heartbeat", &beat(&key, &token)).body["status"],
        "ok"
    );
    let ended = client.call("session/end", &json!({ "session_token": token }));
    assert_eq!(
        (ended.status, &ended.body["end_reason"]),
        (200, &json!("normal"))
    );
    let beaten = client.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(beaten.told(), (410, "session_ended"));
    assert_eq!(
        client.call("session/start", &claim(&key, "desktop")).status,
        201
    );
}
