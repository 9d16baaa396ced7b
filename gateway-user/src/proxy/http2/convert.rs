//! Heads of HTTP/2 and ours.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request, response};

use super::websocket;
use crate::proxy::{
    fields::{Fields, Name},
    framing::{Framing, HeadLimits, bad, head},
    headers,
    message::{Delimited, Request, Response, Version},
    reason::{Reason, Refusal},
};

/// Bytes of names and values, before compression.
pub(in crate::proxy) fn size(map: &HeaderMap) -> u64 {
    let lengths = map
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    lengths.sum::<usize>() as u64
}

/// The same of a request's head.
pub(in crate::proxy) fn request_size(parts: &request::Parts) -> u64 {
    let uri = &parts.uri;
    let authority = uri.authority().map_or(0, |it| it.as_str().len());
    let target = uri.path_and_query().map_or(0, |it| it.as_str().len());
    (parts.method.as_str().len() + authority + target) as u64 + size(&parts.headers)
}

/// Fields of a trailer section.
pub(super) fn fields(map: &HeaderMap) -> Fields {
    super::trailer_fields(map)
}

/// Reads the head of a request into an empty `request`, with the strictness of [`head::read`]. `ended`: no body follows.
pub(in crate::proxy) fn request(
    parts: &request::Parts,
    ended: bool,
    limits: HeadLimits,
    request: &mut Request,
) -> Result<(), Refusal> {
    request.version = Version::Http2;
    request.keep_alive = true;
    let method = match parts.extensions.get::<Protocol>() {
        None => parts.method.as_str().as_bytes(),
        // RFC 8441 section 5: a CONNECT that stands for the GET of a handshake; what follows it is no body.
        Some(asked) if asked.as_str().eq_ignore_ascii_case(websocket::PROTOCOL) => {
            request.upgrade = true;
            b"GET"
        }
        Some(_) => {
            return Err(Refusal::keep(
                Reason::UnknownProtocol,
                "only the protocol websocket is known",
            ));
        }
    };
    head::method(method)?;
    request.method = request.fields.keep(method);
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    head::target(target.as_bytes(), method, limits)?;
    request.asked_target = request.fields.keep(target.as_bytes());
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    request.path = request.fields.keep(path.as_bytes());
    request.query = query.map(|query| request.fields.keep(query.as_bytes()));
    request.spell()?;
    // RFC 9113 section 8.3.1: `:authority` takes the place of Host, and a different Host is malformed.
    let authority = parts.uri.authority().map(|it| it.as_str());
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(bad("Host is repeated")),
        (Some(authority), Some(host), None)
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            return Err(bad("Host and :authority differ"));
        }
        (Some(authority), _, None) => authority.as_bytes(),
        (None, Some(host), None) => host.as_bytes(),
        (None, None, None) => return Err(bad("neither :authority nor Host is given")),
    };
    request.authority = request.fields.keep(host);
    if headers::host_of(request.authority()).is_none() || request.authority().is_empty() {
        return Err(bad("Host is not a host with an optional port"));
    }
    request.asked_host = request.authority;
    let host = host.to_vec();
    request.fields.push_known(Name::Host, &host);
    if parts.headers.len() > limits.fields {
        return Err(Refusal::keep(
            Reason::HeadersTooLarge,
            "the request head has too many bytes or fields",
        ));
    }
    let mut length = None;
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        // RFC 9113 section 8.2.1: no blanks around a value.
        if value.trim_ascii().len() != value.len() {
            return Err(bad("a field value begins or ends with a blank"));
        }
        let text = name.as_str().as_bytes();
        match Name::of(text) {
            Name::Host => continue,
            // RFC 9113 section 8.2.3: crumbs are one line for who does not speak HTTP/2.
            Name::Cookie => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
                continue;
            }
            Name::ContentLength if length.is_some() => {
                return Err(bad("Content-Length is repeated"));
            }
            Name::ContentLength => length = Some(head::decimal(value)?),
            Name::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::keep(
                        Reason::UnknownExpectation,
                        "only the expectation 100-continue is known",
                    ));
                }
                request.expects = !ended;
            }
            _ => {}
        }
        request.fields.push(text, value);
    }
    if !cookies.is_empty() {
        request.fields.push_known(Name::Cookie, &cookies);
    }
    if request.upgrade {
        // RFC 9110 section 9.3.6: CONNECT has no content. Passed on, a length would make some of what follows.
        if length.is_some() {
            return Err(bad("a CONNECT has a Content-Length"));
        }
        request.expects = false;
    }
    request.framing = match (ended || request.upgrade, length) {
        (true, _) => Framing::Fixed(0),
        (false, Some(length)) if length > 0 => Framing::Fixed(length),
        (false, _) => Framing::Stream,
    };
    Ok(())
}

/// The head of a request for a backend that speaks HTTP/2.
pub(in crate::proxy) fn to_request(request: &Request, scheme: &str) -> Option<http::Request<()>> {
    let mut target = request.path().to_owned();
    if let Some(query) = request.query() {
        target.push('?');
        target.push_str(query);
    }
    let authority = request
        .fields
        .get(Name::Host)
        .and_then(|it| str::from_utf8(it).ok())?;
    let uri = http::Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target)
        .build()
        .ok()?;
    let mut head = http::Request::new(());
    *head.method_mut() = http::Method::from_bytes(request.method()).ok()?;
    *head.uri_mut() = uri;
    *head.version_mut() = http::Version::HTTP_2;
    for (name, text, value) in request.fields.shared() {
        match name {
            Name::Host | Name::Connection | Name::Upgrade => {}
            _ => append(head.headers_mut(), (name, text), value),
        }
    }
    Some(head)
}

