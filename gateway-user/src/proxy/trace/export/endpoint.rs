//! The collector, and one request to it.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use hyper::Uri;

/// Connecting, writing and reading may each take this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read of an answer; its first line is all that matters.
const ANSWER_BYTES: u64 = 4096;
/// OTLP/HTTP's port (OpenTelemetry Protocol specification, "OTLP/HTTP Default Port").
const PORT: u16 = 4318;

/// A collector of OTLP/HTTP, without TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

/// A batch was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// No answer.
    Io(io::Error),
    /// An answer that is no success; 0 where it was not HTTP.
    Status(u16),
}

impl Refused {
    /// Whether the same request may do better later (OTLP/HTTP, "Retryable Response Codes").
    pub(super) fn passing(&self) -> bool {
        match self {
            Self::Io(_) => true,
            Self::Status(status) => matches!(status, 429 | 502..=504),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Status(0) => f.write_str("it does not speak HTTP"),
            Self::Status(status) => write!(f, "it answered {status}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Endpoint {
    /// Reads `http://HOST[:PORT][/PATH]`. As OpenTelemetry has it for a base URL, `/v1/traces` is put behind the path, unless
    /// it ends so already.
    pub fn parse(url: &str) -> Result<Self, String> {
        let example = "e.g. http://otel-collector.monitoring:4318";
        let uri: Uri = url.parse().map_err(|error| format!("{error}; {example}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("expected http://HOST:PORT, {example}"));
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let base = uri.path().trim_end_matches('/');
        let base = base.strip_suffix("/v1/traces").unwrap_or(base);
        Ok(Self {
            host: host
                .ok_or_else(|| format!("it names no host; {example}"))?
                .to_owned(),
            port: uri.port_u16().unwrap_or(PORT),
            path: format!("{base}/v1/traces"),
        })
    }

    /// Sends one JSON document. Blocks for some seconds at most, and for as long as a name takes to be looked up.
    pub(super) fn post(&self, body: &[u8]) -> Result<(), Refused> {
        match self.exchange(body).map_err(Refused::Io)? {
            200..=299 => Ok(()),
            status => Err(Refused::Status(status)),
        }
    }

    fn exchange(&self, body: &[u8]) -> io::Result<u16> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Self { host, port, path } = self;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nuser-agent: fleetgate\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = [0; 12];
        stream.take(ANSWER_BYTES).read_exact(&mut answer)?;
        Ok(status(&answer))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        // A literal IPv6 address stands in brackets in URLs only.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in (host, self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Status code of `HTTP/1.1 200`; 0 if it is none.
fn status(line: &[u8; 12]) -> u16 {
    match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', code @ ..] => {
            let code = std::str::from_utf8(code).ok();
            code.and_then(|it| it.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_url() {
        let shown = |url| Endpoint::parse(url).map(|it| it.to_string());
        assert_eq!(shown("http://c:4318").unwrap(), "http://c:4318/v1/traces");
        assert_eq!(shown("http://c/").unwrap(), "http://c:4318/v1/traces");
        assert_eq!(
            shown("http://c:1/v1/traces").unwrap(),
            "http://c:1/v1/traces"
        );
        assert_eq!(
            shown("http://[::1]:1/a/").unwrap(),
            "http://[::1]:1/a/v1/traces"
        );
        for bad in ["https://c:4318", "c:4318", "http://", "", "/v1", "grpc://c"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_http_answer_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 200"), 200);
        assert_eq!(status(b"HTTP/1.0 503"), 503);
        assert_eq!(status(b"SSH-2.0-Open"), 0);
        assert_eq!(status(b"HTTP/1.1 2x0"), 0);
    }
}
