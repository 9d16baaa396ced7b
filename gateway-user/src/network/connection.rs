//! The connection for requests: each answer is waited for a bounded time, and a connection that
//! fell silent or ended is replaced at the next request.

use std::{
    fmt,
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rtnetlink::{Handle, new_connection};
use tokio::{task::JoinHandle, time::timeout};

/// rtnetlink did not answer as expected.
#[derive(Debug)]
pub struct Error {
    what: String,
    cause: String,
}

impl Error {
    /// `what` could not be read because of `cause`.
    pub(super) fn new(what: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.what, self.cause)
    }
}

impl std::error::Error for Error {}

/// An answer takes at most this long; the kernel needs less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// The connection for requests.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<Option<Connection>>);

#[derive(Debug)]
struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Its handles may live on in requests that nobody waits for.
        self.task.abort();
    }
}

impl Requests {
    /// A handle of the connection, made anew where there is none that works. Its task runs on the
    /// current tokio runtime.
    pub(super) fn handle(&self) -> Result<Handle, Error> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = slot.as_ref().filter(|c| !c.task.is_finished()) {
            return Ok(connection.handle.clone());
        }
        // Nothing unsolicited comes here: the connection joined no group.
        let (connection, handle, _) =
            new_connection().map_err(|e| Error::new("the network (rtnetlink)", e))?;
        let task = tokio::spawn(connection);
        *slot = Some(Connection {
            handle: handle.clone(),
            task,
        });
        Ok(handle)
    }

    /// Waits for an answer. One that does not come takes the connection with it, so that neither
    /// its late arrival nor whatever ails the socket touches the next request. A list that ended
    /// because the connection did is no answer: it may lack what exists.
    pub(super) async fn answer<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.within(PATIENCE, what, request).await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        what: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout(patience, request).await {
            Ok(Ok(_)) if self.ended() => Err(Error::new(what, "the connection ended; asking anew")),
            Ok(answer) => answer,
            Err(_) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
                let seconds = patience.as_secs();
                Err(Error::new(
                    what,
                    format!("the kernel did not answer within {seconds} s; asking anew"),
                ))
            }
        }
    }

    fn ended(&self) -> bool {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().is_none_or(|c| c.task.is_finished())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_never_comes_is_given_up_and_the_connection_replaced() {
        let requests = Requests::default();
        requests.handle().expect("rtnetlink needs no privilege");
        let error = requests
            .within::<()>(Duration::ZERO, "links", std::future::pending())
            .await
            .expect_err("nothing answers");
        assert!(error.to_string().contains("links"), "{error}");
        assert!(requests.0.lock().expect("not poisoned").is_none());
        requests.handle().expect("connects again");
    }

    #[tokio::test]
    async fn a_connection_whose_task_ended_is_replaced() {
        let requests = Requests::default();
        requests.handle().expect("rtnetlink needs no privilege");
        if let Some(c) = requests.0.lock().expect("not poisoned").as_ref() {
            c.task.abort();
        }
        while !requests.ended() {
            tokio::task::yield_now().await;
        }
        let half = requests.answer("links", async { Ok(()) }).await;
        assert!(half.is_err(), "what came before the end may be half a list");
        requests.handle().expect("connects again");
        assert!(!requests.ended());
    }
}
