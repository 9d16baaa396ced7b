//! FixedResponse.

use super::super::{json::Node, notes::Notes};
use crate::ir::model::FixedResponse;

const EXAMPLE: &str =
    r#"write `{"httpCode": "404", "contentType": "text/plain", "content": "not found"}`"#;
/// Largest content of a fixed response, in bytes.
const CONTENT_BYTES: usize = 1024;
const CONTENT_TYPES: [&str; 5] = [
    "text/plain",
    "text/css",
    "text/html",
    "application/javascript",
    "application/json",
];

/// `FixedResponseConfig: {contentType, httpCode, content}`
pub(super) fn read(entry: &Node<'_>, notes: &mut Notes) -> Option<FixedResponse> {
    let config = entry
        .explained(EXAMPLE)
        .object("FixedResponseConfig", notes)?;
    let code = config.string("httpCode", notes)?;
    let valid = matches!(code.as_bytes(), [b'2' | b'4' | b'5', rest @ ..]
        if rest.len() == 2 && rest.iter().all(u8::is_ascii_digit));
    let number = code.parse().ok().filter(|_| valid);
    if number.is_none() {
        config.wrong(
            "httpCode",
            code,
            "is not the status of a fixed response",
            r#"write a number of 2xx, 4xx or 5xx in quotation marks, such as `"404"`"#,
            notes,
        );
    }
    let written = config.optional("contentType", notes)?;
    let known = |known: &&str| known.eq_ignore_ascii_case(written);
    let content_type = match CONTENT_TYPES.into_iter().find(known) {
        _ if written.is_empty() => Some(CONTENT_TYPES[0]),
        Some(known) => Some(known),
        None => {
            let remedy = format!("use {}", CONTENT_TYPES.join(", "));
            config.wrong(
                "contentType",
                written,
                "is not a content type of a fixed response",
                &remedy,
                notes,
            );
            None
        }
    };
    let content = config.optional("content", notes)?;
    if content.len() > CONTENT_BYTES || !content.is_ascii() {
        config.wrong(
            "content",
            content,
            "is not the content of a fixed response",
            "write at most 1024 ASCII characters",
            notes,
        );
        return None;
    }
    Some(FixedResponse {
        code: number?,
        content_type: content_type?.to_owned(),
        content: content.to_owned(),
    })
}
