//! Helm as a library: a Python package in a virtual environment of ours, below `<target>/tools`.
//!
//! A `helm` program is no package of any registry we may rely on; its Python binding carries Helm's own Go code.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};

use crate::{process, setup::python};

/// The binding that was checked with the charts: Helm 4.2.3.
pub const PACKAGE: &str = "helm-python-sdk==0.2.2";
/// What runs in it.
const SCRIPT: &str = include_str!("render.py");

/// Python of the environment; set up first if it is missing (75 MB to load, about 10 s).
pub fn ensure() -> Result<PathBuf> {
    let home = python::environment("helm", PACKAGE)
        .context("the renderer of the Helm charts cannot be set up")?;
    Ok(home.join("bin/python"))
}

/// One question to the script.
pub(super) fn ask<A: DeserializeOwned>(request: &impl Serialize) -> Result<A> {
    let python = ensure()?;
    let mut child = Command::new(&python)
        .args(["-I", "-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", python.display()))?;
    // The script reads all of it before it writes anything, so this cannot block for ever.
    let sent = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(&serde_json::to_vec(request)?),
        None => Ok(()),
    };
    let out = child.wait_with_output()?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!(
            "Helm failed ({}): {}",
            out.status,
            process::last_lines(said.trim(), 20)
        );
    }
    sent.context("Helm did not read the request")?;
    serde_json::from_slice(&out.stdout).context("Helm's answer cannot be read")
}
