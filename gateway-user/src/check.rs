//! Offline validation of manifests: `fleetgate check`.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::{
    ir::{self, Ir, LastGood, Options},
    manifest::Snapshot,
    problem::{Problem, Severity},
};

mod layout;

pub use layout::Layout;

/// What the manifests would do, and everything wrong with it.
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
    /// How the path was read.
    pub layout: Layout,
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
            layout,
        } = self;
        write!(
            f,
            "AlbConfigs: {gateways}, Ingresses: {ingresses}, clusters: {clusters}, "
        )?;
        write!(
            f,
            "listeners: {listeners}, rules: {rules}; errors: {errors}, warnings: {warnings}"
        )?;
        match layout {
            Layout::Folders => Ok(()),
            Layout::Bundle => write!(f, "; read as {layout}"),
        }
    }
}

/// What a path holds and means.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// How it was read.
    pub layout: Layout,
    /// The objects.
    pub snapshot: Snapshot,
    /// The routing model that would be served.
    pub ir: Ir,
    /// Of reading and of compiling, sorted by object.
    pub problems: Vec<Problem>,
}

/// Reads a directory or file once and compiles it as the gateway would on its first start.
pub fn compile(path: &Path, options: Options) -> Compiled {
    let (layout, read) = layout::read(path);
    let built = ir::build(&read.snapshot, &LastGood::default(), &options);
    let mut problems = read.problems;
    problems.extend(built.problems);
    problems.sort();
    problems.dedup();
    Compiled {
        layout,
        snapshot: read.snapshot,
        ir: built.ir,
        problems,
    }
}

/// Validates a directory or file with the default options.
pub fn check(path: &Path) -> Report {
    let Compiled {
        layout,
        snapshot,
        ir,
        problems,
    } = compile(path, Options::default());
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let summary = Summary {
        gateways: snapshot.gateways.len(),
        ingresses: snapshot.ingresses.len(),
        clusters: snapshot.clusters.len(),
        listeners: ir.served().count(),
        rules: ir.listeners.values().map(|it| it.rules.len()).sum(),
        errors,
        warnings: problems.len() - errors,
        layout,
    };
    Report {
        problems,
        summary,
        ir,
    }
}
