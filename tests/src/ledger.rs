//! Double-entry bookkeeping of flows and counters: what one frame may change in them, whatever the row says of it.

use std::collections::BTreeMap;

use gateway_common::{
    flow::{Flow, FlowKey, flag},
    stats::Traffic,
    verdict::Action,
};

use crate::{packets, slices::Slices, world::Counters};

/// Flow entries and counters at one moment.
#[derive(Clone, Debug)]
pub struct Books {
    flows: BTreeMap<FlowKey, Flow>,
    counters: Counters,
}

impl Books {
    /// As they stand.
    pub fn of(slices: &Slices) -> Self {
        Self {
            flows: slices.flows().into_iter().collect(),
            counters: slices.counters(),
        }
    }

    /// Checks that `after` is what one frame may make of these books:
    ///
    /// - one service and one backend count a forwarded frame, in the direction of its flow entry, which alone counts
    ///   the same bytes and is young; nobody counts any other frame;
    /// - an opened flow is counted once, and is two entries, each of which undoes the other;
    /// - no translation changes, and no entry is ever without its other half.
    ///
    /// # Panics
    /// When they do not balance.
    pub fn balance(&self, place: &str, frame: &[u8], action: Action, after: &Self) {
        let counted = after.counters.minus(&self.counters);
        let services = sum(counted.services.values());
        // Kept out before there was a backend to count it.
        let refused = services.refused;
        assert!(
            refused == 0 || refused == 1 && action != Action::Forward,
            "{place}: refused {refused} times, and sent"
        );
        let services = Traffic {
            refused: 0,
            ..services
        };
        assert_eq!(
            services,
            sum(counted.backends.values()),
            "{place}: services and backends count alike"
        );
        let opened = services.flows;
        assert!(opened <= 1, "{place}: one frame opened {opened} flows");
        after.paired(place);

        let bytes = frame.len() as u64;
        let mut heard: Vec<(&FlowKey, &Flow)> = Vec::new();
        let mut fresh = Vec::new();
        for (key, flow) in &after.flows {
            let old = self.flows.get(key);
            let before = match old {
                Some(old) if opened == 0 => {
                    assert_eq!(
                        translation(old),
                        translation(flow),
                        "{place}: a translation changed"
                    );
                    old.life.bytes
                }
                Some(old) if old == flow => continue,
                _ => {
                    fresh.push(key);
                    0
                }
            };
            if flow.life.bytes != before {
                let more = flow.life.bytes - before;
                assert_eq!(more, bytes, "{place}: bytes of an entry");
                assert_eq!(flow.life.last_seen, 0, "{place}: age of the entry");
                heard.push((key, flow));
            }
        }
        assert_eq!(
            fresh.len() as u64,
            2 * opened,
            "{place}: new entries {fresh:?}, flows opened {opened}"
        );
        let traffic = Traffic {
            flows: 0,
            ..services
        };
        if action != Action::Forward {
            assert_eq!(
                traffic,
                Traffic::default(),
                "{place}: counted, but not sent"
            );
            assert!(
                heard.is_empty(),
                "{place}: not sent, but heard by {heard:?}"
            );
            return;
        }
        // Frames that are not of a flow themselves (errors about one, answers of our own) may be sent uncounted.
        if packets::ends(frame).is_none() && heard.is_empty() {
            return;
        }
        assert_eq!(heard.len(), 1, "{place}: heard by {heard:?}");
        let (_, flow) = heard[0];
        let mut wanted = Traffic::default();
        if flow.life.flags & flag::REPLY == 0 {
            (wanted.in_packets, wanted.in_bytes) = (1, bytes);
        } else {
            (wanted.out_packets, wanted.out_bytes) = (1, bytes);
        }
        assert_eq!(traffic, wanted, "{place}: counted in the flow's direction");
        let (service, backend) = (u32::from(flow.nat.service), flow.nat.backend);
        assert!(
            counted.services.keys().eq([&service]) && counted.backends.keys().eq([&backend]),
            "{place}: counted for others than service {service} and backend {backend}: {counted:?}"
        );
    }

    /// Every entry has one of the other direction that undoes it.
    fn paired(&self, place: &str) {
        for (key, flow) in &self.flows {
            let other = flow.nat.reverse_key(key.proto);
            let Some(sibling) = self.flows.get(&other) else {
                panic!("{place}: {key:?} is alone");
            };
            assert_eq!(
                sibling.nat.reverse_key(key.proto),
                *key,
                "{place}: the other half leads elsewhere"
            );
            assert_eq!(
                (sibling.nat.service, sibling.nat.backend, sibling.life.state),
                (flow.nat.service, flow.nat.backend, flow.life.state),
                "{place}: both halves tell the same"
            );
            assert_ne!(
                sibling.life.flags & flag::REPLY,
                flow.life.flags & flag::REPLY,
                "{place}: one half is that of replies"
            );
        }
    }
}

/// What must not change in the life of a flow: everything but its next hop.
fn translation(flow: &Flow) -> gateway_common::flow::Nat {
    gateway_common::flow::Nat { hop: 0, ..flow.nat }
}

fn sum<'a>(counts: impl Iterator<Item = &'a Traffic>) -> Traffic {
    counts.fold(Traffic::default(), |mut all, count| {
        all += *count;
        all
    })
}
