//! The baseline: a JSON echo server, on Rocket's own listener and behind our front. Each runs in a process of its own,
//! like the real server: this executable, started again with an argument.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use license_server::app::system_now;
use license_server::config::Config;
use license_server::front::{Backend, ConnectionLimit, Front, Limits, Proxies, RocketBridge};
use license_server::tls::{CA_FILE, Certificates, TrustedAuthority};
use license_server::web::body::BODY_LEN_MAX;
use license_server::web::connection::RequestContext;
use rocket::data::{Data, FromData, Outcome};
use rocket::http::Status;
use rocket::local::asynchronous::Client;
use rocket::serde::json::Json;
use rocket::{Build, Request, Rocket, Route, post, routes};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::process::{Process, free_port};

/// The argument that makes this executable an echo server; listener, port and folder follow.
const ARGUMENT: &str = "--echo";

/// The HTTP listener of an echo server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Rocket's own, plain HTTP.
    Rockets,
    /// Our front, TLS.
    Front,
}

impl Listener {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rockets => "bare",
            Self::Front => "front",
        }
    }
}

/// The echoed body: the fields of a heartbeat.
#[derive(Deserialize, Serialize)]
struct Heartbeat {
    session_token: String,
    license_key: String,
}

#[post("/echo", data = "<heartbeat>")]
fn echo(heartbeat: Json<Heartbeat>) -> Json<Heartbeat> {
    heartbeat
}

/// The body of a request behind the front, which reads it when it is asked for and gives none to Rocket.
struct FrontBody(Heartbeat);

#[rocket::async_trait]
impl<'r> FromData<'r> for FrontBody {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, _data: Data<'r>) -> Outcome<'r, Self> {
        let body = RequestContext::body(request, BODY_LEN_MAX).await;
        let heartbeat = body
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok());
        match heartbeat {
            Some(heartbeat) => Outcome::Success(Self(heartbeat)),
            None => Outcome::Error((Status::BadRequest, ())),
        }
    }
}

#[post("/echo", data = "<body>")]
fn echo_behind_front(body: FrontBody) -> Json<Heartbeat> {
    Json(body.0)
}

fn rocket(port: u16, routes: Vec<Route>) -> Rocket<Build> {
    let settings = rocket::Config::figment()
        .merge(("address", Ipv4Addr::LOCALHOST))
        .merge(("port", port))
        .merge(("log_level", "off"))
        .merge(("ident", false))
        .merge(("ip_header", false));
    rocket::custom(settings).mount("/", routes)
}

/// Starts an echo server in a process of its own, with its certificate, if any, in `folder`.
pub fn start(listener: Listener, folder: &Path) -> Process {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([ARGUMENT, listener.as_str(), &port.to_string()])
        .arg(folder)
        .stdin(Stdio::null());
    let ca = (listener == Listener::Front).then(|| folder.join("tls").join(CA_FILE));
    Process::start(command, port, ca)
}

/// If the arguments ask for an echo server, serves and never returns.
pub fn serve_if_asked() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ARGUMENT) {
        return;
    }
    let word = arguments.next().unwrap();
    let port = arguments.next().unwrap().parse().unwrap();
    let folder = PathBuf::from(arguments.next().unwrap());
    let runtime = Runtime::new().unwrap();
    if word == Listener::Rockets.as_str() {
        let bare = rocket(port, routes![echo]);
        runtime.block_on(bare.launch()).unwrap();
    } else {
        runtime.block_on(serve_behind_front(port, folder));
    }
    std::process::exit(0);
}

async fn serve_behind_front(port: u16, folder: PathBuf) {
    let mut settings = Config::default();
    settings.database.path = folder.join("none.sqlite3");
    let certificates = Certificates::open(&settings, TrustedAuthority::None, system_now())
        .unwrap()
        .unwrap();
    let tls = certificates.server_config().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let front = Front {
        listener: TcpListener::bind(address).await.unwrap(),
        tls: Some(TlsAcceptor::from(Arc::new(tls))),
        hsts: false,
        backend: Backend::RocketBridge(RocketBridge::new(
            Client::untracked(rocket(port, routes![echo_behind_front]))
                .await
                .unwrap(),
        )),
        proxies: Proxies::new(Vec::new()),
        max_connections: ConnectionLimit::from_system().unwrap(),
        limits: Limits::default(),
    };
    let (_stop, stopped) = watch::channel(false);
    front.serve(stopped, Duration::ZERO).await.unwrap();
}
