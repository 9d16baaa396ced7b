//! Cases of the golden corpus: tables of small worlds, each written out as the manifests that it stands for.
//!
//! A table is a file of many documents. What a case does not say is as in [`world::World`]'s defaults: one gateway `mcg`
//! on HTTP 80, clusters `c1` and `c2` with the Services `web` and `shop` in namespace `demo`.

pub mod request;
pub mod world;

use std::{fs, path::Path};

use gateway_user::{
    check::{Report, Summary},
    ir::{self, LastGood, Options},
    manifest::{Reach, Snapshot},
    problem::{Problem, Severity},
    source::{Bounds, DirectorySource},
};
use serde::Deserialize;
use serde_json::Value;

use self::world::World;
use crate::render;

/// One case of a table.
#[derive(Clone, Debug)]
pub struct Case {
    /// The sentence that must hold.
    pub name: String,
    /// Decisions that it shows.
    pub covers: Vec<String>,
    /// What served before.
    before: Option<World>,
    world: World,
    requests: Vec<String>,
    /// Clusters that were listed and do not answer now.
    lost: Vec<String>,
}

/// What a case says beside its world.
#[derive(Debug, Deserialize)]
struct Head {
    case: String,
    #[serde(default)]
    covers: Vec<String>,
    #[serde(default)]
    before: Option<World>,
    #[serde(default)]
    requests: Vec<String>,
    #[serde(default)]
    lost: Vec<String>,
}

/// The cases of a table, in its order. Panics with the case that is wrong: tables are part of the tests.
pub fn table(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).expect("a table");
    let documents = text.split("\n---\n").filter(|it| !it.trim().is_empty());
    documents
        .map(|document| {
            case(document).unwrap_or_else(|why| panic!("{}: {why} in\n{document}", path.display()))
        })
        .collect()
}

fn case(document: &str) -> Result<Case, String> {
    let value: Value = serde_saphyr::from_str(document).map_err(|error| error.to_string())?;
    let head = Head::deserialize(&value).map_err(|error| error.to_string())?;
    let Value::Object(mut rest) = value else {
        return Err("not an object".to_owned());
    };
    for known in ["case", "covers", "before", "requests", "lost"] {
        rest.remove(known);
    }
    let world = World::deserialize(Value::Object(rest)).map_err(|error| error.to_string())?;
    let Head {
        case: name,
        covers,
        before,
        requests,
        lost,
    } = head;
    Ok(Case {
        name,
        covers,
        before,
        world,
        requests,
        lost,
    })
}

/// What a case compiles to.
#[derive(Debug)]
pub struct Outcome {
    /// Routing model, plan, requests and problems.
    pub text: String,
    /// What was compiled.
    pub snapshot: Snapshot,
}

impl Case {
    /// Writes the manifests, reads them as the gateway does, compiles them, and asks the rules.
    pub fn run(&self) -> Outcome {
        let mut good = LastGood::default();
        if let Some(before) = &self.before {
            let (snapshot, _) = read(before);
            good = ir::build(&snapshot, &good, &Options::default()).last_good;
        }
        let (mut snapshot, mut problems) = read(&self.world);
        for (id, cluster) in &mut snapshot.clusters {
            if self.lost.iter().any(|lost| **lost == *id.0) {
                cluster.reach = Reach::Lost;
            }
        }
        let built = ir::build(&snapshot, &good, &Options::default());
        problems.extend(built.problems);
        problems.sort();
        problems.dedup();
        let mut text = render::ir(&built.ir);
        for request in &self.requests {
            text.push_str(&request::answer(&built.ir, request));
        }
        if !self.requests.is_empty() {
            text.push('\n');
        }
        text.push_str(&report(&snapshot, built.ir, problems).to_string());
        Outcome { text, snapshot }
    }
}

fn read(world: &World) -> (Snapshot, Vec<Problem>) {
    let dir = tempfile::tempdir().expect("temp dir");
    world.write(dir.path());
    let read = DirectorySource::new(dir.path(), Bounds::default()).read();
    (read.snapshot, read.problems)
}

fn report(snapshot: &Snapshot, ir: ir::Ir, problems: Vec<Problem>) -> Report {
    let errors = problems
        .iter()
        .filter(|it| it.severity == Severity::Error)
        .count();
    let summary = Summary {
        gateways: snapshot.gateways.len(),
        ingresses: snapshot.ingresses.len(),
        clusters: snapshot.clusters.len(),
        listeners: ir.served().count(),
        rules: ir.listeners.values().map(|it| it.rules.len()).sum(),
        errors,
        warnings: problems.len() - errors,
        ..Summary::default()
    };
    Report {
        problems,
        summary,
        ir,
    }
}