/// Reads the head of a response; `ended`: no body follows.
pub(in crate::proxy) fn response(parts: &response::Parts, ended: bool, response: &mut Response) {
    response.version = Version::Http2;
    response.status = parts.status.as_u16();
    response.keep_alive = true;
    let mut length = None;
    for (name, value) in &parts.headers {
        let text = name.as_str().as_bytes();
        if Name::of(text) == Name::ContentLength {
            length = head::decimal(value.as_bytes()).ok();
        }
        response.fields.push(text, value.as_bytes());
    }
    response.body = match (ended, length) {
        (true, _) => Delimited::None,
        (false, Some(length)) => Delimited::Length(length),
        (false, None) => Delimited::End,
    };
}

/// The head of a response for a client that speaks HTTP/2.
pub(in crate::proxy) fn to_response(response: &Response) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = map(&response.fields);
    head
}

/// The head by which a client that speaks HTTP/2 learns of a 101: the stream is the other protocol's from here on.
pub(in crate::proxy) fn to_switched(response: &Response) -> http::Response<()> {
    let mut head = to_response(response);
    *head.status_mut() = StatusCode::OK;
    websocket::strip(head.headers_mut());
    head
}

/// Fields, without those that HTTP/2 does not have (RFC 9113 section 8.2.2).
pub(in crate::proxy) fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, text, value) in fields.shared() {
        match name {
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade => {}
            _ => append(&mut map, (name, text), value),
        }
    }
    map
}

fn append(map: &mut HeaderMap, (known, name): (Name, &[u8]), value: Bytes) {
    let name = known.header().or_else(|| HeaderName::from_bytes(name).ok());
    // Both were checked when they were read, by rules that are no laxer.
    if let (Some(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value)) {
        map.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes: 1024,
        target_bytes: 100,
        fields: 8,
    };

    fn asking(protocol: &str) -> request::Builder {
        get("https://a/chat")
            .method("CONNECT")
            .extension(Protocol::from(protocol))
    }

    #[test]
    fn a_websocket_is_a_get_that_offers_to_leave_http() {
        let read = judge(asking("websocket"), false).expect("a request");
        assert_eq!((read.method_text(), read.path()), ("GET", "/chat"));
        assert!(read.upgrade && !read.has_body());
        let refusal = judge(asking("websocket").header("content-length", "0"), false);
        assert_eq!(refusal.expect_err("a length").reason.status().as_u16(), 400);
        let refusal = judge(asking("connect-udp"), false).expect_err("another protocol");
        assert_eq!(refusal.reason.status().as_u16(), 501);
        let plain = get("https://a/").method("CONNECT");
        let refusal = judge(plain, false).expect_err("no protocol");
        assert_eq!(refusal.reason.status().as_u16(), 405);
    }

    fn judge(head: request::Builder, ended: bool) -> Result<Request, Refusal> {
        let (parts, ()) = head.body(()).expect("a request").into_parts();
        let mut read = Request::default();
        request(&parts, ended, LIMITS, &mut read).map(|()| read)
    }

    fn get(uri: &str) -> request::Builder {
        http::Request::builder().uri(uri)
    }

    #[test]
    fn a_head_is_read_as_over_http_1() {
        let head = get("https://a.example:8443/p?q=1")
            .header("cookie", "a=1")
            .header("x", "y")
            .header("cookie", "b=2")
            .header("content-length", "5");
        let read = judge(head, false).expect("a request");
        assert_eq!(read.authority(), "a.example:8443");
        assert_eq!((read.path(), read.query()), ("/p", Some("q=1")));
        assert_eq!(read.framing, Framing::Fixed(5));
        assert_eq!(read.fields.get(Name::Cookie), Some(b"a=1; b=2".as_slice()));
        assert_eq!(
            read.fields.get(Name::Host),
            Some(b"a.example:8443".as_slice())
        );
        assert_eq!(
            judge(get("http://a/"), true).expect("a request").framing,
            Framing::Fixed(0)
        );
        assert_eq!(
            judge(get("http://a/"), false).expect("a request").framing,
            Framing::Stream
        );
    }

    #[test]
    fn what_http_1_refuses_is_refused_too() {
        for (head, status) in [
            (get("http://a/../b"), 400),
            (get("/").header("x", "no authority"), 400),
            (get("http://a/").header("host", "b"), 400),
            (get("http://u@a/"), 400),
            (get("http://a/").header("expect", "cake"), 417),
            (get("http://a/").method("TRACE"), 405),
            (get("http://a/").header("content-length", "+5"), 400),
            (get("http://a/").header("x", "blank "), 400),
        ] {
            let shown = format!("{head:?}");
            let refusal = judge(head, false).expect_err(&shown);
            assert_eq!(refusal.reason.status().as_u16(), status, "{shown}");
        }
        let mut many = get("http://a/");
        for index in 0..9 {
            many = many.header(format!("x-{index}"), "1");
        }
        assert_eq!(
            judge(many, true)
                .expect_err("many")
                .reason
                .status()
                .as_u16(),
            431
        );
    }
}
