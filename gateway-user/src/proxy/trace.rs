//! W3C Trace Context: what trace a request belongs to, and what the backend is told of it.
//!
//! Source: W3C Recommendation "Trace Context" (23 November 2021), the sections named below. Invariant: a client decides on
//! its trace id and on whether it is sampled, and on nothing else; what it sends is bounded, and passed on only if valid.

pub mod export;
mod ids;
mod state;
mod tracer;

use std::fmt;

pub(super) use self::tracer::{Tracer, hand_on};
pub use self::{ids::Ids, state::tracestate};

/// `traceparent` of version 00, in bytes.
const BYTES: usize = 55;

/// Id of a whole trace (section 3.2.2.3); never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TraceId(pub u128);

/// Id of one span, called parent-id by the specification (section 3.2.2.4); never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SpanId(pub u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TraceId {
    /// As [`Self`] is shown.
    pub fn text(self) -> [u8; 32] {
        let mut out = [0; 32];
        digits(&mut out, self.0);
        out
    }
}

impl SpanId {
    /// As [`Self`] is shown.
    pub fn text(self) -> [u8; 16] {
        let mut out = [0; 16];
        digits(&mut out, self.0.into());
        out
    }
}

/// Bits of a trace id that are random for certain (W3C "Trace Context Level 2", random-trace-id).
const RANDOM: u64 = (1 << 56) - 1;

/// How many of the traces that begin here are recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sample(u64);

impl Sample {
    /// This share of them, 0 to 1.
    pub fn share(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * (RANDOM + 1) as f64) as u64)
    }

    /// By the id alone, so that whoever samples by it decides alike.
    fn takes(self, trace: TraceId) -> bool {
        (trace.0 as u64 & RANDOM) < self.0
    }
}

/// What a valid `traceparent` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// The caller may have recorded it.
    pub sampled: bool,
}

/// `most` hexadecimal digits, lower case only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            // Section 3.2: HEXDIGLC, "lowercase hex character".
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

impl Parent {
    /// Reads the value of the only `traceparent` of a request (section 3.2); whatever is not exactly right is nothing.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(BYTES)?;
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let version = hex(&head[..2])?;
        // Section 3.2.2.1: "Version 255 is invalid".
        if !dashes || version == 0xff {
            return None;
        }
        // Section 4.3: of a higher version the first fields are read, "after the trace-flags either the end of the string
        // or a dash".
        let end = match version {
            0 => rest.is_empty(),
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let trace = hex(&head[3..35])?;
        let span = u64::try_from(hex(&head[36..52])?).ok()?;
        let flags = hex(&head[53..55])?;
        // Sections 3.2.2.3 and 3.2.2.4: all zeroes are invalid.
        (end && trace != 0 && span != 0).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 == 1,
        })
    }

    /// Reads the `traceparent` fields of a request: section 4.2 has a trace begin anew if there is none or more than one.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(only), None) => Self::parse(only),
            _ => None,
        }
    }
}

/// The proxy's own span of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// This span.
    pub id: SpanId,
    /// The caller's span; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Span {
    /// Goes on with the caller's trace, whose decision on sampling stands; else begins one, recorded if `sample` takes it.
    pub fn new(parent: Option<Parent>, sample: Sample, ids: &mut Ids) -> Self {
        match parent {
            Some(parent) => Self {
                trace: parent.trace,
                id: ids.span(),
                parent: Some(parent.span),
                sampled: parent.sampled,
            },
            None => {
                let trace = ids.trace();
                Self {
                    trace,
                    id: ids.span(),
                    parent: None,
                    sampled: sample.takes(trace),
                }
            }
        }
    }

    /// What the backend is told. Section 3.2.2.5.2: flags that are not known are zero.
    pub fn traceparent(&self) -> [u8; BYTES] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&mut out[3..35], self.trace.0);
        digits(&mut out[36..52], self.id.0.into());
        digits(&mut out[53..55], self.sampled.into());
        out
    }
}

fn digits(place: &mut [u8], mut value: u128) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests;
