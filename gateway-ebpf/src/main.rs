//! Fleetgate's kernel programs: one pipeline at XDP, one at TC ingress, and the socket lookup that
//! hands L7 listeners to the proxy.
//!
//! An entry point is: view of the packet, `process`, `forward`. Everything that decides is in
//! `gateway_common::datapath`; this crate only reaches packets, maps and helpers.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod forward;
mod list;
mod live;
mod maps;
mod monitor;
mod packet;
mod sample;
mod sweep;

use aya_ebpf::{
    bindings::{
        TC_ACT_SHOT,
        sk_action::{SK_DROP, SK_PASS},
        tcx_action_base::TCX_NEXT,
        xdp_action::XDP_PASS,
    },
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_xdp_get_buff_len},
    macros::{classifier, sk_lookup, xdp},
    programs::{SkLookupContext, TcContext, XdpContext},
};
use gateway_common::{
    addr::{Addr, Port},
    config::Clock,
    datapath::process,
    flow::TCP,
    service::{ServiceKey, mode},
    verdict::{Action, Reason},
};

use crate::{
    maps::{CLOCK, Kernel, SERVICES, SOCKETS, count_reason, lets_in},
    packet::{TcPacket, XdpPacket},
};

/// Frames of a network card: linear, with complete checksums.
#[xdp]
pub fn fleetgate_xdp(ctx: XdpContext) -> u32 {
    linear(&ctx)
}

/// The same where the MTU makes the card spread a frame over several buffers. Such a frame is TC's: not every driver
/// sends one that XDP redirects, and on a virtual link it may be a GSO super-packet.
#[xdp(frags)]
pub fn fleetgate_xdp_frags(ctx: XdpContext) -> u32 {
    let here = (ctx.data_end() - ctx.data()) as u64;
    // SAFETY: valid context.
    if unsafe { bpf_xdp_get_buff_len(ctx.ctx) } != here {
        return XDP_PASS;
    }
    linear(&ctx)
}

#[inline(always)]
fn linear(ctx: &XdpContext) -> u32 {
    let mut packet = XdpPacket::new(ctx);
    if monitor::on() {
        monitor::before::<_, true>(&packet);
    }
    let verdict = process(&mut packet, &Kernel::<true>);
    if monitor::on() {
        monitor::after(verdict, false);
    }
    sample::dropped(ctx, &packet, verdict);
    forward::xdp(ctx, verdict)
}

/// Socket buffers: GSO super-packets, partial checksums, and whatever XDP left.
#[classifier]
pub fn fleetgate_tc(ctx: TcContext) -> i32 {
    // The kernel has taken an 802.1Q tag out of the frame before TC sees it: the frame belongs to
    // the VLAN device above, not to this one.
    // SAFETY: the kernel hands a valid context; the field is readable.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return TCX_NEXT;
    }
    // Not for this node: seen because the device is promiscuous, or the switch floods.
    const PACKET_OTHERHOST: u32 = 3;
    // SAFETY: as above.
    if unsafe { (*ctx.skb.skb).pkt_type } == PACKET_OTHERHOST {
        return TCX_NEXT;
    }
    let mut packet = TcPacket::new(&ctx);
    if monitor::on() {
        monitor::before::<_, false>(&packet);
    }
    let verdict = process(&mut packet, &Kernel::<false>);
    sample::dropped(&ctx, &packet, verdict);
    let code = forward::tc(&ctx, verdict);
    if monitor::on() {
        let lost = verdict.action() == Action::Forward && code == TC_ACT_SHOT as i32;
        monitor::after(verdict, lost);
    }
    code
}

/// Delivers connections to L7 listeners to the proxy's sockets, whatever address and port they are
/// for; everything else takes the usual lookup.
#[sk_lookup]
pub fn fleetgate_sk_lookup(ctx: SkLookupContext) -> u32 {
    // VERIFIER (all kernels): fields of the context are read at fixed offsets only. Volatile, or the
    // compiler makes one load at a variable offset of the two addresses. Drop when it does not.
    // SAFETY: the kernel hands a valid context; these fields are readable, and those of the other family
    // read as zero.
    let (family, proto, port, v4, v6, from4, from6) = unsafe {
        let lookup = ctx.lookup;
        (
            (*lookup).family,
            (*lookup).protocol,
            (*lookup).local_port,
            (&raw const (*lookup).local_ip4).read_volatile(),
            [0, 1, 2, 3].map(|at| (&raw const (*lookup).local_ip6[at]).read_volatile()),
            (&raw const (*lookup).remote_ip4).read_volatile(),
            [0, 1, 2, 3].map(|at| (&raw const (*lookup).remote_ip6[at]).read_volatile()),
        )
    };
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    if proto != TCP {
        return SK_PASS;
    }
    // A socket of IPv4 cannot take a connection of IPv6, so each family has its own.
    let (addr, client, socket) = match family {
        AF_INET => (Addr::v4(v4), Addr::v4(from4), 0),
        AF_INET6 => (Addr(v6), Addr(from6), 1),
        _ => return SK_PASS,
    };
    let key = ServiceKey {
        addr,
        port: Port::from_host(port as u16),
        proto: TCP as u16,
        zero: 0,
    };
    // SAFETY: the entry is map memory; one that is replaced meanwhile is another listener's for this
    // one connection at worst.
    // Whoever steers it: a SYN that TC passed to the proxy may arrive here after the listener has
    // become the kernel's.
    if let Some(service) = unsafe { SERVICES.get(&key) } {
        // Asked again: a segment in fragments too small for its flags has passed the other programs.
        if service.acl != 0 && !lets_in(service.acl, &client) {
            count_reason(Reason::AclDenied as u32, 0);
            return SK_DROP;
        }
        // Nobody speaks for a listener of protocol TCP: the stack answers RST.
        if service.mode == mode::L4 {
            return SK_DROP;
        }
        // Without a socket (the agent is down) the connection is refused, and does not end up with
        // whoever listens on that port at any address.
        if SOCKETS.redirect_sk_lookup(&ctx, socket, 0).is_err() {
            return SK_DROP;
        }
    }
    SK_PASS
}

/// Reads the kernel's clocks for the agent and the CLI; never attached, run by BPF_PROG_TEST_RUN.
#[classifier]
pub fn fleetgate_clock(_ctx: TcContext) -> i32 {
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: the array has one entry; the helpers take no arguments.
        unsafe {
            clock.write(Clock {
                ticks: bpf_jiffies64(),
                nanoseconds: bpf_ktime_get_ns(),
            })
        };
    }
    TCX_NEXT
}

/// Removes flows that are over; never attached, run by BPF_PROG_TEST_RUN with their keys as a frame.
#[classifier]
pub fn fleetgate_sweep(ctx: TcContext) -> i32 {
    list::each::<sweep::Keys>(ctx.skb.skb) as i32
}

/// Counts flows that the agent has written itself; never attached, run by BPF_PROG_TEST_RUN with their services as a frame.
#[classifier]
pub fn fleetgate_live(ctx: TcContext) -> i32 {
    list::each::<live::Services>(ctx.skb.skb) as i32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
