//! Sampled drops as log lines for the agent; off unless the configuration sets a rate. Only what is
//! dropped anyway comes here, so that forwarding never pays for it. `fleetgate monitor` tells more.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use gateway_common::{
    datapath::Packet,
    verdict::{Action, Verdict},
};

use crate::maps::sampled;

/// Logs a sampled drop. The frame itself cannot be read any more: at TC a helper may have moved it.
#[inline(always)]
pub fn dropped<C: EbpfContext, P: Packet>(ctx: &C, packet: &P, verdict: Verdict) {
    if verdict.action() == Action::Drop && sampled() {
        log(ctx, verdict.reason(), packet.frame_len(), packet.ifindex());
    }
}

#[inline(never)]
fn log<C: EbpfContext>(ctx: &C, reason: u32, len: u32, ifindex: u32) {
    info!(
        ctx,
        "dropped reason {} length {} interface {}", reason, len, ifindex
    );
}
