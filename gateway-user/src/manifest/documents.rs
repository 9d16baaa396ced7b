//! Splits a YAML stream into its documents by text, so that one broken document leaves the others readable.

/// One document of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Document<'a> {
    /// Line of the file on which `text` starts, from 1.
    pub(super) line: usize,
    /// The document without its `---` line.
    pub(super) text: &'a str,
}

/// Documents of `text` in order, without those that hold only comments, directives and blank lines.
///
/// YAML 1.2.2 section 9.1.2: `---` and `...` at the start of a line always end a document, even inside a
/// scalar, so splitting by text cannot cut a document in two.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let next = at + line.len();
        if marks(line, "---") || marks(line, "...") {
            documents.push(Document {
                line: start_line,
                text: &text[start..at],
            });
            // What follows `--- ` on its line belongs to the new document.
            start = at + 3;
            start_line = number + 1;
        }
        at = next;
    }
    documents.push(Document {
        line: start_line,
        text: &text[start..],
    });
    documents.retain(|document| document.text.lines().any(meaningful));
    documents
}

fn marks(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
}

fn meaningful(line: &str) -> bool {
    let line = line.trim_start();
    !(line.is_empty() || line.starts_with('#') || line.starts_with('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_keeps_the_line_it_starts_on() {
        let found = split("# head\n%YAML 1.2\n---\na: 1\n---\n\n---\nb: 2\n...\n# tail\n");
        let found: Vec<_> = found
            .iter()
            .map(|document| (document.line, document.text))
            .collect();
        assert_eq!(found, [(3, "\na: 1\n"), (7, "\nb: 2\n")]);
    }

    #[test]
    fn dashes_inside_a_line_do_not_split() {
        assert_eq!(split("a: ---\n---- b\n ---\n").len(), 1);
    }
}
