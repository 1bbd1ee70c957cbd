//! The settings of `[server]`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::requirement::{self, Invalid};

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address to listen on.
    pub address: IpAddr,
    /// The port to listen on.
    pub port: u16,
    /// The address at which clients reach the server, like `https://licenses.example.org`; its host becomes a name
    /// in the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// Networks of proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks that may read `/health` and `/metrics`, besides loopback.
    pub monitor_networks: Vec<IpNet>,
    /// Seconds that requests in progress have to finish when the server stops.
    pub shutdown_grace: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            address: IpAddr::from([127, 0, 0, 1]),
            port: 8443,
            public_url: None,
            workers: 0,
            trusted_proxies: Vec::new(),
            monitor_networks: Vec::new(),
            shutdown_grace: 4,
        }
    }
}

impl Server {
    /// The host of `public_url`, in ASCII; `None` if that is not set.
    pub fn public_host(&self) -> Option<String> {
        let host = self.public_url.as_deref().and_then(host_of)?;
        idna::domain_to_ascii(host)
            .ok()
            .or_else(|| Some(host.to_owned()))
    }

    /// The first invalid setting: its key and the reason.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let url = self.public_url.as_deref().unwrap_or("https://x");
        requirement::check_all(&[
            (self.port > 0, "server.port", "must be 1..65535"),
            (self.workers <= 256, "server.workers", "must be 0..256"),
            (
                self.shutdown_grace <= 4,
                "server.shutdown_grace",
                "must be 0..4 seconds",
            ),
            (
                host_of(url).is_some(),
                "server.public_url",
                "must be like https://licenses.example.org",
            ),
        ])
    }
}

/// The host of an `https://` address; `None` if the address is invalid or has a path.
pub(super) fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?.trim_end_matches('/');
    let host = match rest.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => rest.split(':').next()?,
    };
    let no_path = !rest.contains(['/', '?', '#', '@', ' ']);
    let valid_host = host.parse::<IpAddr>().is_ok() || idna::domain_to_ascii_strict(host).is_ok();
    (no_path && valid_host && !host.is_empty()).then_some(host)
}
