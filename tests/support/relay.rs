//! A relay that adds latency between a client and the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Relays connections to `port` of this machine, with `delay` in each direction; returns the port on which it
/// listens. It runs until the test process ends.
pub fn relay(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let relay_port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // Without a server, drop the connection at once.
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            for socket in [&stream, &server] {
                socket.set_nodelay(true).unwrap();
            }
            copy_delayed(&stream, &server, delay);
            copy_delayed(&server, &stream, delay);
        }
    });
    relay_port
}

/// Copies bytes from `from` to `to` with `delay`, including the end of the stream.
fn copy_delayed(from: &TcpStream, to: &TcpStream, delay: Duration) {
    let (mut from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        loop {
            let count = from.read(&mut bytes).unwrap_or(0);
            let chunk = bytes.get(..count).unwrap_or_default().to_vec();
            if send.send((Instant::now() + delay, chunk)).is_err() || count == 0 {
                return;
            }
        }
    });
    std::thread::spawn(move || write_delayed(&receive, to));
}

/// Writes each chunk at its due time; an empty one ends the stream.
fn write_delayed(chunks: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (when, chunk) in chunks {
        std::thread::sleep(when.saturating_duration_since(Instant::now()));
        if chunk.is_empty() || to.write_all(&chunk).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}
