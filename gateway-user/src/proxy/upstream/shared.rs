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
use tokio::net::TcpStream;

/// Connections to one backend, per worker, that are kept when the backend allows too few streams on one.
const CONNECTIONS: usize = 8;
/// Room for data of one stream, and of all of a connection, that the proxy has not handed on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests of one stream that wait to be written, in bytes.
const SEND_BUFFER: usize = 128 * 1024;
/// Fields of a response head.
const HEAD_BYTES: u32 = 96 * 1024;

/// The HTTP/2 connections of one worker, by backend.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SharedPool {
    open: RefCell<HashMap<SocketAddr, Vec<Connection>>>,
    closed: Cell<bool>,
}

/// A connection, and how many requests are under way on it: the codec would let further ones wait, behind streams that
/// may last for hours.
#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    streams: Rc<Cell<usize>>,
}

/// Room for one request on a connection, until this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Room {
    pub(in crate::proxy) send: SendRequest<Bytes>,
    streams: Rc<Cell<usize>>,
}

impl Connection {
    fn room(&self) -> Room {
        self.streams.set(self.streams.get() + 1);
        Room {
            send: self.send.clone(),
            streams: Rc::clone(&self.streams),
        }
    }

    fn is_full(&self) -> bool {
        self.streams.get() >= self.send.current_max_send_streams()
    }

    fn is_over(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
    }
}

impl SharedPool {
    /// Room on a connection that is open.
    pub(in crate::proxy) fn take(&self, address: SocketAddr) -> Option<Room> {
        let mut open = self.open.borrow_mut();
        let connections = open.get_mut(&address)?;
        connections.retain_mut(|connection| !connection.is_over());
        let free = connections.iter().find(|connection| !connection.is_full());
        free.map(Connection::room)
    }

    /// Opens a connection, which lives as long as it is used or the backend keeps it.
    pub(in crate::proxy) async fn connect(
        self: &Rc<Self>,
        address: SocketAddr,
        patience: Duration,
    ) -> io::Result<Room> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut builder = client::Builder::new();
            builder
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buffer_size(SEND_BUFFER)
                .max_header_list_size(HEAD_BYTES)
                .initial_max_send_streams(0)
                .enable_push(false);
            let shaken = builder.handshake::<_, Bytes>(stream).await;
            let (send, mut connection) = shaken.map_err(io::Error::other)?;
            // RFC 9113 section 3.4: SETTINGS are the first that a backend sends. Streams beyond those that it allows there
            // would be refused, and a call is not sent twice.
            poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(Err(err)) => Poll::Ready(Err(io::Error::other(err))),
                Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Pending if send.current_max_send_streams() == 0 => Poll::Pending,
                Poll::Pending => Poll::Ready(Ok(())),
            })
            .await?;
            Ok::<_, io::Error>((send, connection))
        };
        let (send, connection) = tokio::time::timeout(patience, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        tokio::task::spawn_local(async move {
            if let Err(err) = connection.await {
                tracing::debug!(backend = %address, error = %err, "an HTTP/2 connection to a backend broke");
            }
        });
        let connection = Connection {
            send,
            streams: Rc::default(),
        };
        let room = connection.room();
        let mut open = self.open.borrow_mut();
        let connections = open.entry(address).or_default();
        if connections.len() < CONNECTIONS && !self.closed.get() {
            connections.push(connection);
        }
        Ok(room)
    }

    /// Forgets connections that broke or were closed.
    pub(in crate::proxy) fn sweep(&self) {
        self.open.borrow_mut().retain(|_, connections| {
            connections.retain_mut(|it| !it.is_over());
            !connections.is_empty()
        });
    }

    /// Keeps none from now on; what is under way goes on.
    pub(in crate::proxy) fn close(&self) {
        self.closed.set(true);
        self.open.borrow_mut().clear();
    }
}
