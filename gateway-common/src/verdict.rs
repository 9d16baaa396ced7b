//! What becomes of a packet, and why.

use crate::{maps, service::Service};

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
    /// Dropped: the listener's access list does not let this client in.
    AclDenied = 10,
    /// Dropped: the listener's clients open more flows per second than it takes.
    FlowBudget = 11,
    /// Dropped: this client opens more flows per second than the listener takes of one.
    SourceBudget = 12,
    /// Dropped: the flow table is nearly full, and this service has more than its share of it.
    HighWater = 13,
    /// Passed: the listener belongs to the proxy.
    Proxy = 16,
    /// Passed: a TCP segment to a kernel-steered listener that opens nothing; the stack answers RST.
    NoFlow = 17,
    /// Passed by XDP: no resolved next hop, the TC program goes on.
    NextHop = 18,
    /// Passed: a fragment to one of our addresses that has no ports where the pipeline looks: a later one, or any of
    /// IPv6.
    LaterFragment = 20,
    /// Passed: an IPv6 packet to one of our addresses with extension headers before TCP, UDP or ICMP.
    Extensions = 21,
    /// Passed: an ICMP error to one of our addresses about no flow.
    IcmpNoFlow = 22,
    /// Dropped: client, listener, pod and source address are not of one family.
    Family = 32,
    /// Dropped: an answer (echo, too big, time exceeded) was due, but this CPU has sent all it may at the moment.
    AnswerRate = 33,
    /// Answered: an echo to one of our addresses.
    EchoAnswered = 36,
    /// Answered: longer than the outgoing interface sends; the sender was told what it sends.
    TooBigAnswered = 37,
    /// Answered: its time to live ends here; the sender was told.
    TtlAnswered = 38,
    /// Sent: an ICMP error about a packet of a flow, translated.
    IcmpTranslated = 39,
    /// Dropped: a TCP segment with SYN that has FIN or RST, too.
    Malformed = 60,
}

/// Size of a table indexed by reason.
pub const REASONS: u32 = 64;

impl Reason {
    /// All reasons that are counted, in numeric order.
    pub const ALL: [Self; 26] = [
        Self::Fragment,
        Self::TtlExpired,
        Self::NoBackend,
        Self::SnatExhausted,
        Self::FlowTableFull,
        Self::OverMtu,
        Self::NoRoute,
        Self::Rewrite,
        Self::Flipped,
        Self::AclDenied,
        Self::FlowBudget,
        Self::SourceBudget,
        Self::HighWater,
        Self::Proxy,
        Self::NoFlow,
        Self::NextHop,
        Self::LaterFragment,
        Self::Extensions,
        Self::IcmpNoFlow,
        Self::Family,
        Self::AnswerRate,
        Self::EchoAnswered,
        Self::TooBigAnswered,
        Self::TtlAnswered,
        Self::IcmpTranslated,
        Self::Malformed,
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
            Self::AclDenied => "acl_denied",
            Self::FlowBudget => "flow_budget",
            Self::SourceBudget => "source_budget",
            Self::HighWater => "high_water",
            Self::Proxy => "proxy",
            Self::NoFlow => "no_flow",
            Self::NextHop => "next_hop",
            Self::LaterFragment => "later_fragment",
            Self::Extensions => "extensions",
            Self::IcmpNoFlow => "icmp_no_flow",
            Self::Family => "family",
            Self::AnswerRate => "answer_rate",
            Self::EchoAnswered => "echo_answered",
            Self::TooBigAnswered => "too_big_answered",
            Self::TtlAnswered => "ttl_answered",
            Self::IcmpTranslated => "icmp_translated",
            Self::Malformed => "malformed",
        }
    }

    /// Whether the packet was dropped. Numbers from 16 to 31 are passes to the stack.
    pub const fn dropped(self) -> bool {
        !matches!(self as u32, 0 | 16..32) && !self.answered()
    }

    /// Whether something was sent because of the packet: an answer, or its translation.
    pub const fn answered(self) -> bool {
        matches!(self as u32, 36..40)
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
    /// Not TCP or UDP behind a plain header: a look outside of the hot path is due.
    pub const OTHER: Self = Self(7);
    /// An ICMP error: translate it by the packet it quotes.
    pub const ERROR: Self = Self(10);

    /// Whether this is one of those that carry nothing.
    ///
    /// VERIFIER (before 6.3): of a value that is not known whole, equality is never decided, but single bits are. Compared
    /// whole, a forwarded packet might still be a `TRACK`, whose stage would read a packet that is no longer accessible.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 & 0xff == other.0
    }

    /// None of the source ports tried was free: look at all of them.
    pub const SCAN: Self = Self(11);

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

    /// Rewritten; send by this next hop, and count it under a reason.
    #[inline(always)]
    pub const fn forward_as(reason: Reason, hop: u16) -> Self {
        Self(2 | (hop as u64) << 32 | (reason as u64) << 48)
    }

    /// The frame is an answer now: back out of the interface it came in on; counted.
    #[inline(always)]
    pub const fn answer(reason: Reason) -> Self {
        Self(9 | (reason as u64) << 32)
    }

    /// Cannot go on; its sender is to be told why, see `datapath::answer`.
    #[inline(always)]
    pub const fn refuse(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooBig(mtu) => Self(8 | (mtu as u64) << 32),
            Refusal::TtlExpired => Self(8),
        }
    }

    /// What [`Verdict::refuse`] packed, if it was that.
    #[inline(always)]
    pub const fn refused(self) -> Option<Refusal> {
        match (self.0 & 0xff, (self.0 >> 32) as u16) {
            (8, 0) => Some(Refusal::TtlExpired),
            (8, mtu) => Some(Refusal::TooBig(mtu)),
            _ => None,
        }
    }

    /// Dropped or passed, as the reason says; counted.
    #[inline(always)]
    pub const fn because(reason: Reason) -> Self {
        Self(reason.dropped() as u64 | (reason as u64) << 32)
    }

    /// Passed to the stack, which refuses it; counted under what would else be a drop.
    #[inline(always)]
    pub const fn left(reason: Reason) -> Self {
        Self((reason as u64) << 32)
    }

    /// Bit of a verdict that counts only if the service's limits let the client in.
    const GUARDED: u64 = 1 << 63;

    /// This verdict, to be judged by the limits of a service if it has any.
    #[inline(always)]
    pub const fn guard(self, service: &Service) -> Self {
        if service.limited() {
            Self(self.0 | Self::GUARDED)
        } else {
            self
        }
    }

    /// Whether the limits of the service have not been asked yet.
    #[inline(always)]
    pub const fn guarded(self) -> bool {
        self.0 & Self::GUARDED != 0
    }

    /// This verdict, judged.
    #[inline(always)]
    pub const fn let_in(self) -> Self {
        Self(self.0 & !Self::GUARDED)
    }

    /// For entry points.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 & 0xff {
            1 => Action::Drop,
            2 => Action::Forward,
            9 => Action::Answer,
            _ => Action::Pass,
        }
    }

    /// Next hop of a forwarded packet.
    #[inline(always)]
    pub const fn hop(self) -> u32 {
        (self.0 >> 32) as u32 & 0xffff
    }

    /// Reason number; 0 is nothing to count.
    #[inline(always)]
    pub const fn reason(self) -> u32 {
        let at = if self.0 & 0xff == 2 { 48 } else { 32 };
        (self.0 >> at) as u32 & (REASONS - 1)
    }
}

