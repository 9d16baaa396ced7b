//! Who the client of a request is, behind proxies that are believed.

use std::net::IpAddr;

use crate::ir::Network;

/// The client that proxies in `trusted` tell of in the lines of `X-Forwarded-For`: from `near`, the other end of the
/// connection, the last address that is none of theirs, or the first of all (contract section 2.4). What is no address ends
/// the search. `None`: `near` itself is the client.
pub fn told_client(trusted: &[Network], near: IpAddr, lines: &[&[u8]]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|it| it.contains(address));
    let told = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    let (mut last, mut client) = (near, None);
    for text in told {
        if !is_trusted(last) {
            break;
        }
        let text = str::from_utf8(text).unwrap_or_default().trim();
        let Ok(address) = text.parse::<IpAddr>() else {
            break;
        };
        last = address.to_canonical();
        client = Some(last);
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_no_trusted_proxys_is_the_client() {
        let near = "10.0.0.1";
        let told = |near: &str, lines: &[&str]| {
            let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|it| it.parse().unwrap());
            let lines: Vec<&[u8]> = lines.iter().map(|it| it.as_bytes()).collect();
            told_client(&trusted, near.parse().unwrap(), &lines).map(|it| it.to_string())
        };
        for (lines, client) in [
            (&[][..], None),
            (&["192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.9, 192.0.2.1 , 10.0.0.2"], Some("192.0.2.1")),
            (&["192.0.2.1", "10.0.0.2", "2001:db8::7"], Some("192.0.2.1")),
            (&["10.0.0.3, 10.0.0.2"], Some("10.0.0.3")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["192.0.2.1:80"], None),
            (&[""], None),
        ] {
            assert_eq!(told(near, lines).as_deref(), client, "{lines:?}");
        }
        assert_eq!(told("192.0.2.8", &["192.0.2.1"]), None, "nobody to believe");
    }
}
