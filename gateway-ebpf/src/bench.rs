//! Kernel programs of `cargo xtask bench l4`: floors to compare with, the generator of frames, and where they end.
//! An object of its own, never attached outside the benchmark's namespaces.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[allow(
    dead_code,
    reason = "the module serves the shipped object too, of which this one uses a part"
)]
mod packet;

use aya_ebpf::{
    bindings::{
        TC_ACT_SHOT,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
    },
    helpers::generated::{bpf_jiffies64, bpf_redirect},
    macros::{classifier, map, xdp},
    maps::{Array, HashMap, PerCpuArray},
    programs::{TcContext, XdpContext},
};
use gateway_common::{
    bench::{Generator, way},
    csum,
    datapath::{Packet, parse},
    flow::{Flow, FlowKey, TCP},
    hash, maps as spec,
    pod::Shared,
};

use crate::packet::XdpPacket;

/// The table of the programs under test: the loader gives both objects the same one.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(spec::FLOWS.1, 0);
#[map]
static GENERATOR: Array<Generator> = Array::with_max_entries(1, 0);
/// Frames that arrived.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The cost of having a program at all, statistics included.
#[xdp]
pub fn bench_empty(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// What whoever tracks flows must spend: parse, one lookup, MAC addresses, transmit.
#[xdp]
pub fn bench_reference(ctx: XdpContext) -> u32 {
    reference(&ctx, false)
}

/// The same, and notes that the flow lives: without that no flow could ever be given up.
#[xdp]
pub fn bench_touch(ctx: XdpContext) -> u32 {
    reference(&ctx, true)
}

#[inline(always)]
fn reference(ctx: &XdpContext, touch: bool) -> u32 {
    let mut packet = XdpPacket::new(ctx);
    let Ok(head) = parse(&packet) else {
        return XDP_DROP;
    };
    let Some(flow) = FLOWS.get_ptr(&head.key) else {
        return XDP_DROP;
    };
    if touch {
        // SAFETY: map values live until the program ends, and `Shared` accesses them volatile. The helper takes no
        // arguments.
        unsafe { (*flow.cast::<Shared<Flow>>()).touch(bpf_jiffies64() as u32, 0) };
    }
    let (Ok(dmac), Ok(smac)) = (packet.load::<[u16; 3]>(0), packet.load::<[u16; 3]>(6)) else {
        return XDP_DROP;
    };
    if packet.store(0, smac).is_err() || packet.store(6, dmac).is_err() {
        return XDP_DROP;
    }
    XDP_TX
}

/// Bytes of a generated frame: the shortest Ethernet carries.
const FRAME: usize = 60;

/// Makes a frame of a random flow, or of the next. Every byte is written: the kernel hands out again what the receiver made of an
/// earlier frame.
#[xdp]
pub fn bench_generate(ctx: XdpContext) -> u32 {
    let Some(generator) = GENERATOR.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    let start = ctx.data();
    if start + FRAME > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: one CPU generates, and user space writes only between runs.
    let generator = unsafe { &mut *generator };
    generator.made = generator.made.wrapping_add(1);
    let flow = if generator.in_turn != 0 {
        generator.made.checked_rem(generator.flows).unwrap_or(0)
    } else {
        hash::scale(hash::mix(generator.made), generator.flows)
    };
    let ends = generator.plan.ends(flow);
    let (src, dst) = match generator.way {
        way::REPLY => (ends.pod, ends.snat),
        way::DIRECT => (ends.client, ends.pod),
        _ => (ends.client, ends.vip),
    };
    let proto = generator.proto;
    let (s, d) = (src.0.v4_word(), dst.0.v4_word());
    let ip: [u16; 6] = [
        0x4500_u16.to_be(),
        ((FRAME - 14) as u16).to_be(),
        generator.made as u16,
        0x4000_u16.to_be(),
        (64 << 8 | proto as u16).to_be(),
        0,
    ];
    let addresses = halves(s) + halves(d);
    let ip_sum = !csum::fold(ip.iter().map(|word| *word as u64).sum::<u64>() + addresses);
    let l4_len = (FRAME - 34) as u16;
    let mut l4 = [0_u16; 13];
    l4[0] = src.1.0;
    l4[1] = dst.1.0;
    let check = if proto == TCP {
        l4[2] = generator.made as u16;
        l4[4] = 1;
        l4[6] = 0x5010_u16.to_be();
        l4[7] = 0xffff;
        8
    } else {
        l4[2] = l4_len.to_be();
        3
    };
    let pseudo = addresses + (proto as u16).to_be() as u64 + l4_len.to_be() as u64;
    let sum = !csum::fold(pseudo + l4.iter().map(|word| *word as u64).sum::<u64>());
    let at = |offset: usize| (start + offset) as *mut u16;
    // SAFETY: all offsets are below `FRAME`, which was checked against the end above; stores of two bytes from the start
    // of a frame, unaligned where the frame is.
    unsafe {
        at(0).cast::<[u16; 3]>().write_unaligned(generator.dmac);
        at(6).cast::<[u16; 3]>().write_unaligned(generator.smac);
        at(12).write_unaligned(0x0800_u16.to_be());
        at(14).cast::<[u16; 6]>().write_unaligned(ip);
        at(24).write_unaligned(ip_sum);
        at(26).cast::<u32>().write_unaligned(s);
        at(30).cast::<u32>().write_unaligned(d);
        at(34).cast::<[u16; 13]>().write_unaligned(l4);
        if check == 8 {
            at(34 + 16).write_unaligned(sum);
        } else {
            // RFC 768: a computed zero is sent as all ones.
            at(34 + 6).write_unaligned(if sum == 0 { 0xffff } else { sum });
        }
        bpf_redirect(generator.ifindex, 0) as u32
    }
}

/// The two words of an address, added.
#[inline(always)]
fn halves(word: u32) -> u64 {
    (word & 0xffff) as u64 + (word >> 16) as u64
}

/// Where XDP frames end: counted and dropped.
#[xdp]
pub fn bench_sink(_ctx: XdpContext) -> u32 {
    arrived();
    XDP_DROP
}

/// Where socket buffers end.
#[classifier]
pub fn bench_sink_tc(_ctx: TcContext) -> i32 {
    arrived();
    TC_ACT_SHOT as i32
}

#[inline(always)]
fn arrived() {
    if let Some(count) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
