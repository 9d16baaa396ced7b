//! Responses compressed on their way to clients that ask for it (RFC 9110 section 8.4.1.3).

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

use super::{
    fields::Name,
    message::{Delimited, Request, Response},
};

/// Shorter bodies are not worth it.
const LEAST_BYTES: u64 = 1024;
/// Media types that compress well, and `text/`.
const TYPES: [&[u8]; 10] = [
    b"application/json",
    b"application/javascript",
    b"application/x-javascript",
    b"application/xml",
    b"application/xhtml+xml",
    b"application/rss+xml",
    b"application/atom+xml",
    b"application/wasm",
    b"application/manifest+json",
    b"image/svg+xml",
];

/// A body that is being compressed.
pub(super) struct Encoder {
    gzip: GzEncoder<Vec<u8>>,
    /// It holds data that a flush would yield.
    holds: bool,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    pub(super) fn new() -> Self {
        // The fastest level: whoever wants more has its application do it, once.
        Self {
            gzip: GzEncoder::new(Vec::new(), Compression::fast()),
            holds: false,
        }
    }

    /// Takes data; yields what is compressed so far, often nothing.
    pub(super) fn data(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        self.gzip.write_all(data)?;
        self.holds |= !data.is_empty();
        Ok(std::mem::take(self.gzip.get_mut()))
    }

    /// Yields everything that was taken in.
    pub(super) fn flush(&mut self) -> io::Result<Vec<u8>> {
        if std::mem::take(&mut self.holds) {
            self.gzip.flush()?;
        }
        Ok(std::mem::take(self.gzip.get_mut()))
    }

    /// Yields what ends the body.
    pub(super) fn end(&mut self) -> io::Result<Vec<u8>> {
        self.gzip.try_finish()?;
        Ok(std::mem::take(self.gzip.get_mut()))
    }
}

/// Decides, and says it in the head: `Some` if the body is to be compressed.
pub(super) fn begin(request: &Request, response: &mut Response) -> Option<Box<Encoder>> {
    let long = match response.body {
        Delimited::None => false,
        Delimited::Length(length) => length >= LEAST_BYTES,
        Delimited::Chunks | Delimited::End => true,
    };
    if !long || !suits(response) {
        return None;
    }
    // RFC 9110 section 12.5.5: also who did not get it compressed must know that others do.
    if !super::message::lists(response.fields.all(Name::Vary), b"accept-encoding") {
        response.fields.push_known(Name::Vary, b"Accept-Encoding");
    }
    if !accepts_gzip(request.fields.all(Name::AcceptEncoding)) {
        return None;
    }
    response.fields.remove(Name::ContentLength);
    response.fields.push_known(Name::ContentEncoding, b"gzip");
    response.body = Delimited::Chunks;
    // RFC 9110 section 8.8.1: bytes differ, so the tag is weak now.
    response.fields.rewrite(Name::Etag, |tag| {
        let weak = tag.starts_with(b"W/");
        Some(if weak {
            tag.to_vec()
        } else {
            [b"W/", tag].concat()
        })
    });
    Some(Box::new(Encoder::new()))
}

fn suits(response: &Response) -> bool {
    let fields = &response.fields;
    matches!(response.status, 200 | 201 | 203 | 400..=599)
        && !fields.has(Name::ContentEncoding)
        && !fields.has(Name::ContentRange)
        && !super::message::lists(fields.all(Name::CacheControl), b"no-transform")
        && fields.get(Name::ContentType).is_some_and(compresses)
}

fn compresses(media_type: &[u8]) -> bool {
    let essence = media_type.split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    // Events must not wait for a block to fill.
    let text = essence
        .get(..5)
        .is_some_and(|it| it.eq_ignore_ascii_case(b"text/"))
        && !essence.eq_ignore_ascii_case(b"text/event-stream");
    text || TYPES.iter().any(|it| it.eq_ignore_ascii_case(essence))
}

