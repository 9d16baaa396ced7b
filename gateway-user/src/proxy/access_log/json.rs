//! JSON (RFC 8259) written into a buffer, from bytes that may be anything.
//!
//! Invariant: what is written is ASCII without control characters, so that a hostile request can neither end a line nor
//! reach the terminal of whoever reads it.

use std::net::SocketAddr;

use crate::proxy::decimal::{ip, number};

/// What stands where bytes were cut off.
const CUT: &[u8] = b"\\u2026";

/// Writes the inside of a string, at most `most` bytes of it; where more is cut off, `…` follows. Bytes that are not
/// UTF-8 become U+FFFD, as [`String::from_utf8_lossy`] has them.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8], most: usize) {
    if bytes.len() > most {
        text(out, whole(&bytes[..most]), most);
        out.extend_from_slice(CUT);
    } else if bytes.iter().fold(true, |all, byte| all & plain(*byte)) {
        // Without an early end: it is faster over the few bytes that fields have.
        out.extend_from_slice(bytes);
    } else {
        escaped(out, bytes);
    }
}

/// Without a character that a cut left incomplete.
fn whole(bytes: &[u8]) -> &[u8] {
    let tail = bytes.iter().rev().take(3);
    let following = tail.take_while(|byte| **byte & 0xc0 == 0x80).count();
    let first = bytes.len().saturating_sub(following + 1);
    match bytes.get(first..) {
        Some(last) if last.first().is_some_and(|byte| *byte >= 0xc0) => {
            match std::str::from_utf8(last) {
                Err(error) if error.error_len().is_none() => &bytes[..first],
                _ => bytes,
            }
        }
        _ => bytes,
    }
}

fn plain(byte: u8) -> bool {
    (b' '..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

#[cold]
fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                ' '..='~' => out.push(character as u8),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        escape(out, *unit);
                    }
                }
            }
        }
        if !chunk.invalid().is_empty() {
            escape(out, 0xfffd);
        }
    }
}

fn escape(out: &mut Vec<u8>, unit: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| HEX[usize::from(unit >> shift & 0xf)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Writes the inside of a string: `192.0.2.1:80` or `[2001:db8::1]:80`, without a port that is 0; a mapped IPv4 address is
/// shown as IPv4.
pub(super) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    let port = address.port();
    let brackets = port > 0 && address.ip().to_canonical().is_ipv6();
    if brackets {
        out.push(b'[');
    }
    ip(out, address.ip());
    if brackets {
        out.push(b']');
    }
    if port > 0 {
        out.push(b':');
        number(out, port.into());
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn written(bytes: &[u8], most: usize) -> String {
        let mut out = vec![b'"'];
        text(&mut out, bytes, most);
        out.push(b'"');
        assert!(out.iter().all(|byte| (b' '..0x7f).contains(byte)));
        serde_json::from_slice(&out).unwrap()
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_a_parser_reads_what_was_meant(bytes: Vec<u8>) {
            prop_assert_eq!(written(&bytes, 4096), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn text_of_any_kind_comes_back(text: String) {
            prop_assert_eq!(written(text.as_bytes(), 4096), text);
        }

        #[test]
        fn a_cut_leaves_no_half_character_and_says_that_it_was_made(text in ".{1,40}", most in 0_usize..40) {
            let shown = written(text.as_bytes(), most);
            if text.len() <= most {
                prop_assert_eq!(shown, text);
            } else {
                let kept = shown.strip_suffix('…').unwrap();
                prop_assert!(text.starts_with(kept));
                prop_assert!(kept.len() <= most && kept.len() + 4 > most);
            }
        }

        #[test]
        fn addresses_look_as_the_standard_library_writes_them(ip: IpAddr, port in prop_oneof![Just(0), any::<u16>()]) {
            let mut out = Vec::new();
            address(&mut out, SocketAddr::new(ip, port));
            let ip = ip.to_canonical();
            let expected = match port {
                0 => ip.to_string(),
                _ => SocketAddr::new(ip, port).to_string(),
            };
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn quotes_line_ends_and_escape_sequences_cannot_leave_the_string() {
        let mut out = Vec::new();
        text(&mut out, b"a\"\\\n\x1b[2J\x7f\xc2\x9b\xff", 100);
        assert_eq!(out, b"a\\\"\\\\\\u000a\\u001b[2J\\u007f\\u009b\\ufffd");
    }
}
