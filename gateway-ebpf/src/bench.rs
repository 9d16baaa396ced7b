//! Kernel programs of `cargo xtask bench l4`: floors to compare with, the generator of frames, and where they end.
//! An object of its own, never attached outside the benchmark's namespaces.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "bench/ends.rs"]
mod ends;
#[path = "bench/frame.rs"]
mod frame;
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
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_redirect},
    macros::{classifier, map, xdp},
    maps::{Array, HashMap, PerCpuArray},
    programs::{TcContext, XdpContext},
};
use gateway_common::{
    bench::{Arrivals, Generator, way},
    datapath::{Packet, parse},
    flow::{Flow, FlowKey, TCP},
    hash, maps as spec,
    pod::Shared,
};

use crate::{
    frame::{Head, L4, LEN},
    packet::XdpPacket,
};

/// The table of the programs under test: the loader gives both objects the same one.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(spec::FLOWS.1, 0);
#[map]
static GENERATOR: Array<Generator> = Array::with_max_entries(1, 0);
/// Frames that arrived.
#[map]
static ARRIVED: PerCpuArray<Arrivals> = PerCpuArray::with_max_entries(1, 0);

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

/// Makes a frame of a random flow, or of the next. Every byte is written: the kernel hands out again what the receiver made of an
/// earlier frame.
#[xdp]
pub fn bench_generate(ctx: XdpContext) -> u32 {
    let Some(generator) = GENERATOR.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    let start = ctx.data();
    if start + LEN > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: one CPU generates, and user space writes only between runs.
    let generator = unsafe { &mut *generator };
    if generator.begun == 0 {
        // SAFETY: the helper takes no arguments.
        generator.begun = unsafe { bpf_ktime_get_ns() };
    }
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
    let len = (LEN - 34) as u16;
    let mut l4 = [0; L4];
    l4[0] = src.1.0;
    l4[1] = dst.1.0;
    if proto == TCP {
        l4[2] = generator.made as u16;
        l4[4] = 1;
        l4[6] = 0x5010_u16.to_be();
        l4[7] = 0xffff;
    } else {
        l4[2] = len.to_be();
    }
    let head = Head {
        dmac: generator.dmac,
        smac: generator.smac,
        src: src.0.v4_word(),
        dst: dst.0.v4_word(),
        id: generator.made as u16,
        proto,
        len,
    };
    // SAFETY: checked against the end above; the helper takes numbers only.
    unsafe {
        frame::write(start, &head, l4);
        bpf_redirect(generator.ifindex, 0) as u32
    }
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
        // SAFETY: this CPU's own value; the helper takes no arguments.
        unsafe {
            (*count).count += 1;
            if (*count).count % Arrivals::EVERY == 0 {
                (*count).stamped = (*count).count;
                (*count).at = bpf_ktime_get_ns();
            }
        }
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
