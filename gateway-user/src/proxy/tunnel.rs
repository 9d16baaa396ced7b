//! After an upgrade both sides speak something else: bytes are carried, nothing is read into them.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    body::{self, Incoming, Outgoing},
    buffer::Buffer,
    framing::body::Body,
    h1::{Coding, Sink, Source},
    io::Io,
    upstream::Upstream,
};

/// Carries bytes until both sides are done, one breaks, or nothing has moved for `quiet`. What was read ahead goes
/// first.
pub(super) async fn carry(
    (client, from_client): (&Io, &mut Buffer),
    mut backend: Upstream,
    quiet: Duration,
) {
    let (mut to_client, mut to_backend) = (Vec::new(), Vec::new());
    let mut ends = (Body::UntilClose, Body::UntilClose);
    let up = one_way(
        Source::new(client, from_client, &mut ends.0),
        Sink::new(&backend.io, &mut to_backend),
        &backend.io,
    );
    let down = one_way(
        Source::new(&backend.io, &mut backend.buffer, &mut ends.1),
        Sink::new(client, &mut to_client),
        client,
    );
    let (mut up, mut down) = (pin!(up), pin!(down));
    let mut done = (false, false);
    let mut sleep = pin!(tokio::time::sleep(quiet));
    let moved = || client.read() + client.written() + backend.io.read() + backend.io.written();
    let mut before = moved();
    poll_fn(|cx| {
        if !done.0
            && let Poll::Ready(whole) = up.as_mut().poll(cx)
        {
            done.0 = true;
            if !whole {
                return Poll::Ready(());
            }
        }
        if !done.1
            && let Poll::Ready(whole) = down.as_mut().poll(cx)
        {
            done.1 = true;
            if !whole {
                return Poll::Ready(());
            }
        }
        if done == (true, true) {
            return Poll::Ready(());
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            let now = moved();
            if now == before {
                return Poll::Ready(());
            }
            before = now;
            sleep.as_mut().reset(Instant::now() + quiet);
        }
    })
    .await;
}

/// Whether everything came through, and the end of it too.
async fn one_way(from: Source<'_>, mut to: Sink<'_>, target: &Io) -> bool {
    to.head(Coding::Plain, |_| {});
    let (mut from, mut to) = (Incoming::H1(from), Outgoing::h1(to));
    body::pump(&mut from, &mut to).await.is_ok()
        && poll_fn(|cx| target.poll_shutdown(cx)).await.is_ok()
}
