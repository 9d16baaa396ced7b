//! Asks an agent what its proxy counted.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    cli::output::Failure,
    proxy::{BackendKey, latency::LatencySnapshot},
};

/// The agent is on this node, as a rule.
const PATIENCE: Duration = Duration::from_secs(5);
/// Some 400 000 backends.
const ANSWER_BYTES: u64 = 64 << 20;

/// What `/proxy` tells; what an agent of another version leaves out is zero.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reading {
    pub(super) active_connections: u64,
    pub(super) accepted_connections: u64,
    pub(super) requests: u64,
    pub(super) responses: [u64; 5],
    pub(super) reasons: Vec<(String, u64)>,
    pub(super) downstream_received_bytes: u64,
    pub(super) downstream_sent_bytes: u64,
    pub(super) upstream_opened: u64,
    pub(super) upstream_reused: u64,
    pub(super) retries: u64,
    pub(super) backends: Vec<(BackendKey, u64)>,
    pub(super) latencies: LatencySnapshot,
}

/// One answer of the agent whose admin server is at this address.
pub(super) fn ask(admin: SocketAddr) -> Result<Reading, Failure> {
    let answer = fetch(admin).map_err(|error| {
        Failure::Refused(format!(
            "no agent answers on {admin}: {error}; is it running, and with which --admin?"
        ))
    })?;
    parse(&answer).map_err(|why| {
        Failure::Refused(format!(
            "what answers on {admin} is no agent of this version: {why}"
        ))
    })
}

fn fetch(admin: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /proxy HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The admin server frames its answers by their length, and ends the connection when asked to.
fn parse(answer: &[u8]) -> Result<Reading, String> {
    let blank = answer.windows(4).position(|it| it == b"\r\n\r\n");
    let (head, body) = answer.split_at(blank.ok_or("its answer is not HTTP")? + 4);
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let line = head.split(|it| *it == b'\r').next().unwrap_or_default();
        return Err(format!("{} for /proxy", line.escape_ascii()));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::StatsSnapshot;

    #[test]
    fn what_the_agent_tells_is_understood() {
        let key = BackendKey {
            service: crate::ir::ServiceName {
                namespace: "shop".into(),
                name: "web".into(),
                port: "80".into(),
            },
            cluster: crate::ir::ClusterId::new("c1").unwrap(),
            backend: "10.1.0.1:80".parse().unwrap(),
        };
        let told = StatsSnapshot {
            requests: 7,
            reasons: vec![("timeout", 2)],
            backends: vec![(key.clone(), 5)],
            ..StatsSnapshot::default()
        };
        let body = serde_json::to_string(&told).unwrap();
        let read = parse(format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}").as_bytes()).unwrap();
        assert_eq!(read.requests, 7);
        assert_eq!(read.reasons, [("timeout".to_owned(), 2)]);
        assert_eq!(read.backends, [(key, 5)]);
    }

    #[test]
    fn what_is_no_agent_is_told_apart() {
        for answer in [
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n<html>",
        ] {
            assert!(parse(answer.as_bytes()).is_err(), "{answer}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n{}").is_ok());
    }
}
