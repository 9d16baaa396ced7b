//! One row against the proxy, and the law that holds for it.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

use gateway_user::proxy::ProxyConfig;

use super::rows::{End, Row};
use crate::support::{
    Gateway, Origin, Seen, backend, eventually, group, read_body, read_head, rule,
};

/// What goes before the row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Prefix {
    None,
    Good,
}

/// How the bytes are handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    Whole,
    /// Each byte in a write of its own.
    Bytes,
}

const GOOD: &[u8] = b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n";
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: after\r\n\r\n";

impl Row {
    /// The final statuses that the row itself gets.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let mut all = vec![200; self.served.len()];
        if let End::Refused(status) | End::Aborted(status) = self.end {
            all.push(status);
        }
        all
    }
}

/// An origin that records, and invites the bodies of those who ask for that.
pub(crate) fn origin() -> Origin {
    Origin::raw(|seen: &Mutex<Vec<Seen>>, stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut request = Seen {
                head: read_head(&mut reader)?,
                ..Seen::default()
            };
            if !request.header("expect").is_empty() {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let outcome = read_body(&mut reader, &mut request);
            request.complete = outcome.is_ok();
            let head = request.line().starts_with("HEAD ");
            seen.lock().unwrap().push(request);
            outcome?;
            stream.write_all(match head {
                true => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            })?;
        }
    })
}

/// The statuses of all final answers in these bytes. No body of a test holds what looks like a status line.
pub(crate) fn statuses(bytes: &[u8]) -> Vec<u16> {
    let status = |window: &[u8]| match window {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            _,
            b' ',
            digits @ ..,
        ] => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    };
    let all = bytes.windows(12).filter_map(status);
    all.filter(|status| *status >= 200).collect()
}

/// Sends a row, and says in what it was treated otherwise than it tells.
pub(crate) fn check(row: &Row, prefix: Prefix, cut: Cut) -> Result<(), String> {
    let origin = origin();
    let config = ProxyConfig {
        workers: 1,
        ..ProxyConfig::default()
    };
    let backends = vec![backend("c1", origin.address, 1)];
    let gateway = Gateway::with(config, vec![rule(group("web", backends))]);
    let mut client = Talk::begin(gateway.proxy.local_addr());

    let mut served: Vec<&str> = Vec::new();
    let mut expected = row.statuses();
    if prefix == Prefix::Good {
        client.send(GOOD, cut);
        served.push("GET /good HTTP/1.1");
        expected.insert(0, 200);
    }
    client.send(row.bytes, cut);
    served.extend(row.served);
    client.read_until(expected.len());
    match row.end {
        End::Stays => {
            client.send(AFTER, Cut::Whole);
            served.push("GET /after HTTP/1.1");
            expected.push(200);
            client.read_until(expected.len());
        }
        End::Waits => client.leave(),
        End::Closes | End::Refused(_) | End::Aborted(_) => client.read_until(usize::MAX),
    }
    let open = !client.over;
    let found = statuses(&client.got);
    drop(client);
    // All connections to the origin end with the proxy, so that nothing comes later.
    drop(gateway);
    eventually("the origin's connections end", || {
        origin.ended() == origin.connections()
    });

    if found != expected {
        return Err(format!("answered {found:?} instead of {expected:?}"));
    }
    if open != (row.end == End::Stays) {
        return Err(format!("the connection is left open: {open}"));
    }
    let seen = origin.seen();
    let (complete, broken): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.complete);
    if !complete.iter().map(|seen| seen.line()).eq(served) {
        let lines: Vec<_> = complete.iter().map(|seen| seen.line()).collect();
        return Err(format!("the origin has seen {lines:?}"));
    }
    let may_break = matches!(row.end, End::Aborted(_) | End::Waits);
    if broken.len() > usize::from(may_break) {
        return Err(format!("the origin has seen parts: {broken:?}"));
    }
    seen.iter().try_for_each(canonical)
}

/// What is passed on can be read in one way only.
fn canonical(seen: &Seen) -> Result<(), String> {
    let one_host = seen.header("host").len() == 1;
    let lengths = seen.header("content-length").len();
    let codings = seen.header("transfer-encoding");
    let framed = lengths + codings.len() <= 1 && codings.iter().all(|it| it == "chunked");
    let lines = seen.head.split_inclusive('\n').all(|line| {
        let line = line.strip_suffix("\r\n");
        line.is_some_and(|line| !line.contains(['\r', '\0']) && !line.starts_with([' ', '\t']))
    });
    let protocol = seen.header("upgrade").concat().to_lowercase();
    match one_host && framed && lines && !protocol.contains('h') {
        true => Ok(()),
        false => Err(format!("the origin was sent {:?}", seen.head)),
    }
}

/// A client that goes on, whatever becomes of its connection.
struct Talk {
    stream: TcpStream,
    got: Vec<u8>,
    over: bool,
}

impl Talk {
    fn begin(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        Self {
            stream,
            got: Vec::new(),
            over: false,
        }
    }

    /// Who was refused in the middle is not listened to any more.
    fn send(&mut self, bytes: &[u8], cut: Cut) {
        let size = match cut {
            Cut::Whole => bytes.len(),
            // Where the limits are tried, the bytes are many.
            Cut::Bytes => bytes.len().div_ceil(300),
        };
        for piece in bytes.chunks(size.max(1)) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
            if cut == Cut::Bytes {
                thread::yield_now();
            }
        }
    }

    /// Reads until this many answers began, the connection ended, or nothing came for long.
    fn read_until(&mut self, answers: usize) {
        let mut buf = [0; 4096];
        while !self.over && statuses(&self.got).len() < answers {
            match self.stream.read(&mut buf) {
                Ok(len @ 1..) => self.got.extend_from_slice(&buf[..len]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.over = true,
            }
        }
    }

    /// Says that no more is sent, and reads what there is.
    fn leave(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.read_until(usize::MAX);
    }
}
