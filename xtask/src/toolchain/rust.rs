//! Rust compilers on this machine that can build `core`.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ebpf::clean, process};

/// The first LLVM whose BPF target knows `allows-misaligned-mem-access`; bpf-linker 0.13 takes 21 and later.
const OLDEST_LLVM: u32 = 22;

/// A compiler with the sources of its standard library.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rust {
    /// Where it comes from, e.g. `rustup nightly-x86_64-unknown-linux-gnu`.
    pub label: String,
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// Release, e.g. `1.96.0`.
    pub release: String,
    /// Major version of its LLVM.
    pub llvm: u32,
}

impl fmt::Display for Rust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (rustc {}, LLVM {})",
            self.label, self.release, self.llvm
        )
    }
}

/// Every usable one: rustup's nightlies, rustup's others, then plain ones on the machine.
pub fn installed() -> Vec<Rust> {
    let mut all: Vec<Rust> = rustup_toolchains()
        .into_iter()
        .filter_map(|name| rustup(&name))
        .collect();
    let plain = ["/usr/bin/rustc", "/usr/local/bin/rustc"].map(PathBuf::from);
    for rustc in plain.into_iter().chain(process::which("rustc")) {
        // rustup's own rustc on PATH resolves to a toolchain that is listed above.
        if let Some(rust) = plain_rust(&rustc)
            && !all.iter().any(|known| known.rustc == rust.rustc)
        {
            all.push(rust);
        }
    }
    all
}

fn rustup_toolchains() -> Vec<String> {
    let list = process::output(clean(Command::new("rustup").args(["toolchain", "list"])))
        .unwrap_or_default();
    let mut names: Vec<String> = list
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(String::from)
        .collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    names
}

fn rustup(name: &str) -> Option<Rust> {
    let sysroot = process::output(
        clean(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]))
            .env("RUSTUP_AUTO_INSTALL", "0"),
    )
    .ok()?;
    let bin = Path::new(sysroot.trim()).join("bin");
    describe(
        format!("rustup {name}"),
        bin.join("rustc"),
        bin.join("cargo"),
    )
}

fn plain_rust(rustc: &Path) -> Option<Rust> {
    let sysroot = process::output(clean(Command::new(rustc).args(["--print", "sysroot"]))).ok()?;
    let bin = Path::new(sysroot.trim()).join("bin");
    let real = bin.join("rustc");
    let label = real.display().to_string();
    describe(label, real, bin.join("cargo"))
}

/// `None` unless compiler, cargo and sources are all there and the LLVM is new enough.
fn describe(label: String, rustc: PathBuf, cargo: PathBuf) -> Option<Rust> {
    if !process::is_program(&rustc) || !process::is_program(&cargo) {
        return None;
    }
    let sources = rustc
        .parent()?
        .parent()?
        .join("lib/rustlib/src/rust/library/core");
    if !sources.is_dir() {
        return None;
    }
    let (release, llvm) = versions(&process::output(clean(Command::new(&rustc).arg("-vV"))).ok()?)?;
    (llvm >= OLDEST_LLVM).then_some(Rust {
        label,
        rustc,
        cargo,
        release,
        llvm,
    })
}

/// Release and LLVM major from `rustc -vV`.
fn versions(text: &str) -> Option<(String, u32)> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    let llvm = value("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((value("release:")?.to_owned(), llvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_llvm_are_read_from_rustc() {
        let text = "rustc 1.96.0 (x)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(versions(text), Some(("1.96.0".into(), 22)));
        assert_eq!(versions("release: 1.96.0\n"), None);
    }
}
