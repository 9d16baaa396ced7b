//! Answers compressed for clients that ask for it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    sync::mpsc::channel,
};

use flate2::{read::GzDecoder, write};

use super::one;
use crate::support::{Gateway, Origin, Reply, read_head, rule};

const ACCEPT: &str = "Accept-Encoding: br, gzip;q=0.5\r\n";

fn text(len: usize) -> String {
    "It is all about the same thing. "
        .chars()
        .cycle()
        .take(len)
        .collect()
}

fn with(fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(vec![rule(one(origin))])
}

fn unpacked(packed: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    text
}

fn ask(fields: &str, body: &str, asked: &str) -> Reply {
    let origin = Origin::fixed(with(fields, body));
    let gateway = gateway(&origin);
    let mut client = gateway.client();
    client.get_with("/", asked);
    let reply = client.get_with("/", asked);
    assert_eq!(origin.seen().len(), 2, "the connection is in step");
    reply
}

#[test]
fn who_accepts_gzip_gets_less_and_reads_the_same() {
    let body = text(20_000);
    let fields = "Content-Type: text/html; charset=utf-8\r\nETag: \"x\"\r\n";
    let reply = ask(fields, &body, ACCEPT);
    assert_eq!(reply.header("content-encoding"), ["gzip"]);
    assert!(reply.header("content-length").is_empty() && reply.body.len() < 2000);
    assert_eq!(unpacked(&reply.body), body);
    assert_eq!(reply.header("etag"), ["W/\"x\""]);
    assert_eq!(reply.header("vary"), ["Accept-Encoding"]);
}

#[test]
fn who_does_not_accept_gzip_gets_what_the_pod_said() {
    let body = text(20_000);
    for asked in [
        "",
        "Accept-Encoding: br\r\n",
        "Accept-Encoding: gzip;q=0, br\r\n",
    ] {
        let reply = ask("Content-Type: text/html\r\nETag: \"x\"\r\n", &body, asked);
        assert!(reply.header("content-encoding").is_empty(), "{asked}");
        assert_eq!(
            (reply.text(), reply.header("etag")),
            (body.clone(), vec!["\"x\"".to_owned()])
        );
        assert_eq!(
            reply.header("vary"),
            ["Accept-Encoding"],
            "caches must tell them apart"
        );
    }
}

#[test]
fn what_is_short_or_encoded_or_of_another_type_passes_as_it_is() {
    for (fields, len) in [
        ("Content-Type: text/html\r\n", 1023),
        ("Content-Type: text/html\r\nContent-Encoding: br\r\n", 5000),
        (
            "Content-Type: text/html\r\nContent-Range: bytes 0-1/9\r\n",
            5000,
        ),
        (
            "Content-Type: text/html\r\nCache-Control: no-transform\r\n",
            5000,
        ),
        ("Content-Type: image/png\r\n", 5000),
        ("", 5000),
    ] {
        let body = text(len);
        let reply = ask(fields, &body, ACCEPT);
        assert_eq!(
            (reply.text(), reply.header("content-length").join("")),
            (body, len.to_string())
        );
        assert!(
            !reply
                .header("content-encoding")
                .iter()
                .any(|it| it == "gzip"),
            "{fields}"
        );
    }
}

#[test]
fn a_listener_that_does_not_compress_does_not() {
    let origin = Origin::fixed(with("Content-Type: text/html\r\n", &text(5000)));
    let mut gateway = gateway(&origin);
    gateway.change(|site| site.settings.gzip = false);
    let reply = gateway.client().get_with("/", ACCEPT);
    assert_eq!(
        (reply.text(), reply.header("vary")),
        (text(5000), Vec::<String>::new())
    );
}

#[test]
fn head_gets_a_head_and_nothing_behind_it() {
    let origin = Origin::answering(|seen, stream| {
        let reply = with("Content-Type: text/html\r\n", &text(5000));
        let head = reply.len() - 5000;
        let is_head = seen.line().starts_with("HEAD");
        stream.write_all(&reply[..if is_head { head } else { reply.len() }])
    });
    let gateway = gateway(&origin);
    let mut client = gateway.client();
    for _ in 0..3 {
        client.send(format!("HEAD / HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
        let reply = client.reply_to("HEAD").unwrap();
        assert_eq!(reply.status, 200);
        // RFC 9110 section 9.3.2: a length, if there is one, is that of GET.
        let lengths = reply.header("content-length");
        let plain = reply.header("content-encoding").is_empty();
        assert!(
            lengths.is_empty() || (plain && lengths == ["5000"]),
            "{}",
            reply.head
        );
        assert_eq!(unpacked(&client.get_with("/", ACCEPT).body), text(5000));
    }
}

#[test]
fn an_http10_client_gets_a_body_that_ends_with_the_connection() {
    let origin = Origin::fixed(with("Content-Type: text/html\r\n", &text(5000)));
    let gateway = gateway(&origin);
    let mut client = gateway.client();
    client.send(format!(
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n{ACCEPT}\r\n"
    ));
    let reply = client.reply().unwrap();
    assert!(
        reply.header("transfer-encoding").is_empty(),
        "{}",
        reply.head
    );
    match reply.header("content-encoding").is_empty() {
        true => assert_eq!(reply.text(), text(5000)),
        false => assert_eq!(unpacked(&reply.body), text(5000)),
    }
}

#[test]
fn a_piece_of_a_stream_is_there_before_the_next_one_is_sent() {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::answering(move |_, stream| {
        let head = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
        write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n")?;
        for _ in 0..5 {
            write!(stream, "6\r\n{{\"a\":1\r\n")?;
            // Until the client has read it.
            let _ = wait.lock().unwrap().recv();
        }
        write!(stream, "0\r\n\r\n")
    });
    let gateway = gateway(&origin);
    let mut client = gateway.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
    let mut reader = BufReader::new(client.stream().try_clone().unwrap());
    let head = read_head(&mut reader).unwrap();
    assert!(
        head.to_lowercase().contains("content-encoding: gzip"),
        "{head}"
    );
    let mut plain = write::GzDecoder::new(Vec::new());
    let mut told = 0;
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece).unwrap();
        if size == 0 {
            break;
        }
        plain.write_all(&piece[..size]).unwrap();
        plain.flush().unwrap();
        if plain.get_ref().len() == 6 * (told + 1) {
            told += 1;
            go.send(()).unwrap();
        }
    }
    assert_eq!((told, plain.finish().unwrap()), (5, b"{\"a\":1".repeat(5)));
}
