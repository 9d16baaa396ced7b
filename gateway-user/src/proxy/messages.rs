//! Memory for requests and responses: taken for an exchange, given back behind it.

use std::cell::RefCell;

use super::message::{Request, Response};

/// Pairs kept per worker.
const KEPT: usize = 128;

/// A request and its response: boxed, because they move with every exchange and are large.
pub(super) type Pair = Box<(Request, Response)>;

/// Messages of one worker that are not in use.
#[derive(Debug, Default)]
pub(super) struct Messages(RefCell<Vec<Pair>>);

impl Messages {
    /// An empty request and an empty response.
    pub(super) fn take(&self) -> Pair {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put(&self, mut messages: Pair) {
        messages.0.clear();
        messages.1.clear();
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(messages);
        }
    }
}
