//! A long way between a client and the server: bytes arrive as they were sent, later.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Relays connections to `port` of this machine, each way within `delay`; where it listens. It lasts as long as
/// the tests.
pub fn relay(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // A server that is gone closes the connection at once.
            let Ok(onward) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            for socket in [&stream, &onward] {
                socket.set_nodelay(true).unwrap();
            }
            carry(&stream, &onward, delay);
            carry(&onward, &stream, delay);
        }
    });
    own
}

/// Carries what `from` says to `to`, an end too.
fn carry(from: &TcpStream, to: &TcpStream, delay: Duration) {
    let (mut from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        loop {
            let count = from.read(&mut bytes).unwrap_or(0);
            let piece = bytes.get(..count).unwrap_or_default().to_vec();
            if send.send((Instant::now() + delay, piece)).is_err() || count == 0 {
                return;
            }
        }
    });
    std::thread::spawn(move || hand_over(&receive, to));
}

/// Writes each piece when its time has come; an empty one is the end.
fn hand_over(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (when, piece) in pieces {
        std::thread::sleep(when.saturating_duration_since(Instant::now()));
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}
