//! `tracestate`: what other tracing systems pass along.

/// Members of a list (section 3.3.1.1).
const MEMBERS: usize = 32;
/// Bytes passed on (section 3.3.1.5: "SHOULD propagate at least 512 characters").
const BYTES: usize = 512;
/// Members longer than this are the first to go (section 3.3.1.5).
const LONG: usize = 128;
/// Bytes looked at; a longer list is not passed on.
const MOST: usize = 8 * 1024;

/// The `tracestate` fields of a request, in order, as one value to pass on; `None` if there is nothing, or if any of it is
/// invalid (section 4.3: "may discard the tracestate"). Only to be used beside a valid `traceparent`.
///
/// A list over 512 bytes loses its long members, then its last ones, as section 3.3.1.5 says.
pub fn tracestate<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut members: Vec<&[u8]> = Vec::new();
    let mut seen = 0;
    for value in values {
        seen += value.len() + 1;
        if seen > MOST {
            return None;
        }
        for member in value.split(|byte| *byte == b',') {
            let member = trimmed(member);
            // Section 3.3.1.2: empty members are allowed, and say nothing.
            if member.is_empty() {
                continue;
            }
            let key = key(member)?;
            let twice = members
                .iter()
                .any(|other| other.starts_with(key) && other.get(key.len()) == Some(&b'='));
            if members.len() == MEMBERS || twice {
                return None;
            }
            members.push(member);
        }
    }
    shorten(&mut members);
    (!members.is_empty()).then(|| members.join(&b','))
}

fn length(members: &[&[u8]]) -> usize {
    members
        .iter()
        .map(|it| it.len() + 1)
        .sum::<usize>()
        .saturating_sub(1)
}

fn shorten(members: &mut Vec<&[u8]>) {
    while length(members) > BYTES
        && let Some(long) = members.iter().rposition(|it| it.len() > LONG)
    {
        members.remove(long);
    }
    while length(members) > BYTES {
        members.pop();
    }
}

/// Without optional white space (RFC 9110 section 5.6.3).
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The key of a valid member (section 3.3.1.3).
fn key(member: &[u8]) -> Option<&[u8]> {
    let (key, value) = member.split_at(member.iter().position(|byte| *byte == b'=')?);
    let value = &value[1..];
    let named = |text: &[u8], most: usize, digit_first: bool| {
        let first = text
            .first()
            .is_some_and(|it| it.is_ascii_lowercase() || digit_first && it.is_ascii_digit());
        let rest = text
            .iter()
            .all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
        first && rest && text.len() <= most
    };
    let at = key.iter().position(|byte| *byte == b'@');
    let good_key = match at.map(|at| key.split_at(at)) {
        None => named(key, 256, false),
        Some((tenant, system)) => named(tenant, 241, true) && named(&system[1..], 14, false),
    };
    // Printable ASCII without comma and equals sign; white space around it is gone already.
    let good_value = (1..=256).contains(&value.len())
        && value
            .iter()
            .all(|it| matches!(it, b' '..=b'~') && *it != b'=');
    (good_key && good_value).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(values: &[&str]) -> Option<String> {
        let out = tracestate(values.iter().map(|it| it.as_bytes()))?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn lists_are_joined_in_order_without_what_is_empty() {
        assert_eq!(passed(&["foo=1"]).unwrap(), "foo=1");
        assert_eq!(passed(&["foo=1,bar=2"]).unwrap(), "foo=1,bar=2");
        assert_eq!(passed(&["foo=1", "bar=2"]).unwrap(), "foo=1,bar=2");
        assert_eq!(
            passed(&["foo=1 \t , \t bar=2, \t baz=3"]).unwrap(),
            "foo=1,bar=2,baz=3"
        );
        assert_eq!(passed(&["foo=1,", "", ",bar=2"]).unwrap(), "foo=1,bar=2");
        assert_eq!(passed(&["", " \t", ","]), None);
        assert_eq!(passed(&[]), None);
    }

    #[test]
    fn keys_and_values_are_those_of_the_grammar() {
        let tenant = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
        let longest = format!("{}={}", "k".repeat(256), "v".repeat(256));
        for good in [
            "z0=1",
            "a-_*/=1",
            "rojo=00f067aa0ba902b7",
            "1t@v=1",
            "foo=a b",
            "foo=~!\"",
            &tenant,
        ] {
            assert_eq!(passed(&[good]).as_deref(), Some(good));
        }
        // Valid, and too long to be passed on.
        assert_eq!(passed(&[&longest]), None);
        assert_eq!(passed(&[&longest, "foo=1"]).unwrap(), "foo=1");
        let (long_key, long_value) = (
            format!("{}=1", "k".repeat(257)),
            format!("k={}", "v".repeat(257)),
        );
        let (long_tenant, long_system) = (
            format!("{}@v=1", "t".repeat(242)),
            format!("t@{}=1", "v".repeat(15)),
        );
        for bad in [
            "foo",
            "foo=",
            "=1",
            "foo =1",
            "FOO=1",
            "0foo=1",
            "foo.bar=1",
            "foo@=1",
            "@foo=1",
            "foo@@bar=1",
            "foo@bar@baz=1",
            "foo@1v=1",
            "foo=1=2",
            "foo=\u{1}",
            "foo=\u{e9}",
            "foo=1,foo=2",
            "foo=1,bar",
            &long_key,
            &long_value,
            &long_tenant,
            &long_system,
        ] {
            assert_eq!(passed(&[bad]), None, "{bad}");
        }
        assert_eq!(passed(&["foo=1", "foo=1"]), None);
    }

    #[test]
    fn more_than_32_members_are_none() {
        let members = |count: usize| {
            (0..count)
                .map(|at| format!("k{at}=1"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(passed(&[&members(32)]), Some(members(32)));
        assert_eq!(passed(&[&members(33)]), None);
        assert_eq!(passed(&[&",".repeat(MOST + 1)]), None);
    }

    #[test]
    fn a_long_list_loses_its_long_members_first_and_then_its_last() {
        let long = format!("long={}", "v".repeat(200));
        let some = (0..20)
            .map(|at| format!("key{at:02}={}", "v".repeat(20)))
            .collect::<Vec<_>>();
        let list = format!("{long},{}", some.join(","));
        assert_eq!(passed(&[&list]).unwrap(), some[..19].join(","));
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_bounded_and_valid_again(values in prop::collection::vec("[a-c@=, \t\u{0}-\u{ff}]{0,40}", 0..6)) {
            let passed_on = passed(&values.iter().map(String::as_str).collect::<Vec<_>>());
            if let Some(once) = passed_on {
                prop_assert!(once.len() <= BYTES);
                prop_assert_eq!(passed(&[&once]), Some(once));
            }
        }
    }
}
