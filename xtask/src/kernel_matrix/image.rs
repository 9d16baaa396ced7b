//! The guest's initramfs: the agent, this program as its test, the tools they run, and the libraries of all.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::fetch::MODULES;
use crate::{console::Step, paths, process};

/// Programs of this machine that the guest runs in place of what busybox calls so.
const TOOLS: [&str; 4] = ["ip", "tc", "ethtool", "nsenter"];

/// First process of the guest. It prints nothing that could be taken for a result.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/sbin:/usr/sbin:/bin HOME=/
echo KERNEL-MATRIX-INIT
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
for module in /modules/*.ko; do insmod $module; done
ip link set lo up
/fg/xtask kernel-matrix-guest
poweroff -f
";

/// What is the same for all kernels, as a folder.
pub(super) fn base(cache: &Path, agent: &Path) -> Result<PathBuf> {
    let step = Step::start("packing the guest");
    let root = cache.join("guest");
    let _ = fs::remove_dir_all(&root);
    for dir in [
        "bin", "sbin", "fg", "proc", "sys", "dev", "run", "tmp", "modules", "lib64",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    let mut programs = vec![
        (agent.to_path_buf(), root.join("fg/fleetgate")),
        (paths::xtask()?, root.join("fg/xtask")),
    ];
    for tool in TOOLS {
        programs.push((find(tool)?, root.join("sbin").join(tool)));
    }
    let mut libraries = BTreeSet::new();
    for (from, to) in &programs {
        libraries.extend(needed(from)?);
        // Debug information would be most of the image.
        process::output(Command::new("strip").arg("-o").arg(to).arg(from))?;
    }
    for library in libraries {
        let to = root.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(to.parent().context("a library has a folder")?)?;
        fs::copy(&library, &to)?;
    }
    fs::copy(find("busybox")?, root.join("bin/busybox"))?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    if !root.join("bin/sh").exists() {
        symlink("busybox", root.join("bin/sh"))?;
    }
    step.done();
    Ok(root)
}

/// The image of one kernel: the base with its modules.
pub(super) fn for_kernel(kernel: &Path, base: &Path) -> Result<PathBuf> {
    for module in MODULES {
        let name = format!("{module}.ko");
        fs::copy(kernel.join(&name), base.join("modules").join(&name))
            .with_context(|| format!("{} lacks {name}", kernel.display()))?;
    }
    let image = kernel.join("initramfs");
    // Not compressed: unpacking is slow without KVM.
    let mut find = Command::new("find")
        .args([".", "-print0"])
        .current_dir(base)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run find")?;
    let list = find.stdout.take().context("find has no stdout")?;
    let status = Command::new("cpio")
        .args([
            "--null",
            "--create",
            "--quiet",
            "--format=newc",
            "--owner=0:0",
        ])
        .current_dir(base)
        .stdin(list)
        .stdout(fs::File::create(&image)?)
        .status()
        .context("cannot run cpio")?;
    if !find.wait()?.success() || !status.success() {
        bail!("the initramfs could not be packed");
    }
    Ok(image)
}

fn find(program: &str) -> Result<PathBuf> {
    let path = process::which(program).with_context(|| format!("{program} is not installed"))?;
    Ok(fs::canonicalize(path)?)
}

/// Shared libraries of a program, as the loader finds them here: lines `name => path (address)`, and the loader itself.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let said = process::output(Command::new("ldd").arg(program))?;
    Ok(said
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}
