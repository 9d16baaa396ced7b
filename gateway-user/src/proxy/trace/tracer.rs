//! The spans of one worker: begun with a request, told to the backend, given away at the end.

use std::cell::RefCell;

use super::{
    Ids, Parent, Sample, Span,
    export::{Exporter, Finished},
    tracestate,
};
use crate::proxy::fields::{Fields, Name};

/// What a worker traces with.
#[derive(Debug)]
pub(in crate::proxy) struct Tracer {
    ids: RefCell<Ids>,
    sample: Sample,
    exporter: Exporter,
}

impl Tracer {
    pub(super) fn new(sample: Sample, exporter: Exporter) -> Self {
        Self {
            ids: RefCell::new(Ids::from_os()),
            sample,
            exporter,
        }
    }

    /// The span of a request with these fields, in the trace that they name, or in one of its own.
    pub(in crate::proxy) fn begin(&self, fields: &Fields) -> Span {
        let parent = Parent::of(fields.all(Name::Traceparent));
        Span::new(parent, self.sample, &mut self.ids.borrow_mut())
    }

    /// Gives a span away, if it is recorded: only then it is made.
    pub(in crate::proxy) fn end(&self, span: &Span, finished: impl FnOnce() -> Finished) {
        if span.sampled {
            self.exporter.send(finished());
        }
    }
}

/// Has a backend go on from a span.
pub(in crate::proxy) fn hand_on(span: &Span, fields: &mut Fields) {
    // Section 3.4: without a valid `traceparent` its `tracestate` is of no trace.
    let state = span
        .parent
        .and_then(|_| tracestate(fields.all(Name::Tracestate)));
    fields.set(Name::Traceparent, &span.traceparent());
    fields.remove(Name::Tracestate);
    if let Some(state) = state {
        fields.push_known(Name::Tracestate, &state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::trace::{SpanId, TraceId};

    fn handed_on(lines: &[(&str, &str)]) -> (Span, Vec<String>) {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let parent = Parent::of(fields.all(Name::Traceparent));
        let span = Span::new(parent, Sample::share(0.0), &mut Ids::new([1, 2, 3, 4]));
        hand_on(&span, &mut fields);
        let line = |(_, name, value): (Name, &[u8], &[u8])| {
            let text = [name, b": ", value].concat();
            String::from_utf8(text).unwrap()
        };
        (span, fields.iter().map(line).collect())
    }

    #[test]
    fn a_backend_is_told_the_span_and_the_state_of_the_callers_trace() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (span, told) = handed_on(&[
            ("tracestate", "a=1"),
            ("Traceparent", traceparent),
            ("tracestate", "b=2"),
        ]);
        assert_eq!(span.parent, Some(SpanId(0x00f0_67aa_0ba9_02b7)));
        let own = format!(
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01",
            span.id
        );
        assert_eq!(told, [own, "tracestate: a=1,b=2".to_owned()]);
    }

    #[test]
    fn what_is_no_trace_is_replaced_by_one_that_begins_here() {
        for lines in [
            vec![("tracestate", "a=1")],
            vec![("traceparent", "00-what"), ("tracestate", "a=1")],
        ] {
            let (span, told) = handed_on(&lines);
            assert_eq!(span.parent, None);
            let TraceId(trace) = span.trace;
            let own = format!("traceparent: 00-{trace:032x}-{}-00", span.id);
            assert_eq!(told, [own]);
        }
    }
}
