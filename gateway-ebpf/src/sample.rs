//! Sampled packets as log lines for the agent; off unless the configuration sets a rate.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use gateway_common::{
    datapath::{Head, Packet, parse},
    verdict::Verdict,
};

use crate::maps::sampled;

/// Logs a sampled packet as it came in. Returns whether it was sampled.
#[inline(always)]
pub fn before<C: EbpfContext, P: Packet>(ctx: &C, packet: &P) -> bool {
    if !sampled() {
        return false;
    }
    log(ctx, packet);
    true
}

/// Not inlined: what `parse` finds would lie on the entry point's stack, below every stage, and each
/// way through it would be one more state for the verifier.
#[inline(never)]
fn log<C: EbpfContext, P: Packet>(ctx: &C, packet: &P) {
    match parse(packet) {
        Ok(head) if head.v6 => log_packet_v6(ctx, &head, packet.frame_len()),
        Ok(head) => log_packet(ctx, &head, packet.frame_len()),
        Err(_) => {}
    }
}

/// Logs what became of a sampled packet.
#[inline(always)]
pub fn after<C: EbpfContext>(ctx: &C, sampled: bool, verdict: Verdict) {
    if sampled {
        log_verdict(ctx, verdict);
    }
}

#[inline(never)]
fn log_packet<C: EbpfContext>(ctx: &C, head: &Head, len: u32) {
    info!(
        ctx,
        "packet proto {} {:i}:{} > {:i}:{} flags {:x} length {}",
        head.key.proto,
        u32::from_be(head.key.src.v4_word()),
        head.key.src_port.host(),
        u32::from_be(head.key.dst.v4_word()),
        head.key.dst_port.host(),
        head.flags,
        len
    );
}

/// Without addresses: eight more words would not fit beside the entry point on the stack.
#[inline(never)]
fn log_packet_v6<C: EbpfContext>(ctx: &C, head: &Head, len: u32) {
    info!(
        ctx,
        "packet proto {} IPv6 {} > {} flags {:x} length {}",
        head.key.proto,
        head.key.src_port.host(),
        head.key.dst_port.host(),
        head.flags,
        len
    );
}

#[inline(never)]
fn log_verdict<C: EbpfContext>(ctx: &C, verdict: Verdict) {
    info!(
        ctx,
        "verdict action {} detail {}",
        verdict.0 & 0xff,
        verdict.0 >> 32
    );
}
