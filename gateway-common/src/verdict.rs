//! What becomes of a packet, and why.

use crate::maps;

/// Why a packet was dropped, or left to the kernel's own stack although it met our tables.
///
/// One append-only list shared by kernel, metrics and CLI; retired numbers are never reused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// Not ours, or forwarded: nothing to tell.
    None = 0,
    /// Dropped: fragment of a datagram to a kernel-steered service.
    Fragment = 1,
    /// Dropped: its time to live ends here.
    TtlExpired = 2,
    /// Dropped: the service's ring has no usable backend.
    NoBackend = 3,
    /// Dropped: no free source port towards that backend was found.
    SnatExhausted = 4,
    /// Dropped: the flow table is full.
    FlowTableFull = 5,
    /// Dropped: longer than the outgoing interface sends.
    OverMtu = 6,
    /// Dropped: the node has no route to the destination.
    NoRoute = 7,
    /// Dropped: the packet could not be changed (clone or pull failed).
    Rewrite = 8,
    /// Dropped: the service entry was replaced while the packet was choosing a backend.
    Flipped = 9,
    /// Passed: the listener belongs to the proxy.
    Proxy = 16,
    /// Passed: a TCP segment to a kernel-steered listener that opens nothing; the stack answers RST.
    NoFlow = 17,
    /// Passed by XDP: no resolved next hop, the TC program goes on.
    NextHop = 18,
}

/// Size of a table indexed by reason.
pub const REASONS: u32 = 64;

impl Reason {
    /// All reasons that are counted, in numeric order.
    pub const ALL: [Self; 12] = [
        Self::Fragment,
        Self::TtlExpired,
        Self::NoBackend,
        Self::SnatExhausted,
        Self::FlowTableFull,
        Self::OverMtu,
        Self::NoRoute,
        Self::Rewrite,
        Self::Flipped,
        Self::Proxy,
        Self::NoFlow,
        Self::NextHop,
    ];

    /// Name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fragment => "fragment",
            Self::TtlExpired => "ttl_expired",
            Self::NoBackend => "no_backend",
            Self::SnatExhausted => "snat_exhausted",
            Self::FlowTableFull => "flow_table_full",
            Self::OverMtu => "over_mtu",
            Self::NoRoute => "no_route",
            Self::Rewrite => "rewrite",
            Self::Flipped => "flipped",
            Self::Proxy => "proxy",
            Self::NoFlow => "no_flow",
            Self::NextHop => "next_hop",
        }
    }

    /// Whether the packet was dropped; otherwise it was passed to the stack. Numbers from 16 to 31 are passes.
    pub const fn dropped(self) -> bool {
        !matches!(self as u32, 0 | 16..32)
    }
}

/// Verdict of one stage, packed into a register: a struct returned from a function that is not
/// inlined makes the verifier lose how its parts belong together.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict(pub u64);

impl Verdict {
    /// To the kernel's stack, untouched, nothing to count.
    pub const PASS: Self = Self(0);
    /// No live flow: open one.
    pub const MISS: Self = Self(3);
    /// The flow's state needs a look before the packet goes on.
    pub const TRACK: Self = Self(4);
    /// Go on with the established path.
    pub const CONTINUE: Self = Self(5);

