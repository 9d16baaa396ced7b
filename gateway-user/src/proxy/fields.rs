//! Header fields of one message, in one piece of memory.
//!
//! A message is read once: its bytes are kept as they came, and a table says where each field lies. Changing a field
//! writes the new text behind the rest. Nothing is allocated for a message once the two vectors have grown.

use std::fmt;

use bytes::Bytes;

mod name;

pub(super) use name::Name;
use name::reads_as;

/// A piece of the text of a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Span {
    at: u32,
    len: u32,
}

/// One field line.
#[derive(Clone, Copy, Debug)]
struct Line {
    name: Name,
    live: bool,
    text: Span,
    value: Span,
}

/// Fields in the order in which they came; names keep the case they were written in.
#[derive(Clone, Default)]
pub(super) struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// What is larger is given back when a message is done with.
const KEPT_TEXT_BYTES: usize = 8 * 1024;
const KEPT_LINES: usize = 128;

impl Fields {
    /// Forgets everything but some of the memory.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
        self.text.shrink_to(KEPT_TEXT_BYTES);
        self.lines.shrink_to(KEPT_LINES);
    }

    /// Keeps text beside the fields, such as the target of a request.
    pub(super) fn keep(&mut self, text: &[u8]) -> Span {
        // A message is far shorter than 4 GiB: heads are limited to 96 KiB, and what filters add is bounded by the
        // configuration.
        let span = Span {
            at: self.text.len() as u32,
            len: text.len() as u32,
        };
        self.text.extend_from_slice(text);
        span
    }

    /// Text that was kept.
    pub(super) fn text(&self, span: Span) -> &[u8] {
        let at = span.at as usize;
        self.text
            .get(at..at + span.len as usize)
            .unwrap_or_default()
    }

    /// A piece of text that was kept, from `start` for `len` bytes.
    pub(super) fn part(whole: Span, start: usize, len: usize) -> Span {
        debug_assert!(start + len <= whole.len as usize);
        Span {
            at: whole.at + start as u32,
            len: len as u32,
        }
    }

    /// Adds a field that lies in text kept before.
    pub(super) fn place(&mut self, name: Name, text: Span, value: Span) {
        self.lines.push(Line {
            name,
            live: true,
            text,
            value,
        });
    }

    /// Adds a field behind all others.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        let known = Name::of(name);
        let text = self.keep(name);
        let value = self.keep(value);
        self.place(known, text, value);
    }

    /// Adds a field that has a name of its own here.
    pub(super) fn push_known(&mut self, name: Name, value: &[u8]) {
        self.push(name.text().as_bytes(), value);
    }

    /// Replaces every field of this name by one.
    pub(super) fn set(&mut self, name: Name, value: &[u8]) {
        self.remove(name);
        self.push_known(name, value);
    }

    /// The first value of a field.
    pub(super) fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every value of a field.
    pub(super) fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let lines = self
            .lines
            .iter()
            .filter(move |it| it.live && it.name == name);
        lines.map(|it| self.text(it.value))
    }

    /// Every value of a field, whatever its name is.
    pub(super) fn named(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let known = Name::of(name);
        let same = move |it: &&Line| {
            it.live
                && it.name == known
                && (!known.text().is_empty() || self.text(it.text).eq_ignore_ascii_case(name))
        };
        self.lines.iter().filter(same).map(|it| self.text(it.value))
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: Name) -> bool {
        self.lines.iter().any(|it| it.live && it.name == name)
    }

    /// Removes a field; says whether it was there.
    pub(super) fn remove(&mut self, name: Name) -> bool {
        let mut found = false;
        for line in &mut self.lines {
            if line.live && line.name == name {
                line.live = false;
                found = true;
            }
        }
        found
    }

    /// Removes every field whose name is one of these.
    pub(super) fn remove_any(&mut self, which: impl Fn(Name) -> bool) {
        for line in &mut self.lines {
            line.live &= !which(line.name);
        }
    }

    /// Adds a field whose value `write` writes.
    pub(super) fn push_written(&mut self, name: Name, write: impl FnOnce(&mut Vec<u8>)) {
        let text = self.keep(name.text().as_bytes());
        let at = self.text.len();
        write(&mut self.text);
        let value = Span {
            at: at as u32,
            len: (self.text.len() - at) as u32,
        };
        self.place(name, text, value);
    }

    /// Removes a field, whatever its name is.
    pub(super) fn remove_named(&mut self, name: &[u8]) -> bool {
        let known = Name::of(name);
        if !known.text().is_empty() {
            return self.remove(known);
        }
        let mut found = false;
        for index in 0..self.lines.len() {
            let line = self.lines[index];
            if line.live && line.name == known && self.text(line.text).eq_ignore_ascii_case(name) {
                self.lines[index].live = false;
                found = true;
            }
        }
        found
    }

    /// Removes a field, whatever its name is, also where it has `_` in the place of `-`.
    pub(super) fn remove_spellings(&mut self, name: &[u8]) {
        for index in 0..self.lines.len() {
            if reads_as(self.text(self.lines[index].text), name) {
                self.lines[index].live = false;
            }
        }
    }

    /// Puts another value in the place of each value of a field; `None` removes that line.
    pub(super) fn rewrite(&mut self, name: Name, mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
        for index in 0..self.lines.len() {
            let line = self.lines[index];
            if !line.live || line.name != name {
                continue;
            }
            match change(self.text(line.value)) {
                Some(value) => self.lines[index].value = self.keep(&value),
                None => self.lines[index].live = false,
            }
        }
    }

    /// Name and value of every field.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Name, &[u8], &[u8])> {
        let lines = self.lines.iter().filter(|it| it.live);
        lines.map(|it| (it.name, self.text(it.text), self.text(it.value)))
    }

    /// Name and value of every field; the values share one piece of memory.
    pub(super) fn shared(&self) -> impl Iterator<Item = (Name, &[u8], Bytes)> {
        let all = Bytes::copy_from_slice(&self.text);
        let lines = self.lines.iter().filter(|it| it.live);
        lines.map(move |it| {
            let at = it.value.at as usize;
            let value = all.slice(at..at + it.value.len as usize);
            (it.name, self.text(it.text), value)
        })
    }

    /// Number of fields.
    pub(super) fn len(&self) -> usize {
        self.lines.iter().filter(|it| it.live).count()
    }

    /// Writes the fields as HTTP/1.1 has them, without the empty line behind.
    pub(super) fn write_h1(&self, out: &mut Vec<u8>) {
        for line in self.lines.iter().filter(|it| it.live) {
            out.extend_from_slice(self.text(line.text));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.text(line.value));
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl fmt::Debug for Fields {
    /// Names only: values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .iter()
            .map(|(_, name, _)| String::from_utf8_lossy(name).into_owned());
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Fields {
        let mut fields = Fields::default();
        for (name, value) in [("Host", "a"), ("X-One", "1"), ("x-one", "2"), ("Via", "v")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_h1(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn fields_keep_their_order_and_the_case_of_their_names() {
        assert_eq!(
            written(&sample()),
            "Host: a\r\nX-One: 1\r\nx-one: 2\r\nVia: v\r\n"
        );
    }

    #[test]
    fn a_field_is_found_removed_and_replaced_in_whatever_case() {
        let mut fields = sample();
        assert_eq!(
            fields.named(b"X-ONE").collect::<Vec<_>>(),
            [b"1".as_slice(), b"2"]
        );
        assert_eq!(fields.get(Name::Host), Some(b"a".as_slice()));
        assert!(fields.remove_named(b"X-oNe") && !fields.remove_named(b"x-one"));
        fields.set(Name::Host, b"b.example");
        assert_eq!(written(&fields), "Via: v\r\nhost: b.example\r\n");
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn a_field_is_removed_in_each_of_its_spellings() {
        let mut fields = sample();
        fields.push(b"X_One", b"3");
        fields.push(b"X_Two", b"4");
        fields.remove_spellings(b"x-one");
        assert_eq!(written(&fields), "Host: a\r\nVia: v\r\nX_Two: 4\r\n");
    }

    #[test]
    fn shared_values_are_those_of_the_fields_that_are_left() {
        let mut fields = sample();
        fields.remove(Name::Host);
        fields.push_known(Name::Server, b"s");
        let shared: Vec<_> = fields
            .shared()
            .map(|(known, name, value)| (known, name.to_vec(), value.to_vec()))
            .collect();
        let own = fields.iter();
        let own: Vec<_> = own
            .map(|(known, name, value)| (known, name.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(shared, own);
        assert_eq!(shared.len(), 4);
    }

    #[test]
    fn values_are_rewritten_in_their_place() {
        let mut fields = sample();
        fields.push(b"Cookie", b"a=1; b=2");
        fields.push(b"Cookie", b"c=3");
        fields.rewrite(Name::Cookie, |value| {
            (value == b"c=3").then(|| b"longer than it was".to_vec())
        });
        assert_eq!(
            fields.all(Name::Cookie).collect::<Vec<_>>(),
            [b"longer than it was".as_slice()]
        );
    }
}
