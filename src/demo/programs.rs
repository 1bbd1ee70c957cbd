//! The script of the demo: two programs that compete for one license, and some that run in the background.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::wire::ApiClient;
use super::{HEARTBEAT_S, TIMEOUT_S};
use crate::config::Language;
use crate::console;
use crate::error::Result;

/// Heartbeat interval of the background programs; well below the configured one.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Runs the script: two programs compete for the license with this key.
pub(super) async fn run(client: &ApiClient, key: &str) -> Result<()> {
    let laptop = DemoClient {
        client,
        name: "laptop",
        key,
    };
    let desktop = DemoClient {
        client,
        name: "desktop",
        key,
    };
    laptop.activate().await?;
    desktop.activate().await?;
    let token = laptop.start().await?;
    desktop.start().await?;
    laptop.heartbeat(&token).await?;
    sleep(Duration::from_secs(u64::from(HEARTBEAT_S))).await;
    laptop.heartbeat(&token).await?;
    let offline = match client.language() {
        Language::De => "verliert das Netz und sendet kein Lebenszeichen mehr",
        Language::En => "loses its network and sends no more heartbeats",
    };
    line("laptop", offline)?;
    desktop.start().await?;
    sleep(Duration::from_secs(u64::from(TIMEOUT_S))).await;
    let second = desktop.start().await?;
    laptop.heartbeat(&token).await?;
    desktop.heartbeat(&second).await?;
    desktop.end(&second).await?;
    let third = laptop.start().await?;
    laptop.end(&third).await
}

struct DemoClient<'a> {
    client: &'a ApiClient,
    name: &'a str,
    key: &'a str,
}

impl DemoClient<'_> {
    fn identity(&self) -> Value {
        let hash = format!("hash of {}", self.name);
        json!({ "license_key": self.key, "machine_id": self.name, "hardware_hash": hash, "version": "1.1.0" })
    }

    async fn activate(&self) -> Result<()> {
        self.call_and_print("activate", &self.identity())
            .await
            .map(drop)
    }

    /// The session token; empty if the start was refused.
    async fn start(&self) -> Result<String> {
        let response = self
            .call_and_print("session/start", &self.identity())
            .await?;
        Ok(response
            .get("session_token")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    async fn heartbeat(&self, token: &str) -> Result<()> {
        let body = json!({ "license_key": self.key, "session_token": token });
        self.call_and_print("session/heartbeat", &body)
            .await
            .map(drop)
    }

    async fn end(&self, token: &str) -> Result<()> {
        self.call_and_print("session/end", &json!({ "session_token": token }))
            .await
            .map(drop)
    }

    /// Calls an endpoint and prints one line about the response.
    async fn call_and_print(&self, endpoint: &str, body: &Value) -> Result<Value> {
        let (status, response) = self.client.call(endpoint, body).await?;
        let word = |name: &str| {
            response
                .get(name)
                .map(|value| value.to_string().replace('"', ""))
        };
        let detail = match (status, word("detail")) {
            (200..300, _) => ["device_count", "heartbeat_interval", "end_reason"]
                .into_iter()
                .find_map(|name| Some(format!("{name} {}", word(name)?)))
                .unwrap_or_default(),
            (_, detail) => {
                let reason = word("end_reason").map(|reason| format!(" ({reason})"));
                let (code, detail) = (word("code").unwrap_or_default(), detail.unwrap_or_default());
                format!("{code}{}: {detail}", reason.unwrap_or_default())
            }
        };
        line(self.name, &format!("{endpoint:<18} {status}  {detail}"))?;
        Ok(response)
    }
}

fn line(name: &str, what: &str) -> Result<()> {
    console::text(&format!("  {name:<8} {what}\n"))
}

/// Running background programs: license key and session token of each.
pub(super) struct BackgroundClients(Vec<(String, String)>);

impl BackgroundClients {
    /// Starts a program for each pair of license key and device.
    pub(super) async fn start(client: &ApiClient, keys: &[(String, String)]) -> Result<Self> {
        let mut running = Vec::new();
        for (key, device) in keys {
            let identity = json!({
                "license_key": key, "machine_id": device,
                "hardware_hash": format!("sample-{device}"), "version": "1.2.0",
            });
            client.call("activate", &identity).await?;
            let (_, response) = client.call("session/start", &identity).await?;
            if let Some(token) = response.get("session_token").and_then(Value::as_str) {
                running.push((key.clone(), token.to_owned()));
            }
        }
        Ok(Self(running))
    }

    /// Sends heartbeats until the demo ends; a session that was ended in the panel is not started again.
    pub(super) async fn keep_alive(mut self, client: &ApiClient) -> Result<()> {
        loop {
            sleep(HEARTBEAT).await;
            let mut ended = Vec::new();
            for (index, (key, token)) in self.0.iter().enumerate() {
                let body = json!({ "license_key": key, "session_token": token });
                let (status, _) = client.call("session/heartbeat", &body).await?;
                if status != 200 {
                    ended.push(index);
                }
            }
            for index in ended.into_iter().rev() {
                self.0.swap_remove(index);
            }
        }
    }
}
