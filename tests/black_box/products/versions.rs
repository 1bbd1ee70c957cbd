//! The public versions files, which need no API key.

use serde_json::json;

use crate::setup::{FIRST, SECOND, two_products};
use crate::support::{Server, agent, eventually, read_response};
use crate::wire;

fn get(server: &Server, path: &str, known: &str) -> crate::support::Response {
    let ca = std::fs::read(server.path("data/tls/ca.pem")).unwrap();
    let request = agent(&ca).get(format!("https://localhost:{}{path}", server.port()));
    request
        .header("If-None-Match", known)
        .call()
        .and_then(read_response)
        .unwrap()
}

#[test]
fn the_versions_files_need_no_key_and_contain_nothing_but_versions() {
    let server = Server::start();
    let none = get(&server, "/versions.json", "");
    assert_eq!(
        none.body,
        json!({ "current_version": "1.0.0", "minimum_version": "0.0.0", "versions": [] })
    );
    assert_eq!(get(&server, "/versions.txt", "").text, "");
    for version in ["1.9.0", "1.10.0", "1.0.0", "1.11.0"] {
        server.json(&[
            "release",
            "add",
            version,
            "--notes",
            "a secret of the panel",
        ]);
    }
    server.json(&["release", "yank", "1.11.0"]);
    server.json(&[
        "config",
        "set",
        "current_version=1.10.0",
        "minimum_version=1.0.0",
    ]);
    let expected = json!({ "current_version": "1.10.0", "minimum_version": "1.0.0", "versions": ["1.10.0", "1.9.0", "1.0.0"] });
    eventually("the change", || {
        get(&server, "/versions.json", "").body == expected
    });
    let file = get(&server, "/versions.json", "");
    assert_eq!(file.header("content-type"), Some("application/json"));
    assert_eq!(file.header("cache-control"), Some("public, max-age=300"));
    let text = get(&server, "/versions.txt", "");
    assert_eq!(text.text, "1.10.0\n1.9.0\n1.0.0\n");
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let etag = file.header("etag").unwrap().to_owned();
    assert_ne!(none.header("etag"), Some(etag.as_str()));
    for (known, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"other\", {etag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
        (etag.replace('"', ""), 200),
    ] {
        for path in ["/versions.json", "/versions.txt"] {
            let response = get(&server, path, &known);
            assert_eq!(response.status, status, "{path} {known}");
            assert_eq!(response.header("etag"), Some(etag.as_str()));
            assert_eq!(
                response.header("cache-control"),
                Some("public, max-age=300")
            );
            assert_eq!(response.text.is_empty(), status == 304);
        }
    }
    for path in [
        "/versions",
        "/versions.json/",
        "/versions.xml",
        "/Versions.json",
        "/api/versions.json",
    ] {
        assert_eq!(
            get(&server, path, "").status_and_code(),
            (503, ""),
            "{path}"
        );
    }
}

#[test]
fn each_product_has_its_own_versions_files() {
    let (server, _) = two_products(&[], &[]);
    for (product, version) in [(FIRST, "1.0.0"), (SECOND, "2.0.0")] {
        let notes = ["--notes", "new", "--product", product];
        server.json(&[&["release", "add", version][..], &notes].concat());
    }
    let set = [
        "config",
        "set",
        "current_version=2.0.0",
        "--product",
        SECOND,
    ];
    server.json(&set);
    let of_second =
        json!({ "current_version": "2.0.0", "minimum_version": "0.0.0", "versions": ["2.0.0"] });
    eventually("the change", || {
        get(&server, "/versions/ledger.json", "").body == of_second
    });
    let second = get(&server, "/versions/ledger.json", "");
    let etag = second.header("etag").unwrap();
    assert_eq!(second.header("content-type"), Some("application/json"));
    let cache = "public, max-age=300";
    assert_eq!(second.header("cache-control"), Some(cache));
    assert_eq!(get(&server, "/versions/ledger.json", etag).status, 304);
    assert_eq!(get(&server, "/versions/ledger.txt", etag).status, 304);
    assert_eq!(get(&server, "/versions/ledger.txt", "").text, "2.0.0\n");
    for kind in ["json", "txt"] {
        let first = get(&server, &format!("/versions.{kind}"), "");
        let named = get(&server, &format!("/versions/{FIRST}.{kind}"), "");
        assert_eq!(first.text, named.text);
        assert_eq!(first.header("etag"), named.header("etag"));
        assert_ne!(first.header("etag"), Some(etag));
    }
    assert_eq!(get(&server, "/versions.txt", "").text, "1.0.0\n");
}

#[test]
fn the_versions_files_of_archived_and_unknown_products_are_not_served() {
    let (server, _) = two_products(&[], &[]);
    server.json(&["product", "archive", FIRST]);
    eventually("the bare 503", || {
        get(&server, "/versions/notes.json", "").status == 503
    });
    let response = |path: &str| {
        let request = wire::get(&server, path, "");
        wire::exchange(&mut wire::tls(&server), &request).unwrap()
    };
    let nothing = response("/nothing");
    assert_eq!((nothing.status, nothing.body.as_str()), (503, ""));
    for path in [
        "/versions/notes.json",
        "/versions/notes.txt",
        "/versions.json",
        "/versions.txt",
        "/versions/unknown.json",
        "/versions/",
        "/versions/ledger",
        "/versions/ledger.xml",
        "/versions/ledger.json/",
        "/versions/ledger.txt.json",
        "/versions/LEDGER.json",
        "/versions/.json",
    ] {
        assert_eq!(response(path), nothing, "{path}");
    }
    assert_eq!(response("/versions/ledger.json").status, 200);
}
