//! Where requests start and end, and which bytes are no request at all.
//!
//! A second, stricter reading of HTTP/1.x in front of the codec: what two readers could understand differently
//! is refused here, so the codec and the backend only ever see one meaning. Pure.

use super::reason::{Reason, Refusal};

pub(super) mod chunked;
pub(super) mod head;
pub(super) mod path;
#[cfg_attr(not(test), expect(dead_code, reason = "the exchange uses it next"))]
pub(super) mod spelling;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// This many bytes; 0 is no body.
    Fixed(u64),
    /// Chunks, then trailers.
    Chunked,
}

/// Limits of a request head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    /// Request line and all fields, in bytes.
    pub(super) head_bytes: usize,
    /// The request target, in bytes.
    pub(super) target_bytes: usize,
    /// Field lines.
    pub(super) fields: usize,
}

/// RFC 9110 section 5.6.2: `tchar`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 5.5: visible, obs-text, SP or HTAB.
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A 400 after which the connection ends.
pub(super) const fn bad(detail: &'static str) -> Refusal {
    Refusal::close(Reason::BadRequest, detail)
}

/// Splits a field line into name and trimmed value. RFC 9112 section 5.1: no space before the colon;
/// section 5.2: no line folding.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad("a field line is folded"));
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(bad("a field line has no colon"));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(bad("a field name holds a character that is not allowed"));
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(bad("a field value holds a control character"));
    }
    Ok((name, value.trim_ascii()))
}
