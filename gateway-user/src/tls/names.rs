//! Which entry of a table a host name means: exact, then by one wildcard label.

use std::collections::HashMap;

/// Longest DNS name in text (RFC 1035 section 2.3.4).
const MOST_BYTES: usize = 253;

/// Host names, each with the number of an entry; the first of a name counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    exact: HashMap<Box<str>, usize>,
    /// `*.example.com` as `example.com`.
    wildcard: HashMap<Box<str>, usize>,
}

impl Names {
    /// Of one entry.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        for name in names {
            table.insert(name, 0);
        }
        table
    }

    /// Whether some entry is for `host`, which may be a wildcard itself.
    pub fn cover(&self, host: &str) -> bool {
        match host.strip_prefix("*.") {
            Some(parent) => self.wildcard.contains_key(&*parent.to_ascii_lowercase()),
            None => self.find(host).is_some(),
        }
    }

    /// Adds a name, in any case; what is no host name is left out.
    pub fn insert(&mut self, name: &str, entry: usize) {
        let name = name.to_ascii_lowercase();
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name.as_str()),
        };
        if !name.is_empty() && name.len() <= MOST_BYTES && !name.contains('*') {
            map.entry(name.into()).or_insert(entry);
        }
    }

    /// The entry of a host, in any case and with or without the dot of the root. "`*.x` covers exactly one label"
    /// (contract section 13; RFC 9525 section 6.3).
    pub fn find(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut lower = [0; MOST_BYTES];
        let lower = lower.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        let host = std::str::from_utf8(lower).ok()?;
        self.exact.get(host).copied().or_else(|| {
            let (label, parent) = host.split_once('.')?;
            let entry = self.wildcard.get(parent).copied();
            entry.filter(|_| !label.is_empty())
        })
    }
}

/// The name in a request's authority (`host`, `host:port`, `[v6]:port`; RFC 3986 section 3.2), without its port.
pub fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|it| it.is_ascii_digit()) && !host.ends_with(':') =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(names: &[&str]) -> Names {
        let mut table = Names::default();
        for (entry, name) in names.iter().enumerate() {
            table.insert(name, entry);
        }
        table
    }

    #[test]
    fn an_exact_name_beats_a_wildcard_which_covers_one_label() {
        let table = table(&[
            "*.Example.com",
            "a.example.com",
            "a.example.com",
            "*",
            "*.",
            "",
        ]);
        assert_eq!(table.find("A.example.COM."), Some(1));
        assert_eq!(table.find("b.example.com"), Some(0));
        for other in [
            "example.com",
            "b.a.example.com",
            ".example.com",
            "",
            "*",
            "com",
        ] {
            assert_eq!(table.find(other), None, "{other}");
        }
        assert_eq!(table.find(&"a".repeat(300)), None);
    }

    #[test]
    fn a_wildcard_host_is_covered_by_the_same_wildcard_only() {
        let names = Names::of(["*.example.com", "a.example.org"]);
        assert!(names.cover("*.EXAMPLE.com") && names.cover("x.example.com"));
        assert!(!names.cover("*.example.org") && !names.cover("example.com"));
    }

    #[test]
    fn an_authority_loses_its_port_only() {
        for (authority, host) in [
            ("a.example.com", "a.example.com"),
            ("a.example.com:8443", "a.example.com"),
            ("a.example.com:", "a.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }

    proptest! {
        #[test]
        fn a_host_is_found_as_a_walk_over_the_list_finds_it(
            names in prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..8),
            host in "[abAB](\\.[abAB]){0,3}",
        ) {
            let lower = host.to_lowercase();
            let parent = lower.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            let first = |wanted: &str| names.iter().position(|name| name == wanted);
            let naive = first(&lower).or_else(|| first(&parent?));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            prop_assert_eq!(table(&names).find(&host), naive);
        }
    }
}
