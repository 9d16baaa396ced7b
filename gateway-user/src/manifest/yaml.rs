//! YAML (and JSON, a part of it) -> untyped values, within bounds.

use serde_json::Value;

use super::{decode::cut, parse::Limits};
use crate::problem::shown;

/// Bytes as text, or what is wrong with them and what to do.
pub(super) fn text(bytes: &[u8], limits: Limits) -> Result<&str, (String, &'static str)> {
    if bytes.len() > limits.file_bytes {
        return Err((
            format!(
                "the file has {} bytes, more than the {} that are read",
                bytes.len(),
                limits.file_bytes
            ),
            "split it into smaller files, or move it out of the manifest directory",
        ));
    }
    let not_text = "write the file as UTF-8 YAML or JSON, or move it out of the manifest directory";
    let text = std::str::from_utf8(bytes).map_err(|error| {
        (
            format!("not text: byte {} is not UTF-8", error.valid_up_to()),
            not_text,
        )
    })?;
    match text.find('\0') {
        Some(at) => Err((format!("not text: byte {at} is NUL"), not_text)),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

/// One document. What is wrong with it: the line, counted from the start of the document, and a sentence.
pub(super) fn value(document: &str, limits: Limits) -> Result<Value, (usize, String)> {
    serde_saphyr::from_str_with_options(document, options(limits)).map_err(|error| {
        let error = error.without_snippet();
        let line = error
            .location()
            .map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
        (line, why(error))
    })
}

/// The parser's reason without its line, which counts from the start of the document.
fn why(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } => why(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("key {} is written twice", shown(key))
        }
        Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "its aliases expand to more than is read".to_owned()
        }
        Error::Budget { .. } => {
            "it holds more nodes, or nests them deeper, than is read".to_owned()
        }
        error => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or("unreadable");
            cut(first
                .split_once(" at line ")
                .map_or(first, |(reason, _)| reason))
        }
    }
}

/// Bounds against alias bombs: an anchor is expanded at most 64 times, so a document grows at most 64-fold.
fn options(limits: Limits) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits.depth,
            flow_nesting_limit: limits.depth,
            max_nodes: limits.nodes,
            max_events: limits.nodes * 3,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 30_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 64,
        },
    }
}
