//! Rows of the fixture table with frames that were tampered with.

use fleetgate_tests::{
    row::{Row, Step},
    world::Hook,
};
use proptest::prelude::*;

/// What is done to a frame. Positions are taken modulo its length.
#[derive(Clone, Debug)]
pub(crate) enum Tamper {
    /// Another byte.
    Byte(usize, u8),
    /// A flipped bit.
    Bit(usize),
    /// A 16-bit word that is an end of its range, or all but.
    Word(usize, u16),
    /// Bytes that push the others back.
    Insert(usize, Vec<u8>),
    /// Bytes that are left out.
    Remove(usize, usize),
    /// The end is cut off.
    Cut(usize),
    /// More at the end.
    Extend(Vec<u8>),
    /// The last bytes of the headers come again: options, tags, headers in headers.
    Repeat(usize, usize),
}

/// A row to tamper with.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    /// Which row of the table, modulo its length.
    pub row: usize,
    /// Hook it runs at.
    pub hook: Hook,
    /// What happens to which frame, modulo the number of frames.
    pub tampers: Vec<(usize, Tamper)>,
    /// Frames that come twice, or in the place of another.
    pub swaps: Vec<(usize, usize)>,
}

fn tamper() -> impl Strategy<Value = Tamper> {
    // Most bytes that decide are among the first 60.
    let at = || prop_oneof![8 => 0_usize..60, 1 => 0_usize..300];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Tamper::Byte(at, byte)),
        4 => (0_usize..480).prop_map(Tamper::Bit),
        3 => (at(), prop::sample::select(vec![0, 1, 0x00ff, 0x0100, 0x7fff, 0x8000, 0xfffe, 0xffff]))
            .prop_map(|(at, word)| Tamper::Word(at, word)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Tamper::Insert(at, bytes)),
        1 => (at(), 1_usize..9).prop_map(|(at, len)| Tamper::Remove(at, len)),
        1 => (0_usize..100).prop_map(Tamper::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..64).prop_map(Tamper::Extend),
        1 => (at(), 1_usize..24).prop_map(|(at, len)| Tamper::Repeat(at, len)),
    ]
}

/// Any row, tampered with.
pub(crate) fn mutant() -> impl Strategy<Value = Mutant> {
    (
        any::<u16>(),
        prop::sample::select(vec![Hook::Xdp, Hook::Tc]),
        prop::collection::vec((0_usize..8, tamper()), 0..5),
        prop::collection::vec((0_usize..8, 0_usize..8), 0..3),
    )
        .prop_map(|(row, hook, tampers, swaps)| Mutant {
            row: usize::from(row),
            hook,
            tampers,
            swaps,
        })
}

impl Mutant {
    /// The row it is made from.
    pub(crate) fn base<'a>(&self, table: &'a [Row]) -> &'a Row {
        &table[self.row % table.len()]
    }

    /// Its steps with the frames that come in.
    pub(crate) fn steps(&self, row: &Row) -> Vec<Step> {
        let mut steps = row.steps.clone();
        let count = steps.len();
        for (at, from) in &self.swaps {
            let frame = row.steps[from % count].frame.clone();
            steps[at % count].frame = frame;
        }
        for (at, tamper) in &self.tampers {
            tamper.apply(&mut steps[at % count].frame);
        }
        for step in &mut steps {
            // What is for another station is TC's own business, not the pipeline's.
            step.frame.iter_mut().take(6).for_each(|byte| *byte = 0);
            step.segmented &= self.hook == Hook::Tc;
        }
        steps
    }
}

impl Tamper {
    fn apply(&self, frame: &mut Vec<u8>) {
        let len = frame.len();
        if len < 2 {
            return;
        }
        match self {
            Self::Byte(at, byte) => frame[at % len] = *byte,
            Self::Bit(at) => frame[at / 8 % len] ^= 1 << (at % 8),
            Self::Word(at, word) => {
                let at = at % (len - 1);
                frame[at..at + 2].copy_from_slice(&word.to_be_bytes());
            }
            Self::Insert(at, bytes) => {
                let at = at % len;
                frame.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at % len;
                frame.drain(at..(at + count).min(len));
            }
            Self::Cut(to) => frame.truncate(*to),
            Self::Extend(bytes) => frame.extend_from_slice(bytes),
            Self::Repeat(at, count) => {
                let at = at % len;
                let again = frame[at..(at + count).min(len)].to_vec();
                frame.splice(at..at, again);
            }
        }
    }
}
