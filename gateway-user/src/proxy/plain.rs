//! A TCP connection that the event loop hears of when somebody first has to wait for it.
//!
//! A client that asks once and leaves is seldom waited for: its request is there when it is accepted, and it closes after
//! the answer. That the event loop need not know it saves two system calls and a turn.

use std::{
    cell::{OnceCell, RefCell},
    io,
    net::{self, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::{
    buffer::spare_capacity,
    net::{RecvFlags, SendFlags, SocketFlags},
};
use tokio::{io::Interest, net::TcpStream};

/// A listening socket. It is no stream, but the event loop's streams are the ones that lend their sockets to every call.
#[derive(Debug)]
pub(super) struct Listening(TcpStream);

impl Listening {
    /// `socket` does not block.
    pub(super) fn new(socket: TcpListener) -> io::Result<Self> {
        TcpStream::from_std(OwnedFd::from(socket).into()).map(Self)
    }

    /// Waits for a connection; it does not block, and the event loop has not heard of it.
    pub(super) async fn accept(&self) -> io::Result<(net::TcpStream, net::SocketAddr)> {
        let accept = || accept(self.0.as_fd());
        self.0.async_io(Interest::READABLE, accept).await
    }

    /// A connection that waits already.
    pub(super) fn try_accept(&self) -> Option<io::Result<(net::TcpStream, net::SocketAddr)>> {
        let accept = || accept(self.0.as_fd());
        match self.0.try_io(Interest::READABLE, accept) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        }
    }
}

fn accept(listener: BorrowedFd<'_>) -> io::Result<(net::TcpStream, net::SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    // A client that is gone already has no address.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket.into(), peer.try_into()?))
}

/// A connection.
#[derive(Debug)]
pub(super) struct Plain {
    /// Until it is watched.
    fresh: RefCell<Option<net::TcpStream>>,
    watched: OnceCell<TcpStream>,
}

impl From<TcpStream> for Plain {
    fn from(stream: TcpStream) -> Self {
        Self {
            fresh: RefCell::default(),
            watched: stream.into(),
        }
    }
}

/// It must not block.
impl From<net::TcpStream> for Plain {
    fn from(stream: net::TcpStream) -> Self {
        Self {
            fresh: RefCell::new(Some(stream)),
            watched: OnceCell::new(),
        }
    }
}

impl Plain {
    /// The event loop does not know it yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.watched.get().is_none()
    }

    /// Has the event loop watch it.
    pub(super) fn watch(&self) -> io::Result<&TcpStream> {
        if let Some(stream) = self.watched.get() {
            return Ok(stream);
        }
        // One that the event loop could not take is gone.
        let fresh = self.fresh.take().ok_or(io::ErrorKind::NotConnected)?;
        let stream = TcpStream::from_std(fresh)?;
        Ok(self.watched.get_or_init(|| stream))
    }

    /// Uses the socket, whoever has it.
    pub(super) fn with<T>(&self, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        match self.watched.get() {
            Some(stream) => Some(ask(stream.as_fd())),
            None => self.fresh.borrow().as_ref().map(|it| ask(it.as_fd())),
        }
    }

    /// One that is not watched may just do it: `None` if it would have to wait.
    fn at_once(
        &self,
        step: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        match self.fresh.borrow().as_ref().map(|it| step(it.as_fd())) {
            Some(Err(err)) if err.kind() == io::ErrorKind::WouldBlock => None,
            done => done,
        }
    }

    /// Reads behind what `buf` holds, into memory that it has.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if self.is_fresh()
            && let Some(outcome) = self.at_once(|fd| receive(fd, buf))
        {
            return Poll::Ready(outcome);
        }
        let stream = self.watch()?;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let room = buf.capacity() - buf.len();
            match stream.try_io(Interest::READABLE, || receive(stream.as_fd(), buf)) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Ok(read) => {
                    emptied(stream, read, room);
                    return Poll::Ready(Ok(read));
                }
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
    }

    /// Writes what the socket takes of these.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_fresh()
            && let Some(outcome) = self.at_once(|fd| send(fd, slices))
        {
            return Poll::Ready(outcome);
        }
        let stream = self.watch()?;
        loop {
            // Mostly there is room: the event loop is asked when there was none.
            match stream.try_io(Interest::WRITABLE, || send(stream.as_fd(), slices)) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_write_ready(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

/// The events are edge-triggered and this thread also runs the event loop, so whatever comes after a short read is
/// announced anew. That a socket was just emptied is noted instead of asked, which saves one system call per message.
pub(super) fn emptied(stream: &TcpStream, read: usize, room: usize) {
    if read > 0 && read < room {
        let emptied = || Err(io::ErrorKind::WouldBlock.into());
        let _: io::Result<()> = stream.try_io(Interest::READABLE, emptied);
    }
}

fn receive(socket: BorrowedFd<'_>, buf: &mut Vec<u8>) -> io::Result<usize> {
    let (read, _) = rustix::net::recv(socket, spare_capacity(buf), RecvFlags::empty())?;
    Ok(read)
}

fn send(socket: BorrowedFd<'_>, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    Ok(match slices {
        [one] => rustix::net::send(socket, one, SendFlags::NOSIGNAL)?,
        more => rustix::io::writev(socket, more)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
        task::Waker,
    };

    use super::*;

    async fn pair() -> (Plain, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let listening = Listening::new(listener).unwrap();
        let (socket, peer) = listening.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(listening.try_accept().is_none());
        (socket.into(), client)
    }

    #[tokio::test]
    async fn a_request_that_is_there_is_read_and_answered_without_the_event_loop() {
        let (plain, mut client) = pair().await;
        client.write_all(b"ask").unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut buf = Vec::with_capacity(16);
        assert!(matches!(
            plain.poll_read(&mut cx, &mut buf),
            Poll::Ready(Ok(3))
        ));
        let wrote = plain.poll_write(
            &mut cx,
            &[io::IoSlice::new(b"an"), io::IoSlice::new(b"swer")],
        );
        assert!(matches!(wrote, Poll::Ready(Ok(6))) && plain.is_fresh());
        drop(plain);
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!((buf, said.as_str()), (b"ask".to_vec(), "answer"));
    }

    #[tokio::test]
    async fn what_comes_late_is_waited_for() {
        let (plain, mut client) = pair().await;
        let mut buf = Vec::with_capacity(16);
        let read = poll_fn(|cx| {
            let polled = plain.poll_read(cx, &mut buf);
            if polled.is_pending() {
                client.write_all(b"late").unwrap();
            }
            polled
        });
        assert_eq!(read.await.unwrap(), 4);
        assert!(!plain.is_fresh());
        drop(client);
        assert_eq!(
            poll_fn(|cx| plain.poll_read(cx, &mut buf)).await.unwrap(),
            0
        );
    }
}
