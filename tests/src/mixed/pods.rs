//! Pods of a run: threads in the lab's namespaces that speak HTTP/1.1, WebSocket and gRPC, and end as pods of Kubernetes do.

use std::{
    fmt::Write,
    io,
    net::Ipv4Addr,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{LocalSet, spawn_local},
    time::timeout,
};
use xtask::netns;

use super::{
    grpc,
    http1::{Conn, Head},
    websocket,
};

/// Where pods speak HTTP/1.1.
pub(super) const WEB_PORT: u16 = 8090;
/// Where they speak gRPC.
pub(super) const GRPC_PORT: u16 = 8091;
/// Between the signal that ends a pod and its end.
const GRACE: Duration = Duration::from_secs(1);

/// A pod that runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Running {
    /// Starts a pod of this name (`cluster/pod`); it listens when this returns.
    pub(super) fn start(namespace: &str, address: Ipv4Addr, name: String) -> Result<Self> {
        let bind = || {
            let bind = |port| {
                let socket = std::net::TcpListener::bind((address, port))?;
                socket.set_nonblocking(true)?;
                io::Result::Ok(socket)
            };
            Ok((bind(WEB_PORT)?, bind(GRPC_PORT)?))
        };
        let sockets: io::Result<_> = netns::inside(namespace, bind)?;
        let (web, grpc) = sockets.with_context(|| format!("{name} cannot listen on {address}"))?;
        let (stop, stopped) = watch::channel(false);
        // The sockets stay in the namespace that they were made in.
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            LocalSet::new().block_on(&runtime, serve(name.into(), web, grpc, stopped))
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// The pod is told to end, and does within a second.
    pub(super) fn end(&self) {
        self.stop.send_replace(true);
    }
}

async fn serve(
    name: Rc<str>,
    web: std::net::TcpListener,
    grpc: std::net::TcpListener,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (web, grpc) = (TcpListener::from_std(web)?, TcpListener::from_std(grpc)?);
    loop {
        tokio::select! {
            accepted = web.accept() => {
                let stream = accepted?.0;
                stream.set_nodelay(true)?;
                let (name, stop) = (Rc::clone(&name), stop.clone());
                // The gateway's resets are its own affair.
                spawn_local(async move { converse(&name, stream, stop).await.ok() });
            }
            accepted = grpc.accept() => {
                let stream = accepted?.0;
                stream.set_nodelay(true)?;
                let (name, stop) = (Rc::clone(&name), stop.clone());
                spawn_local(async move { grpc::serve(&name, stream, stop).await.ok() });
            }
            _ = stop.changed() => break,
        }
    }
    drop((web, grpc));
    tokio::time::sleep(GRACE).await;
    Ok(())
}

/// One request after the other; a pod that ends finishes the one that it has.
async fn converse(
    name: &str,
    stream: TcpStream,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut conn = Conn::new(stream);
    loop {
        let head = tokio::select! {
            biased;
            head = conn.head() => head?,
            _ = stop.wait_for(|it| *it) => None,
        };
        let Some(head) = head else {
            return Ok(());
        };
        if head.field("upgrade").is_some() {
            return tunnel(name, conn, stop).await;
        }
        let body = conn.body(&head).await?;
        let mut words = head.first.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let asked = Asked::read(target);
        if asked.milliseconds > 0 {
            tokio::time::sleep(Duration::from_millis(asked.milliseconds)).await;
        }
        let answer = match method {
            "POST" => body,
            _ => asked.answer(name, &head),
        };
        let closes = *stop.borrow() || head.closes();
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let mut out = format!("HTTP/1.1 200 OK\r\nX-Pod: {name}\r\n{connection}").into_bytes();
        if asked.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in answer.chunks(10_000) {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        } else {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", answer.len()).as_bytes());
            if method != "HEAD" {
                out.extend_from_slice(&answer);
            }
        }
        conn.write(&out).await?;
        if closes {
            return Ok(());
        }
    }
}

/// What a target asks for beside its path: `?id=N&ms=N&bytes=N&chunked`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Asked {
    /// Told in the answer, so that an answer of another request shows.
    pub(super) id: u64,
    /// How long the pod waits.
    pub(super) milliseconds: u64,
    /// Bytes behind the first line of the answer.
    pub(super) bytes: usize,
    /// The answer comes in chunks.
    pub(super) chunked: bool,
}

impl Asked {
    fn read(target: &str) -> Self {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let mut asked = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = value.parse().unwrap_or(0);
            match key {
                "id" => asked.id = number,
                "ms" => asked.milliseconds = number.min(5_000),
                "bytes" => asked.bytes = number.min(1 << 20) as usize,
                "chunked" => asked.chunked = true,
                _ => {}
            }
        }
        asked
    }

    /// The query that says so.
    pub(super) fn query(self) -> String {
        let mut text = format!(
            "id={}&ms={}&bytes={}",
            self.id, self.milliseconds, self.bytes
        );
        if self.chunked {
            // Writing to a String cannot fail.
            let _ = write!(text, "&chunked");
        }
        text
    }

    /// What a pod of this name answers.
    fn answer(self, name: &str, head: &Head) -> Vec<u8> {
        let forwarded = head.field("x-forwarded-for").unwrap_or("nobody");
        self.expected(name, forwarded)
    }

    /// The same, of a client at this address.
    pub(super) fn expected(self, name: &str, client: &str) -> Vec<u8> {
        let mut body = format!("{name} {} {client}\n", self.id).into_bytes();
        body.extend((0..=255_u8).cycle().take(self.bytes));
        body
    }
}

/// Echoes messages; a pod that ends says so.
async fn tunnel(
    name: &str,
    mut conn: Conn<TcpStream>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\nX-Pod: {name}\r\n\r\n",
        websocket::ACCEPT
    );
    conn.write(head.as_bytes()).await?;
    loop {
        // Bytes that were read stay in `conn` when the other branch is taken, but a frame that was read in part is lost:
        // only its beginning is waited for here.
        let stopping = tokio::select! {
            biased;
            more = conn.fill() => { more?; false }
            _ = stop.wait_for(|it| *it) => true,
        };
        if stopping {
            let bye = websocket::frame(websocket::CLOSE, &websocket::GOING_AWAY, false);
            conn.write(&bye).await?;
            // The client's own closing frame, behind what it had sent before.
            let said = async {
                while websocket::read(&mut conn).await?.0 != websocket::CLOSE {}
                io::Result::Ok(())
            };
            let _ = timeout(GRACE / 2, said).await;
            return Ok(());
        }
        let (opcode, payload) = websocket::read(&mut conn).await?;
        conn.write(&websocket::frame(opcode, &payload, false))
            .await?;
        if opcode == websocket::CLOSE {
            return Ok(());
        }
    }
}
