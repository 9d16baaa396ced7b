//! Weighted turns: who is next, in O(log n). Pure.
//!
//! The `k`th turn (from 0) of a backend with share `s` is due between the turns `k / s` and `(k + 1) / s` of all. Of those
//! that may have a turn already, the one whose turn must come first has it. With one turn for each step of time such a
//! schedule always keeps all deadlines, so that every backend is less than one turn away from its share, at any time.
//! Source: Baruah, Cohen, Plaxton and Varvel, "Proportionate progress: a notion of fairness in resource allocation",
//! Algorithmica 15, 1996; Jackson, "Scheduling a production line to minimize maximum tardiness", 1955, for one machine.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Backends that may not have their turn, looked at for one pick; then all are.
const LOOKS: usize = 32;

/// Whose turn it is among members numbered from 0.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    members: Vec<Member>,
    /// Turns that have passed.
    now: u64,
    /// By deadline: may have a turn now.
    ready: BinaryHeap<Reverse<(u64, u32)>>,
    /// By when they may have a turn. Every member is in one of both.
    waiting: BinaryHeap<Reverse<(u64, u32)>>,
    /// Taken out of the heaps during a pick; kept for their memory.
    held: Vec<u32>,
    candidates: Vec<(u32, bool)>,
}

/// One member and its next turn. Its turns are `whole + part / weight` apart.
#[derive(Clone, Debug)]
struct Member {
    weight: u32,
    whole: u64,
    part: u32,
    /// From when on it may have its turn, rounded down by `rest / weight`.
    release: u64,
    rest: u32,
    /// Before when it must have it, rounded up.
    deadline: u64,
}

impl Member {
    fn due(&mut self) {
        let (next, rest) = self.next();
        self.deadline = next + u64::from(rest > 0);
    }

    fn next(&self) -> (u64, u32) {
        let next = self.release.saturating_add(self.whole);
        // Both are below the weight.
        let rest = u64::from(self.rest) + u64::from(self.part);
        match rest.checked_sub(u64::from(self.weight)) {
            Some(rest) => (next.saturating_add(1), rest as u32),
            None => (next, rest as u32),
        }
    }

    fn period(&self) -> f64 {
        self.whole as f64 + f64::from(self.part) / f64::from(self.weight)
    }
}

impl Turns {
    /// Turns of members with these weights (0: never), all of them at the start.
    pub(super) fn new(weights: &[u32]) -> Self {
        Self::resumed(weights.iter().map(|weight| (*weight, None)))
    }

