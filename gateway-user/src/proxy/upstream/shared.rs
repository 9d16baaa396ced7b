//! HTTP/2 connections to backends: each carries many requests at once.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::{net::TcpStream, sync::Mutex};

/// Connections to one backend, per worker, where it allows fewer streams on one than are wanted. Further streams queue.
const CONNECTIONS: usize = 8;
/// Room for data of one stream, and of all of a connection, that the proxy has not handed on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests of one stream that wait to be written, in bytes.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that a backend allows as long as it has not said how many.
const UNTOLD: usize = 0;
/// Fields of a response head.
const HEAD_BYTES: u32 = 96 * 1024;

/// The HTTP/2 connections of one worker, by backend.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SharedPool {
    open: RefCell<HashMap<SocketAddr, Vec<Line>>>,
    /// Whose turn it is to open a connection, for backends of which somebody wants one.
    turns: RefCell<HashMap<SocketAddr, Rc<Mutex<()>>>>,
    closed: Cell<bool>,
}

/// A place for one stream on a connection to a backend; dropping it gives it back.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Line {
    pub(in crate::proxy) send: SendRequest<Bytes>,
    /// Held once by the pool, and once by each stream.
    streams: Rc<()>,
}

impl Line {
    /// Whether the backend lets one more stream be open.
    fn has_room(&self) -> bool {
        Rc::strong_count(&self.streams) <= self.send.current_max_send_streams()
    }

    fn is_over(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}

impl SharedPool {
    /// A connection with room for one more stream. Where the backend has as many connections as it gets, room is what the
    /// one with the fewest streams has in its queue.
    pub(in crate::proxy) fn take(&self, address: SocketAddr) -> Option<Line> {
        let mut open = self.open.borrow_mut();
        let lines = open.get_mut(&address)?;
        lines.retain_mut(|it| !it.is_over());
        let free = lines.iter().find(|it| it.has_room());
        let free = free.or_else(|| {
            let full = lines.len() >= CONNECTIONS;
            let least = lines.iter().min_by_key(|it| Rc::strong_count(&it.streams));
            least.filter(|_| full)
        });
        free.cloned()
    }

    /// Opens a connection, which lives as long as it is used or the backend keeps it. Calls that want one at the same time
    /// wait for the one that is being opened: says whether the connection was there already.
    pub(in crate::proxy) async fn connect(
        self: &Rc<Self>,
        address: SocketAddr,
        patience: Duration,
    ) -> io::Result<(Line, bool)> {
        let connect = async {
            let turn = Rc::clone(self.turns.borrow_mut().entry(address).or_default());
            // Whoever gives up lets the next one try.
            let _turn = turn.lock().await;
            match self.take(address) {
                Some(line) => Ok((line, true)),
                None => Ok((self.dial(address).await?, false)),
            }
        };
        tokio::time::timeout(patience, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<Line> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD_BYTES)
            .initial_max_send_streams(UNTOLD)
            .enable_push(false);
        let shaken = builder.handshake::<_, Bytes>(stream).await;
        let (send, mut connection) = shaken.map_err(io::Error::other)?;
        // Many calls may wait for it: more than the backend's SETTINGS allow would be refused.
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Err(err)) => Poll::Ready(Err(io::Error::other(err))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Pending if send.current_max_send_streams() == UNTOLD => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        tokio::task::spawn_local(async move {
            if let Err(err) = connection.await {
                tracing::debug!(backend = %address, error = %err, "an HTTP/2 connection to a backend broke");
            }
        });
        let line = Line {
            send,
            streams: Rc::new(()),
        };
        let mut open = self.open.borrow_mut();
        let lines = open.entry(address).or_default();
        if lines.len() < CONNECTIONS && !self.closed.get() {
            lines.push(line.clone());
        }
        Ok(line)
    }

    /// Forgets connections that broke or were closed.
    pub(in crate::proxy) fn sweep(&self) {
        self.open.borrow_mut().retain(|_, lines| {
            lines.retain_mut(|it| !it.is_over());
            !lines.is_empty()
        });
        self.turns
            .borrow_mut()
            .retain(|_, turn| Rc::strong_count(turn) > 1);
    }

    /// Keeps none from now on; what is under way goes on.
    pub(in crate::proxy) fn close(&self) {
        self.closed.set(true);
        self.open.borrow_mut().clear();
    }
}
