//! Clients: one of each kind on its own, all on one thread in the client's namespace.

mod h1;
mod h2;
mod tunnels;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use socket2::{SockRef, Socket};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    certificates::Authority,
    ledger::Ledger,
    pods::Asked,
    world::{HOST, HTTP, HTTPS, Route},
};
use crate::{e2e::VIP, random::Random};

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most bytes of an answer or of a body, but for the odd large one.
const BYTES: usize = 4_000;
const LARGE: usize = 200_000;

/// A connection in plain or through TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection, and its socket to look at.
type Opened = (Box<dyn Stream>, Socket);

/// All clients.
pub(super) struct Clients<'a> {
    ledger: &'a Ledger,
    stop: &'a AtomicBool,
    /// Offers HTTP/1.1, and HTTP/2.
    tls: [Arc<ClientConfig>; 2],
    ids: Cell<u64>,
    random: RefCell<Random>,
}

/// A request of HTTP, of whichever version.
#[derive(Clone, Debug)]
struct Request {
    post: bool,
    canary: bool,
    asked: Asked,
    body: Vec<u8>,
}

impl Request {
    fn route(&self) -> Route {
        match self.canary {
            true => Route::Canary,
            false => Route::Web,
        }
    }

    fn target(&self) -> String {
        format!("/web?{}", self.asked.query())
    }

    /// What a pod of this name must answer.
    fn expected(&self, pod: &str) -> Vec<u8> {
        let client = xtask::lab::topology::CLIENT_ADDRESS.to_string();
        match self.post {
            true => self.body.clone(),
            false => self.asked.expected(pod, &client),
        }
    }

    /// What is wrong with an answer, if anything.
    fn wrong(&self, status: u16, pod: &str, body: &[u8], reason: Option<&str>) -> Option<String> {
        if status != 200 {
            let why = reason.unwrap_or("no reason given");
            return Some(format!("status {status} ({why})"));
        }
        let right = body == self.expected(pod);
        (!right).then(|| format!("{} bytes of {pod} that are not the answer", body.len()))
    }
}

impl<'a> Clients<'a> {
    /// They end when `stop` becomes true.
    pub(super) fn new(
        ledger: &'a Ledger,
        stop: &'a AtomicBool,
        authority: &Authority,
        seed: u64,
    ) -> Result<Self> {
        Ok(Self {
            ledger,
            stop,
            tls: [authority.client("http/1.1")?, authority.client("h2")?],
            ids: Cell::new(0),
            random: RefCell::new(Random::new(seed)),
        })
    }

    /// Runs them on this thread, in the namespace of the caller.
    pub(super) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no event loop for the clients")?;
        let mut all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for _ in 0..4 {
            all.push(Box::pin(self.h1("h1", h1::Habit::default())));
            all.push(Box::pin(self.websocket("websocket", false)));
        }
        for _ in 0..3 {
            let posting = h1::Habit {
                post: true,
                ..h1::Habit::default()
            };
            all.push(Box::pin(self.h1("h1 post", posting)));
            let secured = h1::Habit {
                tls: true,
                most: 25,
                ..h1::Habit::default()
            };
            all.push(Box::pin(self.h1("h1 tls", secured)));
        }
        for _ in 0..2 {
            let short = h1::Habit {
                most: 1,
                ..h1::Habit::default()
            };
            all.push(Box::pin(self.h1("h1 short", short)));
            let handshakes = h1::Habit { tls: true, ..short };
            all.push(Box::pin(self.h1("h1 tls short", handshakes)));
            all.push(Box::pin(self.h2("h2 tls")));
            all.push(Box::pin(self.grpc("grpc tls")));
            all.push(Box::pin(self.websocket("websocket tls", true)));
        }
        runtime.block_on(join_all(all));
        Ok(())
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().below(end)
    }

    async fn pause(&self) {
        let ms = 5 + self.below(30);
        tokio::time::sleep(Duration::from_millis(ms as u64)).await;
    }

    /// The next request, another one each time.
    fn request(&self, post: bool) -> Request {
        let id = self.ids.get();
        self.ids.set(id + 1);
        let bytes = match self.below(50) {
            0 => LARGE,
            _ => self.below(BYTES),
        };
        let milliseconds = match self.below(10) {
            0 => self.below(300) as u64,
            _ => 0,
        };
        let body = match post {
            true => (id as u8..=255).cycle().take(bytes).collect(),
            false => Vec::new(),
        };
        Request {
            post,
            canary: self.below(4) == 0,
            asked: Asked {
                id,
                milliseconds,
                bytes: if post { 0 } else { bytes },
                chunked: self.below(3) == 0,
            },
            body,
        }
    }

    /// Opens a connection, through TLS with the client of this number.
    async fn connect(&self, kind: &'static str, tls: Option<usize>) -> io::Result<Opened> {
        let port = if tls.is_some() { HTTPS } else { HTTP };
        let begun = Instant::now();
        let stream = TcpStream::connect((VIP, port)).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream).try_clone()?;
        let Some(config) = tls.and_then(|it| self.tls.get(it)) else {
            self.ledger.opened(kind);
            return Ok((Box::new(stream), socket));
        };
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await?;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|it| it.first());
        self.ledger
            .shown(kind, begun, leaf.map_or(&[], |it| it.as_ref()));
        self.ledger.opened(kind);
        Ok((Box::new(stream), socket))
    }
}
