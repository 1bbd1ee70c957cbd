//! Whether clients elsewhere can reach the server as the settings have it: what the start and `check` say.

use std::net::IpAddr;

use crate::config::{Config, Server, TlsMode};
use crate::error::Result;
use crate::tls;

/// What keeps clients elsewhere from reaching it, each with what to set.
///
/// # Errors
/// When the machine does not tell its name.
pub fn obstacles(settings: &Config) -> Result<Vec<String>> {
    let unnamed = without_a_name(settings)?;
    let told = unnamed.into_iter().chain(only_here(settings));
    Ok(told.chain(only_by_itself(settings)).collect())
}

/// It listens for others, and its certificate has no name by which they could know it.
fn without_a_name(settings: &Config) -> Result<Option<String>> {
    let server = &settings.server;
    let own = settings.tls.mode == TlsMode::SelfSigned;
    if !own || !server.address.is_unspecified() || settings.public_url().is_some() {
        return Ok(None);
    }
    let names = tls::own_names(settings)?.join(", ");
    let example = example(server.port);
    Ok(Some(format!(
        "it listens on all addresses, but no client elsewhere can reach it by a name that its certificate \
         has ({names}): set [server] public_url = \"{example}\", with the name or address that clients use"
    )))
}

/// Clients are told an address at which nothing listens.
fn only_here(settings: &Config) -> Option<String> {
    let server = &settings.server;
    let url = server.public_url.as_deref()?;
    if names_itself(server) || !server.address.is_loopback() || !server.trusted_proxies.is_empty() {
        return None;
    }
    let address = server.address;
    Some(format!(
        "public_url is {url}, but it listens on {address} alone, which only this machine reaches: set \
         [server] address = \"0.0.0.0\", or, where a reverse proxy on this machine leads to it, \
         trusted_proxies = [\"127.0.0.1/32\", \"::1/128\"]"
    ))
}

/// It listens for others, and tells them an address that means their own machine.
fn only_by_itself(settings: &Config) -> Option<String> {
    let server = &settings.server;
    let url = server.public_url.as_deref()?;
    if !names_itself(server) || server.address.is_loopback() {
        return None;
    }
    let (address, example) = (server.address, example(server.port));
    Some(format!(
        "it listens on {address}, but public_url is {url}, which names this machine itself on every computer: set \
         [server] public_url = \"{example}\", with the name or address that clients use; or, where only programs on \
         this machine are to reach it, address = \"127.0.0.1\""
    ))
}

/// Whether `public_url` means, wherever it is read, the machine of the reader.
fn names_itself(server: &Server) -> bool {
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

/// What whoever opens a link to this server has to know, where it does not lead there from everywhere.
pub(super) fn from_elsewhere(settings: &Config) -> Option<String> {
    let server = &settings.server;
    if settings.public_url().is_some() && !names_itself(server) {
        return None;
    }
    let port = server.port;
    if server.address.is_unspecified() {
        let place =
            "On another computer, put this machine's name or address in place of localhost.";
        return Some(place.to_owned());
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
    fn what_keeps_clients_away_is_told_with_what_to_set() {
        let public = Some("https://licenses.example.org");
        for (address, url, mode, word) in [
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
                "listens on 127.0.0.1 alone",
            ),
            ("::1", public, TlsMode::Files, "listens on ::1 alone"),
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
                "names this machine itself on every computer",
            ),
            (
                "::",
                Some("https://[::1]:8443"),
                TlsMode::Files,
                "names this machine itself on every computer",
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
                "names this machine itself on every computer",
            ),
        ] {
            let told = obstacles(&settings(address, url, mode)).unwrap();
            assert_eq!(
                told.is_empty(),
                word.is_empty(),
                "{address} {url:?} {told:?}"
            );
            assert!(told.iter().all(|line| line.contains(word)), "{told:?}");
        }
        let mut behind = settings("127.0.0.1", public, TlsMode::Off);
        behind.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        assert!(obstacles(&behind).unwrap().is_empty());
    }

    #[test]
    fn a_link_that_does_not_lead_there_from_everywhere_says_so() {
        for (address, url, word) in [
            ("127.0.0.1", None, Some("ssh -L 8443:localhost:8443")),
            ("0.0.0.0", None, Some("in place of localhost")),
            ("::", None, Some("in place of localhost")),
            ("192.0.2.1", None, None),
            ("0.0.0.0", Some("https://licenses.example.org"), None),
            (
                "0.0.0.0",
                Some("https://localhost:8443"),
                Some("in place of localhost"),
            ),
            (
                "127.0.0.1",
                Some("https://localhost:8443"),
                Some("ssh -L 8443:localhost:8443"),
            ),
        ] {
            let told = from_elsewhere(&settings(address, url, TlsMode::SelfSigned));
            let fits = told
                .as_deref()
                .map(|told| word.is_some_and(|word| told.contains(word)));
            assert_eq!(fits, word.map(|_| true), "{address} {told:?}");
        }
    }
}
