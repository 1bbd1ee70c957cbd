//! Proxies: which of them may name their client, and monitoring through them.

use crate::database::OtherProgram;
use crate::inspect::running;
use crate::setup::{AUTO_ACTIVATE, started};
use crate::support::identity;
use crate::wire;

#[test]
fn a_forwarded_address_is_accepted_from_trusted_proxies_only() {
    let trusting = (
        "SERVER__TRUSTED_PROXIES",
        "[\"127.0.0.0/8\", \"10.0.0.0/8\"]",
    );
    for (settings, header, expected) in [
        (vec![AUTO_ACTIVATE], "203.0.113.9", "127.0.0.1"),
        (vec![AUTO_ACTIVATE, trusting], "203.0.113.9", "203.0.113.9"),
        (
            vec![AUTO_ACTIVATE, trusting],
            "198.51.100.1, 203.0.113.9, 10.1.2.3",
            "203.0.113.9",
        ),
        (vec![AUTO_ACTIVATE, trusting], "2001:db8::1", "2001:db8::1"),
        (
            vec![AUTO_ACTIVATE, trusting],
            "203.0.113.9:50123",
            "203.0.113.9",
        ),
        (
            vec![AUTO_ACTIVATE, trusting],
            "[2001:db8::1]:443",
            "2001:db8::1",
        ),
        (
            vec![AUTO_ACTIVATE, trusting],
            "nonsense",
            "unknown, behind 127.0.0.1",
        ),
    ] {
        let server = started(&settings, &[]);
        let key = server.issue_license(1);
        let headers = [("X-Forwarded-For", header), ("X-Real-IP", "192.0.2.1")];
        let started =
            server
                .client()
                .call_with("session/start", &identity(&key, "laptop"), &headers);
        assert_eq!(started.status, 201);
        assert_eq!(running(&server)[0]["address"], expected, "{header}");
    }
}

#[test]
fn health_and_metrics_are_served_to_monitor_networks_only() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    let monitor = (
        "SERVER__MONITOR_NETWORKS",
        "[\"192.0.2.0/24\", \"127.0.0.1/32\"]",
    );
    let server = started(&[trusting, monitor, AUTO_ACTIVATE], &[]);
    server.client().call(
        "session/start",
        &identity(&server.issue_license(1), "laptop"),
    );
    let ask = |path: &str, from: &str| {
        let from = format!("x-forwarded-for: {from}\r\n");
        wire::exchange(&mut wire::tls(&server), &wire::get(&server, path, &from)).unwrap()
    };
    let not_served = ask("/nothing", "127.0.0.1");
    for path in ["/health", "/metrics"] {
        // Through a proxy that does not write the header itself, no value makes the client this machine.
        for address in ["203.0.113.9", "127.0.0.1", "[::1]:80", "unknown", ""] {
            assert_eq!(ask(path, address), not_served, "{path} {address}");
        }
        let response = ask(path, "192.0.2.7");
        assert!(
            response.status == 200 && response.has_security_headers(),
            "{response:?}"
        );
    }
    assert_eq!(ask("/health", "192.0.2.7:9").body, r#"{"status":"ok"}"#);
    let metrics = ask("/metrics", "192.0.2.7").body;
    assert!(
        metrics.contains("\nlicense_server_sessions 1\n"),
        "{metrics}"
    );
    let other_program = OtherProgram::lock(&server);
    let unhealthy = ask("/health", "192.0.2.7");
    assert_eq!(unhealthy.status, 503);
    assert!(unhealthy.body.contains("reason"), "{}", unhealthy.body);
    other_program.release();
    assert_eq!(ask("/health", "192.0.2.7").status, 200);
}

