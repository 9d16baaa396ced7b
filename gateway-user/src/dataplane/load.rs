//! Loads the embedded object onto the pinned maps.

use aya::{Ebpf, EbpfLoader, programs::Program};
use gateway_common::maps;
use tracing::debug;

use super::{Error, pins::Pins};

/// The kernel object, aligned as the ELF reader wants it; empty if the binary was built without.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fleetgate.bpf.o"));

/// Name of the XDP program.
pub const XDP: &str = "fleetgate_xdp";
/// Name of the XDP program for interfaces whose frames may come in several buffers; loaded where one needs it.
pub const XDP_FRAGS: &str = "fleetgate_xdp_frags";
/// Name of the TC program.
pub const TC: &str = "fleetgate_tc";
/// Name of the socket lookup program.
pub const SK_LOOKUP: &str = "fleetgate_sk_lookup";
/// Name of the clock program.
const CLOCK: &str = "fleetgate_clock";
/// Name of the program that removes flows which are over.
const SWEEP: &str = "fleetgate_sweep";
/// Name of the program that counts flows which the agent writes.
const LIVE: &str = "fleetgate_live";

/// Whether this binary holds kernel programs.
pub fn has_object() -> bool {
    !OBJECT.is_empty()
}

/// Creates or reuses the pinned maps, loads every program, pins those that the agent runs itself.
///
/// `max_flows` is the number of flow entries (two for each connection) of a table that is made
/// now; a pinned table keeps its size and its flows.
pub fn load(pins: &Pins, max_flows: u32) -> Result<Ebpf, Error> {
    if !has_object() {
        return Err(Error::NoObject);
    }
    supported()?;
    let mut loader = EbpfLoader::new();
    for (name, _) in maps::ALL {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.map_max_entries(maps::FLOWS.0, max_flows);
    let mut ebpf = loader.load(OBJECT).map_err(|e| Error::Load(chain(&e)))?;
    for name in [XDP, TC, SK_LOOKUP, CLOCK, SWEEP, LIVE] {
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| Error::Load(format!("the object has no program {name}")))?;
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            _ => continue,
        };
        loaded.map_err(|e| Error::Load(format!("{name}: {}", chain(&e))))?;
        let verified = program
            .info()
            .ok()
            .and_then(|i| i.verified_instruction_count());
        debug!(program = name, verified_instructions = verified, "loaded");
    }
    for (name, path) in [
        (CLOCK, pins.clock()),
        (SWEEP, pins.sweep()),
        (LIVE, pins.live()),
    ] {
        // A pin left by an earlier agent is of the same program; pins are not replaced in place.
        let _ = std::fs::remove_file(&path);
        if let Some(program) = ebpf.program_mut(name) {
            program
                .pin(&path)
                .map_err(|e| Error::Pin(path, chain(&e)))?;
        }
    }
    Ok(ebpf)
}

/// Oldest kernel that the programs are tested on (`cargo xtask kernel-matrix`).
const OLDEST: (u32, u32) = (6, 1);

fn supported() -> Result<(), Error> {
    match release() {
        (release, Some(version)) if version < OLDEST => Err(Error::Kernel(release)),
        _ => Ok(()),
    }
}

/// The kernel's release as `uname -r` prints it, and its first two numbers where it has them.
pub fn release() -> (String, Option<(u32, u32)>) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let version = version(&release);
    (release, version)
}

/// First two numbers of a release such as `6.1.0-18-amd64` or `6.18.5+`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// An error with its causes, cut to what a log line can hold: the verifier's log can be megabytes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    const LONGEST: usize = 2000;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // Newer kernels end the log with a line for each function: what they refused stands before those.
    let statistics = |line: &&str| line.trim_start().starts_with("subprog ");
    if text.lines().any(|line| statistics(&line)) {
        let told: Vec<&str> = text.lines().filter(|line| !statistics(line)).collect();
        text = told.join("\n");
    }
    if text.len() > LONGEST {
        let mut start = text.len() - LONGEST;
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text = format!("... {}", &text[start..]);
    }
    text
}
