use std::{io::Cursor, sync::Arc};

use proptest::{collection, prelude::*};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, crypto::ring, pki_types::ServerName,
    server::Acceptor,
};

use super::{Hello, MAX_HELLO_BYTES, Step, parse};

/// What a rustls client sends first, in records of at most this many bytes.
fn hello(name: &str, alpn: &[&str], record: Option<usize>) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    config.max_fragment_size = record;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = vec![];
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn found(name: Option<&str>, alpn: &[&str]) -> Step {
    Step::Hello(Hello {
        sni: name.map(str::to_owned),
        alpn: alpn.iter().map(|it| it.as_bytes().to_vec()).collect(),
    })
}

/// A hello of these extensions, in one record.
fn with_extensions(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut content = vec![3, 3];
    content.extend([7; 32]);
    content.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    let list: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, value)| {
            [
                &kind.to_be_bytes()[..],
                &(value.len() as u16).to_be_bytes(),
                value,
            ]
            .concat()
        })
        .collect();
    content.extend((list.len() as u16).to_be_bytes());
    content.extend(list);
    record(&message(&content))
}

fn message(content: &[u8]) -> Vec<u8> {
    [&[1], &(content.len() as u32).to_be_bytes()[1..], content].concat()
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [
        &[22, 3, 1],
        &(fragment.len() as u16).to_be_bytes()[..],
        fragment,
    ]
    .concat()
}

/// The value of a `server_name` extension with this one host name.
fn named(name: &[u8]) -> Vec<u8> {
    let length = name.len() as u16;
    [
        &(length + 3).to_be_bytes()[..],
        &[0],
        &length.to_be_bytes(),
        name,
    ]
    .concat()
}

#[test]
fn a_hello_needs_all_its_bytes_and_none_behind() {
    for record in [None, Some(64)] {
        let bytes = hello("Shop.Example", &["h2", "http/1.1"], record);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Step::NeedMore, "cut at {cut}");
        }
        let whole = found(Some("shop.example"), &["h2", "http/1.1"]);
        assert_eq!(parse(&bytes), whole);
        assert_eq!(parse(&[&bytes[..], b"\x14\x03\x03 more"].concat()), whole);
    }
}

#[test]
fn an_address_is_no_name() {
    assert_eq!(parse(&hello("192.0.2.1", &[], None)), found(None, &[]));
    for literal in [&b"192.0.2.1"[..], b"2001:db8::1"] {
        let bytes = with_extensions(&[(0, &named(literal))]);
        assert_eq!(parse(&bytes), found(None, &[]));
    }
}

#[test]
fn a_hello_without_extensions_asks_for_nothing() {
    let content = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 5, 1, 0]].concat();
    assert_eq!(parse(&record(&message(&content))), found(None, &[]));
}

#[test]
fn one_byte_a_record_is_read_too() {
    let message = &with_extensions(&[(0, &named(b"a.example"))])[5..];
    let bytes: Vec<u8> = message.iter().flat_map(|byte| record(&[*byte])).collect();
    assert_eq!(parse(&bytes), found(Some("a.example"), &[]));
}

#[test]
fn other_protocols_are_not_tls() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x15\x03\x01",             // an alert
        b"\x16\x02",                 // no such version
        b"\x80\x2e\x01\x03\x01",     // SSL 2
        b"\x16\x03\x03\x00\x04\x02", // a ServerHello
    ] {
        assert_eq!(parse(bytes), Step::NotTls, "{bytes:?}");
    }
}

