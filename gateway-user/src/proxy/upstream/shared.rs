//! HTTP/2 connections to backends: each carries many requests at once.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::net::TcpStream;

/// Connections to one backend, per worker, when the backend allows too few streams on one.
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
    open: RefCell<HashMap<SocketAddr, Vec<SendRequest<Bytes>>>>,
    closed: Cell<bool>,
}

impl SharedPool {
    /// A connection with room for one more stream.
    pub(in crate::proxy) fn take(&self, address: SocketAddr) -> Option<SendRequest<Bytes>> {
        let mut open = self.open.borrow_mut();
        let connections = open.get_mut(&address)?;
        let mut cx = Context::from_waker(Waker::noop());
        let mut found = None;
        connections.retain_mut(|connection| match connection.poll_ready(&mut cx) {
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                found.get_or_insert_with(|| connection.clone());
                true
            }
            Poll::Pending => true,
        });
        found
    }

    /// Opens a connection, which lives as long as it is used or the backend keeps it.
    pub(in crate::proxy) async fn connect(
        self: &Rc<Self>,
        address: SocketAddr,
        patience: Duration,
    ) -> io::Result<SendRequest<Bytes>> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut builder = client::Builder::new();
            builder
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buffer_size(SEND_BUFFER)
                .max_header_list_size(HEAD_BYTES)
                .enable_push(false);
            let shaken = builder.handshake::<_, Bytes>(stream).await;
            shaken.map_err(io::Error::other)
        };
        let (send, connection) = tokio::time::timeout(patience, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        tokio::task::spawn_local(async move {
            if let Err(err) = connection.await {
                tracing::debug!(backend = %address, error = %err, "an HTTP/2 connection to a backend broke");
            }
        });
        let mut open = self.open.borrow_mut();
        let connections = open.entry(address).or_default();
        if connections.len() < CONNECTIONS && !self.closed.get() {
            connections.push(send.clone());
        }
        Ok(send)
    }

    /// Forgets connections that broke or were closed.
    pub(in crate::proxy) fn sweep(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.open.borrow_mut().retain(|_, connections| {
            connections.retain_mut(|it| !matches!(it.poll_ready(&mut cx), Poll::Ready(Err(_))));
            !connections.is_empty()
        });
    }

    /// Keeps none from now on; what is under way goes on.
    pub(in crate::proxy) fn close(&self) {
        self.closed.set(true);
        self.open.borrow_mut().clear();
    }
}