#[test]
fn a_forged_address_gives_no_access_to_monitoring_and_bypasses_no_limit() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.1/32\"]");
    let monitor = ("SERVER__MONITOR_NETWORKS", "[\"10.0.0.0/8\"]");
    let server = started(&[trusting, monitor], &[crate::setup::ONE_A_MINUTE]);
    // The proxy writes neither header, so its client may have written them.
    for path in ["/health", "/metrics"] {
        for lines in [
            "x-forwarded-for: 10.1.2.3\r\n",
            "forwarded: for=10.1.2.3\r\n",
            "x-forwarded-for: 10.1.2.3\r\nforwarded: for=10.1.2.3\r\n",
        ] {
            let request = wire::get(&server, path, lines);
            let response = wire::exchange(&mut wire::tls(&server), &request).unwrap();
            assert_eq!(response.status, 503, "{path} {lines:?} {}", response.body);
        }
    }
    let log = server.log();
    assert!(
        log.contains("add \"127.0.0.1\" as a separate network"),
        "{log}"
    );
    // The proxy writes one header, and its client a different address into the other one each time.
    let client = server.client();
    let body = identity(&server.issue_license(1), "laptop");
    let statuses: Vec<u16> = (0..4)
        .map(|number| {
            let made_up = format!("203.0.113.{number}");
            let headers = [
                ("Forwarded", "for=198.51.100.7"),
                ("X-Forwarded-For", made_up.as_str()),
            ];
            client.call_with("session/start", &body, &headers).status
        })
        .collect();
    assert_eq!(statuses, [403, 429, 429, 429]);
}

#[test]
fn a_proxy_that_names_no_client_is_not_treated_as_this_machine() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    for (settings, lines, is_served) in [
        (&[AUTO_ACTIVATE][..], "", true),
        // An untrusted proxy on this machine: each of these headers identifies it as a proxy.
        (&[AUTO_ACTIVATE], "x-forwarded-for: 203.0.113.9\r\n", false),
        (&[AUTO_ACTIVATE], "forwarded: for=127.0.0.1\r\n", false),
        (&[AUTO_ACTIVATE], "via: 1.1 proxy\r\n", false),
        (&[AUTO_ACTIVATE, trusting], "", false),
        (&[AUTO_ACTIVATE, trusting], "x-forwarded-for: \r\n", false),
        (
            &[AUTO_ACTIVATE, trusting],
            "x-forwarded-for: unknown\r\n",
            false,
        ),
        (
            &[AUTO_ACTIVATE, trusting],
            "forwarded: for=_hidden\r\n",
            false,
        ),
        (
            &[AUTO_ACTIVATE, trusting],
            "forwarded: for=127.0.0.1\r\n",
            false,
        ),
    ] {
        let server = started(settings, &[]);
        for path in ["/health", "/metrics"] {
            let request = wire::get(&server, path, lines);
            let response = wire::exchange(&mut wire::tls(&server), &request).unwrap();
            let status = if is_served { 200 } else { 503 };
            assert_eq!(
                response.status, status,
                "{path} {lines:?} {}",
                response.body
            );
        }
    }
}

#[test]
fn a_proxy_may_name_its_client_in_the_forwarded_header() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    for (header, expected) in [
        ("for=203.0.113.9;proto=https;by=127.0.0.1", "203.0.113.9"),
        ("for=1.2.3.4, For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("for=_hidden", "unknown, behind 127.0.0.1"),
    ] {
        let server = started(&[AUTO_ACTIVATE, trusting], &[]);
        let body = identity(&server.issue_license(1), "laptop");
        let headers = [("Forwarded", header)];
        let response = server.client().call_with("session/start", &body, &headers);
        assert_eq!(response.status, 201);
        assert_eq!(running(&server)[0]["address"], expected, "{header}");
    }
}

/// The limit is one call a minute.
#[test]
fn clients_that_a_proxy_does_not_name_share_one_limit() {
    let trusting = ("SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]");
    let server = started(&[trusting], &[crate::setup::ONE_A_MINUTE]);
    let (client, key) = (server.client(), server.issue_license(1));
    let start = |headers: &[(&str, &str)]| {
        let body = identity(&key, "laptop");
        client.call_with("session/start", &body, headers).status
    };
    assert_eq!(start(&[("X-Forwarded-For", "127.0.0.1")]), 403);
    assert_eq!(start(&[("X-Forwarded-For", "127.0.0.1")]), 429);
    assert_eq!(
        start(&[]),
        403,
        "apart from the limit of the proxy's own machine"
    );
    assert_eq!(
        start(&[("X-Forwarded-For", "unknown")]),
        429,
        "shared with the call before"
    );
    assert_eq!(start(&[("X-Forwarded-For", "203.0.113.9:1")]), 403);
    assert_eq!(
        start(&[("X-Forwarded-For", "203.0.113.9:2")]),
        429,
        "a port changes nothing"
    );
}
