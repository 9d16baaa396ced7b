//! Carries verdicts out.

use core::{mem::offset_of, mem::size_of};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, TC_ACT_SHOT, bpf_fib_lookup as FibLookup, bpf_redir_neigh,
        tcx_action_base::TCX_NEXT,
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    },
    helpers::generated::{
        bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use gateway_common::{
    datapath::Tables,
    verdict::{Action, Reason, Verdict},
};

use crate::maps::{Kernel, count_reason};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// EtherType of IPv6 as the kernel keeps it in a socket buffer.
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// `bpf_fib_lookup` results (uapi/linux/bpf.h).
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGH: i64 = 7;
const FIB_FRAG_NEEDED: i64 = 8;

/// Action of the XDP program.
#[inline(always)]
pub fn xdp(ctx: &XdpContext, verdict: Verdict) -> u32 {
    let bytes = (ctx.data_end() - ctx.data()) as u32;
    match verdict.action() {
        Action::Pass => {
            count_reason(verdict.reason(), bytes);
            XDP_PASS
        }
        Action::Drop => {
            count_reason(verdict.reason(), bytes);
            XDP_DROP
        }
        Action::Answer => {
            count_reason(verdict.reason(), bytes);
            XDP_TX
        }
        Action::Forward => {
            count_reason(verdict.reason(), bytes);
            let ifindex = match Kernel::<true>.hop(verdict.hop()) {
                Some(hop) => hop.ifindex,
                None => 0,
            };
            if ifindex as usize == ctx.ingress_ifindex() {
                return XDP_TX;
            }
            // SAFETY: takes numbers only.
            unsafe { bpf_redirect(ifindex, 0) as u32 }
        }
    }
}

/// Action of the TC program.
#[inline(always)]
pub fn tc(ctx: &TcContext, verdict: Verdict) -> i32 {
    match verdict.action() {
        Action::Pass => {
            count_reason(verdict.reason(), ctx.len());
            TCX_NEXT
        }
        Action::Drop => {
            count_reason(verdict.reason(), ctx.len());
            TC_ACT_SHOT as i32
        }
        Action::Answer => {
            count_reason(verdict.reason(), ctx.len());
            // SAFETY: valid context; the helper takes numbers only.
            unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 }
        }
        Action::Forward => {
            count_reason(verdict.reason(), ctx.len());
            match Kernel::<false>.hop(verdict.hop()) {
                // SAFETY: takes numbers only.
                Some(hop) if hop.ifindex != 0 => unsafe { bpf_redirect(hop.ifindex, 0) as i32 },
                _ => unresolved(ctx.as_ptr().cast()),
            }
        }
    }
}

/// A rewritten packet whose next hop the agent has not resolved yet: the kernel's routes and
/// neighbour table are asked, and resolve it if need be.
#[inline(never)]
fn unresolved(skb: *mut __sk_buff) -> i32 {
    /// Offset of the addresses, source first, behind an Ethernet header.
    const ADDRESSES: (u32, u32) = (14 + 12, 14 + 8);
    // SAFETY: all zero is a valid value of this C struct.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    // SAFETY: valid context; all of `fib` is on this stack, and the addresses read go to members of it
    // with the sizes given.
    let found = unsafe {
        fib.ifindex = (*skb).ifindex;
        let failed = if (*skb).protocol == ETH_P_IPV6 {
            fib.family = AF_INET6 as u8;
            let src = (&raw mut fib.__bindgen_anon_3).cast();
            let dst = (&raw mut fib.__bindgen_anon_4).cast();
            bpf_skb_load_bytes(skb.cast(), ADDRESSES.1, src, 16) != 0
                || bpf_skb_load_bytes(skb.cast(), ADDRESSES.1 + 16, dst, 16) != 0
        } else {
            fib.family = AF_INET as u8;
            let src = (&raw mut fib.__bindgen_anon_3).cast();
            let dst = (&raw mut fib.__bindgen_anon_4).cast();
            bpf_skb_load_bytes(skb.cast(), ADDRESSES.0, src, 4) != 0
                || bpf_skb_load_bytes(skb.cast(), ADDRESSES.0 + 4, dst, 4) != 0
        };
        if failed {
            return drop(skb, Reason::Rewrite);
        }
        bpf_fib_lookup(skb.cast(), &raw mut fib, size_of::<FibLookup>() as i32, 0)
    };
    match found {
        FIB_SUCCESS => {
            // SAFETY: valid context; the MAC addresses are inside `fib`, smac before dmac.
            let failed = unsafe {
                let macs = (&raw const fib).cast::<u8>();
                let dmac = macs.add(offset_of!(FibLookup, dmac));
                let smac = macs.add(offset_of!(FibLookup, smac));
                bpf_skb_store_bytes(skb, 0, dmac.cast(), 6, 0) != 0
                    || bpf_skb_store_bytes(skb, 6, smac.cast(), 6, 0) != 0
            };
            if failed {
                return drop(skb, Reason::Rewrite);
            }
            // SAFETY: takes numbers only.
            unsafe { bpf_redirect(fib.ifindex, 0) as i32 }
        }
        FIB_NO_NEIGH => {
            // SAFETY: all zero is a valid value; the lookup left the gateway's address in the place of the
            // destination, and its family, which for an IPv4 route may be IPv6 (RFC 5549).
            let mut neighbour: bpf_redir_neigh = unsafe { core::mem::zeroed() };
            neighbour.nh_family = fib.family as u32;
            // SAFETY: all 16 bytes of both unions are plain and were written; sizes are given.
            unsafe {
                neighbour.__bindgen_anon_1.ipv6_nh = fib.__bindgen_anon_4.ipv6_dst;
                let size = size_of::<bpf_redir_neigh>() as i32;
                bpf_redirect_neigh(fib.ifindex, &raw mut neighbour, size, 0) as i32
            }
        }
        // Translated already, so its sender cannot be told; it can once the agent knows the hop.
        FIB_FRAG_NEEDED => drop(skb, Reason::OverMtu),
        _ => drop(skb, Reason::NoRoute),
    }
}

#[inline(always)]
fn drop(skb: *mut __sk_buff, reason: Reason) -> i32 {
    // SAFETY: valid context; the field is readable.
    count_reason(reason as u32, unsafe { (*skb).len });
    TC_ACT_SHOT as i32
}
