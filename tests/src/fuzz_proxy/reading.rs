//! A second reading of HTTP/1.x requests: simple, on whole buffers, and written without a look at the proxy's.
//!
//! What RFC 9112 lets a recipient reject or repair is no request here. It knows nothing of targets and hosts: it may read
//! what the proxy refuses, but must read all that the proxy passes.

/// A complete request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// The method.
    pub method: Vec<u8>,
    /// The target, as it is spelled.
    pub target: Vec<u8>,
    /// The fields: name in lower case, value without blanks around.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body without its chunks.
    pub body: Vec<u8>,
    /// Major and minor version, each one digit.
    pub version: (u8, u8),
}

/// What the front of a buffer is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Front {
    /// A request, and its length.
    Request(Box<Read>, usize),
    /// The beginning of a request; whether its head is whole.
    More {
        /// The head has come, and asks to be told to continue.
        expects: bool,
    },
    /// No request.
    Bad(&'static str),
}

impl Read {
    /// All values of a field, whose name is in lower case.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = self.fields.iter().filter(move |(it, _)| it == name);
        named.map(|(_, value)| value.as_slice())
    }
}

/// All requests that these bytes begin with, until something is none.
pub fn all(bytes: &[u8]) -> Vec<Read> {
    let mut rest = bytes;
    let mut found = Vec::new();
    loop {
        // RFC 9112 section 2.2: empty lines before a request are ignored.
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        match front(rest) {
            Front::Request(read, len) => {
                found.push(*read);
                rest = &rest[len..];
            }
            Front::More { .. } | Front::Bad(_) => return found,
        }
    }
}

/// Reads what stands first.
pub fn front(bytes: &[u8]) -> Front {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Front::More { expects: false };
    };
    let mut lines = lines(&bytes[..end]).into_iter();
    let Some(mut read) = lines.next().and_then(request_line) else {
        return Front::Bad("the request line is none");
    };
    for line in lines {
        match field(line) {
            Some(field) => read.fields.push(field),
            None => return Front::Bad("a field line is none"),
        }
    }
    let body = &bytes[end + 4..];
    let lengths: Vec<_> = read.all(b"content-length").collect();
    let codings: Vec<_> = read.all(b"transfer-encoding").collect();
    let expects = read.all(b"expect").next().is_some();
    let taken = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([length], []) => match number(length, 10) {
            Some(length) if (body.len() as u64) < length => Ok(None),
            Some(length) => Ok(Some((body[..length as usize].to_vec(), length as usize))),
            None => Err("Content-Length is no number"),
        },
        ([], [coding]) if read.version == (1, 1) && coding.eq_ignore_ascii_case(b"chunked") => {
            chunks(body)
        }
        _ => Err("the framing is not one"),
    };
    match taken {
        Ok(Some((data, len))) => {
            read.body = data;
            Front::Request(Box::new(read), end + 4 + len)
        }
        Ok(None) => Front::More { expects },
        Err(why) => Front::Bad(why),
    }
}

fn request_line(line: &[u8]) -> Option<Read> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return None;
    };
    let visible = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
    let version = match *version {
        b"HTTP/1.1" => (1, 1),
        b"HTTP/1.0" => (1, 0),
        _ => return None,
    };
    (is_token(method) && visible(target)).then(|| Read {
        method: method.to_vec(),
        target: target.to_vec(),
        fields: Vec::new(),
        body: Vec::new(),
        version,
    })
}

fn field(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let clean = value
        .iter()
        .all(|byte| !byte.is_ascii_control() || *byte == b'\t');
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let first = value.iter().position(|byte| !blank(byte));
    let last = value.iter().rposition(|byte| !blank(byte));
    let value = match (first, last) {
        (Some(first), Some(last)) => value[first..=last].to_vec(),
        _ => Vec::new(),
    };
    (is_token(name) && clean).then(|| (name.to_ascii_lowercase(), value))
}

/// Data and length of a chunked body; none while it is not whole.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let mut at = 0;
    let mut data = Vec::new();
    loop {
        let Some(len) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = &bytes[at..at + len];
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let clean = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
        let size = number(digits, 16).filter(|_| line.iter().all(clean));
        let size = size.ok_or("a chunk size is none")?;
        at += len + 2;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        if (rest.len() as u64) < size.saturating_add(2) {
            return Ok(None);
        }
        let size = size as usize;
        data.extend_from_slice(&rest[..size]);
        if &rest[size..size + 2] != b"\r\n" {
            return Err("a chunk ends elsewhere");
        }
        at += size + 2;
    }
    loop {
        let Some(len) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let line = &bytes[at..at + len];
        at += len + 2;
        if line.is_empty() {
            return Ok(Some((data, at)));
        }
        field(line).ok_or("a trailer is none")?;
    }
}

fn lines(head: &[u8]) -> Vec<&[u8]> {
    let mut rest = head;
    let mut found = Vec::new();
    while let Some(at) = find(rest, b"\r\n") {
        found.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    found.push(rest);
    found
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_alphanumeric);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    u64::from_str_radix(text, radix).ok()
}

fn is_token(bytes: &[u8]) -> bool {
    let other = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|it| it.is_ascii_alphanumeric() || other(it))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_the_other() {
        let bytes = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tChunked \r\n\r\n2;x\r\nhi\r\n0\r\nX: 1\r\n\r\n\
            PUT /b HTTP/1.0\r\ncontent-length: 03\r\n\r\nabcGET /c HTTP/1.1\r\n";
        let read = all(bytes);
        let told: Vec<_> = read
            .iter()
            .map(|it| (it.target.as_slice(), it.body.as_slice()))
            .collect();
        assert_eq!(
            told,
            [(b"/a".as_slice(), b"hi".as_slice()), (b"/b", b"abc")]
        );
    }

    #[test]
    fn what_has_two_readings_has_none() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: +1",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\x0b",
            "X : a",
            "X: a\r\n b",
            "X: a\rb",
            "X: a\nb",
        ] {
            let bytes = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n");
            assert!(
                matches!(front(bytes.as_bytes()), Front::Bad(_)),
                "{fields:?}"
            );
        }
    }
}
