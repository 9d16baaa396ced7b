//! Puts the kernel object that `cargo xtask build-ebpf` left into the agent. Without one the agent still builds, with
//! an empty object, and says at start which command to run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    let object = object()?;
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = match fs::read(&object) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    fs::write(variable("OUT_DIR")?.join("fleetgate.bpf.o"), bytes)
}

/// `<workspace target>/fleetgate.bpf.o`, as `xtask` writes it; with the feature `other-layout` that of the tests of
/// upgrades.
fn object() -> io::Result<PathBuf> {
    let root = variable("CARGO_MANIFEST_DIR")?;
    let root = root.parent().unwrap_or(Path::new("."));
    let target = env::var_os("CARGO_TARGET_DIR")
        .filter(|dir| !dir.is_empty())
        .unwrap_or_else(|| "target".into());
    let name = match env::var_os("CARGO_FEATURE_OTHER_LAYOUT") {
        Some(_) => "fleetgate-other-layout.bpf.o",
        None => "fleetgate.bpf.o",
    };
    Ok(root.join(target).join(name))
}

fn variable(name: &str) -> io::Result<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other(format!("cargo did not set {name}")))
}
