//! `license-server demo`: a server on a temporary database with sample data, and two simulated programs that
//! compete for one license over HTTPS, so that an evaluator sees the product work within ten seconds.

mod sample;
mod story;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use serde_json::json;

use crate::audit::{Act, Actor};
use crate::clock::Now;
use crate::config::{self, Config, TlsMode};
use crate::console;
use crate::db::Tx;
use crate::error::{Doing, Error, Result};
use crate::products::{self, ProductSettings};
use crate::security::password;
use crate::security::secret::{self, Secret};
use crate::server::{Listening, Process, Server};
use crate::web::page;
use sample::Owner;
use story::BackgroundClients;
use wire::ApiClient;

/// Short, so that the scripted part takes ten seconds.
const HEARTBEAT_S: u32 = 1;
const TIMEOUT_S: u32 = 3;
/// Heartbeat interval and timeout after the script, in seconds: long enough for calls typed by hand.
const INTERACTIVE: (u32, u32) = (30, 300);
/// The name of the demo's owner account.
const OWNER: &str = "demo";

/// Runs until Ctrl-C.
///
/// # Errors
/// As [`Server::open`] and [`Server::run`], and if a simulated program cannot reach the server.
pub fn run(mut settings: Config, process: Process) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("license-server-demo-")
        .tempdir();
    let folder = folder.doing("create a folder for the demo")?;
    settings.database.path = folder.path().join("demo.sqlite3");
    settings.tls.mode = TlsMode::SelfSigned;
    settings.server.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    settings.server.port = free_port(settings.server.port)?;
    let server = Server::open(settings.clone())?;
    let now = server.app.clock.now();
    let password = secret::hex(&secret::random::<8>()?);
    let owner = Owner {
        name: OWNER,
        password_hash: password::hash(&Secret::new(password.clone()))?,
    };
    let sample = server
        .app
        .db
        .write_blocking("demo.fill", move |tx| sample::fill(tx, &owner, now))?;
    let Listening { url, ca, .. } = server.listening();
    let ca = ca.ok_or_else(|| Error::not_found("certificate authority", ""))?;
    let context = json!({
        "folder": folder.path(),
        "customers": sample.customers,
        "licenses": sample.licenses,
        "running": sample.to_run.len(),
        "name": OWNER,
        "password": password,
        "history": sample.history,
        "url": url,
        "ca": ca,
        "api_key": sample.api_key,
        "license_key": &sample.contested_key,
        "session_timeout": INTERACTIVE.1,
        "database": settings.database.path,
        "program": config::program()?,
    });
    let address = SocketAddr::new(settings.server.address, settings.server.port);
    let api_key = sample.api_key.clone();
    let (key, to_run) = (sample.contested_key, sample.to_run);
    let welcome = context.clone();
    let db = server.app.db.clone();
    let ready = move |_: &Listening| console::text(&page::text("demo/welcome.txt.tera", &welcome)?);
    let script = async move {
        let client = ApiClient::new(&ca, address, api_key)?;
        story::run(&client, &key).await?;
        db.write("demo.set_intervals", move |tx| {
            set_intervals(tx, INTERACTIVE.0, INTERACTIVE.1, now)
        })
        .await?;
        let others = BackgroundClients::start(&client, &to_run).await?;
        console::text(&page::text("demo/try.txt.tera", &context)?)?;
        others.keep_alive(&client).await
    };
    server.run(process, ready, script)
}

/// The wanted port if it is free, otherwise any free one.
fn free_port(wanted: u16) -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let address = bound
        .and_then(|listener| listener.local_addr())
        .doing("find a free port")?;
    Ok(address.port())
}

/// Sets the heartbeat interval and the session timeout of the product, in seconds.
pub(super) fn set_intervals(
    tx: &Tx<'_>,
    heartbeat_s: u32,
    timeout_s: u32,
    now: Now,
) -> Result<ProductSettings> {
    let pairs = [
        ("heartbeat_interval", heartbeat_s),
        ("session_timeout", timeout_s),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_string()));
    products::set(&Act::new(tx, &Actor::server(), now.wall), &pairs)
}
