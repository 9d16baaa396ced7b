//! Verdicts for `fleetgate monitor`: off, one load and one branch for each packet.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_ringbuf_output},
};
use core::mem::size_of;
use gateway_common::{
    datapath::{Packet, Tables, parse},
    hash::scale,
    monitor::{Event, Scratch, Switch, action, hook, told},
    service::ServiceKey,
    verdict::{Reason, Verdict},
};

use crate::maps::{EVENTS, Kernel, MONITOR, MONITOR_SCRATCH};

/// Whether somebody may be looking. Whoever is away for good is found out by [`before`].
#[inline(always)]
pub fn on() -> bool {
    match MONITOR.get(0) {
        Some(switch) => switch.until != 0,
        None => false,
    }
}

/// Keeps the head of a packet that is wanted, for [`after`]. Whether it did lies in map memory: a flag beside the
/// pipeline would have the verifier walk through it once for each value. Not inlined: what `parse` finds would lie on the
/// entry point's stack, and each way through it would be one more state for the verifier.
#[inline(never)]
pub fn before<P: Packet, const XDP: bool>(packet: &P) {
    let (Some(switch), Ok(head)) = (MONITOR.get(0), parse(packet)) else {
        return;
    };
    // SAFETY: takes no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if now > switch.until {
        off();
        return;
    }
    if !switch.matches(&head.key) || !chosen(switch) {
        return;
    }
    let Some(scratch) = scratch() else {
        return;
    };
    scratch.event = Event {
        nanoseconds: now,
        key: head.key,
        ifindex: packet.ifindex(),
        len: packet.frame_len(),
        flags: head.flags,
        hook: if XDP { hook::XDP } else { hook::TC },
        ..Event::default()
    };
}

/// Tells what became of the packet that [`before`] has kept, if it has. `lost`: it was forwarded, but the kernel
/// knew no way.
#[inline(never)]
pub fn after(verdict: Verdict, lost: bool) {
    let (Some(switch), Some(scratch)) = (MONITOR.get(0), scratch()) else {
        return;
    };
    if scratch.event.nanoseconds == 0 {
        return;
    }
    let (mut action, mut reason) = told(verdict);
    if lost {
        (action, reason) = (action::DROP, Reason::NoRoute as u32);
    }
    let wanted = switch.wants(action, reason);
    if wanted {
        tell(scratch, action, reason);
    }
    scratch.event.nanoseconds = 0;
}

#[inline(always)]
fn tell(scratch: &mut Scratch, action: u8, reason: u32) {
    let event = &mut scratch.event;
    event.action = action;
    event.reason = reason;
    let tables = Kernel::<false>;
    if let Some(flow) = tables.flow(&event.key) {
        let nat = flow.nat();
        event.service = nat.service as u32;
        event.backend = nat.backend;
    } else {
        let key = ServiceKey {
            addr: event.key.dst,
            port: event.key.dst_port,
            proto: event.key.proto as u16,
            zero: 0,
        };
        if let Some(service) = tables.service(&key) {
            event.service = service.id;
        }
    }
    // SAFETY: the event is `size_of::<Event>()` bytes of this CPU's map memory. Nobody is woken for
    // it: the reader looks by itself.
    let told = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut scratch.event).cast(),
            size_of::<Event>() as u64,
            BPF_RB_NO_WAKEUP as u64,
        )
    };
    if told != 0 {
        scratch.lost += 1;
    }
}

/// Nobody has renewed the switch: packets need not look any further.
#[inline(always)]
fn off() {
    if let Some(switch) = MONITOR.get_ptr_mut(0) {
        // SAFETY: one aligned word of map memory; a monitor that begins right now writes it again
        // within a second.
        unsafe { (&raw mut (*switch).until).write_volatile(0) }
    }
}

#[inline(always)]
fn chosen(switch: &Switch) -> bool {
    // SAFETY: takes no arguments.
    switch.every <= 1 || scale(unsafe { bpf_get_prandom_u32() }, switch.every) == 0
}

#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: this CPU's own value, and programs of one CPU do not interrupt each other.
    MONITOR_SCRATCH.get_ptr_mut(0).map(|it| unsafe { &mut *it })
}
