//! `license-server demo`: a server on a throw-away database, and two programs that compete for one license
//! over real HTTPS, so that the product explains itself in ten seconds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::audit::Actor;
use crate::client_config::{self, ClientConfig, Current, FlagChange};
use crate::clock::{Now, Tick, UnixMs};
use crate::config::{self, Settings, TlsMode};
use crate::console;
use crate::customers::{self, NewCustomer};
use crate::db::{Db, Tx};
use crate::devices::Claim;
use crate::error::{Doing, Error, Result};
use crate::id::SessionToken;
use crate::licenses::{self, Kind, License, Order};
use crate::releases::{self, Release};
use crate::server::{Listening, Server};
use crate::sessions::{self, GivenKey, Live, Start};
use crate::version::Version;
use crate::web::page::Pages;

/// Short, so that the story is told in ten seconds.
const HEARTBEAT_S: u32 = 1;
const TIMEOUT_S: u32 = 3;
/// Heartbeat and timeout once the story is told, for people who type.
const BY_HAND: (u32, u32) = (30, 300);
const CUSTOMERS: &[(&str, &str, &str)] = &[
    ("Ada Lovelace", "ada@example.org", "Analytical Engines Ltd"),
    ("Konrad Zuse", "konrad@example.org", "Zuse Apparatebau"),
    ("Grace Hopper", "grace@example.org", ""),
    (
        "Studio Nordlicht",
        "post@nordlicht.example",
        "Studio Nordlicht GmbH",
    ),
    ("Käthe Weiß", "kaethe@example.org", "Weiß & Söhne"),
];
/// Ended sessions of each license with devices.
const HISTORY: u32 = 12;
const HOUR: Duration = Duration::from_hours(1);
/// How long ago the licenses were sold: the trials end soon.
const SOLD: Duration = Duration::from_hours(20 * 24);
/// For one call.
const CALL: Duration = Duration::from_secs(10);

/// Runs until Ctrl-C.
///
/// # Errors
/// As [`Server::open`] and [`Server::run`], and when a simulated program cannot call.
pub fn run(mut settings: Settings) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("license-server-demo-")
        .tempdir();
    let folder = folder.doing("make a folder for the demo")?;
    settings.database.path = folder.path().join("demo.sqlite3");
    settings.tls.mode = TlsMode::SelfSigned;
    settings.server.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    settings.server.port = free_port(settings.server.port)?;
    let server = Server::open(settings.clone())?;
    let now = server.calendar.now();
    let sample = server
        .db
        .write_blocking("demo.fill", move |tx| fill(tx, now))?;
    tell_of_the_past(&server.db, &sample, now)?;
    let Listening { url, ca, .. } = server.listening();
    let ca = ca.ok_or_else(|| Error::not_found("certificate authority", ""))?;
    let words = json!({
        "folder": folder.path(),
        "customers": CUSTOMERS.len(),
        "licenses": sample.licenses.len(),
        "history": sample.history,
        "url": url,
        "ca": ca,
        "api_key": sample.api_key,
        "license_key": sample.fought_over.key.shown(),
        "session_timeout": BY_HAND.1,
        "database": settings.database.path,
        "program": config::program()?,
    });
    let pages = Pages::load()?;
    let address = SocketAddr::new(settings.server.address, settings.server.port);
    let api_key = sample.api_key.clone();
    let key = sample.fought_over.key.shown();
    let told = words.clone();
    let db = server.db.clone();
    let ready =
        move |_: &Listening| console::text(&Pages::load()?.render("demo/welcome.txt.tera", &told)?);
    let story = async move {
        let wire = Wire::new(&ca, address, api_key)?;
        tell(&wire, &key).await?;
        db.write("demo.pace", move |tx| pace(tx, BY_HAND.0, BY_HAND.1, now))
            .await?;
        console::text(&pages.render("demo/try.txt.tera", &words)?)?;
        std::future::pending().await
    };
    server.run(ready, story)
}

/// The port that was asked for, or any that is free.
fn free_port(wanted: u16) -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let address = bound
        .and_then(|listener| listener.local_addr())
        .doing("find a free port")?;
    Ok(address.port())
}

/// What the throw-away database holds.
struct Sample {
    api_key: String,
    licenses: Vec<License>,
    fought_over: License,
    history: u32,
}

/// How often programs have to be heard.
fn pace(tx: &Tx<'_>, heartbeat_s: u32, timeout_s: u32, now: Now) -> Result<ClientConfig> {
    let pairs = [
        ("heartbeat_interval", heartbeat_s),
        ("session_timeout", timeout_s),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_string()));
    client_config::set(tx, &pairs, &Actor::server(), now.wall)
}

