//! bpf-linker: found, or built into `<target>/tools`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{console::Step, ebpf::clean, paths, process, setup};

/// The release that was checked with the kernel crate.
const VERSION: &str = "0.13.0";

/// A bpf-linker on this LLVM, in our tool folder or on PATH.
pub fn installed(llvm: u32) -> Option<PathBuf> {
    [Some(ours()), process::which("bpf-linker")]
        .into_iter()
        .flatten()
        .filter(|linker| process::is_program(linker))
        .find(|linker| matches(linker, llvm))
}

/// Whether LLVM's development files for building one are there.
pub fn buildable(llvm: u32) -> bool {
    prefix(llvm).join("bin/llvm-config").exists() && missing(llvm).is_empty()
}

/// Installs LLVM's development files.
pub fn packages(llvm: u32) -> Result<()> {
    let missing = missing(llvm);
    setup::install(&missing.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Builds one from its crate (about a minute).
pub fn build(llvm: u32) -> Result<PathBuf> {
    let root = paths::target().join("tools");
    let step = Step::start(format!(
        "building bpf-linker {VERSION} on LLVM {llvm} (about a minute)"
    ));
    // The cargo that runs us is a recent one; the packaged one may be older than the linker asks for.
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let rustc = cargo.with_file_name("rustc");
    let mut install = Command::new(&cargo);
    clean(&mut install)
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--no-default-features",
            "--locked",
            "--force",
        ])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&root)
        .env("LLVM_PREFIX", prefix(llvm))
        .env("CARGO_TARGET_DIR", root.join("build"))
        .current_dir(paths::workspace());
    if process::is_program(&rustc) {
        install.env("RUSTC", rustc);
    }
    process::output(&mut install).with_context(|| {
        format!(
            "bpf-linker for LLVM {llvm} cannot be built; check the network and {}",
            prefix(llvm).display()
        )
    })?;
    if !matches(&ours(), llvm) {
        bail!(
            "the bpf-linker just built does not use LLVM {llvm}; remove {} and run this again",
            root.display()
        );
    }
    step.done();
    Ok(ours())
}

fn ours() -> PathBuf {
    paths::target().join("tools/bin/bpf-linker")
}

fn prefix(llvm: u32) -> PathBuf {
    env::var_os("LLVM_PREFIX").map_or_else(
        || PathBuf::from(format!("/usr/lib/llvm-{llvm}")),
        PathBuf::from,
    )
}

fn missing(llvm: u32) -> Vec<String> {
    if process::which("dpkg-query").is_none() {
        return Vec::new();
    }
    [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".into(),
        "zlib1g-dev".into(),
    ]
    .into_iter()
    .filter(|package| !setup::installed(package))
    .collect()
}

/// Whether a linker uses this LLVM. Its `--version` does not say; the library it loads does. One with LLVM inside
/// (a release download) is taken at its word: it is built for the newest Rust, and the build tells if that is wrong.
fn matches(linker: &Path, llvm: u32) -> bool {
    let Ok(libraries) = process::output(clean(Command::new("ldd").arg(linker))) else {
        return false;
    };
    if libraries.contains("not found") {
        return false;
    }
    loaded_llvm(&libraries).is_none_or(|major| major == llvm)
}

/// LLVM major from what `ldd` prints; `None` when no libLLVM is among the libraries.
fn loaded_llvm(libraries: &str) -> Option<u32> {
    libraries.lines().find_map(|line| {
        // libLLVM.so.22.1 (LLVM 18 and later), libLLVM-17.so.1 before.
        let rest = line.trim_start().strip_prefix("libLLVM")?;
        let rest = rest
            .strip_prefix(".so.")
            .or_else(|| rest.strip_prefix('-'))?;
        rest.split(['.', ' ']).next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_of_a_linker_is_read_from_its_libraries() {
        assert_eq!(
            loaded_llvm("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)\n"),
            Some(22)
        );
        assert_eq!(
            loaded_llvm("\tlibLLVM-17.so.1 => /usr/lib/libLLVM-17.so.1 (0x0)\n"),
            Some(17)
        );
        assert_eq!(loaded_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n"), None);
    }
}
