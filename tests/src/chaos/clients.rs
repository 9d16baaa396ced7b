//! Clients: connections that are held, transfers without end, short connections.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{ledger::Ledger, world::SERVICES};
use crate::e2e::VIP;

/// Longer than any flap with its retransmissions.
const PATIENCE: Duration = Duration::from_secs(15);
/// Held connections to each listener.
const HELD: usize = 6;
/// Bytes of one transfer.
const TRANSFER: u64 = 1 << 20;

/// All clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clients<'a> {
    ledger: &'a Ledger,
    stop: &'a AtomicBool,
}

impl<'a> Clients<'a> {
    /// They end when `stop` becomes true.
    pub(super) fn new(ledger: &'a Ledger, stop: &'a AtomicBool) -> Self {
        Self { ledger, stop }
    }

    /// Runs them on threads, in the namespace of the caller.
    pub(super) fn run(self) {
        thread::scope(|scope| {
            for (_, port, _) in SERVICES {
                for _ in 0..HELD {
                    scope.spawn(move || self.hold(port));
                }
                scope.spawn(move || self.transfer(port));
                scope.spawn(move || self.short(port));
            }
        });
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One connection after the other, each kept until its pod dies.
    fn hold(&self, port: u16) {
        self.connections("held", port, |conn, pod| {
            let begun = Instant::now();
            let answer = conn.get("/")?;
            self.ledger.held(begun.elapsed());
            self.same("held", port, pod, &answer.pod);
            thread::sleep(Duration::from_millis(40));
            Ok(answer.pod)
        });
    }

    fn transfer(&self, port: u16) {
        let path = format!("/bytes/{TRANSFER}");
        self.connections("transfer", port, |conn, pod| {
            let answer = conn.get(&path)?;
            self.same("transfer", port, pod, &answer.pod);
            let right = (0_u8..=255).cycle().take(answer.body.len());
            if answer.body.len() as u64 == TRANSFER && right.eq(answer.body.iter().copied()) {
                self.ledger.transferred(TRANSFER);
            } else {
                let what = format!("{} bytes that differ", answer.body.len());
                self.ledger.wrong("transfer", port, &answer.pod, what);
            }
            thread::sleep(Duration::from_millis(15));
            Ok(answer.pod)
        });
    }

    /// Opens connections and has each used until something fails.
    fn connections(
        &self,
        client: &'static str,
        port: u16,
        mut once: impl FnMut(&mut Conn, Option<&str>) -> io::Result<String>,
    ) {
        while !self.over() {
            let begun = Instant::now();
            let mut pod: Option<String> = None;
            let failed = match Conn::open(port) {
                Err(error) => Some(error),
                Ok(mut conn) => loop {
                    if self.over() {
                        break None;
                    }
                    match once(&mut conn, pod.as_deref()) {
                        Ok(who) => pod = Some(who),
                        Err(error) => break Some(error),
                    }
                },
            };
            if let Some(error) = failed {
                self.ledger.failed(
                    client,
                    port,
                    pod.as_deref(),
                    begun,
                    format!("{error} ({:?})", error.kind()),
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn same(&self, client: &'static str, port: u16, first: Option<&str>, now: &str) {
        if let Some(first) = first
            && first != now
        {
            self.ledger.wrong(
                client,
                port,
                now,
                format!("an open connection to {first} was answered by {now}"),
            );
        }
    }

    fn short(&self, port: u16) {
        while !self.over() {
            let begun = Instant::now();
            match Conn::open(port).and_then(|mut conn| conn.get("/")) {
                Ok(answer) => self.ledger.short(port, begun, answer.pod),
                Err(error) => self.ledger.failed(
                    "short",
                    port,
                    None,
                    begun,
                    format!("{error} ({:?})", error.kind()),
                ),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A keep-alive connection to the VIP.
struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
}

struct Answer {
    /// `cluster/pod`.
    pod: String,
    body: Vec<u8>,
}

impl Conn {
    fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((VIP, port)), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    fn get(&mut self, path: &str) -> io::Result<Answer> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        self.stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n").as_bytes())?;
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            self.more()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let field = |wanted: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.to_owned())
        };
        let length: usize = field("content-length")
            .and_then(|it| it.parse().ok())
            .ok_or_else(invalid)?;
        let pod = field("x-pod").ok_or_else(invalid)?;
        while self.buffer.len() < length {
            self.more()?;
        }
        let rest = self.buffer.split_off(length);
        Ok(Answer {
            pod,
            body: std::mem::replace(&mut self.buffer, rest),
        })
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 1 << 16];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }
}
