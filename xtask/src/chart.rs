//! `cargo xtask chart`: the Helm charts of `deploy/chart`, linted and rendered by Helm itself.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{console, paths};

mod renderer;

pub use renderer::{PACKAGE, ensure};

/// Namespace that charts are rendered for, as the documentation installs them.
pub const NAMESPACE: &str = "fleetgate-system";

/// What to render.
#[derive(Args, Debug)]
pub struct Options {
    /// Chart: a folder of deploy/chart
    #[arg(default_value = "fleetgate")]
    pub chart: String,
    /// Write one file for each template (and the CRDs) below this folder, instead of printing all
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A value, as for `helm --set`; repeat for more
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A file of values, as for `helm --values`; repeat for more
    #[arg(long, value_name = "FILE")]
    pub values: Vec<PathBuf>,
}

/// Values given to one rendering; later ones win, and `set` wins over `files`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Values {
    /// Texts of values files.
    pub files: Vec<String>,
    /// `key=value`, as for `helm --set`.
    pub set: Vec<String>,
}

/// What Helm made of a chart.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Rendered {
    /// Warnings and errors of `helm lint --strict`.
    pub lint: Vec<String>,
    /// Text by template, for example `fleetgate/templates/daemonset.yaml`; with the notes and the CRDs.
    pub files: BTreeMap<String, String>,
}

impl Rendered {
    /// The files that hold objects, as `helm template --include-crds` takes them.
    pub fn manifests(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter();
        files
            .filter(|(path, text)| path.ends_with(".yaml") && !text.trim().is_empty())
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// All objects as one stream, as `helm template` prints it.
    pub fn stream(&self) -> String {
        self.manifests()
            .map(|(path, text)| format!("---\n# Source: {path}\n{}\n", text.trim_end()))
            .collect()
    }
}

/// `cargo xtask chart`.
pub fn run(options: &Options) -> Result<()> {
    let chart = paths::workspace().join("deploy/chart").join(&options.chart);
    let read = |path: &PathBuf| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let values = Values {
        files: options.values.iter().map(read).collect::<Result<_>>()?,
        set: options.set.clone(),
    };
    let rendered = match render(&chart, &[values])?.pop() {
        Some(Ok(rendered)) => rendered,
        Some(Err(why)) => bail!("{}: {why}", chart.display()),
        None => bail!("Helm answered nothing"),
    };
    match &options.out {
        None => console::say(rendered.stream().trim_end()),
        Some(dir) => {
            for (path, text) in &rendered.files {
                let file = dir.join(path);
                write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    if !rendered.lint.is_empty() {
        bail!("helm lint: {}", rendered.lint.join("\n"));
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text)
}

/// Renders a chart once for each of `cases`, in order. An inner `Err` is Helm's refusal of those values.
///
/// Sets the renderer up first if it is missing. Fails if that cannot be done or the chart cannot be read.
pub fn render(chart: &Path, cases: &[Values]) -> Result<Vec<Result<Rendered, String>>> {
    let name = chart
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let answer: Answer = renderer::ask(&Request {
        chart,
        release: &name,
        namespace: NAMESPACE,
        cases,
    })?;
    if answer.cases.len() != cases.len() {
        bail!(
            "Helm rendered {} cases of {}",
            answer.cases.len(),
            cases.len()
        );
    }
    let cases = answer.cases.into_iter().map(|case| match case {
        Case::Refused { error } => Err(error),
        Case::Rendered(mut rendered) => {
            rendered.files.extend(answer.crds.clone());
            Ok(rendered)
        }
    });
    Ok(cases.collect())
}

#[derive(Serialize)]
struct Request<'a> {
    chart: &'a Path,
    release: &'a str,
    namespace: &'a str,
    cases: &'a [Values],
}

#[derive(Deserialize)]
struct Answer {
    crds: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    Refused { error: String },
    Rendered(Rendered),
}
