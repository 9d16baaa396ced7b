//! One row of the fixture table, and the judge of what a hook did with its frames.

use std::net::SocketAddrV4;

use gateway_common::verdict::{Action, Reason};

use crate::{
    packets::{self, Builder},
    world::{Counters, Flows, Hook, IFINDEX, World},
};

/// What must become of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// Left to the stack, unchanged.
    Pass(Reason),
    /// Dropped, unchanged.
    Drop(Reason),
    /// Sent by a next hop (0: none known) with these ends; everything else as it came, the time to
    /// live one less, both checksums right if they were.
    Forward(u32, SocketAddrV4, SocketAddrV4),
    /// Sent by a next hop, whatever the ends: a law of the row looks at them.
    Sent(u32),
    /// Sent by a next hop as the row says ([`Row::becomes`]), and counted under a reason, or not.
    Noted(u32, Reason),
    /// Answered with the frame the row says ([`Row::becomes`]), and counted.
    Answer(Reason),
}

/// What the agent does to the tables.
pub type Change = fn(&mut World);

/// One frame of a row.
#[derive(Clone, Debug)]
pub struct Step {
    /// Done to the world before the frame comes in.
    pub change: Option<Change>,
    /// Time that passes before the frame comes in, in [`crate::world::AGE_STEP`]s.
    pub wait: u32,
    /// The frame.
    pub frame: Vec<u8>,
    /// Whether it is a super-packet that will be cut when it is sent; only TC sees those.
    pub segmented: bool,
    /// Bytes of payload in each segment of a super-packet; 0 is [`SEGMENT`].
    pub cut: u32,
    /// The frame that leaves, where the row says it byte for byte.
    pub out: Option<Vec<u8>>,
    /// What TC does.
    pub tc: Expect,
    /// What XDP does.
    pub xdp: Expect,
    /// State and number of flow entries afterwards.
    pub flows: Option<(u8, usize)>,
}

/// A world and what happens in it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The sentence that must stay true.
    pub name: String,
    /// Tables at the beginning.
    pub world: World,
    /// Frames in order.
    pub steps: Vec<Step>,
    /// What must hold of all steps together.
    pub law: Option<fn(&[Seen])>,
    next: (Option<Change>, u32),
}

/// What a hook did with one frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// What it returned.
    pub action: Action,
    /// Frame afterwards.
    pub frame: Vec<u8>,
    /// Flow entries afterwards.
    pub flows: Flows,
    /// Counters since the row began.
    pub counters: Counters,
}

impl Row {
    /// A row without steps.
    pub fn new(name: impl Into<String>, world: World) -> Self {
        Self {
            name: name.into(),
            world,
            steps: Vec::new(),
            law: None,
            next: (None, 0),
        }
    }

    /// A frame, and what both hooks do with it.
    #[must_use]
    pub fn send(self, frame: &Builder, expect: Expect) -> Self {
        self.raw(frame.bytes(), expect, expect)
    }

    /// A frame that the hooks treat differently.
    #[must_use]
    pub fn send_each(self, frame: &Builder, tc: Expect, xdp: Expect) -> Self {
        self.raw(frame.bytes(), tc, xdp)
    }

    /// Any bytes.
    #[must_use]
    pub fn raw(mut self, frame: Vec<u8>, tc: Expect, xdp: Expect) -> Self {
        let (change, wait) = std::mem::take(&mut self.next);
        self.steps.push(Step {
            change,
            wait,
            frame,
            segmented: false,
            cut: 0,
            out: None,
            tc,
            xdp,
            flows: None,
        });
        self
    }

    /// The last frame leaves like this.
    #[must_use]
    pub fn becomes(mut self, out: Vec<u8>) -> Self {
        self.last().out = Some(out);
        self
    }

    /// The last frame was a super-packet.
    #[must_use]
    pub fn segmented(mut self) -> Self {
        self.last().segmented = true;
        self
    }

    /// The last frame was a super-packet of segments with this many bytes of payload.
    #[must_use]
    pub fn cut(mut self, payload: u32) -> Self {
        self.last().cut = payload;
        self.segmented()
    }

    /// After the last frame there are this many flow entries, all in this state.
    #[must_use]
    pub fn leaves(mut self, state: u8, entries: usize) -> Self {
        self.last().flows = Some((state, entries));
        self
    }

    /// Before the next frame the agent changes the tables.
    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.next.0 = Some(change);
        self
    }

    /// Before the next frame time passes, in [`crate::world::AGE_STEP`]s.
    #[must_use]
    pub fn wait(mut self, steps: u32) -> Self {
        self.next.1 += steps;
        self
    }

    /// What must hold of all steps together.
    #[must_use]
    pub fn law(mut self, law: fn(&[Seen])) -> Self {
        self.law = Some(law);
        self
    }

    fn last(&mut self) -> &mut Step {
        self.steps
            .last_mut()
            .expect("a row's first word is a frame")
    }

    /// Whether all frames can meet this hook.
    pub fn runs_at(&self, hook: Hook) -> bool {
        hook == Hook::Tc || self.steps.iter().all(|step| !step.segmented)
    }
}

