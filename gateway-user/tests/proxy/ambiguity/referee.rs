//! HAProxy with the same input, as a second opinion.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    rows::{End, Row},
    run::{origin, statuses},
};
use crate::support::Origin;

/// Rows that the proxy serves and HAProxy 2.6 does not, and why that is right.
pub(crate) const ALONE: &[(&str, &str)] = &[
    ("request line: absolute-form with another host", ABSOLUTE),
    ("request line: absolute-form without a path", ABSOLUTE),
    (
        "request line: absolute-form with a query and no path",
        ABSOLUTE,
    ),
];

/// HAProxy wants target and Host to be equal.
const ABSOLUTE: &str = "RFC 9112 section 3.2.2: a target in absolute form replaces Host";

/// A running HAProxy in front of an origin; ends with this.
#[derive(Debug)]
pub(crate) struct Haproxy {
    child: Child,
    address: SocketAddr,
    _origin: Origin,
    _folder: tempfile::TempDir,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Haproxy {
    /// None where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let origin = origin();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = port.local_addr().unwrap();
        drop(port);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n  maxconn 500\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 15s\n  \
             timeout server 5s\nlisten web\n  bind {address}\n  server origin {}\n",
            origin.address
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-q", "-f"]).arg(&file);
        let command = command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return None,
            child => child.unwrap(),
        };
        let haproxy = Self {
            child,
            address,
            _origin: origin,
            _folder: folder,
        };
        crate::support::eventually("haproxy listens", || TcpStream::connect(address).is_ok());
        Some(haproxy)
    }

    /// All that it answers to a row: to the end of the connection, or until it has been silent for a while.
    pub(crate) fn ask(&self, row: &Row) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let patience = Some(Duration::from_millis(500));
        stream.set_read_timeout(patience).unwrap();
        let _ = stream.write_all(row.bytes);
        let expected = row.statuses().len();
        let until = Instant::now() + Duration::from_secs(10);
        let mut got = Vec::new();
        let mut buf = [0; 4096];
        loop {
            match stream.read(&mut buf) {
                Ok(len @ 1..) => got.extend_from_slice(&buf[..len]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    // It has time to say as much as the proxy does.
                    let enough = statuses(&got).len() >= expected || row.end == End::Waits;
                    if enough || Instant::now() > until {
                        return got;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(_) | Err(_) => return got,
            }
        }
    }
}