/// Behind what [`Verdict::open`] packs.
const STICKY: u64 = 1 << 52;
/// Why a packet cannot go on although its flow is known or could be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Longer than the outgoing interface sends: this many bytes of IP packet, never 0.
    TooBig(u16),
    /// Its time to live, or hop limit, ends here.
    TtlExpired,
}

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
    /// Send it back out of the interface it came in on.
    Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_verdict_keeps_action_reason_and_hop() {
        assert_eq!(Verdict::forward(7).action(), Action::Forward);
        assert_eq!(Verdict::forward(7).hop(), 7);
        assert_eq!(Verdict::forward(7).reason(), 0);
        for reason in Reason::ALL {
            let noted = Verdict::forward_as(reason, 0xfff);
            assert_eq!(
                (noted.action(), noted.hop(), noted.reason()),
                (Action::Forward, 0xfff, reason as u32)
            );
            if reason.answered() {
                let verdict = Verdict::answer(reason);
                assert_eq!(verdict.action(), Action::Answer);
                assert_eq!(verdict.reason(), reason as u32);
                continue;
            }
            let verdict = Verdict::because(reason);
            assert_eq!(verdict.reason(), reason as u32);
            let action = if reason.dropped() {
                Action::Drop
            } else {
                Action::Pass
            };
            assert_eq!(verdict.action(), action);
        }
        let refused = Verdict::left(Reason::NoBackend);
        assert_eq!(refused.action(), Action::Pass);
        assert_eq!(refused.reason(), Reason::NoBackend as u32);
        assert_eq!(Verdict::PASS.reason(), 0);
        assert_eq!(Verdict::PASS.refused(), None);
        for refusal in [Refusal::TtlExpired, Refusal::TooBig(1280)] {
            assert_eq!(Verdict::refuse(refusal).refused(), Some(refusal));
        }
        let choice = Choice {
            service: 0x3fff,
            backend: 0x1_fffe,
            back: 0xffd,
        };
        let open = Verdict::open(choice);
        assert_eq!((open.choice(), open.sticky().choice()), (choice, choice));
        assert!(open.opens() && !open.sticks());
        assert!(open.sticky().opens() && open.sticky().sticks());
        assert_eq!(Verdict::open(choice).choice(), choice);
        let limited = Service {
            acl: 1,
            ..Service::default()
        };
        let guarded = Verdict::open(choice).guard(&limited);
        assert!(guarded.guarded() && guarded.opens());
        assert_eq!(guarded.choice(), choice);
        assert_eq!(guarded.let_in(), Verdict::open(choice));
        assert!(!Verdict::open(choice).guard(&Service::default()).guarded());
    }
}
