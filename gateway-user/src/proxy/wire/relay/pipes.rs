//! The pipes of one worker: taken while bytes are inside, given back empty.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

/// What a pipe is asked to hold. A user without privileges may have 64 MiB in pipes (`pipe-user-pages-soft`).
const BYTES: usize = 256 * 1024;
/// Pipes that hold less are not worth two system calls a turn: beyond its limit a user gets pipes of two pages.
const LEAST_BYTES: usize = 64 * 1024;
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A bounded number of pipes, made when they are first needed. One worker's own.
#[derive(Debug)]
pub(in crate::proxy) struct Pipes {
    empty: RefCell<Vec<Pipe>>,
    open: Cell<usize>,
    most: usize,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    bytes: usize,
}

impl Pipes {
    /// At most so many pipes, each with two open files; 0 is never to splice.
    pub(in crate::proxy) fn new(most: usize) -> Self {
        Self {
            empty: RefCell::default(),
            open: Cell::new(0),
            most,
        }
    }

    /// An empty pipe; none if all are in use or the kernel gives none (open files, pages of pipes).
    pub(super) fn lease(&self) -> Option<Lease<'_>> {
        let pipe = self.empty.borrow_mut().pop();
        let pipe = match pipe {
            Some(pipe) => pipe,
            None if self.open.get() < self.most => {
                let pipe = Pipe::new()?;
                self.open.set(self.open.get() + 1);
                pipe
            }
            None => return None,
        };
        Some(Lease {
            pipes: self,
            pipe: Some(pipe),
            held: 0,
        })
    }
}

impl Pipe {
    fn new() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Without it, a pipe is as large as it is.
        let _ = fcntl_setpipe_size(&write, BYTES);
        let bytes = fcntl_getpipe_size(&write).ok()?;
        (bytes >= LEAST_BYTES).then_some(Self { read, write, bytes })
    }
}

/// A pipe in use. Dropped empty it may be used again; with bytes inside it is closed.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pipes: &'a Pipes,
    /// `Some` until dropped.
    pipe: Option<Pipe>,
    /// Bytes inside.
    held: usize,
}

impl Lease<'_> {
    /// Bytes inside.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what has arrived on a socket into the empty pipe; 0 at the end of the stream. Since the pipe is empty,
    /// `WouldBlock` means that nothing has arrived.
    pub(super) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let filled = splice(from, None, &pipe.write, None, pipe.bytes, FLAGS)?;
        self.held += filled;
        Ok(filled)
    }

    /// Moves what is inside to a socket, as far as that takes it.
    pub(super) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let drained = splice(&pipe.read, None, to, None, self.held, FLAGS)?;
        self.held = self.held.saturating_sub(drained);
        Ok(drained)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        match self.pipe.take() {
            Some(pipe) if self.held == 0 => self.pipes.empty.borrow_mut().push(pipe),
            _ => self.pipes.open.set(self.pipes.open.get() - 1),
        }
    }
}