impl Step {
    /// Bytes of payload in each segment; 0 for an ordinary frame.
    pub fn segment(&self) -> u32 {
        match (self.segmented, self.cut) {
            (false, _) => 0,
            (true, 0) => SEGMENT,
            (true, cut) => cut,
        }
    }

    /// What a hook does.
    pub fn expect(&self, hook: Hook) -> Expect {
        match hook {
            Hook::Xdp => self.xdp,
            Hook::Tc => self.tc,
        }
    }
}

/// Checks one step against its row. `before` are the counters of the step before.
///
/// # Panics
/// When the step is not as expected; the message tells row, step and hook.
pub fn judge(row: &Row, at: usize, world: &World, hook: Hook, before: &Counters, seen: &Seen) {
    let step = &row.steps[at];
    let expect = step.expect(hook);
    let place = format!("row \"{}\", step {}, {hook:?}", row.name, at + 1);
    let reason = match expect {
        Expect::Pass(reason) => {
            assert_eq!(seen.action, Action::Pass, "{place}");
            assert_eq!(
                seen.frame, step.frame,
                "{place}: a passed frame is untouched"
            );
            reason
        }
        Expect::Drop(reason) => {
            assert_eq!(seen.action, Action::Drop, "{place}");
            assert_eq!(
                seen.frame, step.frame,
                "{place}: a dropped frame is untouched"
            );
            reason
        }
        Expect::Forward(hop, src, dst) => {
            assert_eq!(seen.action, Action::Forward, "{place}");
            let out = packets::ends(&seen.frame).unwrap_or_else(|| panic!("{place}: unreadable"));
            assert_eq!((out.src, out.dst), (src, dst), "{place}");
            translated(&place, world, hop, &step.frame, &seen.frame);
            Reason::None
        }
        Expect::Sent(hop) => {
            assert_eq!(seen.action, Action::Forward, "{place}");
            translated(&place, world, hop, &step.frame, &seen.frame);
            Reason::None
        }
        Expect::Noted(_, reason) | Expect::Answer(reason) => {
            let action = match expect {
                Expect::Answer(_) => Action::Answer,
                _ => Action::Forward,
            };
            assert_eq!(seen.action, action, "{place}");
            assert_eq!(Some(&seen.frame), step.out.as_ref(), "{place}: frame sent");
            reason
        }
    };
    let mut reasons = before.reasons.clone();
    if reason != Reason::None {
        let count = reasons.entry(reason as u32).or_default();
        count.packets += 1;
        count.bytes += seen.frame.len() as u64;
    }
    assert_eq!(seen.counters.reasons, reasons, "{place}: counted reasons");
    if let Some((state, entries)) = step.flows {
        let states: Vec<u8> = seen.flows.iter().map(|(_, flow)| flow.life.state).collect();
        assert_eq!(
            states,
            vec![state; entries],
            "{place}: states of flow entries"
        );
    }
}

/// Checks that a frame is another one with new ends and nothing else changed.
///
/// # Panics
/// When it is not.
pub fn translated(place: &str, world: &World, hop: u32, frame: &[u8], out: &[u8]) {
    let new = packets::ends(out).unwrap_or_else(|| panic!("{place}: unreadable"));
    let mut wanted = frame.to_vec();
    if let Some(hop) = world.hops.get(&hop) {
        wanted[0..6].copy_from_slice(&hop.dmac);
        wanted[6..12].copy_from_slice(&hop.smac);
    }
    wanted[22] -= 1;
    wanted[26..30].copy_from_slice(&new.src.ip().octets());
    wanted[30..34].copy_from_slice(&new.dst.ip().octets());
    wanted[new.l4..new.l4 + 2].copy_from_slice(&new.src.port().to_be_bytes());
    wanted[new.l4 + 2..new.l4 + 4].copy_from_slice(&new.dst.port().to_be_bytes());
    // Both checksums are taken as they came out; then each must be as right as it was before.
    for at in [24, new.check] {
        wanted[at..at + 2].copy_from_slice(&out[at..at + 2]);
    }
    assert_eq!(out, wanted, "{place}: bytes of the frame sent");
    assert_eq!(
        packets::ip_residue(out),
        packets::ip_residue(frame),
        "{place}: IPv4 checksum"
    );
    assert_eq!(
        packets::l4_residue(out),
        packets::l4_residue(frame),
        "{place}: L4 checksum (none stays none)"
    );
}

/// The interface every frame of the table comes in on.
pub const INGRESS: u32 = IFINDEX;

/// Bytes of payload in each segment of a super-packet, unless a row says how many.
pub const SEGMENT: u32 = 100;
