//! Connections of the load generator.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Loopback addresses that connections come from in turn, since the server limits the connections of one address.
const SOURCES: usize = 10;

/// The server to put load on.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<TlsConnector>,
    /// One for each product: the body at each place of a list belongs to the product at this place, over and over.
    pub api_keys: Arc<Vec<String>>,
    pub pid: u32,
}

/// One connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    api_keys: Arc<Vec<String>>,
    /// The number of the API key that is sent.
    chosen: usize,
    background: JoinHandle<()>,
}

impl Connection {
    /// Opens a connection from the loopback address that the system chooses.
    pub async fn open(target: &Target) -> Self {
        Self::try_open(target, Ipv4Addr::UNSPECIFIED).await.unwrap()
    }

    /// Opens the connection with this number, from an address that it shares with every tenth.
    pub async fn open_number(target: &Target, number: usize) -> Self {
        Self::try_open(target, source(number)).await.unwrap()
    }

    /// `None` if the server does not accept it.
    pub async fn try_open(target: &Target, source: Ipv4Addr) -> Option<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        if !source.is_unspecified() {
            socket.bind(SocketAddr::from((source, 0))).unwrap();
        }
        let stream = socket.connect(target.address).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let (sender, background) = match &target.tls {
            None => http_handshake(stream).await?,
            Some(tls) => {
                let name = ServerName::try_from("localhost").unwrap();
                http_handshake(tls.connect(name, stream).await.ok()?).await?
            }
        };
        Some(Self {
            sender,
            api_keys: target.api_keys.clone(),
            chosen: 0,
            background,
        })
    }

    /// Sends the API key of the product of the body at this place from now on.
    pub fn choose_api_key(&mut self, place: usize) {
        self.chosen = place % self.api_keys.len();
    }

    pub async fn get(&mut self, path: &str) -> u16 {
        self.send(Method::GET, path, Bytes::new()).await.0
    }

    pub async fn post(&mut self, path: &str, body: Bytes) -> u16 {
        self.send(Method::POST, path, body).await.0
    }

    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> (u16, Bytes) {
        self.try_send(method, path, body).await.unwrap()
    }

    /// The status and the body of the response; `None` if the server has closed the connection.
    pub async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Option<(u16, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-api-key", &self.api_keys[self.chosen])
            .body(Full::new(body))
            .unwrap();
        let answer = self.sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?;
        Some((status, body.to_bytes()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.background.abort();
    }
}

/// The address that the connection with this number comes from.
pub fn source(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number % SOURCES).unwrap() + 1;
    Ipv4Addr::new(127, 0, 1, last)
}

async fn http_handshake<S>(stream: S) -> Option<(SendRequest<Full<Bytes>>, JoinHandle<()>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    let background = tokio::spawn(async move { drop(connection.await) });
    Some((sender, background))
}
