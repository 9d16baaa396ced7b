//! Requests as HTTP: section 8.

use super::{
    super::{
        h2frames::{block, data, headers},
        h2run::{Expect, Row, request},
    },
    GET, open, pieces, post, row,
};

const MALFORMED: Expect = Expect::Malformed(1);
const ANSWERED: Expect = Expect::Answered(1);

pub(super) fn rows() -> Vec<Row> {
    [
        messages(),
        names_and_values(),
        connection_specific(),
        pseudo(),
        connect(),
    ]
    .concat()
}

fn messages() -> Vec<Row> {
    let length = |value| headers(1, post(&[("content-length", value)]), false);
    vec![
        row(
            "8.1",
            "trailers are taken",
            [
                open(1),
                data(1, "body", false),
                headers(1, block(&[("x-sum", "1")]), true),
            ],
            ANSWERED,
        ),
        row(
            "8.1",
            "a second HEADERS that does not end the stream",
            [
                open(1),
                data(1, "body", false),
                headers(1, block(&[("x-sum", "1")]), false),
            ],
            MALFORMED,
        ),
        row(
            "8.1",
            "a pseudo-header in trailers",
            [
                open(1),
                data(1, "body", false),
                headers(1, block(&[(":path", "/")]), true),
            ],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "content-length of the body is taken",
            [length("4"), data(1, "bo", false), data(1, "dy", true)],
            ANSWERED,
        ),
        row(
            "8.1.1",
            "content-length above the body",
            [length("5"), data(1, "body", true)],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "content-length below the body",
            [length("3"), data(1, "body", true)],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "content-length below the sum of DATA",
            [length("3"), data(1, "bo", false), data(1, "dy", true)],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "content-length without a body",
            [headers(1, post(&[("content-length", "4")]), true)],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "content-length above the body before trailers",
            [
                length("5"),
                data(1, "body", false),
                headers(1, block(&[("x-sum", "1")]), true),
            ],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "content-length that is no number",
            [length("4x"), data(1, "body", true)],
            MALFORMED,
        ),
        row(
            "8.1.1",
            "two different content-length",
            [
                headers(
                    1,
                    post(&[("content-length", "4"), ("content-length", "5")]),
                    false,
                ),
                data(1, "body", true),
            ],
            MALFORMED,
        ),
    ]
}

/// A GET with one field more.
fn with(name: &'static str, field: (&[u8], &[u8]), section: &'static str, expect: Expect) -> Row {
    let mut bytes = block(&GET);
    bytes.extend(block(&[field]));
    pieces(section, name, [request(bytes)], expect)
}

fn names_and_values() -> Vec<Row> {
    vec![
        with(
            "an upper case letter in a name",
            (b"X-Name", b"1"),
            "8.2",
            MALFORMED,
        ),
        with("a name that is empty", (b"", b"1"), "8.2.1", MALFORMED),
        with("a space in a name", (b"x name", b"1"), "8.2.1", MALFORMED),
        with("NUL in a name", (b"x\0name", b"1"), "8.2.1", MALFORMED),
        with("DEL in a name", (b"x\x7fname", b"1"), "8.2.1", MALFORMED),
        with(
            "a byte above 0x7f in a name",
            (b"x\xe9name", b"1"),
            "8.2.1",
            MALFORMED,
        ),
        with("a colon in a name", (b"x:name", b"1"), "8.2.1", MALFORMED),
        with("NUL in a value", (b"x-name", b"a\0b"), "8.2.1", MALFORMED),
        with("LF in a value", (b"x-name", b"a\nb"), "8.2.1", MALFORMED),
        with("CR in a value", (b"x-name", b"a\rb"), "8.2.1", MALFORMED),
        with(
            "a space before a value",
            (b"x-name", b" a"),
            "8.2.1",
            MALFORMED,
        ),
        with(
            "a space after a value",
            (b"x-name", b"a "),
            "8.2.1",
            MALFORMED,
        ),
        with(
            "a tab after a value",
            (b"x-name", b"a\t"),
            "8.2.1",
            MALFORMED,
        ),
        with(
            "obs-text and inner spaces in a value are taken",
            (b"x-name", b"a \xe9\tb"),
            "8.2.1",
            ANSWERED,
        ),
        with(
            "a value that is empty is taken",
            (b"x-name", b""),
            "8.2.1",
            ANSWERED,
        ),
        row(
            "8.2.3",
            "cookies in several fields are taken",
            [headers(
                1,
                [block(&GET), block(&[("cookie", "a=1"), ("cookie", "b=2")])].concat(),
                true,
            )],
            ANSWERED,
        ),
    ]
}

