//! Bodies on their way through: streamed, never collected, and never completed unless they were complete.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    attempt::Held,
    fields::Fields,
    gzip::Encoder,
    h1::{Sink, Source, source::Fault},
    http2::{Receiving, Sending},
    io::Io,
    meter::Meter,
    mirror::Tee,
};

/// A body that comes in, of a request or of an answer.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    H1(Source<'a>),
    /// Boxed: it is the larger by far.
    H2(Box<Receiving>),
}

/// A message that goes out.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) channel: Channel<'a>,
    /// Its body is compressed.
    pub(super) gzip: Option<Box<Encoder>>,
}

/// What a message goes out by.
#[derive(Debug)]
pub(super) enum Channel<'a> {
    H1(Sink<'a>),
    H2(Sending),
}

/// How much of a message its receiver has taken.
#[derive(Debug)]
pub(super) enum Taken<'a> {
    H1(&'a Io),
    H2(Sending),
}

impl Taken<'_> {
    /// Bytes so far, counted from some point before the message.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::H1(io) => io.written(),
            Self::H2(stream) => stream.taken(),
        }
    }
}

/// Why a body did not get through.
#[derive(Debug)]
pub(super) enum Break {
    /// The side it came from.
    Read(Fault),
    /// The side it went to.
    Write,
}

impl Incoming<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        match self {
            Self::H1(source) => source.poll(cx),
            Self::H2(stream) => stream.poll(cx),
        }
    }

    /// Takes the next step, if no byte is needed for it that has not arrived.
    async fn at_hand(&mut self) -> Option<Result<usize, Fault>> {
        let polled = poll_fn(|cx| Poll::Ready(self.poll(cx))).await;
        match polled {
            Poll::Ready(step) => Some(step),
            Poll::Pending => None,
        }
    }

    /// Takes the next step: how many bytes of data are there, 0 at the end.
    pub(super) async fn step(&mut self) -> Result<usize, Fault> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The data of the last step.
    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::H1(source) => source.data(),
            Self::H2(stream) => stream.data(),
        }
    }

    /// The same, to be kept; of HTTP/2 it is not copied.
    fn piece(&self) -> Bytes {
        match self {
            Self::H1(source) => Bytes::copy_from_slice(source.data()),
            Self::H2(stream) => stream.piece(),
        }
    }

    /// Fields behind the body, once it has ended.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::H1(source) => source.trailers(),
            Self::H2(stream) => stream.trailers(),
        }
    }

    /// What comes behind it does not wait for its end.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// Nobody would hear yet that the sender leaves.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::H1(source) if source.is_fresh())
    }

    /// Waits until the sender leaves.
    pub(super) async fn left(&mut self) {
        match self {
            Self::H1(source) => source.left().await,
            Self::H2(stream) => stream.left().await,
        }
    }
}

impl<'a> Outgoing<'a> {
    pub(super) fn h1(sink: Sink<'a>) -> Self {
        Self {
            channel: Channel::H1(sink),
            gzip: None,
        }
    }

    pub(super) fn h2(stream: Sending) -> Self {
        Self {
            channel: Channel::H2(stream),
            gzip: None,
        }
    }

    /// Tells how much is taken while the message is written.
    pub(super) fn taken(&self) -> Taken<'a> {
        match &self.channel {
            Channel::H1(sink) => Taken::H1(sink.io()),
            Channel::H2(stream) => Taken::H2(stream.clone()),
        }
    }

    pub(super) async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.gzip {
            None => self.channel.data(data).await,
            Some(encoder) => {
                let packed = encoder.data(data)?;
                self.channel.data(&packed).await
            }
        }
    }

    /// Writes what is held.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if let Some(encoder) = &mut self.gzip {
            let packed = encoder.flush()?;
            self.channel.data(&packed).await?;
        }
        self.channel.flush().await
    }

    /// The message is complete.
    pub(super) async fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        if let Some(encoder) = &mut self.gzip {
            let packed = encoder.end()?;
            self.channel.data(&packed).await?;
        }
        self.channel.end(trailers).await
    }
}

impl Channel<'_> {
    async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::H1(sink) => sink.data(data).await,
            Self::H2(stream) => stream.data(data).await,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::H1(sink) => sink.flush().await,
            // The connection's own task writes.
            Self::H2(_) => Ok(()),
        }
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        match self {
            Self::H1(sink) => sink.end(trailers).await,
            Self::H2(stream) => stream.end(trailers),
        }
    }
}

/// Carries a body to its end. Nothing that is at hand waits for what is not. `waits` is told before a wait for more,
/// `came` with every piece.
async fn carry(
    from: &mut Incoming<'_>,
    to: &mut Outgoing<'_>,
    waits: impl Fn(),
    mut came: impl FnMut(&Incoming<'_>),
) -> Result<(), Break> {
    loop {
        let step = match from.at_hand().await {
            Some(step) => step,
            None => {
                to.flush().await.map_err(|_| Break::Write)?;
                waits();
                from.step().await
            }
        };
        match step.map_err(Break::Read)? {
            0 => break,
            _ => {
                came(from);
                to.data(from.data()).await.map_err(|_| Break::Write)?;
            }
        }
    }
    to.end(from.trailers()).await.map_err(|_| Break::Write)
}

/// Carries the body of an answer to its end.
/// `bytes` counts it; `meter` is told whom it waits for, without a look at the clock.
pub(super) async fn pump(
    from: &mut Incoming<'_>,
    to: &mut Outgoing<'_>,
    bytes: &Cell<u64>,
    meter: &Meter,
) -> Result<(), Break> {
    let came = |from: &Incoming<'_>| {
        bytes.set(bytes.get() + from.data().len() as u64);
        meter.hand(true);
    };
    carry(from, to, || meter.hand(false), came).await
}

/// The same for the body of a request, whose pace is judged; `tee` gets a copy. What is in `held` was sent to another
/// backend and goes first; what comes is held, too, until there is an answer.
pub(super) async fn upload(
    from: &mut Incoming<'_>,
    to: &mut Outgoing<'_>,
    meter: &Meter,
    mut tee: Option<&mut Tee>,
    mut held: Option<&mut Held>,
) -> Result<(), Break> {
    if let Some(held) = held.as_ref().filter(|it| it.bytes() > 0) {
        meter.feed(Instant::now(), held.bytes());
        for piece in held.pieces() {
            to.data(piece).await.map_err(|_| Break::Write)?;
        }
    }
    let waits = || meter.starve(Instant::now());
    let came = |from: &Incoming<'_>| {
        let data = from.data();
        meter.feed(Instant::now(), data.len());
        match &mut held {
            Some(held) if meter.is_answered() => held.drop(),
            Some(held) => held.keep(|| from.piece(), data.len()),
            None => {}
        }
        if let Some(tee) = &mut tee {
            tee.data(data);
        }
    };
    carry(from, to, waits, came).await?;
    if let Some(tee) = tee {
        tee.end();
    }
    meter.upload_done(Instant::now());
    Ok(())
}
