//! Parameters of a query and cookies of a request, read in place.

use super::glob::glob_over;
use crate::ir::model::PairMatch;

/// Longest query that is read, and most bytes of all `Cookie` lines together; the proxy refuses longer addresses and
/// headers. A longer query meets no condition, nor does a cookie line that ends behind this.
const MOST_BYTES: usize = 32 * 1024;

impl PairMatch {
    /// Whether some parameter of a query (without its `?`) has this name and value.
    ///
    /// Parameters lie between `&`; one without `=` has an empty value. `%41` is read as `A`, as backends do; what only
    /// looks like such an escape stands for itself. `+` stays a plus: RFC 3986 gives it no other meaning, and a condition
    /// cannot hold the blank of HTML forms.
    pub fn in_query(&self, query: &str) -> bool {
        let pairs = query.as_bytes().split(|byte| *byte == b'&');
        query.len() <= MOST_BYTES
            && pairs.filter(|pair| !pair.is_empty()).any(|pair| {
                let (key, value) = split_once(pair).unwrap_or((pair, &[]));
                self.accepts(Decoded(key), Decoded(value))
            })
    }

    /// Whether some cookie of these `Cookie` lines has this name and value.
    ///
    /// RFC 6265, section 4.2.1: `cookie-pair *( ";" SP cookie-pair )`. Blanks around names and values do not count, nor
    /// do quotation marks around a value; what has no `=` is no cookie. Nothing is decoded: cookies know no escapes.
    pub fn in_cookies<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut left = MOST_BYTES;
        lines
            .map_while(|line| {
                left = left.checked_sub(line.len())?;
                Some(line)
            })
            .flat_map(|line| line.split(|byte| *byte == b';'))
            .filter_map(split_once)
            .any(|(key, value)| {
                let value = value.trim_ascii();
                let bare = value
                    .strip_prefix(b"\"")
                    .and_then(|rest| rest.strip_suffix(b"\""));
                self.accepts(
                    key.trim_ascii().iter().copied(),
                    bare.unwrap_or(value).iter().copied(),
                )
            })
    }

    fn accepts<I: Iterator<Item = u8> + Clone>(&self, key: I, value: I) -> bool {
        glob_over(self.key.as_bytes(), key) && glob_over(self.value.as_bytes(), value)
    }
}

/// The value of the first parameter of this name, read as [`PairMatch::in_query`] reads it; no pattern.
pub(crate) fn parameter<'a>(query: &'a str, name: &str) -> Option<impl Iterator<Item = u8> + 'a> {
    let mut pairs = query.as_bytes().split(|byte| *byte == b'&');
    let named = |pair: &'a [u8]| {
        let (key, value) = split_once(pair).unwrap_or((pair, &[]));
        Decoded(key).eq(name.bytes()).then_some(Decoded(value))
    };
    (query.len() <= MOST_BYTES && !name.is_empty())
        .then(|| pairs.find_map(named))
        .flatten()
}

fn split_once(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair.get(..at)?, pair.get(at + 1..)?))
}

/// Bytes with their percent-encoding undone (RFC 3986, section 2.1).
#[derive(Clone)]
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if let [b'%', high, low, rest @ ..] = self.0
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            self.0 = rest;
            return u8::try_from(high * 16 + low).ok();
        }
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}