#[test]
fn what_tls_does_not_allow_is_malformed() {
    let name = named(b"a.example");
    let twice = [&named(b"a.example")[..], &named(b"b.example")[2..]].concat();
    let mut two_names = twice.clone();
    two_names[..2].copy_from_slice(&(twice.len() as u16 - 2).to_be_bytes());
    let valid = with_extensions(&[(0, &name)]);
    let behind = message(&[&valid[9..], b"x"].concat());
    let mut split = record(&valid[5..20]);
    split.extend(b"\x17\x03\x03\x00\x01x");
    let cases = [
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("a long record", vec![22, 3, 1, 0x40, 1]),
        ("another record inside", split),
        ("bytes behind", record(&behind)),
        ("no random", record(&message(&[3, 3]))),
        ("two names", with_extensions(&[(0, &two_names)])),
        ("SNI twice", with_extensions(&[(0, &name), (0, &name)])),
        ("no name", with_extensions(&[(0, &[0, 0])])),
        (
            "a list that is longer",
            with_extensions(&[(0, &[&name[..], b"x"].concat())]),
        ),
        (
            "a name that is cut",
            with_extensions(&[(0, &[0, 3, 0, 0, 9])]),
        ),
        (
            "ALPN twice",
            with_extensions(&[(16, b"\0\x03\x02h2"), (16, b"\0\x03\x02h2")]),
        ),
        ("no protocol", with_extensions(&[(16, &[0, 0])])),
        ("an empty protocol", with_extensions(&[(16, &[0, 1, 0])])),
        (
            "a protocol that is cut",
            with_extensions(&[(16, b"\0\x02\x02h")]),
        ),
    ];
    for (what, bytes) in cases {
        assert!(
            matches!(parse(&bytes), Step::Malformed(_)),
            "{what}: {:?}",
            parse(&bytes)
        );
    }
    for name in [
        "",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a\0",
        "é.example",
        "*.example",
        "a/b",
        &"a".repeat(64),
    ] {
        let bytes = with_extensions(&[(0, &named(name.as_bytes()))]);
        assert!(
            matches!(parse(&bytes), Step::Malformed(_)),
            "{name}: {:?}",
            parse(&bytes)
        );
    }
}

#[test]
fn more_than_16_kib_is_refused_as_soon_as_it_is_told() {
    let told = [22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xf8];
    assert!(matches!(parse(&told), Step::Malformed(_)));
    // Within the limit by its own length, beyond it by that of its records.
    let padding = vec![0; 4096];
    let message = &with_extensions(&[(21, &padding), (0, &named(b"a.example"))])[5..];
    let bytes: Vec<u8> = message.iter().flat_map(|byte| record(&[*byte])).collect();
    assert_eq!(parse(&bytes[..MAX_HELLO_BYTES - 1]), Step::NeedMore);
    assert!(matches!(
        parse(&bytes[..MAX_HELLO_BYTES]),
        Step::Malformed(_)
    ));
    let padding = vec![0; 16_000];
    let long = with_extensions(&[(21, &padding), (0, &named(b"a.example"))]);
    assert_eq!(parse(&long), found(Some("a.example"), &[]));
}

proptest! {
    #[test]
    fn what_rustls_reads_is_read_the_same(
        name in "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-z0-9])?(\\.[a-z][a-z0-9]{0,20}){0,4}",
        alpn in collection::vec("[ -~]{1,40}", 0..20),
        record in prop_oneof![Just(None), (32_usize..400).prop_map(Some)],
    ) {
        prop_assume!(ServerName::try_from(name.as_str()).is_ok());
        let alpn: Vec<&str> = alpn.iter().map(String::as_str).collect();
        let bytes = hello(&name, &alpn, record);
        let mut acceptor = Acceptor::default();
        let mut rest = Cursor::new(&bytes);
        let accepted = loop {
            prop_assert!(acceptor.read_tls(&mut rest).unwrap() > 0);
            if let Ok(Some(accepted)) = acceptor.accept() {
                break accepted;
            }
        };
        let hello = accepted.client_hello();
        let expected = Hello {
            sni: hello.server_name().map(str::to_ascii_lowercase),
            alpn: hello.alpn().map(|all| all.map(<[u8]>::to_vec).collect()).unwrap_or_default(),
        };
        prop_assert_eq!(parse(&bytes), Step::Hello(expected));
    }

    #[test]
    fn no_bytes_panic_and_an_answer_stays_when_more_arrive(
        at in any::<prop::sample::Index>(),
        noise in collection::vec(any::<u8>(), 0..20),
        start in 0_usize..2,
    ) {
        let mut bytes = [vec![], with_extensions(&[(16, b"\0\x03\x02h2"), (0, &named(b"a.example"))])][start].clone();
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + noise.len());
        bytes.splice(at..end, noise);
        let mut answer = Step::NeedMore;
        for cut in 0..=bytes.len() {
            let now = parse(&bytes[..cut]);
            prop_assert!(answer == Step::NeedMore || answer == now, "{:?} then {:?}", answer, now);
            answer = now;
        }
    }
}
