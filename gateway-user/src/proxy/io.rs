//! A connection's bytes, plain or through TLS.
//!
//! Both directions are used through a shared reference, so that a body can go one way while an answer comes the other.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    net::Shutdown,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BufMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsStream;

use super::{
    abuse::Account,
    plain::{Plain, emptied},
};

/// One connection.
pub(super) struct Io {
    transport: Transport,
    read: Cell<u64>,
    written: Cell<u64>,
    /// The peer has closed its side.
    ended: Cell<bool>,
    /// Bytes that were read and are to be read again.
    ahead: RefCell<Vec<u8>>,
    /// Judges what an HTTP/2 client sends.
    account: Option<Rc<RefCell<Account>>>,
}

enum Transport {
    Tcp(Plain),
    Tls(Box<RefCell<TlsStream<TcpStream>>>),
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("tls", &self.is_tls())
            .field("read", &self.read.get())
            .field("written", &self.written.get())
            .finish_non_exhaustive()
    }
}

impl Io {
    pub(super) fn plain(stream: impl Into<Plain>) -> Self {
        Self::new(Transport::Tcp(stream.into()))
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::new(Transport::Tls(Box::new(RefCell::new(stream))))
    }

    fn new(transport: Transport) -> Self {
        Self {
            transport,
            read: Cell::new(0),
            written: Cell::new(0),
            ended: Cell::new(false),
            ahead: RefCell::default(),
            account: None,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Bytes of the application read so far.
    pub(super) fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes of the application written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Puts bytes in front of what comes, for who reads through [`AsyncRead`].
    pub(super) fn unread(&self, bytes: &[u8]) {
        self.ahead.borrow_mut().extend_from_slice(bytes);
    }

    /// Has an account told of all bytes that are read through [`AsyncRead`], and of those written.
    pub(super) fn judge(&mut self, account: &Rc<RefCell<Account>>) {
        self.account = Some(Rc::clone(account));
    }

    fn tell(&self, bytes: &[u8]) {
        if let Some(account) = &self.account {
            // The verdict is asked for where the connection is served.
            let _ = account.borrow_mut().read(Instant::now(), bytes);
        }
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether nobody waited for it yet: it is not heard when the peer leaves.
    pub(super) fn is_fresh(&self) -> bool {
        match &self.transport {
            Transport::Tcp(stream) => stream.is_fresh(),
            Transport::Tls(_) => false,
        }
    }

    /// The socket below; `None` if it is gone.
    fn socket<T>(&self, ask: impl FnOnce(SockRef<'_>) -> T) -> Option<T> {
        match &self.transport {
            Transport::Tcp(stream) => stream.with(|it| ask(SockRef::from(&it))),
            Transport::Tls(stream) => Some(ask(SockRef::from(stream.borrow().get_ref().0))),
        }
    }

    /// The TCP stream, if what is read and written are the very bytes on it.
    pub(super) fn bare(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Tcp(stream) if self.ahead.borrow().is_empty() => stream.watch().ok(),
            _ => None,
        }
    }

    /// Reads behind what `buf` holds, into memory that it has. `Ready(Ok(0))` is the end.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let room = buf.capacity() - buf.len();
        let outcome = match &self.transport {
            Transport::Tcp(stream) => stream.poll_read(cx, buf),
            Transport::Tls(stream) => {
                let stream = &mut *stream.borrow_mut();
                // The future holds nothing of its own: it may be made anew for every look.
                let mut buf = buf.limit(room);
                pin!(stream.read_buf(&mut buf)).as_mut().poll(cx)
            }
        };
        let read = ready!(outcome)?;
        self.read.set(self.read.get() + read as u64);
        if read == 0 && room > 0 {
            self.ended.set(true);
        }
        Poll::Ready(Ok(read))
    }

    /// Writes what the socket takes of these.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &self.transport {
            Transport::Tcp(stream) => ready!(stream.poll_write(cx, slices)),
            Transport::Tls(stream) => {
                ready!(Pin::new(&mut *stream.borrow_mut()).poll_write_vectored(cx, slices))
            }
        };
        let written = outcome?;
        self.written.set(self.written.get() + written as u64);
        if let Some(account) = &self.account {
            account.borrow_mut().wrote(written as u64);
        }
        Poll::Ready(Ok(written))
    }

    /// Sends what TLS has not sent yet.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.transport {
            Transport::Tcp(_) => Poll::Ready(Ok(())),
            Transport::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
        }
    }

    /// Says that nothing more comes from here.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.transport {
            Transport::Tcp(_) => {
                let shut = self.socket(|socket| socket.shutdown(Shutdown::Write));
                Poll::Ready(shut.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into())))
            }
            Transport::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
        }
    }

    /// Whether the peer neither closed nor said anything, as far as the event loop has heard. Costs no system call.
    pub(super) fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match &self.transport {
            Transport::Tcp(stream) => stream
                .watch()
                .is_ok_and(|it| it.poll_read_ready(&mut cx).is_pending()),
            Transport::Tls(stream) => {
                let stream = stream.borrow();
                stream.get_ref().0.poll_read_ready(&mut cx).is_pending()
            }
        }
    }

    /// The same by one look into the socket's queue.
    pub(super) fn is_silent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let looked = self.socket(|socket| socket.peek(&mut byte));
        matches!(looked, Some(Err(err)) if err.kind() == io::ErrorKind::WouldBlock)
    }

    /// From here on, closing the connection tells the peer that something is missing.
    pub(super) fn close_abruptly(&self) {
        // A socket that refuses is closed in the usual way, which some peers take for an end.
        let _ = self.socket(|socket| socket.set_linger(Some(Duration::ZERO)));
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut ahead = self.ahead.borrow_mut();
        if !ahead.is_empty() {
            let step = ahead.len().min(buf.remaining());
            buf.put_slice(&ahead[..step]);
            self.tell(&ahead[..step]);
            ahead.drain(..step);
            return Poll::Ready(Ok(()));
        }
        drop(ahead);
        let room = buf.remaining();
        let before = buf.filled().len();
        let outcome = match &self.transport {
            Transport::Tcp(stream) => poll_read_tcp(stream.watch()?, cx, buf).map_ok(drop),
            Transport::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_read(cx, buf),
        };
        ready!(outcome)?;
        let read = buf.filled().len() - before;
        self.tell(&buf.filled()[before..]);
        self.read.set(self.read.get() + read as u64);
        if read == 0 && room > 0 {
            self.ended.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(&self, cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(&self, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(&self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(&self, cx)
    }
}

/// As [`Plain::poll_read`], for readers that bring memory of their own.
fn poll_read_tcp(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let room = buf.chunk_mut().len();
        match stream.try_read_buf(buf) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Ok(read) => {
                emptied(stream, read, room);
                return Poll::Ready(Ok(read));
            }
            Err(err) => return Poll::Ready(Err(err)),
        }
    }
}
