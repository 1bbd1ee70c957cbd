//! Whether the settings let clients on other machines reach the server, for the start and for `check`.

use std::net::IpAddr;

use crate::config::{Config, Server, TlsMode};
use crate::error::Result;
use crate::tls;

/// What keeps clients on other machines from reaching the server, each with what to set; empty if nothing does.
///
/// # Errors
/// If the host name cannot be read.
pub fn reachability_problems(settings: &Config) -> Result<Vec<String>> {
    let unnamed = no_public_name(settings)?;
    let problems = unnamed.into_iter().chain(loopback_only(settings));
    Ok(problems.chain(public_url_is_local(settings)).collect())
}

/// The server listens on all addresses, but its certificate has no name that other machines can use.
fn no_public_name(settings: &Config) -> Result<Option<String>> {
    let server = &settings.server;
    let self_signed = settings.tls.mode == TlsMode::SelfSigned;
    if !self_signed || !server.address.is_unspecified() || settings.public_url().is_some() {
        return Ok(None);
    }
    let names = tls::own_names(settings)?.join(", ");
    let example = example(server.port);
    Ok(Some(format!(
        "it listens on all addresses, but clients on other machines cannot reach it by a name that its \
         certificate has ({names}): set [server] public_url = \"{example}\", with the name or address that clients use"
    )))
}

/// `public_url` is set, but the server listens on loopback only.
fn loopback_only(settings: &Config) -> Option<String> {
    let server = &settings.server;
    let url = server.public_url.as_deref()?;
    if is_local(server) || !server.address.is_loopback() || !server.trusted_proxies.is_empty() {
        return None;
    }
    let address = server.address;
    Some(format!(
        "public_url is {url}, but it listens on {address} only, which other machines cannot reach: set \
         [server] address = \"0.0.0.0\", or, if a reverse proxy on this machine forwards to it, \
         trusted_proxies = [\"127.0.0.1/32\", \"::1/128\"]"
    ))
}

/// The server listens for other machines, but `public_url` means the client's own machine.
fn public_url_is_local(settings: &Config) -> Option<String> {
    let server = &settings.server;
    let url = server.public_url.as_deref()?;
    if !is_local(server) || server.address.is_loopback() {
        return None;
    }
    let (address, example) = (server.address, example(server.port));
    Some(format!(
        "it listens on {address}, but public_url is {url}, which on every machine means that machine itself: set \
         [server] public_url = \"{example}\", with the name or address that clients use; or, if only programs on \
         this machine need it, address = \"127.0.0.1\""
    ))
}

/// Whether `public_url` names localhost, loopback or an unspecified address.
fn is_local(server: &Server) -> bool {
    let host = server.public_host().unwrap_or_default();
    let host = host.trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        })
}

fn example(port: u16) -> String {
    match port {
        443 => "https://licenses.example.org".to_owned(),
        port => format!("https://licenses.example.org:{port}"),
    }
}

/// How to open the set-up link on another machine; `None` if the link works everywhere.
pub(super) fn setup_link_note(settings: &Config) -> Option<String> {
    let server = &settings.server;
    if settings.public_url().is_some() && !is_local(server) {
        return None;
    }
    let port = server.port;
    if server.address.is_unspecified() {
        let note = "On another computer, replace localhost with this machine's name or address.";
        return Some(note.to_owned());
    }
    server.address.is_loopback().then(|| {
        format!(
            "Only this machine can open it. On another computer, run `ssh -L {port}:localhost:{port} \
             THIS-MACHINE` first."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str, public_url: Option<&str>, mode: TlsMode) -> Config {
        let mut settings = Config::default();
        settings.server.address = address.parse().unwrap();
        settings.server.public_url = public_url.map(str::to_owned);
        settings.tls.mode = mode;
        settings
    }

    #[expect(clippy::too_many_lines, reason = "a table")]
    #[test]
    fn each_reachability_problem_names_the_setting_to_change() {
        let public = Some("https://licenses.example.org");
        for (address, url, mode, expected) in [
            ("127.0.0.1", None, TlsMode::SelfSigned, ""),
            (
                "0.0.0.0",
                None,
                TlsMode::SelfSigned,
                "a name that its certificate has (127.0.0.1, ",
            ),
            (
                "::",
                None,
                TlsMode::SelfSigned,
                "public_url = \"https://licenses.example.org:8443\"",
            ),
            ("192.0.2.1", None, TlsMode::SelfSigned, ""),
            ("0.0.0.0", None, TlsMode::Files, ""),
            ("0.0.0.0", public, TlsMode::SelfSigned, ""),
            (
                "127.0.0.1",
                public,
                TlsMode::SelfSigned,
                "listens on 127.0.0.1 only",
            ),
            ("::1", public, TlsMode::Files, "listens on ::1 only"),
            ("127.0.0.1", public, TlsMode::Off, "trusted_proxies = ["),
            (
                "127.0.0.1",
                Some("https://localhost:8443"),
                TlsMode::SelfSigned,
                "",
            ),
            (
                "127.0.0.1",
                Some("https://127.0.0.1:8443"),
                TlsMode::SelfSigned,
                "",
            ),
            ("::1", Some("https://[::1]:8443"), TlsMode::SelfSigned, ""),
            (
                "0.0.0.0",
                Some("https://localhost:8443"),
                TlsMode::SelfSigned,
                "on every machine means that machine itself",
            ),
            (
                "::",
                Some("https://[::1]:8443"),
                TlsMode::Files,
                "on every machine means that machine itself",
            ),
            (
                "192.0.2.1",
                Some("https://shop.localhost"),
                TlsMode::Off,
                "public_url = \"https://licenses.example.org:8443\"",
            ),
            (
                "0.0.0.0",
                Some("https://127.0.0.1:8443"),
                TlsMode::SelfSigned,
                "on every machine means that machine itself",
            ),
        ] {
            let problems = reachability_problems(&settings(address, url, mode)).unwrap();
            assert_eq!(
                problems.is_empty(),
                expected.is_empty(),
                "{address} {url:?} {problems:?}"
            );
            assert!(
                problems.iter().all(|line| line.contains(expected)),
                "{problems:?}"
            );
        }
        let mut behind = settings("127.0.0.1", public, TlsMode::Off);
        behind.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        assert!(reachability_problems(&behind).unwrap().is_empty());
    }

    #[test]
    fn a_set_up_link_that_is_local_has_a_note() {
        for (address, url, expected) in [
            ("127.0.0.1", None, Some("ssh -L 8443:localhost:8443")),
            ("0.0.0.0", None, Some("replace localhost with")),
            ("::", None, Some("replace localhost with")),
            ("192.0.2.1", None, None),
            ("0.0.0.0", Some("https://licenses.example.org"), None),
            (
                "0.0.0.0",
                Some("https://localhost:8443"),
                Some("replace localhost with"),
            ),
            (
                "127.0.0.1",
                Some("https://localhost:8443"),
                Some("ssh -L 8443:localhost:8443"),
            ),
        ] {
            let note = setup_link_note(&settings(address, url, TlsMode::SelfSigned));
            let matches = note
                .as_deref()
                .map(|text| expected.is_some_and(|expected| text.contains(expected)));
            assert_eq!(matches, expected.map(|_| true), "{address} {note:?}");
        }
    }
}
