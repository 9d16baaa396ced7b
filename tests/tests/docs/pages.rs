//! The pages of the repository.

use std::{fs, path::PathBuf};

/// A path inside the repository.
pub(crate) fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// Every page that people read, relative to the root.
pub(crate) fn all() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(str::to_owned)
        .into();
    for folder in ["docs", "deploy"] {
        let mut names: Vec<String> = fs::read_dir(root(folder))
            .expect("the folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name.ends_with(".md"))
            .collect();
        names.sort();
        pages.extend(names.iter().map(|name| format!("{folder}/{name}")));
    }
    pages
}

/// The text of a page.
pub(crate) fn read(page: &str) -> String {
    fs::read_to_string(root(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The cells of each row of the tables below a heading, up to the next heading of its level or a higher one.
pub(crate) fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no heading {heading}");
    let inside = lines.take_while(|line| !(1..=level(heading)).contains(&level(line)));
    let cells = |line: &str| {
        // `\|` is a bar inside a cell.
        let line = line.trim().trim_matches('|').replace("\\|", "\u{0}");
        line.split('|')
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect::<Vec<_>>()
    };
    let rows = inside.filter(|line| line.starts_with('|')).map(cells);
    // A table's head is not code; its rule is dashes.
    rows.filter(|row| row[0].starts_with('`')).collect()
}
