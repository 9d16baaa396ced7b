//! Clients: connections from chosen ports, kept open as long as a test wants, and what came back over them.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use xtask::{
    client::{self, Job, Tally},
    lab::topology::CLIENT,
    netns,
};

use super::VIP;

/// Longest wait for a connection and for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest head or body that a test reads.
const ANSWER_BYTES: usize = 1 << 20;

/// An open connection from the lab's client, over TCP or what runs on it.
#[derive(Debug)]
pub struct Conn<S = TcpStream> {
    pub(super) stream: S,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// What a pod says about the request it got.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not a pod's answer: {self:?}"))
    }

    /// Name of the pod that answered.
    pub fn pod(&self) -> Result<String> {
        let pod = self.json()?["pod"].as_str().map(str::to_owned);
        pod.with_context(|| format!("no pod in {self:?}"))
    }
}

impl Conn {
    /// Connects from the lab's client, from any port.
    pub fn open(target: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::within(CLIENT, None, target.into())
    }

    /// Connects from the lab's client and this port.
    pub fn from_port(port: u16, target: impl Into<SocketAddr>) -> io::Result<Self> {
        let from = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self::within(CLIENT, Some(from), target.into())
    }

    /// Connects inside a namespace, from a chosen address and port.
    pub fn within(namespace: &str, from: Option<SocketAddr>, to: SocketAddr) -> io::Result<Self> {
        Self::patiently(namespace, from, to, PATIENCE)
    }

    /// The same, and no step takes longer than `patience`.
    fn patiently(
        namespace: &str,
        from: Option<SocketAddr>,
        to: SocketAddr,
        patience: Duration,
    ) -> io::Result<Self> {
        let stream = netns::inside(namespace, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if let Some(from) = from {
                socket.bind(&from.into())?;
            }
            socket.connect_timeout(&to.into(), patience)?;
            Ok::<TcpStream, io::Error>(socket.into())
        })
        .map_err(io::Error::other)??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream })
    }

    /// Our end of it.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }
}

impl<S: Read + Write> Conn<S> {
    /// GET with keep-alive, and further header lines (each with its line end).
    pub fn get(&mut self, path: &str, headers: &str) -> io::Result<Answer> {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: lab\r\n{headers}\r\n"
        ))
    }

    /// Name of the pod at the other end.
    pub fn pod(&mut self) -> Result<String> {
        self.get("/", "")?.pod()
    }

    /// Sends a request as it is, and reads one answer.
    pub fn send(&mut self, request: &str) -> io::Result<Answer> {
        self.stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
            if head.len() > ANSWER_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers
            .get("content-length")
            .and_then(|text| text.parse().ok());
        let length: usize = length.ok_or(io::ErrorKind::InvalidData)?;
        let mut body = vec![0; length.min(ANSWER_BYTES)];
        self.stream.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }
}

/// Connections that stay open over an event, with the pod at the other end of each.
#[derive(Debug)]
pub struct Held(pub Vec<(Conn, String)>);

impl Held {
    /// Opens connections from the lab's client to the VIP.
    pub fn open(port: u16, count: usize) -> Result<Self> {
        let one = |_| {
            let mut conn = Conn::open((VIP, port))?;
            let pod = conn.pod()?;
            Ok((conn, pod))
        };
        Ok(Self((0..count).map(one).collect::<Result<_>>()?))
    }

    /// Asks again over each: all must still answer, and from the same pod.
    pub fn stay(&mut self) -> Result<()> {
        for (conn, pod) in &mut self.0 {
            let now = conn
                .pod()
                .with_context(|| format!("an established connection to {pod}"))?;
            ensure!(now == *pod, "a connection moved from {pod} to {now}");
        }
        Ok(())
    }
}

/// One GET over a connection of its own, to the VIP.
pub fn get(port: u16, path: &str, headers: &str) -> io::Result<Answer> {
    Conn::open((VIP, port))?.get(path, headers)
}

/// How one more connection to the VIP ends: a pod's name, a status, or the error's kind.
pub fn outcome(port: u16) -> String {
    outcome_within(port, PATIENCE)
}

/// The same, where nobody is waited for longer than this.
pub fn outcome_within(port: u16, patience: Duration) -> String {
    let conn = Conn::patiently(CLIENT, None, (VIP, port).into(), patience);
    match conn.and_then(|mut conn| conn.get("/", "")) {
        Ok(answer) if answer.status == 200 => {
            answer.pod().unwrap_or_else(|error| format!("{error:#}"))
        }
        Ok(answer) => format!("status {}", answer.status),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// One request over each of `connections` new connections from the lab's client to the VIP, 8 at once.
pub fn burst(port: u16, connections: u64) -> Result<Tally> {
    let job = Job {
        threads: 8,
        ..Job::connections((VIP, port).into(), connections)
    };
    netns::inside(CLIENT, || client::run(&job))
}

/// What new connections from the lab's client to the VIP met while `work` was done.
pub fn under_load(port: u16, work: impl FnOnce() -> Result<()>) -> Result<Tally> {
    let job = Job {
        threads: 2,
        pause: Duration::from_millis(2),
        ..Job::connections((VIP, port).into(), u64::MAX)
    };
    load(&job, work)
}

/// What a job met while `work` was done.
pub fn load(job: &Job, work: impl FnOnce() -> Result<()>) -> Result<Tally> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| netns::inside(CLIENT, || client::run_until(job, &stop)));
        let stopping = Stop(&stop);
        let worked = work();
        drop(stopping);
        let tally = load.join().ok().context("the load panicked")??;
        worked
            .with_context(|| format!("under load, which met {tally:?}"))
            .map(|()| tally)
    })
}

/// Ends the load, also when an assertion beside it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