fn fill(tx: &Tx<'_>, now: Now) -> Result<Sample> {
    let actor = Actor {
        name: "demo".to_owned(),
        source: String::new(),
    };
    let wall = now.wall;
    let pairs = [
        ("client_name", "Nordlicht Studio"),
        ("current_version", "1.2.0"),
        ("minimum_version", "1.0.0"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    client_config::set(tx, &pairs, &actor, wall)?;
    let config = pace(tx, HEARTBEAT_S, TIMEOUT_S, now)?;
    add_releases(tx, &actor, wall)?;
    let share = FlagChange {
        enabled: Some(true),
        share_percent: Some(50),
        description: None,
    };
    client_config::set_flag(tx, "dark_mode", &share, &actor, wall)?;
    let mut licenses = Vec::new();
    for (name, email, company) in CUSTOMERS {
        let new = NewCustomer {
            name: (*name).to_owned(),
            email: (*email).to_owned(),
            company: (*company).to_owned(),
            note: String::new(),
        };
        let customer_id = customers::add(tx, &new, &actor, wall)?;
        for kind in [Kind::Full, Kind::Trial] {
            let order = Order {
                customer_id,
                kind,
                device_limit: 3,
                valid_until: None,
                domain: None,
                count: 1,
                note: String::new(),
            };
            licenses.extend(licenses::issue(tx, &order, &actor, wall.minus(SOLD))?);
        }
    }
    let fought_over = licenses
        .first()
        .cloned()
        .ok_or_else(|| Error::not_found("license", ""))?;
    let api_key = config.api_key.reveal().clone();
    let history = HISTORY * u32::try_from(licenses.len()).unwrap_or(0).saturating_sub(1);
    Ok(Sample {
        api_key,
        licenses,
        fought_over,
        history,
    })
}

fn add_releases(tx: &Tx<'_>, actor: &Actor, wall: UnixMs) -> Result<()> {
    for (patch, notes) in [
        (0, "The first one."),
        (1, "Opens large files faster."),
        (2, "Dark mode. Fewer clicks."),
    ] {
        let release = Release {
            version: Version::new(1, patch, 0),
            channel: "stable".to_owned(),
            notes: notes.to_owned(),
            download_url: Some(format!(
                "https://downloads.example.org/nordlicht-1.{patch}.0.zip"
            )),
            sha256: None,
            state: releases::State::Released,
            released_at: wall.minus(HOUR * 24 * (90 - 30 * u32::try_from(patch).unwrap_or(0))),
        };
        releases::add(tx, &release, actor)?;
    }
    Ok(())
}

/// Lets programs run that ran before the demo began: through the same verbs, with the dates of then.
fn tell_of_the_past(db: &Db, sample: &Sample, now: Now) -> Result<()> {
    let others: Vec<License> = sample.licenses.iter().skip(1).cloned().collect();
    db.write_blocking("demo.past", move |tx| {
        let (live, current) = (Arc::new(Live::new(UnixMs(0))), Current::default());
        for (number, license) in (0_u32..).zip(&others) {
            for round in 0..HISTORY {
                // Spread over two days, so that the last 24 hours show some and not all.
                let later = Duration::from_secs(u64::from(number) * 400);
                let began = now.wall.minus(HOUR * (48 - 4 * round)).plus(later);
                one_session(tx, &live, &current, license, began, round)?;
            }
        }
        Ok(())
    })
}

fn one_session(
    tx: &Tx<'_>,
    live: &Arc<Live>,
    current: &Current,
    license: &License,
    began: UnixMs,
    round: u32,
) -> Result<()> {
    let then = |minutes: u32| Now {
        wall: began.plus_s(60 * minutes),
        tick: Tick::START,
    };
    let claim = Claim {
        license_key: Some(license.key),
        machine_id: format!("workstation-{}", round % 3 + 1),
        hardware_id: format!("sample-{}-{}", license.id, round % 3 + 1),
        version: Version::new(1, u64::from(round % 3), 0),
    };
    let start = Start {
        claim,
        address: format!("192.0.2.{}", 10 + round),
        idempotency_key: None,
        auto_activate: true,
    };
    let answer = sessions::start(tx, live, current, &start, then(0))?;
    let answer: Value = serde_json::from_str(&answer).doing("read an answer")?;
    let token = answer
        .get("session_token")
        .and_then(Value::as_str)
        .and_then(SessionToken::parse);
    let token = token.ok_or_else(|| Error::not_found("session token", ""))?;
    sessions::end(tx, live, &token, &GivenKey::None, None, then(round + 5)).map(drop)
}

/// How the simulated programs call: over the network like any other.
struct Wire {
    connector: TlsConnector,
    address: SocketAddr,
    api_key: String,
}

impl Wire {
    fn new(ca: &Path, address: SocketAddr, api_key: String) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(ca).doing("read the authority")?;
        roots.add(root).doing("trust the authority")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing("set up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address,
            api_key,
        })
    }

    async fn call(&self, deed: &str, body: &Value) -> Result<(u16, Value)> {
        timeout(CALL, self.exchange(deed, body))
            .await
            .doing("be answered in time")?
    }

    async fn exchange(&self, deed: &str, body: &Value) -> Result<(u16, Value)> {
        let stream = TcpStream::connect(self.address).await.doing("connect")?;
        let name = ServerName::try_from("localhost").doing("name the server")?;
        let stream = self
            .connector
            .connect(name, stream)
            .await
            .doing("speak TLS")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .doing("speak HTTP")?;
        let driver = tokio::spawn(connection);
        let request = Request::post(format!("/api/license/{deed}"))
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .header("X-API-Key", &self.api_key)
            .header("Accept-Language", "en")
            .body(Full::new(Bytes::from(body.to_string())))
            .doing("make a request")?;
        let answer = sender
            .send_request(request)
            .await
            .doing("call the server")?;
        let status = answer.status().as_u16();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .doing("read an answer")?
            .to_bytes();
        driver.abort();
        Ok((
            status,
            serde_json::from_slice(&bytes).doing("read an answer")?,
        ))
    }
}

/// Two programs and one license.
async fn tell(wire: &Wire, key: &str) -> Result<()> {
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
