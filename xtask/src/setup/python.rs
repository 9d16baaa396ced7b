//! Programs that come as Python packages: each in a virtual environment of its own, below `<target>/tools`.

use std::{fs, io::ErrorKind, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{console::Step, paths, process, setup};

/// Folder of the environment `name` that has this package (`name==version`) and nothing else; set up first if it is
/// missing.
pub fn environment(name: &str, package: &str) -> Result<PathBuf> {
    let tools = paths::target().join("tools");
    fs::create_dir_all(&tools)?;
    // Tests of several programs may want it at once; the first sets it up. Released when the file is closed.
    let lock = fs::File::create(tools.join(name).with_extension("lock"))?;
    lock.lock()?;
    if let Some(home) = existing(name, package) {
        return Ok(home);
    }
    let home = tools.join(name);
    set_up(&home, package)
        .with_context(|| format!("{package} cannot be set up (by pip, from the package index)"))?;
    fs::write(home.join(package), "")?;
    Ok(home)
}

/// The same folder if the environment is there.
pub fn existing(name: &str, package: &str) -> Option<PathBuf> {
    let home = paths::target().join("tools").join(name);
    // A Python that was upgraded leaves the link of its environment dangling.
    let whole = home.join(package).exists() && process::is_program(&home.join("bin/python"));
    whole.then_some(home)
}

fn set_up(home: &PathBuf, package: &str) -> Result<()> {
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
    let step = Step::start(format!("pip install {package}"));
    process::output(Command::new(&host).args(["-m", "venv"]).arg(home))?;
    // A wheel or nothing: a source package would run its build.
    process::output(Command::new(home.join("bin/python")).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        package,
    ]))?;
    step.done();
    Ok(())
}
