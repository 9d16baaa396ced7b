//! Hosts and paths of `spec.rules` (contract sections 5.4 and 5.5).

use super::notes::Notes;
use crate::{
    ir::model::{HostPattern, PathPattern},
    problem::shown,
};

/// Longest path pattern, in characters.
const PATH_CHARS: usize = 128;

/// `None` after an error; `Some(None)` for any host.
pub(super) fn host(text: &str, field: &str, notes: &mut Notes) -> Option<Option<HostPattern>> {
    if text.is_empty() || text == "*" {
        return Some(None);
    }
    let lower = text.to_ascii_lowercase();
    let (suffix, pattern) = match lower.strip_prefix("*.") {
        Some(suffix) => (suffix, HostPattern::OneLabel(format!(".{suffix}"))),
        None => (lower.as_str(), HostPattern::Exact(lower.clone())),
    };
    if suffix.contains(['*', '?']) {
        notes.restriction(
            field,
            format!(
                "host {} has a wildcard where none is supported",
                shown(text)
            ),
            "write the host in full, or `*.` before a domain for exactly one label",
        );
        return None;
    }
    let labels: Vec<&str> = suffix.split('.').collect();
    let valid = (3..=128).contains(&lower.len())
        && lower.contains('.')
        && labels.iter().all(|label| valid_label(label))
        && labels
            .last()
            .is_some_and(|last| last.starts_with(|first: char| first.is_ascii_alphabetic()));
    if !valid {
        notes.error(
            field,
            format!("{} is not a host name", shown(text)),
            "use a DNS name of 3 to 128 characters with a dot, without port, such as `shop.example.com`",
        );
        return None;
    }
    Some(Some(pattern))
}

fn valid_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// `None` after an error.
pub(super) fn path(
    text: &str,
    path_type: Option<&str>,
    field: &str,
    notes: &mut Notes,
) -> Option<PathPattern> {
    let text = if text.is_empty() { "/" } else { text };
    let field = format!("{field}.path");
    match path_type {
        None | Some("Prefix" | "Exact" | "ImplementationSpecific") => {}
        Some(other) => {
            notes.error(
                format!("{field}Type"),
                format!("unknown path type {}", shown(other)),
                "use Exact, Prefix or ImplementationSpecific",
            );
            return None;
        }
    }
    let specific = path_type == Some("ImplementationSpecific");
    if specific && (text.starts_with('~') || text.contains(['*', '?'])) {
        notes.restriction(
            field,
            format!(
                "wildcards and regular expressions, as in {}, are not supported yet",
                shown(text)
            ),
            "use pathType Prefix or Exact",
        );
        return None;
    }
    if text.contains(['*', '?']) {
        notes.error(
            field,
            format!(
                "{} holds a wildcard, which pathType Prefix and Exact do not allow",
                shown(text)
            ),
            "leave the wildcard out: Prefix `/foo` already covers everything below `/foo/`",
        );
        return None;
    }
    if !text.starts_with('/') || text.len() > PATH_CHARS || !text.bytes().all(allowed) {
        notes.error(
            field,
            format!("{} is not a path", shown(text)),
            "start with `/` and use at most 128 letters, digits and `$-_.+/&~@:`",
        );
        return None;
    }
    if text.contains("//")
        || text
            .split('/')
            .any(|element| element == "." || element == "..")
    {
        notes.error(
            field,
            format!(
                "{} has an empty, `.` or `..` element, which no normal request carries",
                shown(text)
            ),
            "write the path without `//`, `/./` and `/../`",
        );
        return None;
    }
    Some(match path_type {
        None | Some("Prefix") => {
            PathPattern::Prefix(text.strip_suffix('/').unwrap_or(text).to_owned())
        }
        _ => PathPattern::Exact(text.to_owned()),
    })
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"$-_.+/&~@:".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Notes {
        Notes::on("Ingress", "demo", "a")
    }

    #[test]
    fn a_prefix_loses_one_trailing_slash_and_root_covers_all() {
        let read = |text: &str| path(text, Some("Prefix"), "f", &mut notes());
        assert_eq!(read("/foo/"), Some(PathPattern::Prefix("/foo".into())));
        assert_eq!(read("/"), Some(PathPattern::Prefix(String::new())));
        assert_eq!(read(""), Some(PathPattern::Prefix(String::new())));
    }

    #[test]
    fn implementation_specific_without_wildcard_is_exact() {
        let read = |text: &str| path(text, Some("ImplementationSpecific"), "f", &mut notes());
        assert_eq!(read("/foo/"), Some(PathPattern::Exact("/foo/".into())));
        assert_eq!(read("/foo/*"), None);
        assert_eq!(read("~*/foo"), None);
    }

    #[test]
    fn a_path_that_cannot_match_is_refused() {
        for text in [
            "foo",
            "/a b",
            "/a?",
            "/a*",
            "//",
            "/a/../b",
            "/a/.",
            "/\u{fc}",
            "/%2f",
            &format!("/{}", "a".repeat(128)),
        ] {
            let mut notes = notes();
            assert_eq!(path(text, Some("Exact"), "f", &mut notes), None, "{text}");
            assert_eq!(notes.errors(), 1, "{text}");
        }
    }

    #[test]
    fn hosts_are_dns_names_or_one_wildcard_label() {
        let read = |text: &str| host(text, "f", &mut notes());
        assert_eq!(read("*"), Some(None));
        assert_eq!(
            read("Shop.Example.com"),
            Some(Some(HostPattern::Exact("shop.example.com".into())))
        );
        assert_eq!(
            read("*.example.com"),
            Some(Some(HostPattern::OneLabel(".example.com".into())))
        );
        for bad in [
            "*.*.com",
            "www.example.*",
            "a*.example.com",
            "localhost",
            "10.0.0.1",
            "a.com:80",
            ".a.com",
            "a.com.",
            "a..b",
            "-a.com",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
