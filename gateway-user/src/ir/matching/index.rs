//! The first rule that a request meets, at a cost that does not grow with the number of rules.

mod keyed;
mod race;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::{keyed::Keyed, race::Race};
use super::{RequestParts, without_port};
use crate::ir::model::{Conditions, Direction, HostPattern, PathPattern, Rule};

/// Longest host that is looked up. RFC 1035 section 2.3.4: a name has at most 255 octets.
const HOST_BYTES: usize = 255;

/// Where the rules of a listener are found: by host, then by path.
///
/// A request looks its host up whole and from each dot on, and in what it finds its path, whole and up to each slash;
/// whatever is found under other keys cannot match. The few lists of rules found so are walked together in the order of
/// the rules, and every candidate's conditions are asked in full: the index decides who is asked, never the answer.
///
/// Lookups are made only at lengths that some key has, so that a hostile host or path of any length costs as much as
/// the longest keys. What is found by no key (regular expressions; wildcards in the last label of a host or in the first
/// element of a path) is asked one rule after the other, as are rules that share host and path. Nothing is allocated.
#[derive(Clone, Debug, Default)]
pub struct RuleIndex {
    /// Of whole hosts.
    hosts: Keyed<Paths>,
    /// Of what hosts end with: a dot and labels.
    domains: Keyed<Paths>,
    /// Of any host, and of hosts that no key tells.
    others: Paths,
    responses: Vec<usize>,
    refused_responses: Vec<usize>,
}

impl RuleIndex {
    /// The index of these rules; positions are those in `rules`.
    pub fn build(rules: &[Arc<Rule>]) -> Self {
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            match rule.direction {
                Direction::Request => index.insert(at, &rule.conditions),
                Direction::Response => {
                    index.responses.push(at);
                    if rule.refused.is_some() {
                        index.refused_responses.push(at);
                    }
                }
            }
        }
        index
    }

    /// [`Listener::first_match`](crate::ir::Listener::first_match), faster. `rules` are those the index was built of.
    pub fn first_match(&self, rules: &[Arc<Rule>], request: &impl RequestParts) -> Option<usize> {
        let mut race = Race::new(|at| meets(rules, at, request));
        self.enter(request, &mut race);
        race.first()
    }

    /// Enters every list that may hold a match.
    fn enter<'i>(
        &'i self,
        request: &impl RequestParts,
        race: &mut Race<'i, impl FnMut(usize) -> bool>,
    ) {
        let path = request.path().as_bytes();
        if let Some(host) = request.host() {
            let host = without_port(host).as_bytes();
            // Of a longer host only the end is of use: a wildcard may stand for the rest.
            let end = &host[host.len().saturating_sub(HOST_BYTES)..];
            let mut lower = [0; HOST_BYTES];
            let lower = &mut lower[..end.len()];
            lower.copy_from_slice(end);
            lower.make_ascii_lowercase();
            if end.len() == host.len()
                && let Some(paths) = self.hosts.at(lower)
            {
                paths.enter(path, race);
            }
            let ends = lower.len().saturating_sub(self.domains.longest())..lower.len();
            for dot in ends.filter(|at| lower[*at] == b'.') {
                if let Some(paths) = self.domains.at(&lower[dot..]) {
                    paths.enter(path, race);
                }
            }
        }
        self.others.enter(path, race);
    }

    /// Positions of the rules for responses, in their order.
    pub fn responses(&self) -> &[usize] {
        &self.responses
    }

    /// [`Listener::refused_response`](crate::ir::Listener::refused_response), as a position: asks refused rules only.
    pub fn refused_response(
        &self,
        rules: &[Arc<Rule>],
        request: &impl RequestParts,
    ) -> Option<usize> {
        let mut refused = self.refused_responses.iter().copied();
        refused.find(|at| meets(rules, *at, request))
    }

    fn insert(&mut self, at: usize, conditions: &Conditions) {
        if conditions.hosts.is_empty() {
            self.others.insert(at, &conditions.paths);
        }
        for host in &conditions.hosts {
            let paths = match host {
                HostPattern::Exact(host) if host.len() <= HOST_BYTES => {
                    self.hosts.entry(&lower(host))
                }
                HostPattern::OneLabel(domain) if domain.len() <= HOST_BYTES => {
                    self.domains.entry(&lower(domain))
                }
                HostPattern::Glob(pattern) => match fixed_domain(pattern) {
                    Some(domain) => self.domains.entry(&lower(domain)),
                    None => &mut self.others,
                },
                _ => &mut self.others,
            };
            paths.insert(at, &conditions.paths);
        }
    }
}

/// A host as it is looked up.
fn lower(host: &str) -> Vec<u8> {
    host.to_ascii_lowercase().into_bytes()
}

fn meets(rules: &[Arc<Rule>], at: usize, request: &impl RequestParts) -> bool {
    rules
        .get(at)
        .is_some_and(|rule| rule.conditions.matches(request))
}

/// What every match of a host pattern ends with, from a dot on: `.example.com` of `*.example.com`, `.b.c` of `a?a.b.c`.
fn fixed_domain(pattern: &str) -> Option<&str> {
    let behind = pattern.rfind(WILD).map_or(0, |at| at + 1);
    let fixed = pattern.get(behind..)?;
    let domain = fixed.get(fixed.find('.')?..)?;
    (domain.len() <= HOST_BYTES).then_some(domain)
}

/// The elements that every match of a path pattern starts with: `/a` of `/a/*` and of `/a/b?`.
fn fixed_elements(pattern: &str) -> &str {
    let fixed = pattern.find(WILD).map_or(pattern, |at| &pattern[..at]);
    fixed.rfind('/').map_or("", |slash| &fixed[..slash])
}

const WILD: [char; 2] = ['*', '?'];

/// Rules of one host, or of hosts with one end, by path; lists are in the order of the rules.
#[derive(Clone, Debug, Default)]
struct Paths {
    /// Of whole paths.
    whole: Keyed<Vec<usize>>,
    /// Of first elements.
    below: Keyed<Vec<usize>>,
    /// Of any path, and of paths that no key tells.
    others: Vec<usize>,
}

impl Paths {
    fn insert(&mut self, at: usize, patterns: &[PathPattern]) {
        let push = |list: &mut Vec<usize>| {
            if list.last() != Some(&at) {
                list.push(at);
            }
        };
        if patterns.is_empty() {
            push(&mut self.others);
        }
        for pattern in patterns {
            let elements = match pattern {
                PathPattern::Exact(path) => {
                    push(self.whole.entry(path.as_bytes()));
                    continue;
                }
                PathPattern::Prefix(prefix) => prefix,
                PathPattern::Glob(pattern) => fixed_elements(pattern),
                PathPattern::Regex(_) => "",
            };
            push(match elements {
                "" => &mut self.others,
                elements => self.below.entry(elements.as_bytes()),
            });
        }
    }

    /// Enters every list that may hold a match of `path`.
    fn enter<'i>(&'i self, path: &[u8], race: &mut Race<'i, impl FnMut(usize) -> bool>) {
        race.enter(self.whole.at(path));
        race.enter(self.below.at(path));
        let start = &path[..path.len().min(self.below.longest() + 1)];
        for slash in (1..start.len()).filter(|at| start[*at] == b'/') {
            race.enter(self.below.at(&start[..slash]));
        }
        race.enter(Some(&self.others));
    }
}
