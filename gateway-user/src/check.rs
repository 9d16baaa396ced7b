//! Offline validation of a manifest directory: `fleetgate check`.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::{
    ir::{self, Ir, LastGood, Options},
    problem::{Problem, Severity},
    source::{Bounds, DirectorySource},
};

/// What a directory would do, and everything wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Sorted by object.
    pub problems: Vec<Problem>,
    /// Counts.
    pub summary: Summary,
    /// The routing model that would be served.
    #[serde(skip)]
    pub ir: Ir,
}

/// How much of each kind there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Summary {
    /// AlbConfigs.
    pub gateways: usize,
    /// Ingresses, also those of other controllers.
    pub ingresses: usize,
    /// Member clusters.
    pub clusters: usize,
    /// Listeners that would serve.
    pub listeners: usize,
    /// Rules over all listeners.
    pub rules: usize,
    /// Problems that keep something from being served as written.
    pub errors: usize,
    /// Other problems.
    pub warnings: usize,
}

impl Report {
    /// Nothing to mend.
    pub fn clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, "{severity}: {problem}")?;
        }
        writeln!(f, "{}", self.summary)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gateways,
            ingresses,
            clusters,
            listeners,
            rules,
            errors,
            warnings,
        } = self;
        write!(
            f,
            "AlbConfigs: {gateways}, Ingresses: {ingresses}, clusters: {clusters}, "
        )?;
        write!(
            f,
            "listeners: {listeners}, rules: {rules}; errors: {errors}, warnings: {warnings}"
        )
    }
}

/// Reads `dir` once and compiles it as the gateway would on its first start.
pub fn check(dir: &Path) -> Report {
    let read = DirectorySource::new(dir, Bounds::default()).read();
    let built = ir::build(&read.snapshot, &LastGood::default(), &Options::default());
    let mut problems = read.problems;
    problems.extend(built.problems);
    problems.sort();
    problems.dedup();
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let summary = Summary {
        gateways: read.snapshot.gateways.len(),
        ingresses: read.snapshot.ingresses.len(),
        clusters: read.snapshot.clusters.len(),
        listeners: built.ir.listeners.len(),
        rules: built
            .ir
            .listeners
            .iter()
            .map(|listener| listener.rules.len())
            .sum(),
        errors,
        warnings: problems.len() - errors,
    };
    Report {
        problems,
        summary,
        ir: built.ir,
    }
}
