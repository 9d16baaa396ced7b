//! Which rule a request meets. The proxy and `fleetgate trace` both ask here.

mod client;
mod glob;
mod index;
mod pairs;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use self::glob::glob_over;
pub(crate) use self::pairs::parameter;
pub use self::{client::told_client, glob::glob, index::RuleIndex};
use super::model::{
    Conditions, Direction, HeaderMatch, HostPattern, Listener, PairMatch, PathPattern, Rule,
};

/// What conditions read of a request. Nothing is copied: matching allocates nothing.
pub trait RequestParts {
    /// Authority as the client sent it, with or without port; `None` without one.
    fn host(&self) -> Option<&str>;
    /// Method as sent; methods are case-sensitive.
    fn method(&self) -> &str;
    /// Path as sent, without the query.
    fn path(&self) -> &str;
    /// What follows the first `?`, without it.
    fn query(&self) -> Option<&str>;
    /// The client's address; `None` (unknown) lies in no network.
    fn source(&self) -> Option<IpAddr>;
    /// Values of all field lines of a header, named in lower case.
    fn header_lines(&self, name: &str) -> impl Iterator<Item = &[u8]>;
}

impl Conditions {
    /// Whether a request meets every block that asks about requests. What is asked of the response is left to
    /// [`matches_response`](Self::matches_response). Source: contract sections 5.3 to 5.5 and 6.
    pub fn matches(&self, request: &impl RequestParts) -> bool {
        let found = |wanted: &HeaderMatch| {
            let mut lines = request.header_lines(&wanted.name);
            lines.any(|value| wanted.accepts(value))
        };
        let in_query = |pair: &PairMatch| request.query().is_some_and(|it| pair.in_query(it));
        let in_cookies = |pair: &PairMatch| pair.in_cookies(request.header_lines("cookie"));
        any_path(&self.paths, request.path())
            && any_host(&self.hosts, request.host())
            && (self.methods.is_empty() || self.methods.iter().any(|it| it == request.method()))
            && (self.sources.is_empty()
                || request
                    .source()
                    .is_some_and(|source| self.sources.iter().any(|it| it.contains(source))))
            && self.headers.iter().all(found)
            && any_of_each(&self.queries, in_query)
            && any_of_each(&self.cookies, in_cookies)
    }

    /// Whether a response meets every block that asks about responses. `header` yields the values of all field lines of a
    /// (lower-case) name.
    pub fn matches_response<'v, V>(&self, status: u16, header: impl Fn(&str) -> V) -> bool
    where
        V: IntoIterator<Item = &'v [u8]>,
    {
        (self.response_statuses.is_empty() || self.response_statuses.contains(&status))
            && all_headers(&self.response_headers, header)
    }

    /// Whether every request, and every response to it, meets these.
    pub fn covers_everything(&self) -> bool {
        let Self {
            hosts,
            paths,
            methods,
            sources,
            headers,
            queries,
            cookies,
            response_headers,
            response_statuses,
        } = self;
        hosts.is_empty()
            && every_path(paths)
            && methods.is_empty()
            && sources.is_empty()
            && headers.is_empty()
            && queries.iter().all(Vec::is_empty)
            && cookies.iter().all(Vec::is_empty)
            && response_headers.is_empty()
            && response_statuses.is_empty()
    }
}

impl Listener {
    /// First rule for requests whose conditions all hold, as a position in [`Listener::rules`]; rules are never
    /// re-sorted by how specific they are. Source: contract section 5.3.
    pub fn first_match(&self, request: &impl RequestParts) -> Option<usize> {
        self.rules.iter().position(|rule| {
            rule.direction == Direction::Request && rule.conditions.matches(request)
        })
    }

    /// First rule for responses whose conditions on the request hold and that is refused: what it would do to a
    /// response cannot be done, so such requests are not served.
    pub fn refused_response(&self, request: &impl RequestParts) -> Option<&Rule> {
        let asked = self.rules.iter().find(|rule| {
            rule.direction == Direction::Response
                && rule.refused.is_some()
                && rule.conditions.matches(request)
        });
        asked.map(|rule| &**rule)
    }
}

/// A request that is held as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainRequest<'a> {
    /// Authority.
    pub host: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Path, without the query.
    pub path: &'a str,
    /// Query.
    pub query: Option<&'a str>,
    /// Client.
    pub source: Option<IpAddr>,
    /// Header lines, names in lower case.
    pub headers: &'a [(String, String)],
}

impl RequestParts for PlainRequest<'_> {
    fn host(&self) -> Option<&str> {
        self.host
    }

    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn source(&self) -> Option<IpAddr> {
        self.source
    }

    fn header_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let lines = self.headers.iter().filter(move |(key, _)| key == name);
        lines.map(|(_, value)| value.as_bytes())
    }
}

fn any_host(patterns: &[HostPattern], host: Option<&str>) -> bool {
    patterns.is_empty()
        || host.is_some_and(|host| {
            let host = without_port(host);
            patterns.iter().any(|pattern| pattern.matches(host))
        })
}

fn any_path(patterns: &[PathPattern], path: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(path))
}

fn every_path(patterns: &[PathPattern]) -> bool {
    let all = |path: &PathPattern| matches!(path, PathPattern::Prefix(it) if it.is_empty());
    patterns.is_empty() || patterns.iter().any(all)
}

/// An empty block asks for nothing.
fn any_of_each(blocks: &[Vec<PairMatch>], found: impl Fn(&PairMatch) -> bool) -> bool {
    let mut blocks = blocks.iter();
    blocks.all(|block| block.is_empty() || block.iter().any(&found))
}

fn all_headers<'v, V>(wanted: &[HeaderMatch], header: impl Fn(&str) -> V) -> bool
where
    V: IntoIterator<Item = &'v [u8]>,
{
    wanted.iter().all(|wanted| {
        header(&wanted.name)
            .into_iter()
            .any(|value| wanted.accepts(value))
    })
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
            Self::Glob(pattern) => glob_over(
                pattern.as_bytes(),
                host.bytes().map(|byte| byte.to_ascii_lowercase()),
            ),
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
