//! Connections to backends: opened, kept for the next request, and looked at before they are used again.

mod budget;
pub(super) mod shared;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use tokio_rustls::TlsConnector;

use self::budget::{Budget, Grant};
pub(super) use self::budget::{Most, Seat};
use super::{
    buffer::{Buffer, Spare},
    io::Io,
    wire::proxy_protocol::write_v2,
};
use crate::tls::{self, client::Spoken};

/// How connections to backends are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    pub(super) idle_per_backend: usize,
    pub(super) idle_timeout: Duration,
    /// Of one worker.
    pub(super) most: Most,
}

/// Where a connection leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// It goes through TLS.
    pub(super) tls: bool,
    /// The client, and what it connected to: told to the backend in a PROXY header.
    pub(super) client: Option<(SocketAddr, SocketAddr)>,
    /// The client had several requests under way at once on its connection.
    pub(super) beside: bool,
}

impl From<(SocketAddr, bool)> for Place {
    fn from((address, tls): (SocketAddr, bool)) -> Self {
        Self {
            address,
            tls,
            client: None,
            beside: false,
        }
    }
}

impl Place {
    /// A new TCP connection; what names the client is written.
    pub(super) async fn dial(self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        if let Some((client, asked)) = self.client {
            let mut header = Vec::new();
            write_v2(client, asked, &mut header);
            stream.write_all(&header).await?;
        }
        Ok(stream)
    }
}

/// One connection to a backend, free to take a request.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) io: Io,
    pub(super) buffer: Buffer,
    /// What is to be written first.
    pub(super) out: Vec<u8>,
    pub(super) address: SocketAddr,
    /// It goes through TLS.
    pub(super) tls: bool,
    /// It has served a request before.
    pub(super) reused: bool,
    /// The backend takes all of it for one client's.
    pub(super) named: bool,
    /// It counts as long as it is there.
    pub(super) seat: Seat,
}

/// Connections that wait for a request, with the time since when.
type Stack = Vec<(Upstream, Instant)>;

/// Idle connections of one worker, by backend; the one used last is taken first.
#[derive(Debug)]
pub(super) struct Pool {
    idle: RefCell<HashMap<(SocketAddr, bool), Stack, RandomState>>,
    /// Sessions with backends are resumed from it.
    tls: Arc<rustls::ClientConfig>,
    limits: PoolLimits,
    spare: Rc<Spare>,
    budget: Rc<Budget>,
    closed: Cell<bool>,
}

impl Pool {
    pub(super) fn new(limits: PoolLimits, spare: &Rc<Spare>) -> Self {
        Self {
            idle: RefCell::default(),
            tls: tls::client::backends(Spoken::Http1),
            limits,
            spare: Rc::clone(spare),
            budget: Budget::new(limits.most),
            closed: Cell::new(false),
        }
    }

    /// A connection that was alive a moment ago; `certain` looks into the socket too. None that names a client: those
    /// are never kept.
    pub(super) fn take(
        &self,
        place: impl Into<Place>,
        now: Instant,
        certain: bool,
    ) -> Option<Upstream> {
        let Place {
            address,
            tls,
            client,
            beside,
        } = place.into();
        if client.is_some() || !self.budget.admits((address, tls), beside) {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&(address, tls))?;
        while let Some((upstream, since)) = stack.pop() {
            let fresh = now.saturating_duration_since(since) < self.limits.idle_timeout;
            if !fresh {
                // Those below are older still.
                stack.clear();
                return None;
            }
            if upstream.io.is_quiet() && (!certain || upstream.io.is_silent()) {
                upstream.seat.used(beside);
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange is complete on both sides. One that has more to say than was asked for is
    /// out of step.
    pub(super) fn put(&self, mut upstream: Upstream, now: Instant) {
        if self.closed.get() || upstream.named || !upstream.buffer.is_empty() || upstream.io.ended()
        {
            return;
        }
        upstream.buffer.release();
        upstream.reused = true;
        upstream.seat.used(false);
        let Some(upstream) = self.budget.hand_over(upstream) else {
            return;
        };
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry((upstream.address, upstream.tls)).or_default();
        if stack.len() < self.limits.idle_per_backend {
            stack.push((upstream, now));
        }
        drop(idle);
        self.budget.seat_next();
    }

    /// Drops what is too old or closed.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, stack| {
            stack.retain(|(upstream, since)| {
                upstream.io.is_quiet()
                    && now.saturating_duration_since(*since) < self.limits.idle_timeout
            });
            !stack.is_empty()
        });
    }

    /// Closes every idle connection and keeps none from now on.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
    }

    /// A place for one connection more, or one that became free while waiting for it, by now or within `patience`.
    /// It fails with `ResourceBusy`.
    async fn grant(&self, place: Place, patience: Duration) -> io::Result<Grant> {
        let key = (place.address, place.tls);
        loop {
            if let Some(seat) = self.budget.claim(key, place.beside) {
                return Ok(Grant::Seat(seat));
            }
            // Connections of other backends that nobody uses make room.
            if !(self.budget.is_spent(key, place.beside) && self.close_one()) {
                break;
            }
        }
        let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
        let queued = self.budget.queue(key, place.client.is_some(), place.beside);
        let grant = tokio::time::timeout(patience, queued.ok_or_else(busy)?).await;
        grant.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// Closes a connection that waits for a request; false if there is none.
    fn close_one(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.values_mut().find(|it| !it.is_empty());
        stack.is_some_and(|it| it.pop().is_some())
    }

    /// A place for a connection of which this pool learns nothing more.
    pub(super) async fn seat(&self, place: Place, patience: Duration) -> io::Result<Seat> {
        match self.grant(place, patience).await? {
            Grant::Seat(seat) => Ok(seat),
            Grant::Upstream(upstream) => Ok(upstream.seat),
        }
    }

    /// Opens a connection, or yields one that became free while waiting for a place.
    pub(super) async fn connect(
        &self,
        place: impl Into<Place>,
        patience: Duration,
    ) -> io::Result<Upstream> {
        let place = place.into();
        let Place {
            address,
            tls,
            client,
            ..
        } = place;
        let seat = match self.grant(place, patience).await? {
            Grant::Seat(seat) => seat,
            Grant::Upstream(upstream) => return Ok(*upstream),
        };
        let connect = async {
            let stream = place.dial().await?;
            if !tls {
                return Ok(Io::plain(stream));
            }
            // A connection serves requests for any host, so it asks for none.
            let name = tls::client::server_name(None, address.ip());
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let stream = connector.connect(name, stream).await?;
            Ok::<_, io::Error>(Io::tls(stream.into()))
        };
        let io = tokio::time::timeout(patience, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Upstream {
            io,
            buffer: Buffer::new(&self.spare),
            out: Vec::new(),
            address,
            tls,
            reused: false,
            named: client.is_some(),
            seat,
        })
    }
}
