//! WebSocket over HTTP/2 (RFC 8441): the handshake of RFC 6455 that the proxy does with the backend for its client.

use std::hash::{BuildHasher, RandomState};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::proxy::{
    fields::Name,
    message::{Request, Response},
};

/// The value of `:protocol` that asks for it.
pub(in crate::proxy) const PROTOCOL: &str = "websocket";
const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";

/// 16 bytes that nobody can tell in advance (RFC 6455 section 4.1).
pub(in crate::proxy) fn nonce() -> [u8; 16] {
    // Keys of hash maps are the random numbers of the operating system that the standard library gives out.
    let half = |_| u128::from(RandomState::new().hash_one(0_u8));
    let [high, low] = [0, 1].map(half);
    (high << 64 | low).to_be_bytes()
}

/// Makes a request that asked by `:protocol` one that asks an HTTP/1.1 backend. `Connection` comes with every request
/// that offers an upgrade.
pub(in crate::proxy) fn offer(request: &mut Request, nonce: [u8; 16]) {
    request.fields.set(Name::Upgrade, PROTOCOL.as_bytes());
    request.fields.remove_named(KEY);
    request.fields.push(KEY, base64(&nonce).as_bytes());
}

/// Whether a 101 answers the key of this request (RFC 6455 section 4.2.2): what else has read it may not know what it
/// agreed to. The proxy checks it where its client cannot.
pub(in crate::proxy) fn agrees(request: &Request, response: &Response) -> bool {
    let key = request.fields.named(KEY).next().unwrap_or_default();
    let mut found = response.fields.named(ACCEPT);
    found.next() == Some(accept(key).as_bytes()) && found.next().is_none()
}

/// Takes out what only HTTP/1.1 has (RFC 8441 section 5), and what a stream without an end has not.
pub(in crate::proxy) fn strip(head: &mut http::HeaderMap) {
    head.remove("sec-websocket-accept");
    head.remove(http::header::CONTENT_LENGTH);
}

fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    base64(hash.as_ref())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | u32::from(three.get(at).copied().unwrap_or(0))
        });
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    };
    let mut text: String = bytes.chunks(3).flat_map(group).collect();
    let padding = (3 - bytes.len() % 3) % 3;
    text.truncate(text.len() - padding);
    text.extend(std::iter::repeat_n('=', padding));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_specification_has_the_answer_of_the_specification() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn base64_is_that_of_the_specification() {
        // RFC 4648 section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn only_the_answer_to_the_key_agrees() {
        let mut request = Request::default();
        request.fields.push(KEY, b"a key of the client");
        offer(&mut request, *b"the sample nonce");
        assert_eq!(
            request.fields.named(KEY).collect::<Vec<_>>(),
            [b"dGhlIHNhbXBsZSBub25jZQ=="]
        );
        assert_eq!(
            request.fields.get(Name::Upgrade),
            Some(b"websocket".as_slice())
        );
        let mut response = Response::default();
        assert!(!agrees(&request, &response));
        response
            .fields
            .push(b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(agrees(&request, &response));
        response.fields.push(b"Sec-WebSocket-Accept", b"another");
        assert!(!agrees(&request, &response), "said twice");
    }

    #[test]
    fn two_nonces_differ() {
        assert_ne!(nonce(), nonce());
    }
}
