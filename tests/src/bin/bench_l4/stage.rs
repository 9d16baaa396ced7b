//! Where everything happens: namespaces and pins of this process alone, and its loaded programs.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{Program, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLinkId},
};
use gateway_common::bench::{Arrivals, Generator};
use rustix::thread::{CpuSet, sched_setaffinity};
pub(crate) use xtask::bench::stage::{PINS, SCRATCH, enter};

use crate::Options;

/// Keeps this thread on the machine's last CPU, so that frames never change caches.
pub(crate) fn pin() -> Result<()> {
    pin_to(thread::available_parallelism()?.get() - 1)
}

/// Keeps this thread on one CPU.
pub(crate) fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("cannot stay on one CPU")
}

/// Lets this thread run on any of `cpus` CPUs again.
pub(crate) fn unpin(cpus: usize) -> Result<()> {
    let mut set = CpuSet::new();
    (0..cpus).for_each(|cpu| set.set(cpu));
    sched_setaffinity(None, &set).context("cannot run on every CPU")
}

/// A MAC address as the kernel programs take it.
pub(crate) fn words(mac: [u8; 6]) -> [u16; 3] {
    [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]]))
}

/// Sizes of the maps under test; arrays in proportion to what a large node holds.
pub(crate) fn load(object: &Path, flows: u32, pins: &str) -> Result<Ebpf> {
    let dir = PathBuf::from(PINS).join(pins);
    fs::create_dir_all(&dir)?;
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("FLOWS", flows)
        .map_pin_path("FLOWS", dir.join("FLOWS"));
    let mut ebpf = loader
        .load_file(object)
        .with_context(|| format!("cannot load {}", object.display()))?;
    // Before anybody takes a map: one that is dropped is closed, and then no program can be loaded that names it.
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => Ok(()),
        }
        .with_context(|| format!("the kernel refused {name}"))?;
    }
    Ok(ebpf)
}

/// A program by name.
pub(crate) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?)
}

/// Attaches a program in the driver.
pub(crate) fn attach(ebpf: &mut Ebpf, name: &str, device: &str) -> Result<XdpLinkId> {
    xdp(ebpf, name)?
        .attach(device, XdpMode::Driver)
        .with_context(|| format!("{name} on {device}"))
}

/// Run time in ns and runs of a program so far.
pub(crate) fn spent(ebpf: &Ebpf, name: &str) -> Result<(u64, u64)> {
    let info = ebpf.program(name).context("no such program")?.info()?;
    Ok((info.run_time().as_nanos() as u64, info.run_count()))
}

/// Takes a hash out of an object.
pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<HashMap<MapData, K, V>> {
    Ok(HashMap::try_from(take(ebpf, name)?)?)
}

/// Takes an array out of an object.
pub(crate) fn array<V: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Array<MapData, V>> {
    Ok(Array::try_from(take(ebpf, name)?)?)
}

/// Takes a per-CPU array out of an object.
pub(crate) fn per_cpu<V: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<PerCpuArray<MapData, V>> {
    Ok(PerCpuArray::try_from(take(ebpf, name)?)?)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the object has no map {name}"))
}

/// The generator, and the count of frames that arrived.
pub(crate) struct Source {
    /// The programs of `bench.rs`.
    pub(crate) ebpf: Ebpf,
    generator: Array<MapData, Generator>,
    arrived: PerCpuArray<MapData, Arrivals>,
    batch: u32,
}

impl Source {
    /// Loads the programs, on the flow table of whoever loaded with the same pins.
    pub(crate) fn load(options: &Options, flows: u32, pins: &str) -> Result<Self> {
        let mut ebpf = load(&options.bench_object, flows, pins)?;
        let generator = array(&mut ebpf, "GENERATOR")?;
        let arrived = per_cpu(&mut ebpf, "ARRIVED")?;
        Ok(Self {
            ebpf,
            generator,
            arrived,
            batch: options.batch,
        })
    }

    /// Frames that arrived so far.
    pub(crate) fn arrived(&self) -> Result<u64> {
        Ok(self.arrivals()?.iter().map(|one| one.count).sum())
    }

    /// What arrived on each CPU.
    pub(crate) fn arrivals(&self) -> Result<Vec<Arrivals>> {
        Ok(self.arrived.get(&0, 0)?.to_vec())
    }

    /// When the first frame of the last [`Self::send`] was made, ns of the monotonic clock.
    pub(crate) fn begun(&self) -> Result<u64> {
        Ok(self.generator.get(&0, 0)?.begun)
    }

    /// Sends this many frames; returns when all have left.
    pub(crate) fn send(&mut self, what: &Generator, frames: u32) -> Result<()> {
        let made = self.generator.get(&0, 0)?.made;
        self.generator.set(0, Generator { made, ..*what }, 0)?;
        let options = TestRunOptions {
            data_in: Some(&[0; 60]),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(self.batch),
            ..TestRunOptions::new()
        };
        xdp(&mut self.ebpf, "bench_generate")?
            .test_run(options)
            .context("live frames (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18)")?;
        let now = self.generator.get(&0, 0)?.made;
        if now.wrapping_sub(made) != frames {
            bail!("{} frames were made, not {frames}", now.wrapping_sub(made));
        }
        Ok(())
    }
}

/// Interface number in this thread's namespace.
pub(crate) fn ifindex(device: &str) -> Result<u32> {
    let name = std::ffi::CString::new(device)?;
    // SAFETY: a terminated string that outlives the call; returns a number.
    #[allow(unsafe_code, reason = "if_nametoindex has no safe wrapper in libc")]
    let found = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if found == 0 {
        bail!("no device {device}");
    }
    Ok(found)
}
