use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::{collection, option, prelude::*};

use super::{Header, ProxyHeaderError, Ssl, Step, parse, v2, write_v2};

fn header(bytes: &[u8]) -> Header {
    match parse(bytes).unwrap() {
        Step::Header(header) => header,
        other => panic!("{other:?}"),
    }
}

fn line(text: &str) -> Result<Step, ProxyHeaderError> {
    parse(format!("{text}\r\n").as_bytes())
}

/// A version 2 header with these fields behind what follows the signature.
fn binary(version_command: u8, family: u8, addresses: &[u8], fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut rest = addresses.to_vec();
    for (kind, value) in fields {
        rest.push(*kind);
        rest.extend((value.len() as u16).to_be_bytes());
        rest.extend_from_slice(value);
    }
    let mut bytes = v2::SIGNATURE.to_vec();
    bytes.extend([version_command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

/// Puts the checksum where the last four zeros are.
fn seal(bytes: &mut [u8], at: usize) {
    let crc = !v2::crc32c(u32::MAX, bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn a_line_of_version_1_tells_both_ends_and_its_length() {
    let bytes = b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nGET / HTTP/1.1\r\n";
    let found = header(bytes);
    assert_eq!(&bytes[found.length..], b"GET / HTTP/1.1\r\n");
    assert_eq!(found.source, Some("192.0.2.1:12345".parse().unwrap()));
    assert_eq!(found.destination, Some("198.51.100.2:443".parse().unwrap()));
    let found = header(b"PROXY TCP6 2001:db8::1 2001:DB8::2 0 65535\r\n");
    assert_eq!(found.source, Some("[2001:db8::1]:0".parse().unwrap()));
    assert_eq!(
        found.destination,
        Some("[2001:db8::2]:65535".parse().unwrap())
    );
}

#[test]
fn an_unknown_line_has_no_addresses_whatever_else_it_says() {
    for bytes in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        b"PROXY UNKNOWN \xff\x00 1 2 3 4 5 6\r\n",
    ] {
        let plain = Header { length: bytes.len(), ..Header::default() };
        assert_eq!(header(bytes), plain);
    }
}

#[test]
fn a_line_that_is_not_exactly_as_specified_is_refused() {
    for text in [
        "PROXY ",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1 2",
        "PROXY tcp4 192.0.2.1 198.51.100.2 1 2",
        "PROXY TCP4",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 ",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1 2",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 2",
        "PROXY TCP4 192.0.2 198.51.100.2 1 2",
        "PROXY TCP4 192.0.2.256 198.51.100.2 1 2",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2",
        "PROXY TCP6 2001:db8::1::2 2001:db8::2 1 2",
        "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536",
        "PROXY TCP4\t192.0.2.1 198.51.100.2 1 2",
        "PROXY UNKNOWNX",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1\r2 ",
    ] {
        assert!(
            matches!(line(text), Err(ProxyHeaderError::Malformed(_))),
            "{text:?}: {:?}",
            line(text)
        );
    }
}

#[test]
fn a_line_without_end_is_refused_at_its_107th_byte() {
    let mut bytes = b"PROXY UNKNOWN ".to_vec();
    bytes.resize(106, b'x');
    assert_eq!(parse(&bytes), Ok(Step::NeedMore));
    bytes.push(b'\r');
    assert_eq!(parse(&bytes), Err(ProxyHeaderError::TooLong));
    bytes.push(b'\n');
    assert_eq!(parse(&bytes), Err(ProxyHeaderError::TooLong));
}

#[test]
fn other_protocols_are_no_header() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST",
        b"PROXY\t",
        b"proxy ",
        b"\r\n\r\nQ",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0\r\n",
    ] {
        assert_eq!(parse(bytes), Ok(Step::NotProxy), "{bytes:?}");
    }
}

#[test]
fn fields_of_version_2_are_read_and_others_skipped() {
    let mut ssl = vec![0x05, 0, 0, 0, 0];
    ssl.extend(b"\x21\x00\x07TLSv1.3\x22\x00\x05alice\x23\x00\x01x");
    let bytes = binary(
        0x21,
        0x11,
        &V4,
        &[
            (0x04, &[0; 5]),
            (0x02, b"shop.example"),
            (0xe1, b""),
            (0x05, b"\x00id"),
            (0x20, &ssl),
        ],
    );
    assert_eq!(
        header(&bytes),
        Header {
            length: bytes.len(),
            source: Some("192.0.2.1:12345".parse().unwrap()),
            destination: Some("198.51.100.2:443".parse().unwrap()),
            authority: Some("shop.example".to_owned()),
            unique_id: Some(b"\x00id".to_vec()),
            ssl: Some(Ssl {
                tls: true,
                certificate: true,
                verified: true,
                version: Some("TLSv1.3".to_owned()),
                common_name: Some("alice".to_owned()),
            }),
        }
    );
}

#[test]
fn nobody_is_verified_without_a_certificate() {
    for (client, verify) in [(0x01, 0), (0x05, 1)] {
        let bytes = binary(0x21, 0x11, &V4, &[(0x20, &[client, 0, 0, 0, verify])]);
        assert!(!header(&bytes).ssl.unwrap().verified);
    }
}

#[test]
fn local_and_unspecified_headers_are_skipped_whole() {
    for bytes in [
        binary(0x20, 0x00, &[], &[]),
        binary(0x20, 0xff, b"anything, even no fields", &[]),
        binary(0x20, 0x11, &V4, &[(0x02, b"a")]),
        binary(0x21, 0x00, b"\x02\xff", &[]),
        binary(0x21, 0x01, &V4, &[]),
        binary(0x21, 0x10, &V4, &[]),
        binary(0x21, 0x12, &V4, &[]),
        binary(0x21, 0x31, &[0; 216], &[]),
    ] {
        let plain = Header {
            length: bytes.len(),
            ..Header::default()
        };
        assert_eq!(header(&bytes), plain);
    }
}

#[test]
fn what_version_2_does_not_allow_is_refused() {
    let id = [0; 129];
    let cases = [
        binary(0x11, 0x11, &V4, &[]),
        binary(0x22, 0x11, &V4, &[]),
        binary(0x21, 0x41, &V4, &[]),
        binary(0x21, 0x13, &V4, &[]),
        binary(0x21, 0x11, &V4[..11], &[]),
        binary(0x21, 0x21, &V4, &[]),
        binary(0x21, 0x31, &[0; 215], &[]),
        binary(0x21, 0x11, &[&V4[..], &[2, 0]].concat(), &[]),
        binary(0x21, 0x11, &[&V4[..], &[2, 0, 2, 0]].concat(), &[]),
        binary(0x21, 0x11, &V4, &[(0x02, b"\xff")]),
        binary(0x21, 0x11, &V4, &[(0x02, b"a"), (0x02, b"a")]),
        binary(0x21, 0x11, &V4, &[(0x05, &id)]),
        binary(0x21, 0x11, &V4, &[(0x03, &[0; 3])]),
        binary(0x21, 0x11, &V4, &[(0x20, &[1, 0, 0, 0])]),
        binary(0x21, 0x11, &V4, &[(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9])]),
    ];
    for bytes in cases {
        assert!(
            matches!(parse(&bytes), Err(ProxyHeaderError::Malformed(_))),
            "{bytes:?}"
        );
    }
}

#[test]
fn more_than_4_kib_behind_the_fixed_part_is_refused_before_it_arrives() {
    let most = binary(0x20, 0, &[0; 4096], &[]);
    assert_eq!(header(&most).length, 16 + 4096);
    let beyond = binary(0x20, 0, &[0; 4097], &[]);
    assert_eq!(parse(&beyond[..16]), Err(ProxyHeaderError::TooLong));
}

#[test]
fn crc32c_is_that_of_rfc_3720() {
    // RFC 3720 appendix B.4, and the check value that catalogues of CRCs give.
    assert_eq!(!v2::crc32c(u32::MAX, &[0; 32]), 0x8a91_36aa);
    assert_eq!(!v2::crc32c(u32::MAX, b"123456789"), 0xe306_9283);
}

#[test]
fn any_changed_bit_breaks_the_checksum() {
    let mut bytes = binary(0x21, 0x11, &V4, &[(0x03, &[0; 4]), (0x02, b"shop.example")]);
    seal(&mut bytes, 16 + 12 + 3);
    assert_eq!(header(&bytes).authority.as_deref(), Some("shop.example"));
    // Addresses, checksum and the value behind it; elsewhere a change is malformed, or is no checksum any more.
    for at in (16..28).chain(31..35).chain(38..bytes.len()) {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert_eq!(
                parse(&bytes),
                Err(ProxyHeaderError::Checksum),
                "byte {at}, bit {bit}"
            );
        }
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(|it| Ipv4Addr::from(it).into()),
        any::<[u8; 16]>().prop_map(|it| Ipv6Addr::from(it).to_canonical()),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

/// A valid header of either version.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let text = (address(), address()).prop_map(|(from, to)| {
        let family = if from.is_ipv4() && to.is_ipv4() {
            "TCP4"
        } else {
            "TCP6"
        };
        let ip = |it: SocketAddr| match it.ip() {
            std::net::IpAddr::V4(ip) if family == "TCP6" => ip.to_ipv6_mapped().to_string(),
            ip => ip.to_string(),
        };
        let (from_ip, to_ip) = (ip(from), ip(to));
        format!(
            "PROXY {family} {from_ip} {to_ip} {} {}\r\n",
            from.port(),
            to.port()
        )
        .into_bytes()
    });
    let fields = (
        option::of("[a-z.]{0,40}"),
        option::of(collection::vec(any::<u8>(), 0..=128)),
        any::<bool>(),
    );
    let binary = fields.prop_map(|(authority, id, sealed)| {
        let mut fields: Vec<(u8, &[u8])> = vec![];
        if sealed {
            fields.push((0x03, &[0; 4]));
        }
        fields.extend(authority.as_deref().map(|it| (0x02, it.as_bytes())));
        fields.extend(id.as_deref().map(|it| (0x05, it)));
        let mut bytes = binary(0x21, 0x11, &V4, &fields);
        if sealed {
            seal(&mut bytes, 16 + 12 + 3);
        }
        bytes
    });
    prop_oneof![text, binary]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(from in address(), to in address(), behind in any::<Vec<u8>>()) {
        let mut bytes = vec![];
        write_v2(from, to, &mut bytes);
        let length = bytes.len();
        bytes.extend(behind);
        let expected = Header { length, source: Some(from), destination: Some(to), ..Header::default() };
        prop_assert_eq!(parse(&bytes), Ok(Step::Header(expected)));
    }

    #[test]
    fn a_header_needs_all_its_bytes_and_none_behind(bytes in valid(), behind in any::<Vec<u8>>()) {
        for cut in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..cut]), Ok(Step::NeedMore), "cut at {}", cut);
        }
        let alone = parse(&bytes);
        let whole = matches!(&alone, Ok(Step::Header(header)) if header.length == bytes.len());
        prop_assert!(whole, "{:?}", alone);
        prop_assert_eq!(parse(&[bytes, behind].concat()), alone);
    }

    #[test]
    fn no_bytes_panic_and_an_answer_stays_when_more_arrive(
        version in 0_usize..3,
        noise in collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0x11), Just(b' ')], 0..600),
    ) {
        let start = [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"][version];
        let bytes = [start, &noise].concat();
        let mut answer = Ok(Step::NeedMore);
        for cut in 0..=bytes.len() {
            let now = parse(&bytes[..cut]);
            prop_assert!(answer == Ok(Step::NeedMore) || answer == now, "{:?} then {:?}", answer, now);
            answer = now;
        }
    }
}
