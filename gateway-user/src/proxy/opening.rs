//! What is read of a client's connection before it is served: the PROXY header of a load balancer in front of us, then,
//! where TLS of some hosts goes on to pods, the name that a ClientHello asks for.
//!
//! Bytes are looked at where they lie, in the socket, and taken only when it is known how many are ours: whoever serves
//! the connection then begins with the client's first byte.

use std::{io, rc::Rc, sync::Arc};

use tokio::{
    io::{AsyncReadExt, Interest},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    downstream::{self, Downstream},
    passthrough::{self, Asked},
    reason::Reason,
    stats::ConnectionCount,
    table::Routes,
    wire::{
        proxy_protocol::{self, Header},
        sni::{self, Hello},
    },
    worker::Worker,
};

/// Bytes looked at first; most openings are shorter.
const LOOK_BYTES: usize = 1024;

/// Reads what comes first, then serves the connection to its end.
pub(super) async fn open(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    mut down: Downstream,
    routes: Arc<Routes>,
    count: ConnectionCount,
) {
    let until = Instant::now() + worker.limits.head_timeout;
    if routes.announces(down.client.ip()) {
        match timeout_at(until, announced(&mut stream)).await {
            // Without addresses (LOCAL: the load balancer itself, to see whether we live) the peer is the client.
            Ok(Ok(header)) => down.client = header.source.unwrap_or(down.peer),
            Ok(Err(NoHeader::Left)) => return,
            Ok(Err(NoHeader::Bad(why))) => {
                worker.stats.reason(Reason::BadProxyHeader);
                tracing::debug!(peer = %down.peer, why, "a connection without a PROXY header was closed");
                return;
            }
            Err(_) => return worker.stats.reason(Reason::RequestTimeout),
        }
    }
    if !routes.passthrough.is_empty() {
        let until = Instant::now() + worker.limits.head_timeout;
        let hello = match timeout_at(until, look(&stream, hello)).await {
            Ok(Ok(Some(hello))) => hello,
            Ok(Ok(None) | Err(_)) => return worker.stats.reason(Reason::HandshakeFailed),
            Err(_) => return worker.stats.reason(Reason::RequestTimeout),
        };
        // What is served now counts, not what was when the client connected.
        let current = worker.current();
        let routes = current.table.any(down.local);
        if let Some(routes) = routes
            && let Some(sni) = hello.sni
            && let Some(index) = routes.passthrough.find(&sni)
            && let Some(group) = worker.group(&current, index)
        {
            let listener = worker.listener(&current, down.local, &routes.listener);
            let asked = Asked {
                sni: &sni,
                group,
                listener,
            };
            return passthrough::carry(&worker, stream, &down, asked).await;
        }
    }
    downstream::serve(worker, stream, down, &routes, count).await;
}

/// A ClientHello; one without a name for what is none, which whoever ends TLS is to judge.
fn hello(bytes: &[u8]) -> Option<Hello> {
    match sni::parse(bytes) {
        sni::Step::NeedMore => None,
        sni::Step::Hello(hello) => Some(hello),
        sni::Step::NotTls | sni::Step::Malformed(_) => Some(Hello::default()),
    }
}

/// Why there is no PROXY header.
#[derive(Debug, Eq, PartialEq)]
enum NoHeader {
    /// The peer left without a word, as probes of load balancers do.
    Left,
    /// It is cut off, malformed or missing.
    Bad(String),
}

/// Takes the PROXY header at the start of a connection.
async fn announced(stream: &mut TcpStream) -> Result<Header, NoHeader> {
    let looked = look(stream, |bytes| match proxy_protocol::parse(bytes) {
        Ok(proxy_protocol::Step::NeedMore) => None,
        // Section 2: "The receiver MUST NOT try to guess whether the header is present or not".
        Ok(proxy_protocol::Step::NotProxy) => Some(Err("it has none".to_owned())),
        Ok(proxy_protocol::Step::Header(header)) => Some(Ok(header)),
        Err(err) => Some(Err(err.to_string())),
    });
    let header = match looked.await {
        Ok(Some(read)) => read.map_err(NoHeader::Bad)?,
        Ok(None) => return Err(NoHeader::Bad("it is cut off".to_owned())),
        Err(_) => return Err(NoHeader::Left),
    };
    // All of it has arrived.
    let mut taken = vec![0; header.length];
    let read = stream.read_exact(&mut taken).await;
    read.map_err(|_| NoHeader::Left)?;
    Ok(header)
}

/// Looks at the first bytes of a connection, without taking them, until `read` makes something of all that arrived so
/// far. `Ok(None)`: the peer ended before. It fails where the peer ended or reset without a byte.
///
/// `read` has to end it after a bounded number of bytes.
async fn look<T>(
    stream: &TcpStream,
    mut read: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut buffer = vec![0; LOOK_BYTES];
    loop {
        // What came before the end is there when the end is.
        let ended = stream.ready(Interest::READABLE).await?.is_read_closed();
        let arrived = stream.peek(&mut buffer).await?;
        if arrived == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(found) = read(&buffer[..arrived]) {
            return Ok(Some(found));
        }
        if arrived == buffer.len() {
            buffer.resize(2 * arrived, 0);
        } else if ended {
            return Ok(None);
        } else {
            // The events are edge-triggered: what comes next is announced anew, though these bytes still lie there.
            let looked = || Err(io::ErrorKind::WouldBlock.into());
            let _: io::Result<()> = stream.try_io(Interest::READABLE, looked);
        }
    }
}
