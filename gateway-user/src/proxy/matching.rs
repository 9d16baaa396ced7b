//! Which rule of a listener a request falls under: strict first match, in order.
//!
//! Pure. The semantics are those of the doc comments in [`crate::ir::model`].

use hyper::HeaderMap;

use crate::ir::{HeaderMatch, HostPattern, Listener, PathPattern, Rule};

/// Index of the first rule whose conditions all hold. `host` comes without its port, `path` without its query.
pub(super) fn first_match(
    listener: &Listener,
    host: &str,
    path: &str,
    headers: &HeaderMap,
) -> Option<usize> {
    listener
        .rules
        .iter()
        .position(|rule| matches(rule, host, path, headers))
}

fn matches(rule: &Rule, host: &str, path: &str, headers: &HeaderMap) -> bool {
    (rule.hosts.is_empty() || rule.hosts.iter().any(|pattern| host_matches(pattern, host)))
        && (rule.paths.is_empty() || rule.paths.iter().any(|pattern| path_matches(pattern, path)))
        && rule
            .headers
            .iter()
            .all(|wanted| header_matches(wanted, headers))
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name.eq_ignore_ascii_case(host),
        HostPattern::OneLabel(suffix) => {
            let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
            let Some(label_len) = host.len().checked_sub(suffix.len()) else {
                return false;
            };
            let (label, rest) = host.split_at(label_len);
            !label.is_empty() && !label.contains(&b'.') && rest.eq_ignore_ascii_case(suffix)
        }
    }
}

fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(whole) => whole == path,
        PathPattern::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty()),
    }
}

fn header_matches(wanted: &HeaderMatch, headers: &HeaderMap) -> bool {
    headers.get_all(wanted.name.as_str()).iter().any(|line| {
        wanted
            .values
            .iter()
            .any(|glob| glob_matches(glob.as_bytes(), line.as_bytes()))
    })
}

/// `*` is any run (also none), `?` one byte. Goes back only to the last `*`, so the cost is at most the product of the lengths.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g + 1, t));
                g += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                star = Some((after, from + 1));
                g = after;
                t = from + 1;
            }
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_elements_only() {
        let prefix = PathPattern::Prefix("/foo".into());
        for (path, expected) in [
            ("/foo", true),
            ("/foo/", true),
            ("/foo/bar", true),
            ("/foobar", false),
            ("/Foo", false),
        ] {
            assert_eq!(path_matches(&prefix, path), expected, "{path}");
        }
        assert!(path_matches(&PathPattern::Prefix(String::new()), "*"));
    }

    #[test]
    fn a_one_label_host_covers_exactly_one_label() {
        let pattern = HostPattern::OneLabel(".example.com".into());
        for (host, expected) in [
            ("a.example.com", true),
            ("A.EXAMPLE.com", true),
            ("a.b.example.com", false),
            (".example.com", false),
            ("example.com", false),
            ("xexample.com", false),
        ] {
            assert_eq!(host_matches(&pattern, host), expected, "{host}");
        }
    }

    #[test]
    fn globs_match_runs_and_single_characters_without_blowing_up() {
        for (glob, text, expected) in [
            ("gray", "gray", true),
            ("gray", "Gray", false),
            ("gr?y", "grey", true),
            ("gr?y", "gry", false),
            ("*", "", true),
            ("a*b*c", "a123b456c", true),
            ("a*b*c", "a123b456", false),
            ("*.example.*", "www.example.org", true),
        ] {
            assert_eq!(
                glob_matches(glob.as_bytes(), text.as_bytes()),
                expected,
                "{glob} {text}"
            );
        }
        let started = std::time::Instant::now();
        assert!(!glob_matches(
            "*a".repeat(60).as_bytes(),
            format!("{}b", "a".repeat(8000)).as_bytes()
        ));
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }
}
