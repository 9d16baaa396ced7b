//! Sampled verdicts for `fleetgate monitor`: what is wanted, and what is told.

use crate::{
    addr::{Addr, Port},
    flow::FlowKey,
    shape,
    verdict::{Action, Reason, Verdict},
};

/// What the monitor wants to see. Off while [`Switch::until`] is over, so a monitor that crashed ends by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Switch {
    /// Nanoseconds of the kernel's monotonic clock until which packets are told; 0: off.
    pub until: u64,
    /// One packet in this many, of those that match; at least 1.
    pub every: u32,
    /// `want` bits.
    pub want: u32,
    /// Reason number; 0: any.
    pub reason: u32,
    /// IANA protocol number; 0: any.
    pub proto: u32,
    /// Source address, as far as `src_mask` says.
    pub src: Addr,
    /// Bits of the source address that must match, in network order; 0: any.
    pub src_mask: Addr,
    /// Destination address, as far as `dst_mask` says.
    pub dst: Addr,
    /// Bits of the destination address that must match.
    pub dst_mask: Addr,
    /// Source port; 0: any.
    pub src_port: Port,
    /// Destination port; 0: any.
    pub dst_port: Port,
    /// Always zero.
    pub zero: u32,
}

/// Bits of [`Switch::want`].
pub mod want {
    /// Drops only.
    pub const DROPS: u32 = 1;
    /// Also packets that met nothing of ours.
    pub const ALL: u32 = 2;
}

/// What became of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Event {
    /// Nanoseconds of the kernel's monotonic clock.
    pub nanoseconds: u64,
    /// Addresses, ports and protocol as the packet came in.
    pub key: FlowKey,
    /// Interface it came in on.
    pub ifindex: u32,
    /// Bytes of the frame; of a GSO super-packet, all of it.
    pub len: u32,
    /// Service id; 0 is none.
    pub service: u32,
    /// Backend id; 0 is none.
    pub backend: u32,
    /// Reason number; 0 is none.
    pub reason: u32,
    /// One of the `action` numbers.
    pub action: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// One of the `hook` numbers.
    pub hook: u8,
    /// Always zero.
    pub zero: u8,
}

/// Numbers of [`Event::action`].
pub mod action {
    /// Left to the stack.
    pub const PASS: u8 = 0;
    /// Dropped.
    pub const DROP: u8 = 1;
    /// Sent by a next hop.
    pub const FORWARD: u8 = 2;
    /// Sent back, changed into an answer.
    pub const ANSWER: u8 = 3;
    /// Names, by number.
    pub const NAMES: [&str; 4] = ["pass", "drop", "forward", "answer"];
}

/// Numbers of [`Event::hook`].
pub mod hook {
    /// XDP.
    pub const XDP: u8 = 0;
    /// TC ingress.
    pub const TC: u8 = 1;
    /// Names, by number.
    pub const NAMES: [&str; 2] = ["xdp", "tc"];
}

/// Where a CPU keeps the head of a sampled packet while the pipeline rewrites it, and what it could not tell.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scratch {
    /// The packet.
    pub event: Event,
    /// Events that found the ring full, ever.
    pub lost: u64,
}

const _: () = assert!(size_of::<Switch>() == 96);
const _: () = assert!(size_of::<Event>() == 72);
const _: () = assert!(size_of::<Scratch>() == 80);

shape!(Switch {
    until,
    every,
    want,
    reason,
    proto,
    src,
    src_mask,
    dst,
    dst_mask,
    src_port,
    dst_port,
    zero,
});
shape!(Event {
    nanoseconds,
    key.src,
    key.dst,
    key.src_port,
    key.dst_port,
    key.proto,
    ifindex,
    len,
    service,
    backend,
    reason,
    action,
    flags,
    hook,
    zero,
});
shape!(Scratch { event, lost });

#[cfg(any(test, feature = "user"))]
impl Event {
    /// From the bytes of the ring; `None` if there are too few.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let short = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let addr = |at: usize| {
            Some(Addr([
                word(at)?,
                word(at + 4)?,
                word(at + 8)?,
                word(at + 12)?,
            ]))
        };
        Some(Self {
            nanoseconds: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
            key: FlowKey {
                src: addr(8)?,
                dst: addr(24)?,
                src_port: Port(short(40)?),
                dst_port: Port(short(42)?),
                proto: word(44)?,
            },
            ifindex: word(48)?,
            len: word(52)?,
            service: word(56)?,
            backend: word(60)?,
            reason: word(64)?,
            action: *bytes.get(68)?,
            flags: *bytes.get(69)?,
            hook: *bytes.get(70)?,
            zero: *bytes.get(71)?,
        })
    }
}

