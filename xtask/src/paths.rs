//! Where things lie: the workspace, its target folder, and this program.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Root of the workspace: the folder that holds `xtask/`.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The workspace's target folder; `CARGO_TARGET_DIR` is respected, relative to the workspace root.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => workspace().join(dir),
        _ => workspace().join("target"),
    }
}

/// The kernel object `build-ebpf` leaves and the agent's build embeds.
pub fn object() -> PathBuf {
    target().join("fleetgate.bpf.o")
}

/// The kernel object of another layout of maps, for the tests of upgrades.
pub fn other_object() -> PathBuf {
    target().join("fleetgate-other-layout.bpf.o")
}

/// The agent of another layout of maps, for the tests of upgrades.
pub fn other_agent() -> PathBuf {
    target().join("debug").join("fleetgate-other-layout")
}

/// The floors and the generator of `bench l4`.
pub fn bench_object() -> PathBuf {
    target().join("fleetgate-bench.bpf.o")
}

/// The agent that `demo` builds, or the one `FLEETGATE_AGENT` names.
pub fn agent() -> PathBuf {
    given_agent().unwrap_or_else(|| target().join("release").join("fleetgate"))
}

/// An agent built elsewhere (a package, an image): `FLEETGATE_AGENT`.
pub fn given_agent() -> Option<PathBuf> {
    env::var_os("FLEETGATE_AGENT").map(PathBuf::from)
}

/// State and logs of the lab.
pub fn lab() -> PathBuf {
    target().join("lab")
}

/// The `xtask` program, which is also the lab's pods, client and guard.
///
/// Tests are other programs: for them it is `FLEETGATE_XTASK` (set by `cargo xtask test`) or the one in the target folder.
pub fn xtask() -> Result<PathBuf> {
    let me = env::current_exe()?;
    if me.file_stem().is_some_and(|name| name == "xtask") {
        return Ok(me);
    }
    let built = match env::var_os("FLEETGATE_XTASK") {
        Some(path) => PathBuf::from(path),
        None => target().join("debug").join("xtask"),
    };
    if !built.is_file() {
        bail!(
            "the lab's pods are run by {}, which is not built; run: cargo build -p xtask",
            built.display()
        );
    }
    Ok(built)
}
