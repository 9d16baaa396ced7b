//! One connection, one request, one answer.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Job, Pattern};

/// Longest wait for a connection, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer we take.
const ANSWER_BYTES: usize = 16 << 20;

/// Why a request got no good answer. Displayed as the short name used as key in the result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// No connection within the time.
    ConnectTimeout,
    /// The connection was refused.
    ConnectRefused,
    /// The connection failed otherwise.
    Connect,
    /// The peer reset the connection.
    Reset,
    /// No answer within the time.
    Timeout,
    /// The connection ended inside or before the answer.
    ClosedEarly,
    /// The answer's status was not 200.
    Status(u16),
    /// An answer, but not one of a pod.
    NotAPod,
    /// Any other failure of the connection.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectTimeout => f.write_str("connect_timeout"),
            Self::ConnectRefused => f.write_str("connect_refused"),
            Self::Connect => f.write_str("connect_failed"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::ClosedEarly => f.write_str("closed_early"),
            Self::Status(status) => write!(f, "status_{status}"),
            Self::NotAPod => f.write_str("not_a_pod"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof => Self::ClosedEarly,
            _ => Self::Other,
        }
    }
}

/// A pod's answer.
pub(super) struct Answer {
    /// `cluster/pod`.
    pub(super) pod: String,
    /// Whether the server keeps the connection.
    pub(super) keep_alive: bool,
}

/// An open connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(target: SocketAddr) -> Result<Self, Failure> {
        let stream =
            TcpStream::connect_timeout(&target, PATIENCE).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => Failure::ConnectTimeout,
                io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
                _ => Failure::Connect,
            })?;
        Self::over(stream).map_err(|_| Failure::Connect)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1024),
        })
    }

    /// Sends a request and reads who answered.
    pub(super) fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.stream.write_all(request)?;
        let head = self.head()?;
        if head.status != 200 {
            return Err(Failure::Status(head.status));
        }
        let body = self.body(&head)?;
        let body: serde_json::Value =
            serde_json::from_slice(&body).map_err(|_| Failure::NotAPod)?;
        let (Some(cluster), Some(pod)) = (body["cluster"].as_str(), body["pod"].as_str()) else {
            return Err(Failure::NotAPod);
        };
        Ok(Answer {
            pod: format!("{cluster}/{pod}"),
            keep_alive: head.keep_alive,
        })
    }

    /// Waits for the server to close first, so that TIME_WAIT is its own and our ports are free again.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        match self.stream.read(&mut [0; 1])? {
            0 => Ok(()),
            _ => Err(Failure::NotAPod),
        }
    }

    fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = Head::parse(&self.buffer[..end])?;
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            self.more()?;
        }
    }

    fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        match head.framing {
            Framing::Length(length) => {
                while self.buffer.len() < length {
                    self.more()?;
                }
                let rest = self.buffer.split_off(length);
                Ok(std::mem::replace(&mut self.buffer, rest))
            }
            Framing::Chunked => self.chunks(),
            Framing::UntilClose => {
                loop {
                    match self.more() {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    /// RFC 9112, section 7.1; trailers are not expected from our servers and end the connection with an error.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.buffer.windows(2).position(|two| two == b"\r\n") {
                    Some(end) => break end,
                    None => self.more()?,
                }
            };
            let size = std::str::from_utf8(&self.buffer[..end])
                .ok()
                .and_then(|text| usize::from_str_radix(text.split(';').next()?.trim(), 16).ok())
                .filter(|size| body.len() + size <= ANSWER_BYTES)
                .ok_or(io::ErrorKind::InvalidData)?;
            let whole = end + 2 + size + 2;
            while self.buffer.len() < whole {
                self.more()?;
            }
            if &self.buffer[whole - 2..whole] != b"\r\n" {
                return Err(io::ErrorKind::InvalidData.into());
            }
            body.extend_from_slice(&self.buffer[end + 2..whole - 2]);
            self.buffer.drain(..whole);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        let read = self.stream.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.buffer.len() + read > ANSWER_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(())
    }
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    keep_alive: bool,
    framing: Framing,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let text = std::str::from_utf8(bytes).map_err(|_| invalid())?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .ok_or_else(invalid)?;
        let mut head = Self {
            status,
            keep_alive: first.starts_with("HTTP/1.1"),
            framing: Framing::UntilClose,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                let length = value
                    .parse()
                    .ok()
                    .filter(|length| *length <= ANSWER_BYTES)
                    .ok_or_else(invalid)?;
                head.framing = Framing::Length(length);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
            {
                head.keep_alive = false;
            }
        }
        Ok(head)
    }
}

/// The bytes of every request of a job.
pub(super) fn request(job: &Job) -> Vec<u8> {
    let connection = match job.pattern {
        Pattern::OnePerConnection(_) => "close",
        Pattern::KeepAlive(_) => "keep-alive",
    };
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: fleetgate-lab\r\nAccept: */*\r\nConnection: {connection}\r\n",
        job.path, job.target
    );
    for (name, value) in &job.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// One GET: status and body, whatever it says.
pub(super) fn get(target: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut connection = Connection::over(TcpStream::connect_timeout(&target, PATIENCE)?)?;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    connection.stream.write_all(text.as_bytes())?;
    let head = connection.head()?;
    let body = connection.body(&head)?;
    Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
}
