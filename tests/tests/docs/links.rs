//! Links between pages.

use std::path::Path;

use super::pages::{all, read, root};

/// Targets of `[text](target)` outside of code blocks.
fn targets(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if code {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    found
}

/// The anchor that a heading gets: lower case, blanks as dashes, no punctuation.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if !code && line.starts_with('#') {
            found.push(anchor(line));
        }
    }
    found
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_of_it() {
    let mut links = 0;
    for page in all() {
        let text = read(&page);
        for target in targets(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = match file {
                "" => page.clone(),
                file => Path::new(&page)
                    .parent()
                    .expect("a folder")
                    .join(file)
                    .to_string_lossy()
                    .into_owned(),
            };
            assert!(
                root(&path).exists(),
                "{page} leads to {target}, which is not there"
            );
            if !heading.is_empty() {
                assert!(
                    anchors(&read(&path)).iter().any(|it| it == heading),
                    "{page}: no heading {target}"
                );
            }
        }
    }
    assert!(links > 20, "only {links} links were found");
}
