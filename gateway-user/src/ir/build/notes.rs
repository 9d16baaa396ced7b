//! Collects what is wrong with one object.

use std::collections::BTreeMap;

use crate::problem::{ObjectRef, Problem, Severity};

/// Prefix of the ALB annotations.
pub(super) const ALB: &str = "alb.ingress.kubernetes.io/";
/// `auto`, `connection` or `request`, on an Ingress or AlbConfig.
pub(super) const STEERING: &str = "fleetgate.io/steering";
/// Comma-separated addresses of an AlbConfig's listeners.
pub(super) const ADDRESSES: &str = "fleetgate.io/addresses";
/// Networks of an AlbConfig whose connections begin with a PROXY header.
pub(super) const PROXY_FROM: &str = "fleetgate.io/proxy-protocol-from";
/// `v2`, on an Ingress: connections to pods begin with a PROXY header.
pub(super) const BACKEND_PROXY: &str = "fleetgate.io/backend-proxy-protocol";
/// `true`, on an Ingress: TLS of its hosts ends in the pods.
pub(super) const PASSTHROUGH: &str = "fleetgate.io/tls-passthrough";
/// New flows per second that a listener takes of all clients together.
pub(super) const FLOWS: &str = "fleetgate.io/new-flows-per-second";
/// The same of each client address.
pub(super) const FLOWS_PER_SOURCE: &str = "fleetgate.io/new-flows-per-second-per-source";

/// Field of an annotation by its whole key.
pub(super) fn annotation(key: &str) -> String {
    format!(
        "metadata.annotations[{}]",
        key.chars().take(120).collect::<String>()
    )
}

/// Field of an ALB annotation.
pub(super) fn alb(key: &str) -> String {
    annotation(&format!("{ALB}{key}"))
}

/// Problems shown of one object; how many more there are is counted.
pub(super) const MOST: usize = 20;
/// Regular expressions of one object: each may take 64 KiB and some tenths of a millisecond to compile.
const MOST_EXPRESSIONS: usize = 100;

/// Problems of one object, at most [`MOST`]: errors push warnings out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Notes {
    pub(super) object: ObjectRef,
    pub(super) problems: Vec<Problem>,
    /// Of objects that this one leads to.
    others: Vec<Notes>,
    more: usize,
    errors: usize,
    restricts: bool,
    expressions: usize,
}

impl Notes {
    pub(super) fn on(kind: &str, namespace: &str, name: &str) -> Self {
        Self::of(ObjectRef {
            cluster: None,
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    pub(super) fn of(object: ObjectRef) -> Self {
        Self {
            object,
            problems: Vec::new(),
            others: Vec::new(),
            more: 0,
            errors: 0,
            restricts: false,
            expressions: 0,
        }
    }

    /// A mistake: what the object said before may serve on.
    pub(super) fn error(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors += 1;
        self.push(Problem::error(&self.object, field, message, remedy));
    }

    /// What is valid, restricts or changes requests, and is not supported: what the object said before must not serve
    /// on, for it would serve more than the object says now.
    pub(super) fn restriction(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.restricts = true;
        self.error(field, message, remedy);
    }

    /// What is understood and cannot be executed on listeners of these protocols, which answer nothing.
    pub(super) fn refusal_on(
        &mut self,
        protocols: &str,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let remedy = format!(
            "{}; until then it serves nothing on listeners of protocol {protocols}",
            remedy.into()
        );
        self.push(Problem::error(&self.object, field, message, remedy));
    }

    pub(super) fn warning(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(Problem::warning(&self.object, field, message, remedy));
    }

    /// A warning, made only if it will be shown: to find out what was meant costs something.
    pub(super) fn warn_if_shown(&mut self, problem: impl FnOnce(&ObjectRef) -> Problem) {
        if self.problems.len() < MOST {
            let problem = problem(&self.object);
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Whether one more regular expression may be compiled; after the last one an error, once.
    pub(super) fn one_more_expression(&mut self, field: &str) -> bool {
        self.expressions += 1;
        if self.expressions == MOST_EXPRESSIONS + 1 {
            self.error(
                field,
                format!("is one more regular expression than the {MOST_EXPRESSIONS} of one object"),
                "spread the rules over several Ingresses, or use paths without expressions",
            );
        }
        self.expressions <= MOST_EXPRESSIONS
    }

    /// Keeps what was noted on another object.
    pub(super) fn elsewhere(&mut self, other: Self) {
        if !other.problems.is_empty() {
            self.others.push(other);
        }
    }

    /// Nothing was noted, here or elsewhere.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty() && self.others.is_empty()
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Some error is about this field, or a part of it.
    pub(super) fn errs(&self, field: &str) -> bool {
        self.problems.iter().any(|it| {
            it.severity == Severity::Error
                && it.field.starts_with(field)
                && !it.remedy.contains("; until then ")
        })
    }

    /// Some note is a [`restriction`](Self::restriction).
    pub(super) fn restricts(&self) -> bool {
        self.restricts
    }

    /// Ends the remedy of each error with what happens as long as it stands.
    pub(super) fn until_then(&mut self, what: &str) {
        let error = |it: &&mut Problem| {
            it.severity == Severity::Error && !it.remedy.contains("; until then ")
        };
        for problem in self.problems.iter_mut().filter(error) {
            problem.remedy.push_str("; until then ");
            problem.remedy.push_str(what);
        }
    }

    fn push(&mut self, problem: Problem) {
        if self.problems.len() < MOST {
            return self.problems.push(problem);
        }
        self.more += 1;
        let warning = |it: &&mut Problem| it.severity == Severity::Warning;
        if problem.severity == Severity::Error
            && let Some(least) = self.problems.iter_mut().rev().find(warning)
        {
            *least = problem;
        }
    }
}

/// Problems of a whole build.
#[derive(Debug, Default)]
pub(super) struct Told {
    problems: Vec<Problem>,
    more: BTreeMap<ObjectRef, usize>,
}

impl Told {
    pub(super) fn add(&mut self, notes: Notes) {
        self.problems.extend(notes.problems);
        if notes.more > 0 {
            *self.more.entry(notes.object).or_default() += notes.more;
        }
        for other in notes.others {
            self.problems.extend(other.problems);
            // Every Ingress that leads to an object notes the same on it.
            let more = self.more.entry(other.object).or_default();
            *more = other.more.max(*more);
        }
    }

    /// Sorted, without repetitions, at most [`MOST`] of each object and one that says how many more there are.
    pub(super) fn problems(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        let mut shown = Vec::with_capacity(self.problems.len());
        for of_one in self.problems.chunk_by(|one, two| one.object == two.object) {
            let error = |it: &&Problem| it.severity == Severity::Error;
            let mut errors = MOST;
            let mut warnings = MOST.saturating_sub(of_one.iter().filter(error).count());
            for problem in of_one {
                let room = match problem.severity {
                    Severity::Error => &mut errors,
                    Severity::Warning => &mut warnings,
                };
                if *room > 0 {
                    *room -= 1;
                    shown.push(problem.clone());
                }
            }
            let object = &of_one[0].object;
            let more = self.more.get(object).copied().unwrap_or_default()
                + of_one.len().saturating_sub(MOST);
            if more > 0 {
                // Sorts behind metadata and spec.
                shown.push(Problem::warning(
                    object,
                    "status",
                    format!("{more} more problems of this object are not shown"),
                    "mend those above first",
                ));
            }
        }
        shown.sort();
        shown
    }
}
