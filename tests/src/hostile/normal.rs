//! The client that must not notice: one connection kept alive, one request for 1 KiB after the other.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::origin::SMALL_BYTES;

/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: demo\r\n\r\n";

/// What it met.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Met {
    /// Requests answered as they should be.
    pub good: u64,
    /// The others, by what went wrong.
    pub bad: Vec<String>,
    /// Of the good ones.
    pub median: Duration,
    /// The same.
    pub p99: Duration,
}

/// Asks for so long.
pub fn run(target: SocketAddr, lasting: Duration) -> Met {
    let mut met = Met::default();
    let mut times = Vec::new();
    let mut connection = None;
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        let began = Instant::now();
        match ask(target, &mut connection) {
            Ok(()) => times.push(began.elapsed()),
            Err(cause) => {
                connection = None;
                met.bad.push(cause.to_string());
            }
        }
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index).copied().unwrap_or_default()
    };
    met.good = times.len() as u64;
    (met.median, met.p99) = (at(0.5), at(0.99));
    met
}

fn ask(target: SocketAddr, connection: &mut Option<TcpStream>) -> io::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            connection.insert(stream)
        }
    };
    stream.write_all(REQUEST)?;
    let mut bytes = [0; 4096];
    let mut have = 0;
    loop {
        let read = stream.read(&mut bytes[have..])?;
        if read == 0 {
            return Err(io::Error::other("the answer is cut or too long"));
        }
        have += read;
        let answer = &bytes[..have];
        let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else {
            continue;
        };
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            let line = answer.split(|it| *it == b'\r').next().unwrap_or_default();
            return Err(io::Error::other(String::from_utf8_lossy(line)));
        }
        if have - end - 4 == SMALL_BYTES {
            return Ok(());
        }
    }
}
