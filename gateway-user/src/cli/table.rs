//! Aligned columns for people.

use std::fmt::Write;

/// What a cell says about the state of things. Seen as colour on a terminal only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    /// Plain text.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// To be mended.
    Bad,
    /// Beside the point.
    Faint,
    /// A heading.
    Strong,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Paint {
    /// Escape sequences (ECMA-48 SGR).
    Colour,
    /// Plain text.
    Plain,
}

impl Paint {
    /// `text` in its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Self::Plain, _) | (_, Tone::Plain) => return text.to_owned(),
            (_, Tone::Good) => 32,
            (_, Tone::Warn) => 33,
            (_, Tone::Bad) => 31,
            (_, Tone::Faint) => 2,
            (_, Tone::Strong) => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One cell: text and tone.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell that stands out.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: clean(text.into()),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

/// Names of objects come from outside: what would move the cursor is shown as `?`.
fn clean(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect()
    } else {
        text
    }
}

/// Rows under a heading. A column whose heading ends in `>` is aligned right.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    right: Vec<bool>,
    indent: usize,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.iter().map(|h| h.trim_end_matches('>')).collect(),
            right: headings.iter().map(|h| h.ends_with('>')).collect(),
            indent: 0,
            rows: Vec::new(),
        }
    }

    /// Moves every line to the right by this many spaces.
    pub fn indented(mut self, spaces: usize) -> Self {
        self.indent = spaces;
        self
    }

    /// Adds a row; missing cells are empty, and cells beyond the headings are left out.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All lines, each ended by a newline, without spaces at their ends.
    pub fn render(&self, paint: Paint) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|h| width(h)).collect();
        for row in &self.rows {
            for (wide, cell) in widths.iter_mut().zip(row) {
                *wide = (*wide).max(width(&cell.text));
            }
        }
        let headings: Vec<Cell> = self
            .headings
            .iter()
            .map(|h| Cell::toned(Tone::Strong, *h))
            .collect();
        let mut out = String::new();
        let shown = self.headings.iter().any(|h| !h.is_empty());
        for row in shown.then_some(&headings).into_iter().chain(&self.rows) {
            out.push_str(&self.line(row, &widths, paint));
            out.push('\n');
        }
        out
    }

    fn line(&self, row: &[Cell], widths: &[usize], paint: Paint) -> String {
        let last = row
            .iter()
            .take(widths.len())
            .rposition(|c| !c.text.is_empty());
        let mut line = String::new();
        let Some(last) = last else { return line };
        let _ = write!(line, "{:1$}", "", self.indent);
        for (at, cell) in row.iter().enumerate().take(last + 1) {
            if at > 0 {
                line.push_str("  ");
            }
            let gap = widths[at] - width(&cell.text);
            let text = paint.paint(cell.tone, &cell.text);
            let _ = if self.right[at] {
                write!(line, "{:gap$}{text}", "")
            } else if at == last {
                write!(line, "{text}")
            } else {
                write!(line, "{text}{:gap$}", "")
            };
        }
        line
    }
}

/// Columns a text takes; names here are ASCII in practice.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "COUNT>", "NOTE"]);
        table.row(["a".into(), "7".into(), Cell::toned(Tone::Bad, "gone")]);
        table.row(["longer".into(), "12345".into(), "".into()]);
        table
    }

    #[test]
    fn numbers_are_aligned_right_and_no_line_ends_in_spaces() {
        let text = sample().render(Paint::Plain);
        assert_eq!(
            text,
            "NAME    COUNT  NOTE\na           7  gone\nlonger  12345\n"
        );
    }

    #[test]
    fn colour_never_moves_a_column() {
        let plain = sample().render(Paint::Plain);
        let mut bare = sample().render(Paint::Colour);
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m"] {
            bare = bare.replace(code, "");
        }
        assert_eq!(bare, plain);
    }

    #[test]
    fn a_name_with_an_escape_sequence_cannot_reach_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\x1b[2Jx\n".into()]);
        assert_eq!(table.render(Paint::Plain), "NAME\n?[2Jx?\n");
    }
}