/// RFC 9110 section 12.5.3: whether `gzip` (or `*`) is listed with a weight above zero.
fn accepts_gzip<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut any = false;
    for item in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let refused = parts.any(|it| {
            let weight = it.strip_prefix(b"q=").or_else(|| it.strip_prefix(b"Q="));
            weight.is_some_and(|it| it.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            return !refused;
        }
        any |= coding == b"*" && !refused;
    }
    any
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn response(media_type: &str, body: Delimited) -> Response {
        let mut response = Response {
            status: 200,
            body,
            ..Response::default()
        };
        response.fields.push(b"Content-Type", media_type.as_bytes());
        response.fields.push(b"Content-Length", b"4096");
        response.fields.push(b"ETag", b"\"1\"");
        response
    }

    fn request(accept: &str) -> Request {
        let mut request = Request::default();
        request.fields.push(b"Accept-Encoding", accept.as_bytes());
        request
    }

    #[test]
    fn only_who_accepts_gzip_gets_it() {
        for (accept, yes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000, *", false),
            ("*;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(
                accepts_gzip([accept.as_bytes()].into_iter()),
                yes,
                "{accept}"
            );
        }
    }

    #[test]
    fn the_head_says_what_the_body_is() {
        let mut compressed = response("text/html; charset=utf-8", Delimited::Length(4096));
        assert!(begin(&request("gzip"), &mut compressed).is_some());
        assert_eq!(compressed.body, Delimited::Chunks);
        assert_eq!(compressed.fields.get(Name::ContentLength), None);
        assert_eq!(
            compressed.fields.get(Name::ContentEncoding),
            Some(b"gzip".as_slice())
        );
        assert_eq!(
            compressed.fields.get(Name::Etag),
            Some(b"W/\"1\"".as_slice())
        );
        let mut plain = response("application/json", Delimited::Length(4096));
        assert!(begin(&request("br"), &mut plain).is_none());
        assert_eq!(
            plain.fields.get(Name::Vary),
            Some(b"Accept-Encoding".as_slice())
        );
        assert_eq!(plain.body, Delimited::Length(4096));
    }

    #[test]
    fn what_is_short_packed_partial_or_a_stream_of_events_is_left_alone() {
        for (media_type, body, extra) in [
            ("text/html", Delimited::Length(1000), None),
            ("image/png", Delimited::Chunks, None),
            ("text/event-stream", Delimited::Chunks, None),
            ("text/html", Delimited::Chunks, Some("content-encoding: br")),
            (
                "text/html",
                Delimited::Chunks,
                Some("content-range: bytes 0-1/2"),
            ),
            (
                "text/html",
                Delimited::Chunks,
                Some("cache-control: a, no-transform"),
            ),
            ("text/html", Delimited::None, None),
        ] {
            let mut response = response(media_type, body);
            if let Some((name, value)) = extra.and_then(|it| it.split_once(": ")) {
                response.fields.push(name.as_bytes(), value.as_bytes());
            }
            assert!(
                begin(&request("gzip"), &mut response).is_none(),
                "{media_type} {extra:?}"
            );
            assert!(!response.fields.has(Name::Vary), "{media_type} {extra:?}");
        }
    }

    #[test]
    fn what_is_compressed_is_the_same_behind_it_and_a_flush_holds_nothing_back() {
        let mut encoder = Encoder::new();
        let mut packed = encoder.data(b"hello ").expect("memory");
        packed.extend(encoder.flush().expect("memory"));
        let mut so_far = [0; 6];
        let mut reader = flate2::read::GzDecoder::new(&packed[..]);
        reader.read_exact(&mut so_far).expect("flushed");
        assert_eq!(&so_far, b"hello ");
        packed.extend(encoder.data(&[b'x'; 100_000]).expect("memory"));
        packed.extend(encoder.end().expect("memory"));
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut whole)
            .expect("gzip");
        assert_eq!(whole.len(), 100_006);
    }
}
