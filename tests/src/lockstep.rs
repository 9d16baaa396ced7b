//! The kernel and the slices side by side: every frame goes through both, and everything it leaves is compared.
//!
//! The kernel runs a frame by BPF_PROG_TEST_RUN, which does not take the very shortest ([`crate::kernel::shortest`]). Those
//! are run on slices alone, and must be left untouched there.

use anyhow::Result;
use gateway_common::{
    stats::Count,
    verdict::{Action, Reason, Verdict},
};

use crate::{
    kernel::{Kernel, code},
    packets,
    row::{INGRESS, translated},
    slices::Slices,
    world::{AGE_STEP, Hook, World},
};

/// What was run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Frames through both.
    pub runs: usize,
    /// Frames too short for the kernel.
    pub short: usize,
    /// Packets that were cut at every length.
    pub packets: usize,
    /// Frames that were sent.
    pub sent: usize,
}

/// One world, twice.
pub struct Lockstep<'k> {
    kernel: &'k mut Kernel,
    slices: Slices,
    world: World,
    hook: Hook,
    /// Packets that the kernel alone dropped: it was asked for a route, and has none.
    no_route: Count,
    /// What was run so far.
    pub tally: Tally,
}

impl<'k> Lockstep<'k> {
    /// Both in the same world, without flows. The kernel must be in a network of its own, see
    /// [`crate::kernel::own_network`].
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn new(kernel: &'k mut Kernel, world: &World, hook: Hook) -> Result<Self> {
        kernel.reset(world)?;
        Ok(Self {
            kernel,
            slices: Slices::new(hook, world),
            world: world.clone(),
            hook,
            no_route: Count::default(),
            tally: Tally::default(),
        })
    }

    /// What the agent does to the tables.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn change(&mut self, change: impl FnOnce(&mut World)) -> Result<()> {
        change(&mut self.world);
        self.slices.apply(&self.world);
        self.kernel.apply(&self.world)
    }

    /// Lets time pass, in [`AGE_STEP`]s.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn wait(&mut self, steps: u32) -> Result<()> {
        self.slices.wait(steps * AGE_STEP);
        self.kernel.wait(steps * AGE_STEP)
    }

    /// Runs a frame through both and compares all that it leaves.
    ///
    /// # Errors
    /// When the kernel does not run it.
    ///
    /// # Panics
    /// When they differ.
    pub fn run(&mut self, place: &str, frame: &[u8], segmented: bool) -> Result<Verdict> {
        let verdict = self.frames(place, frame, segmented)?;
        self.compare(place)?;
        Ok(verdict)
    }

    /// What a frame would do, without its being done.
    pub fn would(&self, frame: &[u8], segmented: bool) -> Verdict {
        self.slices.fork().run(frame, segmented).0
    }

    /// All that decides what becomes of the next frame, to tell states apart.
    pub fn state(&self) -> String {
        format!("{:?} {:?}", self.world, self.slices.flows())
    }

    /// Cuts a packet at every byte before its end, each time from the state there is now, and leaves that state.
    /// Whatever is left of it is sent whole or not touched, and both do the same.
    ///
    /// # Errors
    /// When the kernel does not run it.
    ///
    /// # Panics
    /// When they differ, or a frame was written half.
    pub fn cuts(&mut self, place: &str, frame: &[u8], segmented: bool) -> Result<()> {
        let kernel = self.kernel.save()?;
        let (slices, no_route) = (self.slices.fork(), self.no_route);
        for len in 0..frame.len() {
            let place = format!("{place}, cut to {len} bytes");
            let verdict = self.frames(&place, &frame[..len], segmented)?;
            // What passes uncounted leaves nothing; a look before the next one that does is enough.
            if verdict != Verdict::PASS || len + 1 == frame.len() {
                self.compare(&place)?;
                self.kernel.restore(&kernel)?;
                self.slices = slices.fork();
                self.no_route = no_route;
            }
        }
        self.tally.packets += 1;
        Ok(())
    }

    /// Runs a frame through both; compares what it became.
    fn frames(&mut self, place: &str, frame: &[u8], segmented: bool) -> Result<Verdict> {
        let (verdict, out) = self.slices.run(frame, segmented);
        let mut action = verdict.action();
        if action == Action::Forward {
            assert_eq!(out.len(), frame.len(), "{place}: length");
            // The judge reads IPv4 only; other families are compared with the kernel all the same.
            if packets::ends(frame).is_some() {
                translated(place, &self.world, verdict.hop(), frame, &out);
            }
        } else {
            assert_eq!(out, frame, "{place}: not sent, so untouched");
        }
        let Some(ran) = self.kernel.run(self.hook, frame, segmented)? else {
            assert_eq!(verdict, Verdict::PASS, "{place}: too short for anything");
            self.tally.short += 1;
            return Ok(verdict);
        };
        self.tally.runs += 1;
        let mut same_interface = false;
        if action == Action::Forward {
            self.tally.sent += 1;
            match self.world.hops.get(&verdict.hop()) {
                Some(hop) => same_interface = hop.ifindex == INGRESS,
                // TC asks the kernel's routes, and in this network there is none.
                None => {
                    action = Action::Drop;
                    self.no_route.packets += 1;
                    self.no_route.bytes += frame.len() as u64;
                }
            }
        }
        assert_eq!(
            ran.code,
            code(self.hook, action, same_interface),
            "{place}: return code for {action:?}"
        );
        assert_eq!(ran.frame, out, "{place}: frame");
        Ok(verdict)
    }

    /// Compares flows and counters.
    fn compare(&mut self, place: &str) -> Result<()> {
        assert_eq!(
            self.kernel.flows()?,
            self.slices.flows(),
            "{place}: flow entries"
        );
        let mut wanted = self.slices.counters();
        if self.no_route.packets != 0 {
            let reasons = &mut wanted.reasons;
            reasons.insert(Reason::NoRoute as u32, self.no_route);
        }
        assert_eq!(self.kernel.counters()?, wanted, "{place}: counters");
        Ok(())
    }
}
