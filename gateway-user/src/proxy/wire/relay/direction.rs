//! One direction of a relay.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    RelayStream,
    pipes::{Lease, Pipes},
};

/// A direction is spliced once it has moved this much: below, a pipe costs more than it saves.
pub(super) const SPLICE_AFTER: u64 = 64 * 1024;
/// Buffer of a direction that has moved little, and of one that has moved more and cannot be spliced.
const BUFFER_BYTES: [usize; 2] = [8 * 1024, 64 * 1024];

/// The stream that broke.
#[derive(Debug)]
pub(super) enum Broken {
    /// Where bytes come from.
    Read(io::Error),
    /// Where they go to.
    Write(io::Error),
}

/// Bytes read and not yet written, and how far this is.
#[derive(Debug)]
pub(super) struct Direction<'a> {
    early: &'a [u8],
    buffer: Vec<u8>,
    /// What of the buffer is to be written.
    filled: Range<usize>,
    /// A pipe that holds bytes.
    lease: Option<Lease<'a>>,
    pipes: &'a Pipes,
    /// The kernel has not refused to splice these sockets.
    splices: bool,
    /// Written, and maybe held back by the stream.
    unflushed: bool,
    moved: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// The source has ended, the destination is to be told.
    Ending,
    Done,
}

impl<'a> Direction<'a> {
    pub(super) fn new(early: &'a [u8], pipes: &'a Pipes) -> Self {
        Self {
            early,
            buffer: Vec::new(),
            filled: 0..0,
            lease: None,
            pipes,
            splices: true,
            unflushed: false,
            moved: 0,
            phase: Phase::Open,
        }
    }

    /// Bytes that the destination has taken.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether all that was read was written.
    pub(super) fn holds_nothing(&self) -> bool {
        self.early.is_empty() && self.filled.is_empty() && self.lease.is_none()
    }

    /// Moves what can be moved. Ready when the source has ended and the destination knows; after a failure to write
    /// this direction is over, and so it stays.
    pub(super) fn poll<R: RelayStream, W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Broken>> {
        if self.phase == Phase::Done {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(self.poll_open(cx, from, to));
        self.phase = Phase::Done;
        Poll::Ready(result)
    }

    fn poll_open<R: RelayStream, W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_write(cx, to)).map_err(Broken::Write)?;
            if self.phase != Phase::Open {
                return Pin::new(to).poll_shutdown(cx).map_err(Broken::Write);
            }
            match self.poll_read(cx, from, to) {
                Poll::Ready(Ok(0)) => self.phase = Phase::Ending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(Broken::Read(cause))),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(Broken::Write)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes all that is held: what came early, then what was read.
    fn poll_write<W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.early.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, self.early))?;
            self.early = self.early.get(written..).unwrap_or_default();
            self.wrote(written)?;
        }
        while !self.filled.is_empty() {
            let bytes = &self.buffer[self.filled.clone()];
            let written = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
            self.filled.start += written;
            self.wrote(written)?;
        }
        while let Some(lease) = &mut self.lease {
            let socket = to.plain().ok_or(io::ErrorKind::Unsupported)?;
            let written = ready!(poll_io(
                cx,
                socket,
                Interest::WRITABLE,
                TcpStream::poll_write_ready,
                || lease.drain(socket)
            ))?;
            if lease.held() == 0 {
                self.lease = None;
            }
            self.wrote(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.moved += bytes as u64;
        self.unflushed = true;
        Ok(())
    }

    /// Reads into the pipe or the buffer, both of which are empty; 0 at the end.
    fn poll_read<R: RelayStream, W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &W,
    ) -> Poll<io::Result<usize>> {
        if let Some(socket) = from.plain() {
            if socket.poll_read_ready(cx)?.is_pending() {
                self.buffer = Vec::new();
                return Poll::Pending;
            }
            if to.plain().is_some()
                && self.splices
                && self.moved >= SPLICE_AFTER
                && let Some(lease) = self.pipes.lease()
            {
                self.buffer = Vec::new();
                match ready!(self.poll_splice(cx, socket, lease)) {
                    // Sockets of a kind that the kernel does not splice.
                    Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => {
                        self.splices = false;
                    }
                    result => return Poll::Ready(result),
                }
            }
        }
        let bytes = BUFFER_BYTES[usize::from(self.moved >= SPLICE_AFTER)];
        if self.buffer.len() < bytes {
            self.buffer = vec![0; bytes];
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        self.filled = 0..read;
        Poll::Ready(Ok(read))
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        mut lease: Lease<'a>,
    ) -> Poll<io::Result<usize>> {
        let read = ready!(poll_io(
            cx,
            from,
            Interest::READABLE,
            TcpStream::poll_read_ready,
            || lease.fill(from)
        ))?;
        if read > 0 {
            self.lease = Some(lease);
        }
        Poll::Ready(Ok(read))
    }
}

/// Waits until a socket is ready and asks the kernel, until it does not answer that it is not.
fn poll_io(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    interest: Interest,
    ready: impl Fn(&TcpStream, &mut Context<'_>) -> Poll<io::Result<()>>,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(ready(socket, cx))?;
        match socket.try_io(interest, &mut call) {
            Err(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            result => return Poll::Ready(result),
        }
    }
}
