//! Hosts and paths of `spec.rules` and of conditions (contract sections 5.4 and 5.5).

#[cfg(test)]
mod tests;

use super::notes::Notes;
use crate::{
    ir::model::{HostPattern, PathPattern, Regex},
    problem::shown,
};

/// Longest path pattern, in characters.
const PATH_CHARS: usize = 128;
/// Longest regular expression, in bytes; what it costs to compile is bounded by [`Regex::new`].
const REGEX_BYTES: usize = 256;

const HOST_REMEDY: &str = "use a DNS name of 3 to 128 characters with a dot, without port, such as `shop.example.com`; \
                           `*` and `?` may stand for any part of it";
const REGEX_REMEDY: &str = "write a regular expression of 1 to 256 printable ASCII characters, without look-around and \
                            back-references";

/// Host of `spec.rules`: `None` after an error, `Some(None)` for any host.
pub(super) fn host(text: &str, field: &str, notes: &mut Notes) -> Option<Option<HostPattern>> {
    if text.is_empty() || text == "*" {
        return Some(None);
    }
    let pattern = named(text, field, notes)?;
    // Kubernetes' own contract: "the wildcard must appear by itself as the first DNS label and matches only a single
    // label". Any other wildcard is one of ALB.
    Some(Some(match pattern {
        HostPattern::Glob(host) => match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && !suffix.contains(['*', '?']) => {
                HostPattern::OneLabel(suffix.to_owned())
            }
            _ => HostPattern::Glob(host),
        },
        other => other,
    }))
}

/// Host of a condition: as written, with wildcards anywhere, or `~` and a regular expression. `None` after an error.
pub(super) fn host_condition(text: &str, field: &str, notes: &mut Notes) -> Option<HostPattern> {
    match text.strip_prefix('~') {
        // Hosts have no case, so that both marks mean the same.
        Some(regex) => {
            let regex = regex.strip_prefix('*').unwrap_or(regex);
            expression(regex, true, field, notes).map(HostPattern::Regex)
        }
        None => named(text, field, notes),
    }
}

/// "3-128 chars, must contain a dot, no leading/trailing dot"; wildcards anywhere.
fn named(text: &str, field: &str, notes: &mut Notes) -> Option<HostPattern> {
    let host = text.to_ascii_lowercase();
    let wild = |byte: u8| byte == b'*' || byte == b'?';
    let valid = (3..=128).contains(&host.len())
        && host.contains('.')
        && host.split('.').all(valid_label)
        && host.rsplit('.').next().is_some_and(|last| {
            last.bytes()
                .next()
                .is_some_and(|first| first.is_ascii_alphabetic() || wild(first))
        });
    if !valid {
        notes.error(
            field,
            format!("{} is not a host name", shown(text)),
            HOST_REMEDY,
        );
        return None;
    }
    Some(if host.bytes().any(wild) {
        HostPattern::Glob(host)
    } else {
        HostPattern::Exact(host)
    })
}

fn valid_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_*?".contains(&byte))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Path of `spec.rules`; `None` after an error.
///
/// `prefix_is_regex`: the Ingress has `use-regex`, or a `rewrite-target` other than this path. "applies to every Prefix
/// path of the Ingress except `/`".
pub(super) fn path(
    text: &str,
    path_type: Option<&str>,
    prefix_is_regex: bool,
    place: &str,
    notes: &mut Notes,
) -> Option<PathPattern> {
    let text = if text.is_empty() { "/" } else { text };
    let field = format!("{place}.path");
    match path_type {
        None | Some("Prefix") if prefix_is_regex && text != "/" => {
            if !text.starts_with('/') {
                notes.error(
                    field,
                    format!("{} is not a path", shown(text)),
                    "start with `/`; the rest may be a regular expression",
                );
                return None;
            }
            expression(text, true, &field, notes).map(PathPattern::Regex)
        }
        None | Some("Prefix" | "Exact") => {
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
            literal(text, &field, notes)?;
            Some(match path_type {
                Some("Exact") => PathPattern::Exact(text.to_owned()),
                _ => PathPattern::Prefix(text.strip_suffix('/').unwrap_or(text).to_owned()),
            })
        }
        Some("ImplementationSpecific") => verbatim(text, &field, notes),
        Some(other) => {
            notes.error(
                format!("{field}Type"),
                format!("unknown path type {}", shown(other)),
                "use Exact, Prefix or ImplementationSpecific",
            );
            None
        }
    }
}

/// Path of a condition, or with pathType ImplementationSpecific: literal, with `*` and `?`, or a regular expression
/// behind `~*` (either case) or `~`. `None` after an error.
pub(super) fn verbatim(text: &str, field: &str, notes: &mut Notes) -> Option<PathPattern> {
    if let Some(regex) = text.strip_prefix('~') {
        let either = regex.strip_prefix('*');
        let pattern = expression(either.unwrap_or(regex), either.is_some(), field, notes);
        return pattern.map(PathPattern::Regex);
    }
    literal(text, field, notes)?;
    Some(if !text.contains(['*', '?']) {
        PathPattern::Exact(text.to_owned())
    } else if text.bytes().skip(1).all(|byte| byte == b'*') {
        // The contract compiles Prefix `/` to `/*`: one pattern for everything.
        PathPattern::Prefix(String::new())
    } else {
        PathPattern::Glob(text.to_owned())
    })
}

/// "Pattern length 1-128, starts with `/`, letters digits `$ - _ . + / & ~ @ :` plus `*` `?`".
fn literal(text: &str, field: &str, notes: &mut Notes) -> Option<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"$-_.+/&~@:*?".contains(&byte);
    if !text.starts_with('/') || text.len() > PATH_CHARS || !text.bytes().all(allowed) {
        notes.error(
            field,
            format!("{} is not a path", shown(text)),
            "start with `/` and use at most 128 letters, digits and `$-_.+/&~@:`",
        );
        return None;
    }
    let dots = |element: &str| element == "." || element == "..";
    if text.contains("//") || text.split('/').any(dots) {
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
    Some(())
}

fn expression(text: &str, ignore_case: bool, field: &str, notes: &mut Notes) -> Option<Regex> {
    let printable = |byte: u8| (32..=126).contains(&byte);
    let built = if text.is_empty() {
        Err("it is empty".to_owned())
    } else if text.len() > REGEX_BYTES {
        Err(format!("it is longer than {REGEX_BYTES} bytes"))
    } else if !text.bytes().all(printable) {
        Err("it holds more than printable ASCII characters".to_owned())
    } else if !notes.one_more_expression(field) {
        return None;
    } else {
        Regex::new(text, ignore_case)
    };
    match built {
        Ok(regex) => Some(regex),
        Err(why) => {
            notes.error(
                field,
                format!(
                    "{} is not usable as a regular expression: {why}",
                    shown(text)
                ),
                REGEX_REMEDY,
            );
            None
        }
    }
}
