//! How long the gate waits for the client.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Gate, Phase};

/// What is waited for, and after how many requests: another number is another wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// The first byte of a head; empty lines before it are none.
    Idle(u64),
    /// The rest of a head.
    Head(u64),
}

impl Gate {
    /// Whether the wait the gate is in has taken too long; otherwise the task is woken when it will have.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Wait> {
        let begun = self.exchanges.begun();
        let wait = match self.phase {
            Phase::Head(_) if !matches!(self.stash.get(self.ready..), None | Some([] | b"\r")) => {
                Wait::Head(begun)
            }
            Phase::Head(_) if !self.exchanges.in_flight() => Wait::Idle(begun),
            _ => {
                self.wait = None;
                return Poll::Pending;
            }
        };
        let deadline = match self.wait {
            Some((same, deadline)) if same == wait => deadline,
            _ => {
                let span = match wait {
                    Wait::Head(_) => self.limits.head_timeout,
                    Wait::Idle(_) => self.exchanges.idle_limit(),
                };
                let deadline = Instant::now() + span;
                self.wait = Some((wait, deadline));
                deadline
            }
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // Moving a timer costs; one that fires early is simply set again.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                self.wait = None;
                return Poll::Ready(wait);
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