impl Switch {
    /// Whether a packet that came in is one of those wanted.
    #[inline(always)]
    pub fn matches(&self, key: &FlowKey) -> bool {
        within(&key.src, &self.src, &self.src_mask)
            && within(&key.dst, &self.dst, &self.dst_mask)
            && (self.src_port.0 == 0 || self.src_port.0 == key.src_port.0)
            && (self.dst_port.0 == 0 || self.dst_port.0 == key.dst_port.0)
            && (self.proto == 0 || self.proto == key.proto)
    }

    /// Whether what became of it is wanted.
    #[inline(always)]
    pub const fn wants(&self, action: u8, reason: u32) -> bool {
        // An ICMP error in its place is no delivery.
        let refused = action == action::ANSWER && reason != Reason::EchoAnswered as u32;
        if self.want & want::DROPS != 0 && action != action::DROP && !refused {
            return false;
        }
        if self.reason != 0 {
            return self.reason == reason;
        }
        self.want & want::ALL != 0 || action != action::PASS || reason != 0
    }
}

#[inline(always)]
fn within(addr: &Addr, wanted: &Addr, mask: &Addr) -> bool {
    let differs = |at: usize| (addr.0[at] ^ wanted.0[at]) & mask.0[at];
    differs(0) | differs(1) | differs(2) | differs(3) == 0
}

/// Action number and reason number of a verdict.
#[inline(always)]
pub const fn told(verdict: Verdict) -> (u8, u32) {
    match verdict.action() {
        Action::Pass => (action::PASS, verdict.reason()),
        Action::Drop => (action::DROP, verdict.reason()),
        Action::Forward => (action::FORWARD, verdict.reason()),
        Action::Answer => (action::ANSWER, verdict.reason()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::flow::{TCP, UDP};

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<IpAddr>().unwrap())
    }

    fn key() -> FlowKey {
        FlowKey {
            src: addr("192.0.2.1"),
            dst: addr("203.0.113.10"),
            src_port: Port::from_host(50_001),
            dst_port: Port::from_host(80),
            proto: TCP,
        }
    }

    #[test]
    fn a_switch_without_wishes_matches_every_packet() {
        assert!(Switch::default().matches(&key()));
    }

    #[test]
    #[allow(unsafe_code, reason = "looks at the bytes as the kernel writes them")]
    fn an_event_is_read_as_it_lies_in_the_ring() {
        let event = Event {
            nanoseconds: 0x0102_0304_0506_0708,
            key: key(),
            ifindex: 3,
            len: 74,
            service: 5,
            backend: 6,
            reason: 10,
            action: action::DROP,
            flags: 2,
            hook: hook::TC,
            zero: 0,
        };
        // SAFETY: a `repr(C)` struct of integers without padding, by its asserted size.
        let bytes: [u8; size_of::<Event>()] = unsafe { core::mem::transmute(event) };
        assert_eq!(Event::read(&bytes), Some(event));
        assert_eq!(Event::read(&bytes[..71]), None);
    }

    #[test]
    fn every_wish_must_hold() {
        let mask = Addr::from(
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"
                .parse::<IpAddr>()
                .unwrap(),
        );
        let near = Switch {
            src: addr("192.0.2.0"),
            src_mask: mask,
            dst_port: Port::from_host(80),
            ..Switch::default()
        };
        assert!(near.matches(&key()));
        for other in [
            Switch {
                src: addr("192.0.3.0"),
                ..near
            },
            Switch {
                dst_port: Port::from_host(81),
                ..near
            },
            Switch {
                src_port: Port::from_host(50_002),
                ..near
            },
            Switch { proto: UDP, ..near },
            Switch {
                dst: addr("203.0.114.0"),
                dst_mask: mask,
                ..near
            },
        ] {
            assert!(!other.matches(&key()), "{other:?}");
        }
    }

    #[test]
    fn what_met_nothing_of_ours_is_told_only_when_asked_for() {
        let (pass, none) = told(Verdict::PASS);
        let (drop, denied) = told(Verdict::because(Reason::AclDenied));
        let (forward, _) = told(Verdict::forward(3));
        let usual = Switch::default();
        assert!(!usual.wants(pass, none));
        assert!(usual.wants(drop, denied) && usual.wants(forward, 0));
        assert!(usual.wants(pass, Reason::Proxy as u32));
        let all = Switch {
            want: want::ALL,
            ..usual
        };
        assert!(all.wants(pass, none));
        let drops = Switch {
            want: want::DROPS,
            ..usual
        };
        assert!(drops.wants(drop, denied) && !drops.wants(forward, 0));
        let answer = |reason| told(Verdict::answer(reason));
        let (late, echo) = (answer(Reason::TtlAnswered), answer(Reason::EchoAnswered));
        assert!(drops.wants(late.0, late.1) && !drops.wants(echo.0, echo.1));
        let one = Switch {
            reason: denied,
            ..usual
        };
        assert!(one.wants(drop, denied));
        assert!(!one.wants(pass, Reason::Proxy as u32) && !one.wants(forward, 0));
    }
}
