//! Connections to backends: opened, kept for the next request, and looked at before they are used again.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{
    body::{Progress, RequestBody},
    gate::poll_read_buf,
};

/// The codec's read buffer grows up to this; bodies are handed on in pieces no larger.
const CODEC_BUFFER_BYTES: usize = 128 * 1024;

/// How connections to backends are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    pub(super) idle_per_backend: usize,
    pub(super) idle_timeout: Duration,
}

/// One connection to a backend, free to take a request.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) socket: Arc<Socket>,
    pub(super) address: SocketAddr,
    /// It has served a request before.
    pub(super) reused: bool,
}

/// A backend's socket, also visible beside the codec that owns it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    received: AtomicU64,
}

impl Socket {
    /// Bytes read so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Whether the backend neither closed nor said anything: one look into the socket's queue.
    fn silent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(SockRef::from(&self.stream).peek(&mut byte), Err(err) if err.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Idle connections of one worker, by backend; the one used last is taken first.
#[derive(Debug)]
pub(super) struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<(Upstream, Instant)>>>,
    limits: PoolLimits,
    closed: Cell<bool>,
}

impl Pool {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            idle: RefCell::default(),
            limits,
            closed: Cell::new(false),
        }
    }

    /// A connection that was alive a moment ago; `certain` looks into the socket too.
    pub(super) fn take(
        &self,
        address: SocketAddr,
        now: Instant,
        certain: bool,
    ) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&address)?;
        while let Some((upstream, since)) = stack.pop() {
            let fresh = now.saturating_duration_since(since) < self.limits.idle_timeout;
            if !fresh {
                // Those below are older still.
                stack.clear();
                return None;
            }
            if !upstream.sender.is_closed() && (!certain || upstream.socket.silent()) {
                return Some(upstream);
            }
        }
        None
    }

    fn put(&self, upstream: Upstream) {
        if self.closed.get() || upstream.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry(upstream.address).or_default();
        if stack.len() < self.limits.idle_per_backend {
            stack.push((
                Upstream {
                    reused: true,
                    ..upstream
                },
                Instant::now(),
            ));
        }
    }

    /// Drops what is too old or closed.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, stack| {
            stack.retain(|(upstream, since)| {
                !upstream.sender.is_closed()
                    && now.saturating_duration_since(*since) < self.limits.idle_timeout
            });
            !stack.is_empty()
        });
    }

    /// Closes every idle connection and keeps none from now on.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
    }
}

/// A connection in use. It returns to the pool only when both sides of the exchange are complete.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) upstream: Option<Upstream>,
    pub(super) pool: Rc<Pool>,
    pub(super) progress: Option<Arc<Progress>>,
    /// The backend wants to keep the connection.
    pub(super) keep: bool,
}

impl Lease {
    /// The response is complete.
    pub(super) fn release(mut self) {
        let sent = self
            .progress
            .as_ref()
            .is_none_or(|progress| progress.done());
        if self.keep
            && sent
            && let Some(upstream) = self.upstream.take()
        {
            self.pool.put(upstream);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.abort();
        }
    }
}

/// Connects and starts the codec on this worker.
pub(super) async fn connect(address: SocketAddr, patience: Duration) -> io::Result<Upstream> {
    let stream = tokio::time::timeout(patience, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    let socket = Arc::new(Socket {
        stream,
        received: AtomicU64::new(0),
    });
    let io = TokioIo::new(SocketIo(Arc::clone(&socket)));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(CODEC_BUFFER_BYTES);
    let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(err) = connection.with_upgrades().await {
            tracing::debug!(backend = %address, error = %err, "a connection to a backend broke");
        }
    });
    Ok(Upstream {
        sender,
        socket,
        address,
        reused: false,
    })
}

#[derive(Debug)]
struct SocketIo(Arc<Socket>);

impl AsyncRead for SocketIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(poll_read_buf(&self.0.stream, cx, buf))?;
        self.0.received.fetch_add(read as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl SocketIo {
    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match write(&self.0.stream) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for SocketIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.0.stream).shutdown(std::net::Shutdown::Write) {
            Err(err) if err.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(err)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
