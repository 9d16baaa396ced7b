//! What can go wrong between the agent and the kernel.

use std::{fmt, io, path::PathBuf};

/// One sentence an operator can act on.
#[derive(Debug)]
pub enum Error {
    /// The binary was built before the kernel object.
    NoObject,
    /// The kernel refused the object or a program.
    Load(String),
    /// No gateway has pinned anything here.
    NotPinned(PathBuf),
    /// The pins are of maps of another layout.
    OtherLayout {
        /// The pin folder.
        dir: PathBuf,
        /// Layout of its maps.
        layout: String,
        /// Version of the agent that wrote them; empty if it cannot be told.
        version: String,
    },
    /// A file of the pin folder could not be used.
    Pin(PathBuf, String),
    /// The running kernel is older than what the programs need.
    Kernel(String),
    /// The folder is not on a BPF file system, and none could be mounted.
    NoBpfFs(PathBuf, io::Error),
    /// Another agent holds the pin folder.
    Busy(PathBuf),
    /// Another monitor takes the events of these maps.
    Monitored(PathBuf),
    /// A map operation failed.
    Map(&'static str, String),
    /// A program could not be attached.
    Attach(String, String),
    /// Ports of the node's address could not be reserved.
    Ports(String),
    /// The metadata of the last agent cannot be read.
    Record(String),
    /// The kernel's clocks could not be read.
    Clock(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoObject => f.write_str(
                "this binary holds no kernel programs; run `cargo xtask build-ebpf` and build it again",
            ),
            Self::Load(cause) => write!(
                f,
                "the kernel refused the programs: {cause}; Fleetgate needs Linux 6.1 or newer, and \
                 root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            ),
            Self::NotPinned(dir) => write!(
                f,
                "no gateway is pinned at {}; is `fleetgate run` on this node using another --pin-dir?",
                dir.display()
            ),
            Self::OtherLayout {
                dir,
                layout,
                version,
            } => write!(
                f,
                "the maps in {} have layout {layout}, of {}; this is fleetgate {} with layout {:016x}: use the fleetgate \
                 that the agent on this node is of",
                dir.display(),
                match version.as_str() {
                    "" => "another fleetgate".to_owned(),
                    version => format!("fleetgate {version}"),
                },
                env!("CARGO_PKG_VERSION"),
                gateway_common::maps::LAYOUT
            ),
            Self::Pin(path, cause) => write!(
                f,
                "cannot use {}: {cause}; `fleetgate unload` clears the folder (and stops kernel steering)",
                path.display()
            ),
            Self::Kernel(release) => write!(
                f,
                "this kernel is {release}; Fleetgate needs Linux 6.1 or newer"
            ),
            Self::NoBpfFs(dir, cause) => write!(
                f,
                "{} is not on a BPF file system and mounting one failed: {cause}; run \
                 `mount -t bpf bpf /sys/fs/bpf`",
                dir.display()
            ),
            Self::Busy(dir) => write!(
                f,
                "another agent runs on the pins in {}; stop it first, start this one with --take-over, or give it another --pin-dir",
                dir.display()
            ),
            Self::Monitored(dir) => write!(
                f,
                "another `fleetgate monitor` runs on the maps in {}; end it first",
                dir.display()
            ),
            Self::Map(map, cause) => write!(f, "map {map}: {cause}"),
            Self::Attach(what, cause) => write!(f, "cannot attach to {what}: {cause}"),
            Self::Ports(cause) => write!(f, "cannot reserve source ports: {cause}"),
            Self::Record(cause) => write!(
                f,
                "the pinned metadata cannot be read: {cause}; it belongs to another version: run that one, or \
                 `fleetgate unload` and start anew (open connections break)"
            ),
            Self::Clock(cause) => write!(f, "cannot read the kernel's clocks: {cause}"),
        }
    }
}

impl std::error::Error for Error {}
