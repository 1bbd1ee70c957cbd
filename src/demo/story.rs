//! Two programs that compete for one license, and some that simply run.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::wire::Wire;
use super::{HEARTBEAT_S, TIMEOUT_S};
use crate::console;
use crate::error::Result;

/// Between two heartbeats of the programs that simply run; well below what they are told.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Two programs and one license.
pub(super) async fn run(wire: &Wire, key: &str) -> Result<()> {
    let laptop = Player {
        wire,
        name: "laptop",
        key,
    };
    let desktop = Player {
        wire,
        name: "desktop",
        key,
    };
    laptop.activate().await?;
    desktop.activate().await?;
    let token = laptop.start().await?;
    desktop.start().await?;
    laptop.beat(&token).await?;
    sleep(Duration::from_secs(u64::from(HEARTBEAT_S))).await;
    laptop.beat(&token).await?;
    line("laptop", "loses its network and falls silent")?;
    desktop.start().await?;
    sleep(Duration::from_secs(u64::from(TIMEOUT_S))).await;
    let second = desktop.start().await?;
    laptop.beat(&token).await?;
    desktop.beat(&second).await?;
    desktop.end(&second).await?;
    let third = laptop.start().await?;
    laptop.end(&third).await
}

struct Player<'a> {
    wire: &'a Wire,
    name: &'a str,
    key: &'a str,
}

impl Player<'_> {
    fn claim(&self) -> Value {
        let hash = format!("hash of {}", self.name);
        json!({ "license_key": self.key, "machine_id": self.name, "hardware_hash": hash, "version": "1.1.0" })
    }

    async fn activate(&self) -> Result<()> {
        self.ask("activate", &self.claim()).await.map(drop)
    }

    /// The session token; empty where the start was refused.
    async fn start(&self) -> Result<String> {
        let answer = self.ask("session/start", &self.claim()).await?;
        Ok(answer
            .get("session_token")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    async fn beat(&self, token: &str) -> Result<()> {
        let body = json!({ "license_key": self.key, "session_token": token });
        self.ask("session/heartbeat", &body).await.map(drop)
    }

    async fn end(&self, token: &str) -> Result<()> {
        self.ask("session/end", &json!({ "session_token": token }))
            .await
            .map(drop)
    }

    async fn ask(&self, deed: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.wire.call(deed, body).await?;
        let word = |name: &str| {
            answer
                .get(name)
                .map(|value| value.to_string().replace('"', ""))
        };
        let told = match (status, word("detail")) {
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
        line(self.name, &format!("{deed:<18} {status}  {told}"))?;
        Ok(answer)
    }
}

fn line(who: &str, what: &str) -> Result<()> {
    console::text(&format!("  {who:<8} {what}\n"))
}

/// Programs that started, with their tokens.
pub(super) struct BackgroundClients(Vec<(String, String)>);

impl BackgroundClients {
    /// Starts a program on each of these licenses.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn start(wire: &Wire, keys: &[(String, String)]) -> Result<Self> {
        let mut running = Vec::new();
        for (key, device) in keys {
            let claim = json!({
                "license_key": key, "machine_id": device,
                "hardware_hash": format!("sample-{device}"), "version": "1.2.0",
            });
            wire.call("activate", &claim).await?;
            let (_, answer) = wire.call("session/start", &claim).await?;
            if let Some(token) = answer.get("session_token").and_then(Value::as_str) {
                running.push((key.clone(), token.to_owned()));
            }
        }
        Ok(Self(running))
    }

    /// Keeps them alive for ever; one that was ended in the panel stays ended.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn beat(mut self, wire: &Wire) -> Result<()> {
        loop {
            sleep(HEARTBEAT).await;
            let mut ended = Vec::new();
            for (place, (key, token)) in self.0.iter().enumerate() {
                let body = json!({ "license_key": key, "session_token": token });
                let (status, _) = wire.call("session/heartbeat", &body).await?;
                if status != 200 {
                    ended.push(place);
                }
            }
            for place in ended.into_iter().rev() {
                self.0.swap_remove(place);
            }
        }
    }
}
