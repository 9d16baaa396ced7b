//! The connection under everything: it can be frozen, and it can be reset instead of closed.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What all connections of one server obey.
#[derive(Debug, Default)]
pub(super) struct Gate {
    frozen: AtomicBool,
    resetting: AtomicBool,
    waiting: Mutex<HashMap<u64, Waker>>,
    next: AtomicU64,
}

impl Gate {
    /// From now on nothing is read or written, and nothing closed.
    pub(super) fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    pub(super) fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        let woken: Vec<Waker> = self.waiting().drain().map(|(_, waker)| waker).collect();
        woken.into_iter().for_each(Waker::wake);
    }

    /// Connections that are dropped while this holds are reset.
    pub(super) fn reset_on_drop(&self, holds: bool) {
        self.resetting.store(holds, Ordering::SeqCst);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Gated {
    stream: TcpStream,
    gate: Arc<Gate>,
    id: u64,
}

impl Gated {
    pub(super) fn new(stream: TcpStream, gate: Arc<Gate>) -> Self {
        let id = gate.next.fetch_add(2, Ordering::Relaxed);
        Self { stream, gate, id }
    }

    /// Pending while frozen; `side` is 0 for reading, 1 for writing.
    fn pass(&self, cx: &Context<'_>, side: u64) -> Poll<()> {
        if !self.gate.frozen.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        self.gate
            .waiting()
            .insert(self.id + side, cx.waker().clone());
        // A thaw between the look and the note would never wake this task.
        if self.gate.frozen.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting();
        waiting.remove(&self.id);
        waiting.remove(&(self.id + 1));
        drop(waiting);
        if self.gate.resetting.load(Ordering::SeqCst) {
            // Closing a socket that does not linger sends RST. If it fails, the peer sees a plain end.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.pass(cx, 0));
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.pass(cx, 1));
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.pass(cx, 1));
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.pass(cx, 1));
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
