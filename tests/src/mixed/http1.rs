//! HTTP/1.1 as both ends of a run speak it.

use std::io;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a head that are read.
const HEAD_BYTES: usize = 64 * 1024;
/// Bytes of a body that are read.
const BODY_BYTES: usize = 8 << 20;

/// A connection, and what was read ahead.
#[derive(Debug)]
pub(super) struct Conn<S> {
    io: S,
    buffer: Vec<u8>,
}

/// First line and fields of a message.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Request line or status line.
    pub(super) first: String,
    /// Names in lower case.
    fields: Vec<(String, String)>,
}

impl Head {
    /// The first value of a field.
    pub(super) fn field(&self, wanted: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the connection ends with this message.
    pub(super) fn closes(&self) -> bool {
        self.field("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("close"))
    }

    /// Status of an answer; 0 if there is none.
    pub(super) fn status(&self) -> u16 {
        let code = self.first.split(' ').nth(1);
        code.and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    fn read(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(invalid)?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Self {
            first,
            fields: fields.collect::<io::Result<_>>()?,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Nothing was read yet.
    pub(super) fn new(io: S) -> Self {
        Self {
            io,
            buffer: Vec::new(),
        }
    }

    /// Whether the other side has ended the connection, which nobody waits for anything on.
    pub(super) fn is_over(&mut self) -> bool {
        self.fill().now_or_never().is_some()
    }

    /// Whether bytes were read that belong to nothing yet.
    pub(super) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Sends it all.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// The next head; `None` if the connection ended before its first byte.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Head::read(&text).map(Some);
            }
            if self.buffer.len() > HEAD_BYTES {
                return Err(invalid());
            }
            match self.more().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return match self.buffer.is_empty() {
                        true => Ok(None),
                        false => Err(error),
                    };
                }
                other => other?,
            }
        }
    }

    /// The body that a head announces (RFC 9112 section 6.3); without `Content-Length` and chunks there is none.
    pub(super) async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if head.field("transfer-encoding").is_some() {
            return self.chunks().await;
        }
        let length = match head.field("content-length").map(str::parse) {
            None => 0,
            Some(Ok(length)) => length,
            Some(Err(_)) => return Err(invalid()),
        };
        self.take(length).await
    }

    /// RFC 9112 section 7.1, without trailers.
    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid())?;
            let chunk = self.take(size).await?;
            body.extend_from_slice(&chunk);
            if !self.line().await?.is_empty() || body.len() > BODY_BYTES {
                return Err(invalid());
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            let end = self.buffer.windows(2).position(|two| two == b"\r\n");
            if let Some(end) = end {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(text);
            }
            if self.buffer.len() > HEAD_BYTES {
                return Err(invalid());
            }
            self.more().await?;
        }
    }

    /// Just so many bytes.
    pub(super) async fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if count > BODY_BYTES {
            return Err(invalid());
        }
        while self.buffer.len() < count {
            self.more().await?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Returns when there is something to read; fails at the end of the connection.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        match self.buffer.is_empty() {
            true => self.more().await,
            false => Ok(()),
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.io.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
