//! From one plan to the next, in steps that are safe to stop after.

use super::model::{Backend, BackendState, Mode, Plan, Ring, Service, ServiceAddr, Source};

/// One change of the maps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Write a source address that no backend uses yet.
    Source(u16, Source),
    /// Write a backend.
    Backend {
        /// Its id.
        id: u32,
        /// What to write.
        backend: Backend,
        /// Another pod than before: its counters start anew.
        fresh: bool,
    },
    /// Fill a region that no service uses yet.
    Ring(Ring),
    /// Replace or add a service entry: the one step that packets notice.
    Service {
        /// Its address.
        address: ServiceAddr,
        /// What to write.
        service: Service,
        /// A new address: its counters start anew.
        fresh: bool,
    },
    /// Remove a service entry.
    RemoveService(ServiceAddr),
    /// Wait until no packet can hold what was replaced.
    Grace,
    /// Clear a backend entry.
    RemoveBackend(u32),
}

/// Steps from `have` to `want`: what is aside first, then the flips, then, after a grace period,
/// what nothing points to any more.
pub fn diff(have: &Plan, want: &Plan) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, source) in want.sources.iter().enumerate() {
        if have.sources.get(at) != Some(source) {
            steps.push(Step::Source(at as u16, *source));
        }
    }
    let mut late = Vec::new();
    for (id, backend) in &want.backends {
        let old = have.backends.get(id);
        if old == Some(backend) {
            continue;
        }
        let fresh = old.is_none_or(|old| old.key != backend.key);
        let step = Step::Backend {
            id: *id,
            backend: backend.clone(),
            fresh,
        };
        // The old ring still points here until the flip.
        if backend.state == BackendState::Active {
            &mut steps
        } else {
            &mut late
        }
        .push(step);
    }
    let mut flips = Vec::new();
    for (address, service) in &want.services {
        let old = have.services.get(address);
        if old == Some(service) {
            continue;
        }
        if let Mode::Connection(ring) = &service.mode
            && old.is_none_or(|old| old.mode != service.mode)
        {
            steps.push(Step::Ring(ring.clone()));
        }
        let fresh = old.is_none();
        flips.push(Step::Service {
            address: *address,
            service: service.clone(),
            fresh,
        });
    }
    steps.append(&mut flips);
    for address in have.services.keys() {
        if !want.services.contains_key(address) {
            steps.push(Step::RemoveService(*address));
        }
    }
    for id in have.backends.keys() {
        if !want.backends.contains_key(id) {
            late.push(Step::RemoveBackend(*id));
        }
    }
    if !steps.is_empty() || !late.is_empty() {
        steps.push(Step::Grace);
    }
    steps.append(&mut late);
    steps
}
