//! Loads the embedded object onto the pinned maps.

use aya::{Ebpf, EbpfLoader, programs::Program};
use gateway_common::maps;

use super::{Error, pins::Pins};

/// The kernel object, aligned as the ELF reader wants it; empty if the binary was built without.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fleetgate.bpf.o"));

/// Name of the XDP program.
pub const XDP: &str = "fleetgate_xdp";
/// Name of the TC program.
pub const TC: &str = "fleetgate_tc";
/// Name of the socket lookup program.
pub const SK_LOOKUP: &str = "fleetgate_sk_lookup";
/// Name of the clock program.
const CLOCK: &str = "fleetgate_clock";
/// Name of the program that removes flows which are over.
const SWEEP: &str = "fleetgate_sweep";

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
    for name in [XDP, TC, SK_LOOKUP, CLOCK, SWEEP] {
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
    }
    for (name, path) in [(CLOCK, pins.clock()), (SWEEP, pins.sweep())] {
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

/// tcx links, which let programs outlive the agent, came with 6.6.
fn supported() -> Result<(), Error> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 6) => {
            Err(Error::Kernel(release))
        }
        _ => Ok(()),
    }
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
    if text.len() > LONGEST {
        let mut start = text.len() - LONGEST;
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text = format!("... {}", &text[start..]);
    }
    text
}
