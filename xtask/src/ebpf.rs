//! `cargo xtask build-ebpf`: the kernel programs, built alone with their own toolchain and flags.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    console::{self, Step},
    paths, process,
    toolchain::{self, Toolchain},
};

/// Options of `build-ebpf`. The build is always optimised: the verifier takes nothing else.
#[derive(clap::Args, Debug, Default)]
pub struct Options {
    /// Folder of the kernel crate
    #[arg(long, hide = true)]
    pub manifest_dir: Option<PathBuf>,
    /// Name of its program
    #[arg(long, hide = true, default_value = "fleetgate-ebpf")]
    pub bin: String,
    /// With the feature of the tests of upgrades, into an object of its own
    #[arg(long, hide = true)]
    pub other_layout: bool,
}

/// The kernel programs of `bench l4`: an object of its own, so that what ships does not grow.
const BENCH: &str = "fleetgate-bench-ebpf";

/// Target of the kernel programs.
const TARGET: &str = "bpfel-unknown-none";

/// Flags of the kernel programs, one argument each.
///
/// Debug information and `--btf` give the object its BTF; CPU v3 has 32-bit jumps and every kernel we support takes it;
/// the last one lets packet fields be read whole where they lie.
const FLAGS: [&str; 8] = [
    "-C",
    "debuginfo=2",
    "-C",
    "link-arg=--btf",
    "-C",
    "target-cpu=v3",
    "-C",
    "target-feature=+allows-misaligned-mem-access",
];

/// Builds the object and leaves it where the agent's build finds it; returns that path.
pub fn build(options: &Options) -> Result<PathBuf> {
    let dir = options
        .manifest_dir
        .clone()
        .unwrap_or_else(|| paths::workspace().join("gateway-ebpf"));
    if !dir.join("Cargo.toml").is_file() {
        bail!("no kernel crate in {}", dir.display());
    }
    let bin = if options.bin.is_empty() {
        "fleetgate-ebpf"
    } else {
        &options.bin
    };
    let toolchain = toolchain::find()?;
    console::note(format_args!(".. kernel toolchain: {toolchain}"));
    let step = Step::start("building the kernel programs");
    compile(&toolchain, &dir, bin, options.other_layout)?;
    let built = target_dir().join(TARGET).join("release").join(bin);
    let object = if bin == BENCH {
        paths::bench_object()
    } else if options.other_layout {
        paths::other_object()
    } else {
        paths::object()
    };
    let changed = leave(&built, &object)?;
    step.done_with(format_args!(
        "{}{}",
        object.display(),
        if changed { "" } else { ", unchanged" }
    ));
    Ok(object)
}

/// Builds the kernel programs of `bench l4`.
pub fn build_bench() -> Result<PathBuf> {
    build(&Options {
        manifest_dir: None,
        bin: BENCH.to_owned(),
        other_layout: false,
    })
}

/// Builds the kernel programs of an agent whose maps have another layout, for the tests of upgrades.
pub fn build_other_layout() -> Result<PathBuf> {
    build(&Options {
        other_layout: true,
        ..Options::default()
    })
}

fn compile(toolchain: &Toolchain, dir: &Path, bin: &str, other_layout: bool) -> Result<()> {
    let linker = format!("linker={}", toolchain.linker.display());
    // Encoded form: a path with a blank in it stays one argument.
    let flags = FLAGS
        .iter()
        .copied()
        .chain(["-C", &linker])
        .collect::<Vec<_>>()
        .join("\x1f");
    let mut cargo = Command::new(&toolchain.rust.cargo);
    clean(&mut cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
            "--bin",
            bin,
        ])
        .args(other_layout.then_some("--features=other-layout"))
        .current_dir(dir)
        .env("RUSTC", &toolchain.rust.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", target_dir());
    if let Err(error) = process::output(&mut cargo) {
        bail!("the kernel crate does not build with {toolchain}: {error:#}");
    }
    Ok(())
}

/// Removes from a command what `cargo xtask`'s own cargo and rustup said to us: it is meant for another toolchain.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
    ];
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let cargo = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
        // `cargo run` puts the host toolchain's libraries first on LD_LIBRARY_PATH.
        let other = name.starts_with("RUSTC")
            || [
                "RUSTFLAGS",
                "RUSTDOC",
                "RUSTDOCFLAGS",
                "RUSTUP_TOOLCHAIN",
                "LD_LIBRARY_PATH",
            ]
            .contains(&name.as_ref());
        if cargo || other {
            command.env_remove(&key);
        }
    }
    command
}

fn target_dir() -> PathBuf {
    paths::target().join("ebpf")
}

/// Puts the object in place if it differs, so that an equal one does not rebuild the agent.
fn leave(built: &Path, object: &Path) -> Result<bool> {
    let new = fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    let aside = object.with_extension("new");
    fs::write(&aside, new)
        .and_then(|()| fs::rename(&aside, object))
        .with_context(|| format!("cannot write {}", object.display()))?;
    Ok(true)
}