fn connection_specific() -> Vec<Row> {
    vec![
        with("connection", (b"connection", b"close"), "8.2.2", MALFORMED),
        with(
            "proxy-connection",
            (b"proxy-connection", b"keep-alive"),
            "8.2.2",
            MALFORMED,
        ),
        with(
            "keep-alive",
            (b"keep-alive", b"timeout=5"),
            "8.2.2",
            MALFORMED,
        ),
        with(
            "transfer-encoding",
            (b"transfer-encoding", b"chunked"),
            "8.2.2",
            MALFORMED,
        ),
        with("upgrade", (b"upgrade", b"websocket"), "8.2.2", MALFORMED),
        with(
            "te other than trailers",
            (b"te", b"trailers, deflate"),
            "8.2.2",
            MALFORMED,
        ),
        with(
            "te of trailers is taken",
            (b"te", b"trailers"),
            "8.2.2",
            ANSWERED,
        ),
    ]
}

/// A request of exactly these fields.
fn of(section: &'static str, name: &'static str, fields: &[(&str, &str)], expect: Expect) -> Row {
    pieces(section, name, [request(block(fields))], expect)
}

fn pseudo() -> Vec<Row> {
    let [method, scheme, path, authority] = GET;
    vec![
        of(
            "8.3",
            "an unknown pseudo-header",
            &[method, scheme, path, authority, (":what", "1")],
            MALFORMED,
        ),
        of(
            "8.3",
            "a pseudo-header of responses",
            &[method, scheme, path, authority, (":status", "200")],
            MALFORMED,
        ),
        of(
            "8.3",
            "a pseudo-header after a field",
            &[method, scheme, ("x-name", "1"), path, authority],
            MALFORMED,
        ),
        of("8.3.1", "no :method", &[scheme, path, authority], MALFORMED),
        of("8.3.1", "no :scheme", &[method, path, authority], MALFORMED),
        of("8.3.1", "no :path", &[method, scheme, authority], MALFORMED),
        of(
            "8.3.1",
            ":method twice",
            &[method, method, scheme, path, authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":scheme twice",
            &[method, scheme, scheme, path, authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":path twice",
            &[method, scheme, path, path, authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":authority twice",
            &[method, scheme, path, authority, authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":path that is empty",
            &[method, scheme, (":path", ""), authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":path that does not begin with a slash",
            &[method, scheme, (":path", "a"), authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":path of * for other methods than OPTIONS",
            &[method, scheme, (":path", "*"), authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            ":path of * for OPTIONS is taken",
            &[(":method", "OPTIONS"), scheme, (":path", "*"), authority],
            ANSWERED,
        ),
        of(
            "8.3.1",
            ":method that is no token",
            &[(":method", "G ET"), scheme, path, authority],
            MALFORMED,
        ),
        of(
            "8.3.1",
            "user information in :authority",
            &[method, scheme, path, (":authority", "user@a.example")],
            MALFORMED,
        ),
        of(
            "8.3.1",
            "host that differs from :authority",
            &[method, scheme, path, authority, ("host", "b.example")],
            MALFORMED,
        ),
        of(
            "8.3.1",
            "host that is as :authority is taken",
            &[method, scheme, path, authority, ("host", "a.example")],
            ANSWERED,
        ),
        of(
            "8.3.1",
            "host without :authority is taken",
            &[method, scheme, path, ("host", "a.example")],
            ANSWERED,
        ),
    ]
}

fn connect() -> Vec<Row> {
    let [_, scheme, path, authority] = GET;
    let method = (":method", "CONNECT");
    vec![
        of(
            "8.5",
            "CONNECT with :scheme and :path",
            &[method, scheme, path, authority],
            MALFORMED,
        ),
        of("8.5", "CONNECT without :authority", &[method], MALFORMED),
    ]
}
