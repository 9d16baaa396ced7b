//! Memory for bytes that were read and not yet handed on. A connection that waits for a request has none.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::io::Io;

/// A buffer to begin with, and one for a body that fills those.
const SMALL_BYTES: usize = 32 * 1024;
const LARGE_BYTES: usize = 128 * 1024;
/// Buffers kept per worker.
const SMALL_KEPT: usize = 256;
const LARGE_KEPT: usize = 16;

/// Memory of one worker that is not in use.
#[derive(Debug, Default)]
pub(super) struct Spare {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

impl Spare {
    fn take(&self, bytes: usize) -> Vec<u8> {
        let (kept, size) = match bytes {
            0..=SMALL_BYTES => (&self.small, SMALL_BYTES),
            _ => (&self.large, LARGE_BYTES),
        };
        let spare = kept.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(size))
    }

    fn put(&self, mut memory: Vec<u8>) {
        memory.clear();
        let (kept, most) = match memory.capacity() {
            SMALL_BYTES => (&self.small, SMALL_KEPT),
            LARGE_BYTES => (&self.large, LARGE_KEPT),
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < most {
            kept.push(memory);
        }
    }
}

/// Bytes of one direction of a connection.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    at: usize,
    /// The last read filled all there was: more is on its way.
    full: bool,
    spare: Rc<Spare>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.spare.put(std::mem::take(&mut self.memory));
    }
}

impl Buffer {
    pub(super) fn new(spare: &Rc<Spare>) -> Self {
        Self {
            memory: Vec::new(),
            at: 0,
            full: false,
            spare: Rc::clone(spare),
        }
    }

    /// What was read and not consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.at..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.memory.len()
    }

    /// Forgets bytes at the front.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.memory.len());
        if self.is_empty() {
            self.memory.clear();
            self.at = 0;
        }
    }

    /// Gives memory back that holds nothing.
    pub(super) fn release(&mut self) {
        if self.is_empty() && self.memory.capacity() > 0 {
            self.spare.put(std::mem::take(&mut self.memory));
            self.at = 0;
        }
        self.full = false;
    }

    /// Reads once. `Ready(Ok(0))` is the end. `expected` bytes are known to come.
    pub(super) fn poll_fill(
        &mut self,
        io: &Io,
        cx: &mut Context<'_>,
        expected: u64,
    ) -> Poll<io::Result<usize>> {
        if self.memory.len() == self.memory.capacity() {
            self.make_room(expected);
        }
        let outcome = io.poll_read(cx, &mut self.memory);
        if outcome.is_pending() && self.memory.is_empty() {
            self.release();
        }
        let read = ready!(outcome)?;
        self.full = self.memory.len() == self.memory.capacity();
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self, expected: u64) {
        let large = self.full || expected > SMALL_BYTES as u64;
        let wanted = if large { LARGE_BYTES } else { SMALL_BYTES };
        let held = self.memory.len() - self.at;
        if held == 0 {
            if self.memory.capacity() < wanted {
                self.spare.put(std::mem::take(&mut self.memory));
                self.memory = self.spare.take(wanted);
            }
            self.at = 0;
        } else if self.at > 0 && held <= self.memory.capacity() / 2 {
            self.memory.drain(..self.at);
            self.at = 0;
        } else {
            let mut larger = self.spare.take((self.memory.capacity() * 2).max(wanted));
            // One that is no larger than this cannot come: heads end at 96 KiB, bodies are taken as they come.
            larger.reserve(held + 1);
            larger.extend_from_slice(&self.memory[self.at..]);
            self.spare.put(std::mem::replace(&mut self.memory, larger));
            self.at = 0;
        }
    }
}
