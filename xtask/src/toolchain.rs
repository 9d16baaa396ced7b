//! Finds a Rust that can build `core` for the kernel and a bpf-linker of the same LLVM, or sets them up.
//!
//! Two ways, tried in this order: what is installed already (any rustup toolchain or plain rustc with rust-src, a
//! bpf-linker in our tool folder or on PATH); then the distribution's packages (Debian, Ubuntu) and a linker built
//! from its crate against the packaged LLVM.

use std::{fmt, path::PathBuf};

use anyhow::{Context, Result, bail};

use self::rust::Rust;
use crate::{console, process, setup};

pub mod linker;
pub mod rust;

/// Packages of a Rust with sources, as Debian's security archive has them for browsers.
const RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A pair that agrees.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Compiler and cargo, with the sources of `core`.
    pub rust: Rust,
    /// bpf-linker on the same LLVM.
    pub linker: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.rust, self.linker.display())
    }
}

/// Finds or sets up a toolchain.
pub fn find() -> Result<Toolchain> {
    let mut rusts = rust::installed();
    // Way 1: a pair that is there.
    for rust in &rusts {
        if let Some(linker) = linker::installed(rust.llvm) {
            return Ok(Toolchain {
                rust: rust.clone(),
                linker,
            });
        }
    }
    // A Rust that is there, and a linker we can build for its LLVM with what is there.
    for rust in &rusts {
        if linker::buildable(rust.llvm) {
            return Ok(Toolchain {
                rust: rust.clone(),
                linker: linker::build(rust.llvm)?,
            });
        }
    }
    // Way 2: packages; first a linker for a Rust that is there, then the packaged Rust with its own.
    if let Some(found) = with_packaged_llvm(&rusts) {
        return found;
    }
    let missing: Vec<&str> = RUST_PACKAGES
        .into_iter()
        .filter(|package| !setup::installed(package))
        .collect();
    if missing.is_empty() || process::which("apt-get").is_none() {
        bail!("{}", impossible(&rusts));
    }
    setup::install(&missing).with_context(|| impossible(&rusts))?;
    rusts = rust::installed();
    with_packaged_llvm(&rusts).unwrap_or_else(|| bail!("{}", impossible(&rusts)))
}

/// The first of these Rusts whose LLVM the distribution has, with a linker built for it; `None` when it has none.
fn with_packaged_llvm(rusts: &[Rust]) -> Option<Result<Toolchain>> {
    let rust = rusts
        .iter()
        .find(|rust| match linker::packages(rust.llvm) {
            Ok(()) => true,
            Err(error) => {
                console::note(format_args!("no linker for {rust}: {error:#}"));
                false
            }
        })?;
    let built = linker::build(rust.llvm);
    Some(built.map(|linker| Toolchain {
        rust: rust.clone(),
        linker,
    }))
}

/// One sentence on what is missing and the command that provides it.
fn impossible(rusts: &[Rust]) -> String {
    match rusts.first() {
        None => "no Rust toolchain with its standard library's sources was found; run: \
                 rustup toolchain install nightly --component rust-src, \
                 or on Debian: apt-get install rustc-web cargo-web rust-web-src"
            .into(),
        Some(rust) => format!(
            "{rust} is there, but no bpf-linker for its LLVM {llvm}; run: apt-get install llvm-{llvm}-dev libpolly-{llvm}-dev \
             libzstd-dev zlib1g-dev (then this command again), or put a bpf-linker built on LLVM {llvm} on PATH",
            llvm = rust.llvm
        ),
    }
}
