//! Sessions that stay with a pod, and clients that stay with a group (contract sections 7 and 11.2). Pure.
//!
//! A cookie holds *tokens*: keyed hashes of what they name. They tell nobody an address, and what a client makes up names
//! nothing: a token counts only if it is in the table of the group as it is now. So a cookie of a pod that is gone is no
//! cookie, the pod is chosen anew, and the new one named.

mod cookies;

use std::{borrow::Cow, collections::HashMap, fmt::Write, time::Duration};

use self::cookies::Change;
use super::keyed::Key;
use crate::ir::{Backend, Forward, GroupName, Sticky};

/// The cookie that is inserted.
const INSERTED: &str = "SERVERID";
/// The same for pages of other sites, to which browsers send only what says `SameSite=None`; over TLS, which that asks for.
const CROSS_SITE: &str = "SERVERCORSID";
/// Groups for which it holds a token each, so that several of them on one host do not take each other's sessions.
const GROUPS: usize = 4;
/// Between tokens.
const BETWEEN: u8 = b'.';
/// Around a token before the value of an application's cookie.
const AROUND: u8 = b'~';
/// Digits of a token.
const DIGITS: usize = 16;

/// Names one pod or group.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Token(u64);

impl Token {
    fn read(text: &[u8]) -> Option<Self> {
        if text.len() != DIGITS {
            return None;
        }
        let digits = text.iter().map(|byte| match byte {
            b'0'..=b'9' => Some(u64::from(byte - b'0')),
            b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
            _ => None,
        });
        let digits = digits.collect::<Option<Vec<_>>>()?;
        Some(Self(digits.iter().fold(0, |it, digit| it << 4 | digit)))
    }

    /// Before the value of an application's cookie.
    fn leading(value: &[u8]) -> Option<Self> {
        let (token, rest) = value.strip_prefix(&[AROUND])?.split_at_checked(DIGITS)?;
        rest.starts_with(&[AROUND]).then(|| Self::read(token))?
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The tokens of a group's backends, by their place in it.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    of: Vec<Token>,
    backends: HashMap<Token, usize>,
}

impl Tokens {
    /// `key` follows from a secret that all nodes share.
    pub(super) fn new(key: Key, group: &GroupName, backends: &[Backend]) -> Self {
        let group = group.to_string();
        let token = |it: &Backend| {
            let address = it.address.to_string();
            Token(key.hash(["backend", &group, &address].map(str::as_bytes)))
        };
        let of: Vec<Token> = backends.iter().map(token).collect();
        Self {
            backends: of.iter().zip(0..).map(|(token, at)| (*token, at)).collect(),
            of,
        }
    }

    /// The backend that a request's `Cookie` lines name.
    pub(super) fn asked<'a>(
        &self,
        sticky: &Sticky,
        lines: impl Iterator<Item = &'a [u8]>,
    ) -> Option<usize> {
        let known = |token: Token| self.backends.get(&token).copied();
        let mut cookies = cookies::each(lines);
        match sticky {
            Sticky::Insert(_) => inserted(cookies).find_map(known),
            Sticky::Server(name) => cookies.find_map(|(cookie, value)| {
                known(Token::leading(value).filter(|_| cookie == name.as_bytes())?)
            }),
        }
    }

    /// The `Set-Cookie` lines for a request with these `Cookie` lines that `chosen` answers; none if they named it.
    ///
    /// It is not renewed: a session ends this long after its first answer.
    pub(super) fn insert<'a>(
        &self,
        chosen: usize,
        lines: impl Iterator<Item = &'a [u8]> + Clone,
        lasts: Duration,
        secure: bool,
    ) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let own = *self.of.get(chosen)?;
        if self.asked(&Sticky::Insert(lasts), lines.clone()) == Some(chosen) {
            return None;
        }
        let others = inserted(cookies::each(lines)).filter(|it| !self.backends.contains_key(it));
        let mut kept: Vec<Token> = Vec::new();
        for other in others {
            // Both cookies name them.
            if kept.len() < GROUPS - 1 && !kept.contains(&other) {
                kept.push(other);
            }
        }
        let mut value = own.to_string();
        for other in kept {
            // A `String` takes all that is written.
            let _ = write!(value, "{}{other}", char::from(BETWEEN));
        }
        let cross_site = secure.then(|| {
            let mut line = set_cookie(CROSS_SITE, &value, lasts, secure);
            line.extend(b"; SameSite=None");
            line
        });
        Some((set_cookie(INSERTED, &value, lasts, secure), cross_site))
    }

    /// A `Set-Cookie` line of `chosen`, with its token if that is the cookie of this name; `None` where it stays as it is.
    ///
    /// The one way in which the application's session can move: it sets its cookie again. A value that is empty, as it is
    /// when a cookie is deleted, stays empty.
    pub(super) fn rewrite(&self, name: &str, chosen: usize, line: &[u8]) -> Option<Vec<u8>> {
        let token = self.of.get(chosen)?;
        let first = line.split(|byte| *byte == b';').next()?;
        let (cookie, value) = cookies::pair(first)?;
        if cookie != name.as_bytes() || value.is_empty() {
            return None;
        }
        let around = char::from(AROUND);
        let mut rewritten = format!("{name}={around}{token}{around}").into_bytes();
        rewritten.extend(value);
        rewritten.extend(line.get(first.len()..)?);
        Some(rewritten)
    }
}

