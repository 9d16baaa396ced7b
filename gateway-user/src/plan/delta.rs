//! The difference between two plans.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::{Backend, Plan, Region, Service, ServiceAddr, Source};

/// What must change in a plan; `None` takes an entry away.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Delta {
    /// Services by address.
    pub services: BTreeMap<ServiceAddr, Option<Service>>,
    /// Backends by id.
    pub backends: BTreeMap<u32, Option<Backend>>,
    /// Sources to append, with their positions.
    pub sources: Vec<(u16, Source)>,
    /// See [`Plan::next_generation`].
    pub next_generation: u16,
}

/// What a change under way replaces: an agent that finds it half done writes nothing there.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Replaced {
    /// Ring regions that packets may still use.
    pub regions: Vec<Region>,
    /// Backends that are to be removed.
    pub backends: BTreeMap<u32, Backend>,
}

impl Delta {
    /// From one plan to another.
    pub fn between(have: &Plan, want: &Plan) -> Self {
        Self {
            services: difference(&have.services, &want.services),
            backends: difference(&have.backends, &want.backends),
            sources: want
                .sources
                .iter()
                .enumerate()
                .filter(|(at, source)| have.sources.get(*at) != Some(source))
                .map(|(at, source)| (at as u16, *source))
                .collect(),
            next_generation: want.next_generation,
        }
    }

    /// Whether nothing that maps hold changes.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.backends.is_empty() && self.sources.is_empty()
    }
}

impl Plan {
    /// Changes this plan; what was replaced is returned.
    pub fn apply(&mut self, delta: &Delta) -> Replaced {
        let mut replaced = Replaced::default();
        for (address, service) in &delta.services {
            let old = match service {
                Some(service) => self.services.insert(*address, service.clone()),
                None => self.services.remove(address),
            };
            let region = |service: &Service| service.mode.ring().map(|ring| ring.region);
            let now = service.as_ref().and_then(region);
            let had = old.as_ref().and_then(region);
            replaced.regions.extend(had.filter(|had| Some(*had) != now));
        }
        for (id, backend) in &delta.backends {
            match backend {
                Some(backend) => drop(self.backends.insert(*id, backend.clone())),
                None => {
                    if let Some(old) = self.backends.remove(id) {
                        replaced.backends.insert(*id, old);
                    }
                }
            }
        }
        for (at, source) in &delta.sources {
            let at = usize::from(*at);
            if at < self.sources.len() {
                self.sources[at] = *source;
            } else {
                self.sources.push(*source);
            }
        }
        self.next_generation = delta.next_generation;
        replaced
    }

    /// What maps may hold after a change to this plan that stopped half way: nothing that it replaced is free, and
    /// backends that were to be removed are still there.
    pub fn interrupted(&mut self, replaced: &Replaced) {
        self.reserved.extend_from_slice(&replaced.regions);
        for (id, backend) in &replaced.backends {
            self.backends.entry(*id).or_insert_with(|| backend.clone());
        }
    }
}

fn difference<K: Copy + Ord, V: Clone + PartialEq>(
    have: &BTreeMap<K, V>,
    want: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = have.keys().filter(|key| !want.contains_key(key));
    let mut differs: BTreeMap<K, Option<V>> = gone.map(|key| (*key, None)).collect();
    for (key, value) in want {
        if have.get(key) != Some(value) {
            differs.insert(*key, Some(value.clone()));
        }
    }
    differs
}
