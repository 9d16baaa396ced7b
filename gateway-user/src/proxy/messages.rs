//! Memory for requests and responses: taken for an exchange, given back behind it.

use std::cell::RefCell;

use super::message::{Request, Response};

/// Pairs kept per worker.
const KEPT: usize = 128;

/// Messages of one worker that are not in use.
#[derive(Debug, Default)]
pub(super) struct Messages(RefCell<Vec<Box<(Request, Response)>>>);

impl Messages {
    /// An empty request and an empty response.
    pub(super) fn take(&self) -> Box<(Request, Response)> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put(&self, mut messages: Box<(Request, Response)>) {
        messages.0.clear();
        messages.1.clear();
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(messages);
        }
    }
}
