//! Which rule a request meets. The proxy and `fleetgate trace` both ask here.

use super::model::{Conditions, HeaderMatch, HostPattern, Listener, PathPattern, Rule};

impl Listener {
    /// First rule whose conditions all hold; rules are never re-sorted by how specific they are.
    ///
    /// `host` is the authority as the client sent it, with or without port; `path` excludes the query; `header` yields
    /// the values of all field lines of a (lower-case) name. Source: contract sections 5.3 to 5.5 and 6.
    pub fn first_match<'v, V>(
        &self,
        host: Option<&str>,
        path: &str,
        header: impl Fn(&str) -> V,
    ) -> Option<&Rule>
    where
        V: IntoIterator<Item = &'v [u8]>,
    {
        self.first_match_index(host, path, header)
            .and_then(|index| self.rules.get(index))
            .map(|rule| &**rule)
    }

    /// The same, as a position in [`Listener::rules`].
    pub fn first_match_index<'v, V>(
        &self,
        host: Option<&str>,
        path: &str,
        header: impl Fn(&str) -> V,
    ) -> Option<usize>
    where
        V: IntoIterator<Item = &'v [u8]>,
    {
        self.rules
            .iter()
            .position(|rule| rule.conditions.matches(host, path, &header))
    }
}

impl Conditions {
    /// Whether every condition holds.
    pub fn matches<'v, V>(&self, host: Option<&str>, path: &str, header: impl Fn(&str) -> V) -> bool
    where
        V: IntoIterator<Item = &'v [u8]>,
    {
        (self.hosts.is_empty()
            || host.is_some_and(|host| {
                let host = without_port(host);
                self.hosts.iter().any(|pattern| pattern.matches(host))
            }))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
            && self.headers.iter().all(|wanted| {
                header(&wanted.name)
                    .into_iter()
                    .any(|value| wanted.accepts(value))
            })
    }

    /// Whether every request meets them.
    pub fn covers_everything(&self) -> bool {
        self.hosts.is_empty()
            && self.headers.is_empty()
            && (self.paths.is_empty()
                || self
                    .paths
                    .iter()
                    .any(|path| *path == PathPattern::Prefix(String::new())))
    }
}

impl HostPattern {
    /// Compares a host without port, without regard to case.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(wanted) => host.eq_ignore_ascii_case(wanted),
            Self::OneLabel(suffix) => host.find('.').is_some_and(|dot| {
                let (label, rest) = host.split_at(dot);
                !label.is_empty() && rest.eq_ignore_ascii_case(suffix)
            }),
            Self::Glob(pattern) => glob(pattern.as_bytes(), host.to_ascii_lowercase().as_bytes()),
            Self::Regex(regex) => regex.is_match(host),
        }
    }
}

impl PathPattern {
    /// Compares a path without query, with regard to case.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(prefix) if prefix.is_empty() => true,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Glob(pattern) => glob(pattern.as_bytes(), path.as_bytes()),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl HeaderMatch {
    /// Whether one field line's whole value is among the alternatives.
    pub fn accepts(&self, value: &[u8]) -> bool {
        self.values
            .iter()
            .any(|pattern| glob(pattern.as_bytes(), value))
    }
}

/// `host:port` -> `host`; `[::1]:80` -> `[::1]`; one trailing dot (a fully qualified name) is dropped.
pub fn without_port(authority: &str) -> &str {
    let host = match authority.rfind(':') {
        Some(colon)
            if authority
                .get(colon + 1..)
                .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit())) =>
        {
            authority.get(..colon).unwrap_or_default()
        }
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// `*` is any run of bytes (also none), `?` exactly one. At most `pattern x text` steps: only the last star is retried,
/// which suffices because an earlier one has nothing to gain from taking more.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, from));
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                at += 1;
                from += 1;
            }
            _ => match retry {
                Some((after_star, taken)) => {
                    at = after_star;
                    from = taken + 1;
                    retry = Some((after_star, from));
                }
                None => return false,
            },
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive_glob(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                (0..=text.len()).any(|taken| naive_glob(rest, &text[taken..]))
            }
            (Some((b'?', rest)), Some((_, text))) => naive_glob(rest, text),
            (Some((wanted, rest)), Some((byte, text))) => wanted == byte && naive_glob(rest, text),
            _ => false,
        }
    }

    #[test]
    fn a_hostile_glob_stays_cheap() {
        let pattern = b"*a".repeat(64);
        let text = b"a".repeat(8 * 1024);
        assert!(glob(&pattern, &text));
        assert!(!glob(&[&pattern[..], b"b"].concat(), &text));
    }

    #[test]
    fn a_prefix_matches_whole_elements() {
        let foo = PathPattern::Prefix("/foo".into());
        assert!(foo.matches("/foo") && foo.matches("/foo/") && foo.matches("/foo/bar"));
        assert!(!foo.matches("/foobar") && !foo.matches("/Foo") && !foo.matches("/"));
    }

    #[test]
    fn a_wildcard_host_is_exactly_one_label() {
        let pattern = HostPattern::OneLabel(".example.com".into());
        assert!(pattern.matches("a.example.com") && pattern.matches("A.EXAMPLE.com"));
        assert!(
            !pattern.matches("example.com")
                && !pattern.matches("a.b.example.com")
                && !pattern.matches(".example.com")
        );
    }

    #[test]
    fn the_port_and_the_final_dot_of_an_authority_do_not_count() {
        for (authority, host) in [
            ("a.com:80", "a.com"),
            ("a.com", "a.com"),
            ("a.com.:80", "a.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.com:", "a.com"),
            ("", ""),
        ] {
            assert_eq!(without_port(authority), host);
        }
    }

    proptest! {
        #[test]
        fn glob_equals_its_definition(pattern in "[ab*?]{0,8}", text in "[abc]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), naive_glob(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
