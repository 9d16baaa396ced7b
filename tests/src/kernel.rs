//! The kernel programs: found, loaded with small maps, filled with a world, run one frame at a time.
//!
//! Every test that uses this needs root; without it, or without the object, it fails and says so.

mod tables;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, SkLookup, TcAttachType, TestRun, TestRunOptions, Xdp},
};
use gateway_common::{
    config::Admission,
    datapath::{KEYS, KEYS_AT},
    flow::FlowKey,
    maps,
    verdict::Action,
};
use gateway_user::dataplane::pins::Pins;

use crate::{
    row::SEGMENT,
    world::{Counters, Flows, Hook, World},
};

use tables::Maps;
pub use tables::{FLOWS, Saved};

/// Map sizes of tests: enough for every world, and quick to make.
pub(crate) const SIZES: [(&str, u32); 12] = [
    ("FLOWS", FLOWS),
    ("SERVICES", 1024),
    ("VIPS", 1024),
    ("RINGS", 65_537),
    ("BACKENDS", 1024),
    ("HOPS", 4096),
    ("NEIGHBOURS", 1024),
    ("SERVICE_STATS", 1024),
    ("BACKEND_STATS", 1024),
    ("BUDGETS", 1024),
    ("SOURCES", 1024),
    ("METADATA", 16),
];

/// Offset of `gso_size` in `struct __sk_buff` (uapi/linux/bpf.h), and of its end.
const GSO_SIZE: (usize, usize) = (176, 180);

/// Loaded programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
}

/// What a program returned and left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ran {
    /// Return code of the program.
    pub code: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// How long the kernel says it took.
    pub took: Duration,
}

/// Where the kernel object is: `FLEETGATE_BPF_OBJECT`, or where `cargo xtask build-ebpf` leaves it.
///
/// # Errors
/// When there is none.
pub fn object() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FLEETGATE_BPF_OBJECT") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!(
                "FLEETGATE_BPF_OBJECT names {}, which is no file",
                path.display()
            );
        }
        return Ok(path);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let path = target.join("fleetgate.bpf.o");
    if !path.is_file() {
        bail!(
            "no kernel object at {}: run `cargo xtask build-ebpf` first",
            path.display()
        );
    }
    Ok(path)
}

impl Kernel {
    /// Loads all programs that tests run.
    ///
    /// # Errors
    /// Without root, without the object, or when the verifier refuses a program.
    pub fn load() -> Result<Self> {
        Self::load_with(FLOWS)
    }

    /// The same with room for this many flow entries.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn load_with(flows: u32) -> Result<Self> {
        Self::load_pinned(flows, None)
    }

    /// The same with maps, and the programs that an agent runs, pinned where an agent looks for them.
    ///
    /// # Errors
    /// As [`Kernel::load`], and when something cannot be pinned.
    pub fn load_pinned(flows: u32, pins: Option<&Pins>) -> Result<Self> {
        let path = object()?;
        let mut loader = EbpfLoader::new();
        if let Some(pins) = pins {
            std::fs::create_dir_all(pins.maps()).context("is there a BPF file system?")?;
            for (name, _) in maps::ALL {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        for (name, size) in SIZES {
            loader.map_max_entries(name, size);
        }
        loader.map_max_entries("FLOWS", flows);
        let mut ebpf = loader.load_file(&path).with_context(|| {
            format!(
                "cannot load {}: privileged tests need root (CAP_BPF and CAP_NET_ADMIN)",
                path.display()
            )
        })?;
        program::<Xdp>(&mut ebpf, "fleetgate_xdp")?
            .load()
            .context("the kernel refused fleetgate_xdp")?;
        for name in [
            "fleetgate_tc",
            "fleetgate_clock",
            "fleetgate_sweep",
            "fleetgate_live",
        ] {
            program::<SchedClassifier>(&mut ebpf, name)?
                .load()
                .with_context(|| format!("the kernel refused {name}"))?;
        }
        program::<SkLookup>(&mut ebpf, "fleetgate_sk_lookup")?
            .load()
            .context("the kernel refused fleetgate_sk_lookup")?;
        if let Some(pins) = pins {
            for (name, path) in [
                ("fleetgate_clock", pins.clock()),
                ("fleetgate_sweep", pins.sweep()),
                ("fleetgate_live", pins.live()),
            ] {
                let program = program::<SchedClassifier>(&mut ebpf, name)?;
                program.pin(path).with_context(|| format!("pin {name}"))?;
            }
        }
        let maps = Maps::take(&mut ebpf, flows)?;
        Ok(Self { ebpf, maps })
    }

    /// Empties all tables and counters, then writes a world.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn reset(&mut self, world: &World) -> Result<()> {
        self.maps.clear(&mut self.ebpf)?;
        self.maps.write(world)?;
        self.maps.leave_room(world.max_flows)
    }

    /// Replaces all tables but flows and counters.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn apply(&mut self, world: &World) -> Result<()> {
        self.maps.write(world)
    }

    /// Lets time pass: all flow entries become older by this many ticks.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn wait(&mut self, ticks: u32) -> Result<()> {
        self.maps.age(ticks)
    }

    /// Runs one frame through a program. `None`: the kernel takes no frame so short.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    pub fn run(&mut self, hook: Hook, frame: &[u8], segmented: bool) -> Result<Option<Ran>> {
        self.run_cut(hook, frame, if segmented { SEGMENT } else { 0 })
    }

    /// The same with a super-packet of segments with this many bytes of payload; 0 is an ordinary frame.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    pub fn run_cut(&mut self, hook: Hook, frame: &[u8], segment: u32) -> Result<Option<Ran>> {
        let mut out = vec![0; frame.len() + 64];
        let mut context = [0_u8; GSO_SIZE.1];
        context[GSO_SIZE.0..].copy_from_slice(&segment.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (segment != 0).then_some(&context[..]),
            ..TestRunOptions::new()
        };
        let result = match hook {
            Hook::Xdp => program::<Xdp>(&mut self.ebpf, "fleetgate_xdp")?.test_run(options),
            Hook::Tc => {
                program::<SchedClassifier>(&mut self.ebpf, "fleetgate_tc")?.test_run(options)
            }
        };
        if result.is_err() && frame.len() < shortest(hook, frame) {
            return Ok(None);
        }
        let result = result.with_context(|| format!("test run of {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        Ok(Some(Ran {
            code: result.return_value,
            frame: out,
            took: result.duration,
        }))
    }

    /// Attaches the TC program to an interface of this thread's network namespace, for as long as this
    /// value lives.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_tc(&mut self, interface: &str) -> Result<()> {
        program::<SchedClassifier>(&mut self.ebpf, "fleetgate_tc")?
            .attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("attach to {interface}"))?;
        Ok(())
    }

    /// The kernel's tick counter, read as the agent reads it.
    ///
    /// # Errors
    /// When the clock program does not run.
    pub fn ticks(&mut self) -> Result<u32> {
        program::<SchedClassifier>(&mut self.ebpf, "fleetgate_clock")?
            .test_run(TestRunOptions {
                data_in: Some(&[0; 64]),
                ..TestRunOptions::new()
            })
            .context("test run of fleetgate_clock")?;
        self.maps.ticks()
    }

    /// Flow entries with their ages.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn flows(&mut self) -> Result<Flows> {
        let now = self.ticks()?;
        self.maps.flows(now)
    }

    /// Offers flow entries to the sweeping program, at most [`KEYS`]; returns how many it removed.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    pub fn sweep(&mut self, keys: &[FlowKey]) -> Result<u32> {
        sweep(&mut self.ebpf, keys)
    }

    /// Makes one flow as old as `ticks` say.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn age(&mut self, key: &FlowKey, ticks: u32) -> Result<()> {
        self.maps.age_one(key, ticks)
    }

    /// Removes one entry behind everybody's back, as if a crash had lost it.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn lose(&mut self, key: &FlowKey) -> Result<()> {
        self.maps.lose(key)
    }

    /// Sets the high water of the flow table.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn admit(&mut self, admission: Admission) -> Result<()> {
        self.maps.admit(admission)
    }

    /// Live flows of a service as the programs count them; of id 0, all.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn live(&self, service: u32) -> Result<u64> {
        self.maps.live(service)
    }

    /// All counters, summed over the CPUs.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn counters(&self) -> Result<Counters> {
        self.maps.counters()
    }

    /// What packets change, as it is now.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn save(&self) -> Result<Saved> {
        self.maps.save()
    }

    /// Puts back what packets have changed since.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn restore(&mut self, saved: &Saved) -> Result<()> {
        self.maps.restore(saved)
    }
}

