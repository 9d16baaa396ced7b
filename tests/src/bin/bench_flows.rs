//! What many flows cost: `bench-flows <flows>` opens them through the real program and prints one JSON object.
//! `cargo xtask bench flows` runs it.

#![allow(clippy::print_stdout, reason = "the result goes to standard output")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::MapData;
use fleetgate_tests::{
    kernel::{self, Kernel, code},
    packets::{self, flags},
    world::{BACKEND, Hook, POD, VIP, World, addr, flow_key, world},
};
use gateway_common::{
    backend::Snat,
    flow::{TCP, state},
    maps,
    verdict::Action,
};
use gateway_user::dataplane::{
    gc::{Remover, Sweep, sweep},
    pins::Pins,
    tables::Tables,
};
use serde_json::{Value, json};

/// Live flows at which a look is taken, as far as there are so many.
const LOOKS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// Packets measured at each look.
const SAMPLES: u32 = 1_000;
/// Source addresses, of 64 512 ports each: twice as many ports as a million flows need.
const ADDRESSES: u8 = 32;

/// The pin folder of a run, removed at its end.
struct Folder(Pins);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.root());
    }
}

fn main() -> Result<()> {
    let flows: u32 = match std::env::args().nth(1) {
        Some(text) => text.parse().context("how many flows?")?,
        None => 1_000_000,
    };
    ensure!(
        (1..=1_000_000).contains(&flows),
        "between 1 and 1000000 flows"
    );
    // Samples at a look are opened beyond it.
    let entries = (2 * (flows + SAMPLES)).next_power_of_two();
    kernel::own_network()?;
    let folder = Folder(Pins::new(format!(
        "/sys/fs/bpf/fg-bench-flows-{}",
        std::process::id()
    )));
    let pins = &folder.0;
    let mut kernel = Kernel::load_pinned(entries, Some(pins))?;
    let mut world = many_ports(entries);
    kernel.reset(&world)?;
    let tables = Tables::open(pins)?;
    let mut remover = Remover::open(pins)?;

    let mut looks = Vec::new();
    let mut opened = 0;
    let filling = Instant::now();
    for look in LOOKS.into_iter().filter(|look| *look <= flows) {
        while opened < look {
            open(&mut kernel, opened)?;
            opened += 1;
        }
        looks.push(look_at(&mut kernel, &tables, &mut opened)?);
    }
    while opened < flows {
        open(&mut kernel, opened)?;
        opened += 1;
    }
    let filled = filling.elapsed();
    let live = kernel.live(0)?;
    ensure!(
        live == u64::from(opened),
        "{live} flows live of {opened} opened"
    );

    // Starts the peak anew (proc(5)).
    fs::write("/proc/self/clear_refs", "5").context("/proc/self/clear_refs")?;
    let before = peak_kib()?;
    let idle = pass(&mut kernel, &tables, &mut remover, &world)?;
    ensure!(idle.seen == 2 * live && idle.removed == 0, "{idle:?}");
    // From now on every flow is over after two ticks.
    world.config.timeout_ticks = [2; state::COUNT];
    kernel.apply(&world)?;
    thread::sleep(Duration::from_millis(200));
    let all = pass(&mut kernel, &tables, &mut remover, &world)?;
    let left = kernel.live(0)?;
    ensure!(all.removed == 2 * live && left == 0, "{left} flows left");
    let after = peak_kib()?;

    let table = memlock(pins)?;
    let result = json!({
        "flows": opened,
        "table_entries": entries,
        "table_mib": table as f64 / f64::from(1 << 20),
        "table_bytes_per_flow": table as f64 / f64::from(entries) * 2.0,
        "filled_seconds": filled.as_secs_f64(),
        "at": looks,
        "sweep": {
            "nothing_over_ms": idle.took.as_secs_f64() * 1e3,
            "everything_over_ms": all.took.as_secs_f64() * 1e3,
            "peak_growth_kib": after.saturating_sub(before),
        },
    });
    println!("{result}");
    Ok(())
}

