//! Paths that a backend may read as another path.

use super::bad;
use crate::proxy::reason::Refusal;

/// Refuses a target whose path holds a dot segment, plain or encoded, or a backslash.
///
/// RFC 3986 section 5.2.4 lets whoever receives a path remove `.` and `..`. Rules are matched on the path as sent, so
/// `/public/../admin` would pass by a rule for `/public` and be served as `/admin`. What servers take for a separator
/// (`\`, `%2f`, `%5c`) or cut off (`;` and what follows) counts as such here. The query is not looked at.
pub(in crate::proxy) fn unambiguous(target: &[u8]) -> Result<(), Refusal> {
    let mut rest = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    if rest.contains(&b'\\') {
        return Err(bad("the path holds a backslash"));
    }
    // Dots of the element being read; none once it holds anything else.
    let mut dots = Some(0_u8);
    // After a semicolon the element has been told, and parameters follow.
    let mut parameters = false;
    loop {
        let (byte, len) = match rest {
            [] => break,
            [b'%', b'2', b'e' | b'E', ..] => (b'.', 3),
            [b'%', b'2', b'f' | b'F', ..] | [b'%', b'5', b'c' | b'C', ..] => (b'/', 3),
            [b'%', b'3', b'b' | b'B', ..] => (b';', 3),
            [byte, ..] => (*byte, 1),
        };
        rest = &rest[len..];
        match byte {
            b'/' => {
                check(dots)?;
                (dots, parameters) = (Some(0), false);
            }
            b';' => parameters = true,
            _ if parameters => {}
            b'.' => dots = dots.and_then(|dots| dots.checked_add(1)),
            _ => dots = None,
        }
    }
    check(dots)
}

fn check(dots: Option<u8>) -> Result<(), Refusal> {
    match dots {
        Some(1 | 2) => Err(bad("the path holds the element `.` or `..`")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_one_or_two_dots_are_found_however_they_are_written() {
        for path in [
            "/.",
            "/..",
            "/./",
            "/../a",
            "/a/..",
            "/%2e",
            "/%2E%2e/",
            "/.%2e",
            "/..;",
            "/.;x=y/",
            "/..%3bx",
            "/a%2f..",
            "/..%5Ca",
            "/a;b/..",
            "/\\",
            "/a\\b?c",
            "http://a/../b",
        ] {
            assert!(unambiguous(path.as_bytes()).is_err(), "{path}");
        }
        for path in [
            "/",
            "//",
            "*",
            "/...",
            "/a.",
            "/.a",
            "/a..b",
            "/%2ea",
            "/%",
            "/%2",
            "/;..",
            "/a;..",
            "/?..",
            "/a?/../",
            "/a%2fb",
            "/%252e%252e/",
            "http://a.b/c",
        ] {
            assert!(unambiguous(path.as_bytes()).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_long_run_of_dots_is_no_dot_segment() {
        for len in [3, 255, 256, 257, 258, 513] {
            assert!(
                unambiguous(format!("/{}", ".".repeat(len)).as_bytes()).is_ok(),
                "{len}"
            );
        }
    }
}