fn is_inserted(name: &[u8]) -> bool {
    name == INSERTED.as_bytes() || name == CROSS_SITE.as_bytes()
}

fn inserted<'a>(
    cookies: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> impl Iterator<Item = Token> {
    cookies
        .filter(|(name, _)| is_inserted(name))
        .flat_map(|(_, value)| value.split(|byte| *byte == BETWEEN).take(GROUPS))
        .filter_map(Token::read)
}

/// The tokens of the groups that share a rule's traffic (`ServerGroupStickySession`).
#[derive(Clone, Debug)]
pub(super) struct GroupTokens {
    cookie: String,
    /// Of those that get traffic.
    of: Vec<Option<Token>>,
    lasts: Duration,
}

impl GroupTokens {
    /// `None` where clients do not stay. Each set of groups has a cookie of its own, so that rules do not take each other's
    /// clients.
    pub(super) fn new(key: Key, forward: &Forward) -> Option<Self> {
        let lasts = forward.sticky?;
        let names = forward.groups.iter().map(|it| it.group.to_string());
        let mut names: Vec<String> = names.collect();
        let token = |name: &String| Token(key.hash([b"group".as_slice(), name.as_bytes()]));
        let weighted = names.iter().zip(&forward.groups);
        let of = weighted.map(|(name, it)| (it.weight > 0).then(|| token(name)));
        let of = of.collect();
        names.sort_unstable();
        let rule = Token(key.hash(names.iter().map(String::as_bytes)));
        Some(Self {
            cookie: format!("SERVERGROUP-{rule}"),
            of,
            lasts,
        })
    }

    /// The group that a request's `Cookie` lines name, by its place in the rule.
    pub(super) fn asked<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
        let ours = cookies::each(lines).filter(|(name, _)| *name == self.cookie.as_bytes());
        let mut tokens = ours.filter_map(|(_, value)| Token::read(value));
        tokens.find_map(|token| self.of.iter().position(|it| *it == Some(token)))
    }

    /// The `Set-Cookie` line where another group than the one `asked` for was `chosen`.
    pub(super) fn insert(
        &self,
        chosen: usize,
        asked: Option<usize>,
        secure: bool,
    ) -> Option<Vec<u8>> {
        let token = (*self.of.get(chosen)?)?;
        (asked != Some(chosen))
            .then(|| set_cookie(&self.cookie, &token.to_string(), self.lasts, secure))
    }
}

fn set_cookie(name: &str, value: &str, lasts: Duration, secure: bool) -> Vec<u8> {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = lasts.as_secs();
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly{secure}").into_bytes()
}

/// A `Cookie` line as the pod gets it, without what the gateway has put there; `None` if nothing is left.
///
/// A token before the value of an application's cookie goes even if it names nobody any more.
pub(super) fn upstream<'a>(
    line: &'a [u8],
    sticky: Option<&Sticky>,
    groups: Option<&GroupTokens>,
) -> Option<Cow<'a, [u8]>> {
    cookies::edit(line, |name, value| match sticky {
        _ if groups.is_some_and(|it| it.cookie.as_bytes() == name) => Change::Drop,
        Some(Sticky::Insert(_)) if is_inserted(name) => Change::Drop,
        Some(Sticky::Server(cookie)) if name == cookie.as_bytes() => match Token::leading(value) {
            Some(_) => Change::Cut(DIGITS + 2),
            None => Change::Keep,
        },
        _ => Change::Keep,
    })
}

#[cfg(test)]
mod tests;
