//! Both ends of short TCP connections, one segment out for each one in, without memory of a connection: what they cost
//! is next to nothing beside any gateway between them. TRex and warp17 do the same in user space.
//!
//! ```text
//! client  SYN            ACK                 FIN ACK        (and the SYN of the next)
//! server         SYN ACK     "here" FIN ACK           ACK
//! ```

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail},
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};
use gateway_common::{bench::Talk, flow::TCP};

use crate::frame::{self, Head, L4, LEN};

#[map]
static TALK: Array<Talk> = Array::with_max_entries(1, 0);

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const PSH: u16 = 8;
const ACK: u16 = 16;

/// First sequence number of every server.
const SERVER: u32 = 1_000;
/// What the server says, as two halves in memory.
const GREETING: [u16; 2] = [u16::from_ne_bytes(*b"he"), u16::from_ne_bytes(*b"re")];

/// Counts one more; how many there were. `core` has no atomic add for this target.
///
/// # Safety
/// The pointer must be to a live word of map memory, aligned to 8.
#[inline(always)]
unsafe fn count(counter: *mut u64) -> u64 {
    let mut number = 1_u64;
    // SAFETY: as promised by the caller.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({counter} + 0), {number})",
            counter = in(reg) counter,
            number = inout(reg) number
        );
    }
    number
}

/// A segment as it came in. Numbers are in host order where they are counted with, and else as they were sent.
struct Segment {
    dmac: [u16; 3],
    smac: [u16; 3],
    src: u32,
    dst: u32,
    sport: u16,
    dport: u16,
    seq: u32,
    ack: u32,
    flags: u16,
    /// Bytes of payload.
    len: u32,
    greeting: bool,
}

/// What an end answers.
struct Answer {
    seq: u32,
    ack: u32,
    flags: u16,
    greets: bool,
}

#[inline(always)]
fn read(ctx: &XdpContext) -> Option<Segment> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 54 > end {
        return None;
    }
    // SAFETY: below 54, which was checked against the end.
    let half = |at: usize| unsafe { ((start + at) as *const u16).read_unaligned() };
    // SAFETY: as above.
    let long = |at: usize| unsafe { ((start + at) as *const u32).read_unaligned() };
    let (version, proto) = (half(14).to_be() >> 8, half(22).to_be() & 0xff);
    if half(12) != 0x0800_u16.to_be() || version != 0x45 || proto != TCP as u16 {
        return None;
    }
    let control = half(46).to_be();
    let header = 20 + 4 * (control >> 12) as u32;
    let mut segment = Segment {
        dmac: [half(0), half(2), half(4)],
        smac: [half(6), half(8), half(10)],
        src: long(26),
        dst: long(30),
        sport: half(34),
        dport: half(36),
        seq: u32::from_be(long(38)),
        ack: u32::from_be(long(42)),
        flags: control & 0x3f,
        len: (half(16).to_be() as u32).wrapping_sub(header),
        greeting: false,
    };
    if segment.len == 4 && header == 40 && start + 58 <= end {
        // SAFETY: below 58, which was checked against the end.
        let at = |at: usize| unsafe { ((start + at) as *const u16).read_unaligned() };
        segment.greeting = [at(54), at(56)] == GREETING;
    }
    Some(segment)
}

/// Makes a frame of the right length, writes it and sends it out of `device`. Not `XDP_TX`: a veth wakes its peer for
/// such frames only if that has a program, too.
#[inline(always)]
fn send(ctx: &XdpContext, device: u32, head: &Head, l4: [u16; L4]) -> u32 {
    let len = (ctx.data_end() - ctx.data()) as i32;
    if len != LEN as i32 {
        // SAFETY: a valid context; pointers are taken anew below.
        if unsafe { bpf_xdp_adjust_tail(ctx.ctx, LEN as i32 - len) } != 0 {
            return XDP_ABORTED;
        }
    }
    let start = ctx.data();
    if start + LEN > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: checked against the end just now; the helper takes numbers only.
    unsafe {
        frame::write(start, head, l4);
        bpf_redirect(device, 0) as u32
    }
}

#[inline(always)]
fn l4(sport: u16, dport: u16, answer: &Answer) -> [u16; L4] {
    let (seq, ack) = (answer.seq.to_be(), answer.ack.to_be());
    let said = if answer.greets { GREETING } else { [0; 2] };
    [
        sport,
        dport,
        seq as u16,
        (seq >> 16) as u16,
        ack as u16,
        (ack >> 16) as u16,
        (5 << 12 | answer.flags).to_be(),
        0xfaf0_u16.to_be(),
        0,
        0,
        said[0],
        said[1],
        0,
    ]
}

