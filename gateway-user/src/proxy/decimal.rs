//! Numbers and addresses as text, without the detour through formatters: every request has some.

use std::{io::Write, net::IpAddr};

/// Writes a number.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes an address; a mapped IPv4 address (RFC 4291 section 2.5.5.2) as IPv4.
pub(super) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    let v4 = match ip.to_canonical() {
        IpAddr::V4(v4) => v4,
        // Writing to memory cannot fail.
        IpAddr::V6(v6) => return drop(write!(out, "{v6}")),
    };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        number(out, octet.into());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_look_as_the_standard_library_writes_them(address: IpAddr) {
            let mut out = Vec::new();
            ip(&mut out, address);
            prop_assert_eq!(String::from_utf8(out).unwrap(), address.to_canonical().to_string());
        }
    }
}