    /// Whether this is one of those that carry nothing.
    ///
    /// VERIFIER (before 6.3): of a value that is not known whole, equality is never decided, but single bits are. Compared
    /// whole, a forwarded packet might still be a `TRACK`, whose stage would read a packet that is no longer accessible.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 & 0xff == other.0
    }
    /// None of the source ports tried was free: look at all of them.
    pub const SCAN: Self = Self(7);

    /// A new flow has a backend; claim it.
    #[inline(always)]
    pub const fn open(choice: Choice) -> Self {
        // 14 bits of service, 17 of backend, 12 of hop: the sizes of their tables.
        Self(
            6 | (choice.service as u64 & 0x3fff) << 8
                | (choice.backend as u64 & 0x1_ffff) << 22
                | (choice.back as u64 & 0xfff) << 40,
        )
    }

    /// Whether this is [`Verdict::open`].
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & 0xff == 6
    }

    /// [`Verdict::open`], where the client may stay with the backend that it had.
    #[inline(always)]
    pub const fn sticky(self) -> Self {
        Self(self.0 | STICKY)
    }

    /// Whether this is [`Verdict::sticky`].
    #[inline(always)]
    pub const fn sticks(self) -> bool {
        self.opens() && self.0 & STICKY != 0
    }

    /// What [`Verdict::open`] packed.
    #[inline(always)]
    pub const fn choice(self) -> Choice {
        Choice {
            service: (self.0 >> 8) as u32 & 0x3fff,
            backend: (self.0 >> 22) as u32 & 0x1_ffff,
            back: (self.0 >> 40) as u32 & 0xfff,
        }
    }

    /// Rewritten; send by this next hop (0: not resolved).
    #[inline(always)]
    pub const fn forward(hop: u16) -> Self {
        Self(2 | (hop as u64) << 32)
    }

    /// Dropped or passed, as the reason says; counted.
    #[inline(always)]
    pub const fn because(reason: Reason) -> Self {
        Self(reason.dropped() as u64 | (reason as u64) << 32)
    }

    /// Passed to the stack, which refuses it; counted under what would else be a drop.
    #[inline(always)]
    pub const fn refused(reason: Reason) -> Self {
        Self((reason as u64) << 32)
    }

    /// For entry points.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 & 0xff {
            1 => Action::Drop,
            2 => Action::Forward,
            _ => Action::Pass,
        }
    }

    /// Next hop of a forwarded packet.
    #[inline(always)]
    pub const fn hop(self) -> u32 {
        (self.0 >> 32) as u32 & 0xffff
    }

    /// Reason number of any other packet; 0 is nothing to count.
    #[inline(always)]
    pub const fn reason(self) -> u32 {
        (self.0 >> 32) as u32 & (REASONS - 1)
    }
}

/// Behind what [`Verdict::open`] packs.
const STICKY: u64 = 1 << 52;

/// Where a new flow goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Choice {
    /// Service id.
    pub service: u32,
    /// Backend id.
    pub backend: u32,
    /// Next hop of its replies.
    pub back: u32,
}

const _: () = assert!(maps::SERVICES.1 <= 1 << 14);
const _: () = assert!(maps::BACKENDS.1 <= 1 << 17);
const _: () = assert!(maps::HOPS.1 <= 1 << 12);

/// What an entry point does with the packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Leave it to the kernel's stack.
    Pass,
    /// Drop it.
    Drop,
    /// Send it by a next hop.
    Forward,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_verdict_keeps_action_reason_and_hop() {
        assert_eq!(Verdict::forward(7).action(), Action::Forward);
        assert_eq!(Verdict::forward(7).hop(), 7);
        for reason in Reason::ALL {
            let verdict = Verdict::because(reason);
            assert_eq!(verdict.reason(), reason as u32);
            let action = if reason.dropped() {
                Action::Drop
            } else {
                Action::Pass
            };
            assert_eq!(verdict.action(), action);
        }
        let refused = Verdict::refused(Reason::NoBackend);
        assert_eq!(refused.action(), Action::Pass);
        assert_eq!(refused.reason(), Reason::NoBackend as u32);
        assert_eq!(Verdict::PASS.reason(), 0);
        let choice = Choice {
            service: 0x3fff,
            backend: 0x1_fffe,
            back: 0xffd,
        };
        let open = Verdict::open(choice);
        assert_eq!((open.choice(), open.sticky().choice()), (choice, choice));
        assert!(open.opens() && !open.sticks());
        assert!(open.sticky().opens() && open.sticky().sticks());
    }
}