/// Shortest frame that every test run takes, in bytes: an Ethernet header, and at TC the IP header that the EtherType
/// promises. A wire has none so short either: a card hands up at least 60 bytes.
pub fn shortest(hook: Hook, frame: &[u8]) -> usize {
    match (hook, frame.get(12..14)) {
        (Hook::Tc, Some([0x08, 0x00])) => 14 + 20,
        (Hook::Tc, Some([0x86, 0xdd])) => 14 + 40,
        _ => 14,
    }
}

/// The return codes of each program, by what they mean.
pub fn code(hook: Hook, action: Action, same_interface: bool) -> u32 {
    match (hook, action) {
        (Hook::Xdp, Action::Drop) => 1,
        (Hook::Xdp, Action::Pass) => 2,
        (Hook::Xdp, Action::Forward) if same_interface => 3, // XDP_TX
        (Hook::Xdp, Action::Answer) => 3,
        (Hook::Xdp, Action::Forward) => 4,    // XDP_REDIRECT
        (Hook::Tc, Action::Drop) => 2,        // TC_ACT_SHOT
        (Hook::Tc, Action::Pass) => u32::MAX, // TCX_NEXT, -1
        (Hook::Tc, Action::Forward | Action::Answer) => 7, // TC_ACT_REDIRECT
    }
}

/// Moves this thread into a network namespace of its own, with nothing but a loopback device that
/// is down: what a program asks the kernel's routes does not depend on the machine.
///
/// # Errors
/// Without root.
pub fn own_network() -> Result<()> {
    // SAFETY: takes a number; only this thread changes its namespace, and no memory is involved.
    #[allow(unsafe_code, reason = "unshare has no safe wrapper in libc")]
    let failed = unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0;
    if failed {
        return Err(std::io::Error::last_os_error())
            .context("cannot make a network namespace: privileged tests need root");
    }
    Ok(())
}

/// Runs the sweeping program over a few keys.
fn sweep(ebpf: &mut Ebpf, keys: &[FlowKey]) -> Result<u32> {
    let mut frame = vec![0; KEYS_AT];
    for key in keys.iter().take(KEYS) {
        for word in key.src.0.into_iter().chain(key.dst.0) {
            frame.extend(word.to_ne_bytes());
        }
        frame.extend(key.src_port.0.to_ne_bytes());
        frame.extend(key.dst_port.0.to_ne_bytes());
        frame.extend(key.proto.to_ne_bytes());
    }
    let result = program::<SchedClassifier>(ebpf, "fleetgate_sweep")?
        .test_run(TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        })
        .context("test run of fleetgate_sweep")?;
    Ok(result.return_value)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
    <&'a mut P as TryFrom<&'a mut aya::programs::Program>>::Error:
        std::error::Error + Send + Sync + 'static,
{
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("{name} is of another type"))
}
