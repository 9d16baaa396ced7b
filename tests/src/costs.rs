//! What the kernel programs cost the verifier, and what they may cost: the one place where the budgets are.
//!
//! `cargo xtask verify` prints them (by the program `program-costs`), and `budget_kernel` holds them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::{EbpfLoader, programs::Program};
use serde_json::{Value, json};

use crate::kernel::SIZES;

/// Instructions that the verifier may walk through, by program.
///
/// The kernel's limit is a million for each. Verifiers differ: what one kernel takes in a fifth of that, another may
/// take in the whole, or refuse. A program without a line here is over budget.
pub const BUDGETS: [(&str, u32); 7] = [
    ("fleetgate_xdp", 250_000),
    ("fleetgate_xdp_frags", 250_000),
    ("fleetgate_tc", 350_000),
    ("fleetgate_sweep", 10_000),
    ("fleetgate_sk_lookup", 2_000),
    ("fleetgate_clock", 100),
    ("fleetgate_live", 1_000),
];

/// One loaded program.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Name in the object.
    pub name: String,
    /// Instructions walked through to accept it; `None` before Linux 5.16, which does not tell.
    pub verified: Option<u32>,
    /// Most of them that are allowed; `None` without a line in [`BUDGETS`].
    pub budget: Option<u32>,
    /// Size of the program after the verifier's changes, in bytes; `None` where the kernel hides it.
    pub translated: Option<u32>,
    /// Size of its machine code, in bytes; 0 without a JIT.
    pub jitted: u32,
    /// Time of the system call that verified and compiled it.
    pub took: Duration,
}

impl Cost {
    /// Whether it costs more than it may. What the kernel does not tell is not over.
    pub fn over(&self) -> bool {
        match (self.verified, self.budget) {
            (_, None) => true,
            (Some(verified), Some(budget)) => verified > budget,
            (None, Some(_)) => false,
        }
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "program": self.name,
            "verified_instructions": self.verified,
            "budget": self.budget,
            "over_budget": self.over(),
            "translated_bytes": self.translated,
            "jitted_bytes": self.jitted,
            "load_ms": self.took.as_secs_f64() * 1e3,
        })
    }
}

/// Loads every program of an object, with small maps, and tells what each cost, in the order of their names.
///
/// # Errors
/// When the object cannot be read, the kernel refuses a map or a program, or there is one of a type that is not known
/// here.
pub fn measure(object: &Path) -> Result<Vec<Cost>> {
    let mut loader = EbpfLoader::new();
    for (name, size) in SIZES {
        loader.map_max_entries(name, size);
    }
    let mut ebpf = loader.load_file(object).with_context(|| {
        format!(
            "cannot load {} (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed)",
            object.display()
        )
    })?;
    let mut costs = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let began = Instant::now();
        match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            _ => bail!("{name} is of a type that `costs::measure` cannot load: add it there"),
        }
        .with_context(|| format!("the kernel refused {name}"))?;
        let took = began.elapsed();
        let info = program
            .info()
            .with_context(|| format!("cannot ask for {name}"))?;
        costs.push(Cost {
            name: name.to_owned(),
            verified: info.verified_instruction_count(),
            budget: BUDGETS.iter().find(|(of, _)| *of == name).map(|(_, n)| *n),
            translated: info.size_translated(),
            jitted: info.size_jitted(),
            took,
        });
    }
    costs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(costs)
}

/// What `uname -r` prints.
///
/// # Errors
/// When /proc is not there.
pub fn release() -> Result<String> {
    let file = "/proc/sys/kernel/osrelease";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.trim().to_owned())
}
