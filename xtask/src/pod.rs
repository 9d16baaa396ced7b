//! A pod of the lab: an HTTP/1.1 server that says who it is. Plain threads, so that it costs little beside the gateway.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Connections served at once; each has a thread, and further ones wait in the listen queue.
const WORKERS: usize = 256;
/// Bytes of a request's head we are willing to read.
const HEAD_BYTES: u64 = 64 * 1024;
/// Bytes of a request's body we are willing to skip.
const BODY_BYTES: u64 = 1 << 30;
/// An idle connection is closed after this long.
const IDLE: Duration = Duration::from_secs(75);

/// Serves until the process ends.
///
/// Every path answers `{"cluster":..,"pod":..}`, and `x-pod: cluster/pod`; `/bytes/N` answers N bytes instead, each one more than the
/// one before it; `/headers` adds `peer`, `method`, `path` and the request's `headers`
/// as an array of `[name, value]` in the order they came.
pub fn serve(cluster: &str, pod: &str, listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen)
        .with_context(|| format!("pod {pod} cannot listen on {listen}"))?;
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let worker = thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn_scoped(scope, || {
                    loop {
                        match listener.accept() {
                            // The peer's resets and timeouts are its own affair.
                            Ok((stream, peer)) => drop(converse(stream, peer, cluster, pod)),
                            // Out of descriptors, for example: let others finish.
                            Err(_) => thread::sleep(Duration::from_millis(10)),
                        }
                    }
                });
            worker.context("cannot start a thread")?;
        }
        Ok(())
    })
}

fn converse(stream: TcpStream, peer: SocketAddr, cluster: &str, pod: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(&stream);
    while let Some(request) = Request::read(&mut reader)? {
        let mut body = json!({ "cluster": cluster, "pod": pod });
        if request.path == "/headers"
            && let Some(fields) = body.as_object_mut()
        {
            request.describe(peer, fields);
        }
        let bytes = request.path.strip_prefix("/bytes/");
        let bytes: Option<u64> = bytes.and_then(|count| count.parse().ok());
        let bytes = bytes.filter(|count| *count <= BODY_BYTES);
        let body = body.to_string();
        let length = bytes.unwrap_or(body.len() as u64);
        let connection = if request.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             X-Pod: {cluster}/{pod}\r\nConnection: {connection}\r\n\r\n",
        );
        if let Some(count) = bytes {
            (&stream).write_all(answer.as_bytes())?;
            if request.method != "HEAD" {
                pattern(&stream, count)?;
            }
        } else {
            let body = if request.method == "HEAD" { "" } else { &body };
            // One write, one segment.
            (&stream).write_all((answer + body).as_bytes())?;
        }
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// Writes 0, 1, .. 255, 0, 1 and so on.
fn pattern(mut stream: &TcpStream, mut count: u64) -> io::Result<()> {
    let block: Vec<u8> = (0..=255_u8).cycle().take(1 << 16).collect();
    while count > 0 {
        let now = count.min(block.len() as u64);
        stream.write_all(&block[..now as usize])?;
        count -= now;
    }
    Ok(())
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    keep_alive: bool,
}

impl Request {
    /// Reads one request and skips its body; `None` at the end of the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.by_ref().take(HEAD_BYTES);
        let Some(first) = line(&mut head)? else {
            return Ok(None);
        };
        let mut words = first.split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(target), Some(version)) = (method, target, version) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut headers = Vec::new();
        loop {
            match line(&mut head)? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(text) if text.is_empty() => break,
                Some(text) => {
                    let (name, value) = text.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
                    headers.push((name.to_owned(), value.trim().to_owned()));
                }
            }
        }
        let value = |wanted: &str| {
            headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.as_str())
        };
        let close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let chunked = value("transfer-encoding").is_some();
        let length = match value("content-length").map(str::parse) {
            None => 0,
            Some(Ok(length)) if length <= BODY_BYTES => length,
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        if chunked {
            skip_chunks(reader)?;
        } else {
            skip(reader, length)?;
        }
        let keep_alive = !close && version == "HTTP/1.1";
        let (method, path) = (
            method.to_owned(),
            target.split('?').next().unwrap_or(target).to_owned(),
        );
        Ok(Some(Self {
            method,
            path,
            headers,
            keep_alive,
        }))
    }

    fn describe(&self, peer: SocketAddr, fields: &mut Map<String, Value>) {
        fields.insert("peer".into(), json!(peer));
        fields.insert("method".into(), json!(self.method));
        fields.insert("path".into(), json!(self.path));
        fields.insert("headers".into(), json!(self.headers));
    }
}

/// One line without its end; `None` when the connection ended before it.
fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Ok(None);
    }
    match text.strip_suffix("\r\n") {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn skip(reader: &mut impl BufRead, bytes: u64) -> io::Result<()> {
    if io::copy(&mut reader.by_ref().take(bytes), &mut io::sink())? < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// RFC 9112, section 7.1: size in hexadecimal, data, CRLF; size 0, trailers, CRLF.
fn skip_chunks(reader: &mut impl BufRead) -> io::Result<()> {
    let mut budget = BODY_BYTES;
    loop {
        let size =
            line(&mut reader.by_ref().take(HEAD_BYTES))?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        budget = budget.checked_sub(size).ok_or(io::ErrorKind::InvalidData)?;
        if size > 0 {
            skip(reader, size)?;
        }
        loop {
            let rest =
                line(&mut reader.by_ref().take(HEAD_BYTES))?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if size > 0 || rest.is_empty() {
                break;
            }
        }
        if size == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Option<Request>> {
        Request::read(&mut text.as_bytes())
    }

    #[test]
    fn http_1_1_connections_stay_open_unless_asked_to_close() {
        let open = read("GET /headers?a=b HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("valid")
            .expect("a request");
        assert!(open.keep_alive);
        assert_eq!(open.path, "/headers");
        let close = read("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n")
            .expect("valid")
            .expect("a request");
        assert!(!close.keep_alive);
        assert!(
            !read("GET / HTTP/1.0\r\n\r\n")
                .expect("valid")
                .expect("a request")
                .keep_alive
        );
    }

    #[test]
    fn bodies_are_skipped_so_that_the_next_request_is_found() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
                    POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
                    GET /last HTTP/1.1\r\n\r\n";
        let mut reader = text.as_bytes();
        let mut paths = Vec::new();
        while let Some(request) = Request::read(&mut reader).expect("valid") {
            paths.push(request.path);
        }
        assert_eq!(paths, ["/", "/", "/last"]);
    }

    #[test]
    fn a_broken_head_is_an_error_and_silence_is_an_end() {
        assert!(read("").expect("an end").is_none());
        assert!(read("GET\r\n\r\n").is_err());
        assert!(read("GET / HTTP/1.1\r\nno colon\r\n\r\n").is_err());
        assert!(read("GET / HTTP/1.1\r\nHost: x\r\n").is_err());
    }
}
