//! `Cookie` lines read and changed in place: what is not ours stays as it is, byte for byte. Pure.

use std::borrow::Cow;

/// Most bytes of all `Cookie` lines together that are read; the proxy refuses longer heads before.
const MOST_BYTES: usize = 32 * 1024;

/// Names and values of all cookies, without blanks around them. RFC 6265, section 4.2.1:
/// `cookie-pair *( ";" SP cookie-pair )`; what has no `=` is no cookie.
pub(super) fn each<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let mut left = MOST_BYTES;
    lines
        .map_while(move |line| {
            left = left.checked_sub(line.len())?;
            Some(line)
        })
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .filter_map(pair)
}

/// A name and its value, without blanks around them.
pub(super) fn pair(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (piece.get(..at)?, piece.get(at + 1..)?);
    Some((name.trim_ascii(), value.trim_ascii()))
}

/// What becomes of a cookie.
pub(super) enum Change {
    /// It stays.
    Keep,
    /// It goes.
    Drop,
    /// So many bytes at the start of its value go.
    Cut(usize),
}

/// A line with changed cookies; `None` if nothing is left of it.
pub(super) fn edit(line: &[u8], change: impl Fn(&[u8], &[u8]) -> Change) -> Option<Cow<'_, [u8]>> {
    let pieces = || line.split(|byte| *byte == b';');
    let change = |piece: &[u8]| match pair(piece) {
        Some((name, value)) => change(name, value),
        None => Change::Keep,
    };
    if pieces().all(|piece| matches!(change(piece), Change::Keep)) {
        return Some(Cow::Borrowed(line));
    }
    let mut edited: Vec<u8> = Vec::with_capacity(line.len());
    for piece in pieces() {
        let change = change(piece);
        if matches!(change, Change::Drop) {
            continue;
        }
        if edited.is_empty() {
            edited.extend(piece.trim_ascii_start());
        } else {
            edited.push(b';');
            edited.extend(piece);
        }
        if let (Change::Cut(bytes), Some((_, value))) = (change, pair(piece)) {
            // The value with all that follows it is at the end.
            let behind = piece.len() - piece.trim_ascii_end().len();
            let start = edited.len() - value.len() - behind;
            edited.drain(start..start + bytes.min(value.len()));
        }
    }
    (!edited.trim_ascii().is_empty()).then_some(Cow::Owned(edited))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edited(line: &str) -> Option<String> {
        let change = |name: &[u8], value: &[u8]| match name {
            b"gone" => Change::Drop,
            b"cut" if value.len() > 1 => Change::Cut(2),
            _ => Change::Keep,
        };
        edit(line.as_bytes(), change).map(|it| String::from_utf8_lossy(&it).into_owned())
    }

    #[test]
    fn only_what_is_ours_changes() {
        for (line, expected) in [
            ("a=1; b=2", Some("a=1; b=2")),
            ("gone=1; b=2", Some("b=2")),
            ("a=1; gone=1; b=2", Some("a=1; b=2")),
            ("a=1;gone=1", Some("a=1")),
            ("gone=1; gone=2", None),
            ("gone=1;", None),
            ("; gone=1; a", Some("a")),
            ("gone", Some("gone")),
            ("Gone=1; x gone=2", Some("Gone=1; x gone=2")),
            ("cut=abc=d", Some("cut=c=d")),
            ("a=1; cut = abc ; b=2", Some("a=1; cut = c ; b=2")),
            ("cut=ab", Some("cut=")),
            ("cut=a; \"gone=1; x=\"", Some("cut=a; \"gone=1; x=\"")),
            ("", Some("")),
        ] {
            assert_eq!(edited(line).as_deref(), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_cookies_of_others_stay_in_order_whatever_surrounds_them(
            pieces in prop::collection::vec(
                prop_oneof![
                    "gone ?= ?[a=\"]{0,3}",
                    "[ a-z=\"\\\\,\t]{0,8}",
                    Just(" gone=1 ".to_owned()),
                ],
                0..12,
            ),
        ) {
            let line = pieces.join(";");
            let ours = |piece: &&str| piece.split_once('=').is_some_and(|(name, _)| name.trim() == "gone");
            let others: Vec<_> = line.split(';').filter(|it| !ours(it)).map(str::trim).collect();
            let left = edited(&line).unwrap_or_default();
            let left: Vec<_> = left.split(';').map(str::trim).collect();
            let named = |all: &[&str]| -> Vec<String> {
                all.iter().filter(|it| !it.is_empty()).map(|it| (*it).to_owned()).collect()
            };
            prop_assert_eq!(named(&left), named(&others));
        }

        #[test]
        fn no_line_is_too_strange(line in prop::collection::vec(any::<u8>(), 0..200), bytes in 0_usize..300) {
            for change in [|_| Change::Keep, |_| Change::Drop, |bytes| Change::Cut(bytes)] {
                let edited = edit(&line, |_, _| change(bytes));
                prop_assert!(edited.is_none_or(|it| it.len() <= line.len()));
            }
            prop_assert!(each([&line[..], &line[..]].into_iter()).count() <= 2 * line.len());
        }
    }
}