/// Nanoseconds in the program of a frame that is not ours, of packets of open flows and of new flows.
fn look_at(kernel: &mut Kernel, tables: &Tables, opened: &mut u32) -> Result<Value> {
    let live = *opened;
    let mut foreign = vec![0; 64];
    // ARP.
    foreign[12..14].copy_from_slice(&[8, 6]);
    // Spread over all that are open, and each once: with the caches as cold as many flows leave them.
    let which: Vec<u32> = (0..SAMPLES)
        .map(|number| (u64::from(number) * u64::from(live) / u64::from(SAMPLES)) as u32)
        .collect();
    for number in &which {
        establish(kernel, tables, *number)?;
    }
    let (mut floor, mut known, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for number in which {
        let ran = kernel.run(Hook::Xdp, &foreign, false)?;
        floor.push(ran.context("a frame too short")?.took);
        let ack = packets::tcp(client(number), VIP, flags::ACK).bytes();
        let ran = kernel.run(Hook::Xdp, &ack, false)?;
        known.push(ran.context("a frame too short")?.took);
        new.push(open(kernel, *opened)?);
        *opened += 1;
    }
    Ok(json!({
        "live": live,
        "not_ours_ns": spread(floor),
        "known_flow_ns": spread(known),
        "new_flow_ns": spread(new),
    }))
}

/// The pod answers, and the client confirms.
fn establish(kernel: &mut Kernel, tables: &Tables, number: u32) -> Result<()> {
    let flow = tables
        .flows
        .get(&flow_key(client(number), VIP, TCP), 0)
        .with_context(|| format!("flow {number} is lost"))?;
    let IpAddr::V4(snat) = IpAddr::from(flow.nat.src) else {
        bail!("flow {number} has no IPv4 source");
    };
    let snat = SocketAddrV4::new(snat, flow.nat.src_port.host());
    for frame in [
        packets::tcp(POD, snat, flags::SYN | flags::ACK),
        packets::tcp(client(number), VIP, flags::ACK),
    ] {
        kernel.run(Hook::Xdp, &frame.bytes(), false)?;
    }
    Ok(())
}

fn spread(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100].as_nanos() as u64;
    json!({ "median": at(50), "p10": at(10), "p90": at(90) })
}

fn open(kernel: &mut Kernel, number: u32) -> Result<Duration> {
    let frame = packets::tcp(client(number), VIP, flags::SYN).bytes();
    let ran = kernel
        .run(Hook::Xdp, &frame, false)?
        .context("a frame too short")?;
    if ran.code != code(Hook::Xdp, Action::Forward, false) {
        bail!("flow {number} was not opened: {}", ran.code);
    }
    Ok(ran.took)
}

fn pass(
    kernel: &mut Kernel,
    tables: &Tables,
    remover: &mut Remover,
    world: &World,
) -> Result<Sweep> {
    let now = kernel.ticks()?;
    let timeouts = &world.config.timeout_ticks;
    Ok(sweep(tables, remover, Instant::now(), now, timeouts)?)
}

fn client(number: u32) -> SocketAddrV4 {
    let ip = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number % (1 << 22);
    SocketAddrV4::new(ip.into(), 30_000)
}

fn many_ports(entries: u32) -> World {
    let mut world = world();
    world.max_flows = entries as usize;
    world.snats = (0..ADDRESSES)
        .map(|last| Snat {
            addr: addr(Ipv4Addr::new(198, 51, 100, last)),
            port_first: 1_024,
            port_count: 64_512,
        })
        .collect();
    world.backend(BACKEND).snat_count = u16::from(ADDRESSES);
    world
}

/// Bytes the kernel charges for the flow table.
fn memlock(pins: &Pins) -> Result<u64> {
    let map = MapData::from_pin(pins.map(maps::FLOWS.0))?;
    let fd = map.fd().as_fd().as_raw_fd();
    number(&format!("/proc/self/fdinfo/{fd}"), "memlock:")
}

/// Largest resident size of this process so far.
fn peak_kib() -> Result<u64> {
    number("/proc/self/status", "VmHWM:")
}

fn number(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("{file} has no {name}"))
}
