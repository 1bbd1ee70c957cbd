//! `license-server demo`: a server on a temporary database with sample data, and two simulated programs that
//! compete for one license over HTTPS, so that an evaluator sees the product work within ten seconds.

mod phrase;
mod plans;
mod programs;
mod sample;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::App;
use crate::audit::{Act, Actor};
use crate::clock::Now;
use crate::config::{self, Config, TlsMode};
use crate::console;
use crate::db::Tx;
use crate::error::{Doing, Error, Resource, Result};
use crate::id::ProductId;
use crate::manual::Manual;
use crate::products::{self, ProductSettings};
use crate::security::password;
use crate::security::secret::{self, Secret};
use crate::server::{Listening, Process, Server, StopSignals};
use crate::web::page;
use programs::BackgroundClients;
use sample::{Owner, Sample};
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
pub fn run(settings: Config, mut process: Process) -> Result<()> {
    // Before there is a folder, which a process that a signal ends would leave behind.
    process.stop = Some(StopSignals::catch()?);
    let folder = tempfile::Builder::new()
        .prefix("license-server-demo-")
        .tempdir();
    let folder = folder.doing("create a folder for the demo")?;
    let settings = demo_settings(settings, folder.path())?;
    let server = Server::open(settings, Manual::new(process.commands))?;
    let language = server.app.default_language()?;
    let now = server.app.clock.now();
    let password = secret::hex(&secret::random::<8>()?);
    let password_hash = password::hash(&Secret::new(password.clone()))?;
    let owner = Owner {
        name: OWNER,
        password_hash,
        language,
    };
    let db = &server.app.db;
    let sample = db.write_blocking("demo.fill", move |tx| sample::fill(tx, &owner, now))?;
    let texts = texts_of(&server, folder.path(), &sample, &password)?;
    let client = client_of(&server, &sample)?;
    let script = play(client, server.app.clone(), sample, texts.clone());
    let ready =
        move |_: &Listening| console::text(&page::render_text("demo/welcome.txt.tera", &texts)?);
    server.run(process, ready, script)
}

/// What the demo tells its user, for the templates.
fn texts_of(server: &Server, folder: &Path, sample: &Sample, password: &str) -> Result<Value> {
    let Listening { url, ca, .. } = server.listening();
    Ok(json!({
        "lang": server.app.default_language()?.tag(),
        "folder": folder,
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
        "database": server.app.settings.database.path,
        "program": config::program()?,
    }))
}

/// A client of the demo's server, in the language of the shell.
fn client_of(server: &Server, sample: &Sample) -> Result<ApiClient> {
    let ca = server.listening().ca;
    let ca = ca.ok_or_else(|| Error::not_found(Resource::CertificateAuthority, ""))?;
    let settings = &server.app.settings.server;
    let address = SocketAddr::new(settings.address, settings.port);
    let client = ApiClient::new(&ca, address, sample.api_key.clone())?;
    Ok(client.with_language(server.app.default_language()?))
}

/// The settings of a demo with its files in `folder`.
fn demo_settings(mut settings: Config, folder: &Path) -> Result<Config> {
    settings.database.path = folder.join("demo.sqlite3");
    settings.tls.mode = TlsMode::SelfSigned;
    settings.panel.default_language = Some(config::shell_language());
    settings.server.address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    settings.server.port = free_port(settings.server.port)?;
    // The settings may be those of a real server on this machine.
    settings.server.public_url = None;
    settings.backup.directory = None;
    Ok(settings)
}

/// Plays the script, and then keeps the sessions of the background programs alive.
async fn play(client: ApiClient, app: Arc<App>, sample: Sample, texts: Value) -> Result<()> {
    programs::run(&client, &sample.contested_key).await?;
    let now = app.clock.now();
    let db = &app.db;
    db.write("demo.set_intervals", move |tx| {
        set_intervals(tx, INTERACTIVE.0, INTERACTIVE.1, now)
    })
    .await?;
    let others = BackgroundClients::start(&client, &sample.to_run).await?;
    console::text(&page::render_text("demo/try.txt.tera", &texts)?)?;
    others.keep_alive(&client).await
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
    products::set(
        &Act::new(tx, &Actor::server(), now.wall),
        ProductId::FIRST,
        &pairs,
        None,
    )
}
