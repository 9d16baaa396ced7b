//! One spelling for each path, for rules and backends alike.

use std::borrow::Cow;

use super::bad;
use crate::proxy::reason::Refusal;

/// The target with its path spelled as rules spell theirs; what is matched and what is sent on must both be this.
///
/// To every backend `/%61dmin` is `/admin`, so it must be that to rules, too. RFC 3986 section 6.2.2.2: escapes of
/// unreserved characters are undone; section 6.2.2.1: the hexadecimal digits of all others are upper case. Every reader
/// takes both spellings for the same, so that no backend sees another path than the client meant.
///
/// All else stays: `%2f` and `//` mean to one backend what they do not mean to another, the query belongs to the
/// application, and dot segments are refused ([`unambiguous`](super::path::unambiguous)). Refused are a `%` without two
/// hexadecimal digits (section 2.1), which undone escapes could make one of, and `%00`, which ends a path for some.
pub(in crate::proxy) fn normal(target: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    let path = path_of(target);
    let (before, rest) = target.split_at(path.start);
    let (mut path, query) = rest.split_at(path.end - path.start);
    if !path.contains(&b'%') {
        return Ok(Cow::Borrowed(target));
    }
    let mut out = Vec::with_capacity(target.len());
    out.extend_from_slice(before);
    while let Some((first, behind)) = path.split_first() {
        path = behind;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, behind @ ..] = behind else {
            return Err(HALF);
        };
        path = behind;
        match escaped(*high, *low).ok_or(HALF)? {
            0 => return Err(bad("the path holds `%00`")),
            byte if is_unreserved(byte) => out.push(byte),
            _ => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
        }
    }
    out.extend_from_slice(query);
    Ok(Cow::Owned(out))
}

const HALF: Refusal = bad("the path holds a `%` without two hexadecimal digits");

/// Where the path of a target in origin, absolute or asterisk form is.
fn path_of(target: &[u8]) -> std::ops::Range<usize> {
    let len = target.len();
    let from = |at: usize, ends: &[u8]| {
        let found = target[at..].iter().position(|byte| ends.contains(byte));
        found.map_or(len, |found| at + found)
    };
    let scheme = if target.starts_with(b"/") {
        None
    } else {
        target.windows(3).position(|three| three == b"://")
    };
    let start = scheme.map_or(0, |at| from(at + 3, b"/?"));
    start..from(start, b"?")
}

/// The byte that `%` and these digits stand for.
pub(in crate::proxy) fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// RFC 3986 section 2.3.
pub(in crate::proxy) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::framing::path::unambiguous;

    #[test]
    fn a_path_has_one_spelling_and_the_query_stays() {
        for (sent, normal_form) in [
            ("/admin?%61", "/admin?%61"),
            ("/%61dmin?%61", "/admin?%61"),
            ("/%7euser/%2D%5f", "/~user/-_"),
            ("/a%2fb%3b%c3%bc", "/a%2Fb%3B%C3%BC"),
            ("/%2541", "/%2541"),
            ("/%2e%2e/", "/../"),
            ("//a///b", "//a///b"),
            ("/a:/%41://%42", "/a:/A://B"),
            ("http://a%41/%41?%41", "http://a%41/A?%41"),
            ("http://a?%41", "http://a?%41"),
            ("*", "*"),
        ] {
            let found = normal(sent.as_bytes()).expect(sent);
            assert_eq!(String::from_utf8_lossy(&found), normal_form);
        }
    }

    #[test]
    fn half_an_escape_and_an_escaped_nul_are_refused_in_paths_only() {
        for path in [
            "/%",
            "/%4",
            "/%4?1",
            "/%zz",
            "/%%41",
            "/%00",
            "/a%00.png",
            "/%%32e",
        ] {
            assert!(normal(path.as_bytes()).is_err(), "{path}");
        }
        assert!(normal(b"/?%&%00&%zz").is_ok());
    }

    fn decoded(text: &[u8]) -> Vec<u8> {
        match text {
            [b'%', high, low, rest @ ..] => {
                let byte = escaped(*high, *low).expect("an escape");
                [vec![byte], decoded(rest)].concat()
            }
            [first, rest @ ..] => [vec![*first], decoded(rest)].concat(),
            [] => Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn the_normal_spelling_is_final_and_means_the_same(
            path in "(http://a)?(/|[a.;]|%[2-7][0-9a-fA-F]|%2[eEfF]|%5c|%3B|%25|\\\\){0,12}",
        ) {
            let found = normal(path.as_bytes()).expect("whole escapes");
            prop_assert_eq!(&normal(&found).expect("whole escapes"), &found);
            prop_assert_eq!(decoded(&found), decoded(path.as_bytes()));
            prop_assert_eq!(unambiguous(&found).is_ok(), unambiguous(path.as_bytes()).is_ok());
        }

        #[test]
        fn any_target_is_read_without_panic(target in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(found) = normal(&target) {
                prop_assert!(found.len() <= target.len());
            }
        }
    }
}