    /// The same, with members that go on where [`Self::lead`] says they were elsewhere.
    pub(super) fn resumed(members: impl Iterator<Item = (u32, Option<f64>)> + Clone) -> Self {
        let total: u64 = members.clone().map(|(weight, _)| u64::from(weight)).sum();
        let member = |(weight, lead): (u32, Option<f64>)| {
            let by = u64::from(weight.max(1));
            let mut member = Member {
                weight,
                whole: total / by,
                part: (total % by) as u32,
                release: 0,
                rest: 0,
                deadline: 0,
            };
            member.due();
            if let Some(lead) = lead {
                let until = lead.clamp(0.0, 2.0) * member.period();
                // Rounded to the nearest, so that nobody's turn recedes each time that it is taken over.
                member.release = (until - member.period()).max(0.0).round() as u64;
                member.deadline = until.round() as u64;
            }
            member
        };
        let members: Vec<Member> = members.map(member).collect();
        let placed = members.iter().zip(0..);
        let placed = placed.filter(|(member, _)| member.weight > 0);
        Self {
            waiting: placed.map(|(it, at)| Reverse((it.release, at))).collect(),
            members,
            now: 0,
            ready: BinaryHeap::new(),
            held: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// How far a member is from the latest end of its turn, in such turns.
    pub(super) fn lead(&self, member: usize) -> Option<f64> {
        let member = self.members.get(member)?;
        let left = member.deadline.saturating_sub(self.now);
        Some(left as f64 / member.period())
    }

    /// The next member of those that are eligible; none if none is.
    ///
    /// Others lose their turn: they have no more of them later for it. Who `yields` loses it likewise, unless nobody else
    /// is there; it is asked with whether that is a turn of its own or an early one.
    pub(super) fn next(
        &mut self,
        eligible: impl Fn(usize) -> bool,
        yields: impl FnMut(usize, bool) -> bool,
    ) -> Option<usize> {
        self.least_of(1, eligible, yields, |_| 0.0)
    }

    /// The least loaded of the `most` that are next; of equal ones the first. Those that have more load lose their turn.
    pub(super) fn least_of(
        &mut self,
        most: usize,
        eligible: impl Fn(usize) -> bool,
        mut yields: impl FnMut(usize, bool) -> bool,
        load: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let mut looks = LOOKS;
        while self.candidates.len() < most && looks > 0 {
            let Some((member, own)) = self.take() else {
                break;
            };
            if eligible(member as usize) && !yields(member as usize, own) {
                self.candidates.push((member, own));
                continue;
            }
            looks -= 1;
            if own {
                self.pass(member);
            }
            self.held.push(member);
        }
        let loads = self
            .candidates
            .iter()
            .map(|(member, _)| (load(*member as usize), *member));
        let chosen = match loads.min_by(|one, two| one.0.total_cmp(&two.0)) {
            Some((least, chosen)) => {
                let mut candidates = std::mem::take(&mut self.candidates);
                for (member, own) in candidates.drain(..) {
                    if own && member != chosen && load(member as usize) > least {
                        self.pass(member);
                    }
                    self.held.push(member);
                }
                self.candidates = candidates;
                Some(chosen)
            }
            None => self.scan(eligible, load),
        };
        if let Some(chosen) = chosen {
            self.pass(chosen);
        }
        while let Some(member) = self.held.pop() {
            self.wait(member);
        }
        chosen.map(|member| member as usize)
    }

    /// Takes out whoever is next, and says whether that is its own turn.
    fn take(&mut self) -> Option<(u32, bool)> {
        while let Some(Reverse((release, member))) = self.waiting.peek().copied() {
            if release > self.now {
                break;
            }
            self.waiting.pop();
            let deadline = self.members.get(member as usize)?.deadline;
            self.ready.push(Reverse((deadline, member)));
        }
        match self.ready.pop() {
            Some(Reverse((_, member))) => Some((member, true)),
            None => self.waiting.pop().map(|Reverse((_, it))| (it, false)),
        }
    }

    fn wait(&mut self, member: u32) {
        if let Some(it) = self.members.get(member as usize) {
            self.waiting.push(Reverse((it.release, member)));
        }
    }

    /// A turn of this member passes. If it comes early, time moves there, so that it is not owed one later; if it comes
    /// more than a turn late, what it missed is forgiven, so that it does not make up for it all at once.
    fn pass(&mut self, member: u32) {
        let Some(member) = self.members.get_mut(member as usize) else {
            return;
        };
        self.now = self.now.max(member.release).saturating_add(1);
        (member.release, member.rest) = member.next();
        if member.release.saturating_add(member.whole + 1) < self.now {
            (member.release, member.rest) = (self.now, 0);
        }
        member.due();
    }

    /// Looks at all; takes the chosen one out.
    fn scan(
        &mut self,
        eligible: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> f64,
    ) -> Option<u32> {
        let all = self.members.iter().enumerate();
        let all = all.filter(|(at, member)| member.weight > 0 && eligible(*at));
        let loads = all.map(|(at, member)| (load(at), member.deadline, at));
        let (_, _, chosen) =
            loads.min_by(|one, two| one.0.total_cmp(&two.0).then(one.1.cmp(&two.1)))?;
        let chosen = chosen as u32;
        let others = |it: &Reverse<(u64, u32)>| it.0.1 != chosen;
        self.ready.retain(others);
        self.waiting.retain(others);
        if !self.held.contains(&chosen) {
            self.held.push(chosen);
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(turns: &mut Turns, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        turns.next(eligible, |_, _| false)
    }

    #[test]
    fn turns_are_smooth() {
        let mut turns = Turns::new(&[5, 1, 1]);
        let order: Vec<_> = (0..14)
            .map(|_| next(&mut turns, |_| true).expect("some"))
            .collect();
        assert_eq!(order, [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 2]);
    }

    #[test]
    fn members_that_are_not_eligible_or_weigh_nothing_have_no_turn() {
        let mut turns = Turns::new(&[1, 0, 1]);
        assert!((0..100).all(|_| next(&mut turns, |it| it != 0) == Some(2)));
        assert_eq!(next(&mut turns, |it| it == 1), None);
        assert_eq!(next(&mut Turns::new(&[]), |_| true), None);
    }

    #[test]
    fn one_that_comes_back_makes_up_for_nothing() {
        let mut turns = Turns::new(&[1; 4]);
        for _ in 0..1000 {
            next(&mut turns, |it| it != 2);
        }
        let back = (0..8).filter(|_| next(&mut turns, |_| true) == Some(2));
        assert!((1..=3).contains(&back.count()));
    }

    #[test]
    fn whoever_stood_in_for_others_is_not_left_out_later() {
        let mut turns = Turns::new(&[10, 1]);
        assert!((0..1000).all(|_| next(&mut turns, |it| it == 1) == Some(1)));
        let light = (0..22).filter(|_| next(&mut turns, |_| true) == Some(1));
        assert!((1..=3).contains(&light.count()));
    }

    #[test]
    fn many_that_are_not_eligible_leave_the_shares_of_the_others_alone() {
        let mut weights = vec![10_000; 300];
        weights.extend([30, 10]);
        let mut turns = Turns::new(&weights);
        let heavy = (0..400).filter(|_| next(&mut turns, |it| it >= 300) == Some(300));
        assert!((285..=315).contains(&heavy.count()));
    }

    #[test]
    fn one_that_yields_has_a_turn_only_where_nobody_else_has() {
        let mut turns = Turns::new(&[1, 1]);
        assert!((0..10).all(|_| turns.next(|_| true, |it, _| it == 0) == Some(1)));
        assert_eq!(turns.next(|it| it == 0, |_, _| true), Some(0));
    }

    fn weights() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(prop_oneof![1_u32..10, Just(1_000_000), 1..u32::MAX], 1..40)
    }

    proptest! {
        #[test]
        fn every_member_is_always_within_one_turn_of_its_share(weights in weights()) {
            let total: u128 = weights.iter().map(|it| u128::from(*it)).sum();
            let mut turns = Turns::new(&weights);
            let mut had = vec![0_u128; weights.len()];
            for turn in 1..=600_u128 {
                had[next(&mut turns, |_| true).expect("some")] += 1;
                for (had, weight) in had.iter().zip(&weights) {
                    let share = turn * u128::from(*weight);
                    prop_assert!((had * total).abs_diff(share) < total, "{had} after {turn}");
                }
            }
        }

        #[test]
        fn nobody_who_is_eligible_is_left_out_whatever_the_others_do(
            weights in prop::collection::vec(1_u32..20, 2..40),
            out in prop::collection::vec(any::<[bool; 4]>(), 40),
            rounds in 1_usize..5,
        ) {
            let mut turns = Turns::new(&weights);
            let may = |at: usize, round: usize| at == 0 || !out[at][round % 4];
            let total: u32 = weights.iter().sum();
            for round in 0..rounds {
                let mut first = false;
                for _ in 0..3 * total {
                    let it = next(&mut turns, |at| may(at, round)).expect("the first");
                    prop_assert!(may(it, round));
                    first |= it == 0;
                }
                prop_assert!(first);
            }
        }

        #[test]
        fn turns_taken_over_lose_nobody(
            weights in prop::collection::vec(1_u32..20, 2..40),
            before in 0_usize..100,
        ) {
            // The group changes all the time; still everybody has a turn in time.
            let mut turns = Turns::new(&weights);
            for _ in 0..before {
                next(&mut turns, |_| true);
            }
            let total: u32 = weights.iter().sum();
            let mut had = vec![false; weights.len()];
            for _ in 0..3 * total {
                let known = weights.iter().enumerate();
                turns = Turns::resumed(known.map(|(at, weight)| (*weight, turns.lead(at))).collect::<Vec<_>>().into_iter());
                had[next(&mut turns, |_| true).expect("some")] = true;
            }
            prop_assert!(had.iter().all(|it| *it), "{had:?}");
        }

        #[test]
        fn the_least_loaded_of_few_is_found(loads in prop::collection::vec(0_u32..5, 1..16)) {
            let mut turns = Turns::new(&vec![1; loads.len()]);
            for _ in 0..40 {
                let load = |at: usize| f64::from(loads[at]);
                let it = turns.least_of(16, |_| true, |_, _| false, load).expect("some");
                prop_assert_eq!(Some(&loads[it]), loads.iter().min());
            }
        }
    }
}