/// Sends an answer back to where a segment came from.
#[inline(always)]
fn reply(ctx: &XdpContext, to: &Segment, answer: &Answer) -> u32 {
    let head = Head {
        dmac: to.smac,
        smac: to.dmac,
        src: to.dst,
        dst: to.src,
        id: answer.seq as u16,
        proto: TCP,
        len: if answer.greets { 24 } else { 20 },
    };
    send(
        ctx,
        ctx.ingress_ifindex() as u32,
        &head,
        l4(to.dport, to.sport, answer),
    )
}

/// The server's end.
#[xdp]
pub fn bench_server(ctx: XdpContext) -> u32 {
    let Some(segment) = read(&ctx) else {
        return XDP_PASS;
    };
    let next = segment.seq.wrapping_add(segment.len);
    let answer = if segment.flags & SYN != 0 {
        Answer {
            seq: SERVER,
            ack: next.wrapping_add(1),
            flags: SYN | ACK,
            greets: false,
        }
    } else if segment.flags & RST != 0 {
        return XDP_DROP;
    } else if segment.flags & FIN != 0 {
        Answer {
            seq: segment.ack,
            ack: next.wrapping_add(1),
            flags: ACK,
            greets: false,
        }
    } else if segment.ack == SERVER + 1 {
        // The handshake is complete.
        Answer {
            seq: SERVER + 1,
            ack: next,
            flags: FIN | PSH | ACK,
            greets: true,
        }
    } else {
        return XDP_DROP;
    };
    reply(&ctx, &segment, &answer)
}

/// The client's end. When a connection is over, it begins the next.
#[xdp]
pub fn bench_client(ctx: XdpContext) -> u32 {
    let Some(segment) = read(&ctx) else {
        return XDP_PASS;
    };
    let Some(talk) = TALK.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    let next = segment.seq.wrapping_add(segment.len);
    let flags = segment.flags;
    if flags & RST != 0 {
        // SAFETY: map values live until the program ends.
        unsafe { count(&raw mut (*talk).resets) };
        return XDP_DROP;
    }
    if segment.greeting {
        // SAFETY: map values live until the program ends.
        unsafe { count(&raw mut (*talk).greeted) };
    }
    let answer = if flags & SYN != 0 {
        Answer {
            seq: segment.ack,
            ack: next.wrapping_add(1),
            flags: ACK,
            greets: false,
        }
    } else if flags & FIN != 0 {
        Answer {
            seq: segment.ack,
            ack: next.wrapping_add(1),
            flags: FIN | ACK,
            greets: false,
        }
    } else if segment.len > 0 {
        Answer {
            seq: segment.ack,
            ack: next,
            flags: ACK,
            greets: false,
        }
    } else if segment.ack & 0xff == 2 {
        // Our FIN arrived. Sequence numbers of clients begin at multiples of 256: see `open`.
        return over(&ctx, talk, &segment);
    } else {
        return XDP_DROP;
    };
    reply(&ctx, &segment, &answer)
}

/// One connection is over: the next begins.
#[inline(always)]
fn over(ctx: &XdpContext, talk: *mut Talk, last: &Segment) -> u32 {
    // SAFETY: map values live until the program ends; one program writes the end, the rest is written between runs. The
    // helper takes no arguments.
    unsafe {
        if count(&raw mut (*talk).over) + 1 == (*talk).wanted as u64 {
            (*talk).end = bpf_ktime_get_ns();
        }
    }
    open(
        ctx,
        ctx.ingress_ifindex() as u32,
        talk,
        last.smac,
        last.dmac,
    )
}

/// Sends the SYN of a connection that was never there, if one more is wanted.
#[inline(always)]
fn open(ctx: &XdpContext, device: u32, talk: *mut Talk, dmac: [u16; 3], smac: [u16; 3]) -> u32 {
    // SAFETY: map values live until the program ends; all but the counter is written between runs.
    let (number, talk) = unsafe { (count(&raw mut (*talk).opened), &*talk) };
    if number >= talk.wanted as u64 {
        return XDP_DROP;
    }
    let number = number as u32;
    let ends = talk.plan.ends(talk.first + number);
    let head = Head {
        dmac,
        smac,
        src: ends.client.0.v4_word(),
        dst: ends.vip.0.v4_word(),
        id: number as u16,
        proto: TCP,
        len: 20,
    };
    let syn = Answer {
        seq: number << 8,
        ack: 0,
        flags: SYN,
        greets: false,
    };
    send(ctx, device, &head, l4(ends.client.1.0, ends.vip.1.0, &syn))
}

/// Begins a connection: run on frames that do not matter.
#[xdp]
pub fn bench_open(ctx: XdpContext) -> u32 {
    let Some(talk) = TALK.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: map values live until the program ends; this part is written between runs only.
    let (dmac, smac, ifindex) = unsafe { ((*talk).dmac, (*talk).smac, (*talk).ifindex) };
    open(&ctx, ifindex, talk, dmac, smac)
}
