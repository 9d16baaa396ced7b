//! Rise and fall: what a row of answers makes of a target. Pure.

use crate::ir::{HealthCheck, ProbeFailure};

/// How a target stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Standing {
    /// Why it fails; `None`: it is trusted.
    why: Option<ProbeFailure>,
    /// Answers in a row that speak against that.
    against: u8,
}

impl Standing {
    /// A target that nothing was heard of yet: trusted, unless an earlier agent knew better.
    pub(super) fn new(why: Option<ProbeFailure>) -> Self {
        Self { why, against: 0 }
    }

    pub(super) fn why(&self) -> Option<ProbeFailure> {
        self.why
    }

    /// Takes in an answer; true if the target stands otherwise from now on.
    ///
    /// `fall` bad answers in a row make a trusted one fail, `rise` good ones a failing one trusted.
    pub(super) fn take(&mut self, answer: Result<(), ProbeFailure>, check: &HealthCheck) -> bool {
        let needed = match (self.why, answer) {
            (None, Err(_)) => check.fall,
            (Some(_), Ok(())) => check.rise,
            _ => {
                self.against = 0;
                return false;
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return false;
        }
        *self = Self::new(answer.err());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::ir::HealthProtocol;

    fn check(rise: u8, fall: u8) -> HealthCheck {
        HealthCheck {
            protocol: HealthProtocol::Tcp,
            port: None,
            path: "/".into(),
            method: "HEAD".into(),
            http10: false,
            codes: Vec::new(),
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(2),
            rise,
            fall,
        }
    }

    const BAD: Result<(), ProbeFailure> = Err(ProbeFailure::Refused);

    #[test]
    fn a_target_falls_and_rises_at_its_thresholds_and_a_good_answer_in_between_starts_anew() {
        let check = check(2, 3);
        let mut standing = Standing::new(None);
        let answers = [BAD, BAD, Ok(()), BAD, BAD, BAD, Ok(()), BAD, Ok(()), Ok(())];
        let flips = answers.map(|answer| standing.take(answer, &check));
        let at: Vec<usize> = (0..flips.len()).filter(|at| flips[*at]).collect();
        assert_eq!(at, [5, 9]);
    }

    proptest! {
        /// The model: a target fails if, looking back over all answers, a row of `fall` bad ones came after the last row
        /// of `rise` good ones.
        #[test]
        fn a_target_stands_as_the_last_long_enough_row_says(
            answers in prop::collection::vec(any::<bool>(), 0..200),
            rise in 2_u8..=10,
            fall in 2_u8..=10,
            fails_at_first: bool,
        ) {
            let check = check(rise, fall);
            let mut standing = Standing::new(fails_at_first.then_some(ProbeFailure::Timeout));
            for end in 1..=answers.len() {
                let before = standing.why().is_some();
                let good = answers[end - 1];
                let flipped = standing.take(if good { Ok(()) } else { BAD }, &check);
                let mut fails = fails_at_first;
                // A row counts from where it began to speak against how the target stood.
                let mut row = 0;
                for good in &answers[..end] {
                    row = if *good == fails { row + 1 } else { 0 };
                    if row == if fails { rise } else { fall } {
                        (fails, row) = (!fails, 0);
                    }
                }
                prop_assert_eq!(standing.why().is_some(), fails);
                prop_assert_eq!(flipped, before != fails);
            }
        }
    }
}
