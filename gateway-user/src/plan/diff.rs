//! From one plan to the next, in steps that are safe to stop after.

use super::{
    access::Access,
    delta::Delta,
    model::{Backend, BackendState, Mode, Plan, Ring, Service, ServiceAddr, Source},
};

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
    /// Write an access list that no service uses yet.
    List(Access),
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
    /// Clear an access list.
    RemoveList(Access),
}

/// Steps from `have` to `want`.
pub fn diff(have: &Plan, want: &Plan) -> Vec<Step> {
    steps(have, &Delta::between(have, want))
}

/// Steps that carry `delta` out on `have`: what is aside first, then the flips, then, after a grace period, what
/// nothing points to any more.
pub fn steps(have: &Plan, delta: &Delta) -> Vec<Step> {
    let mut steps: Vec<Step> = delta
        .sources
        .iter()
        .map(|(at, source)| Step::Source(*at, *source))
        .collect();
    let mut late = Vec::new();
    for (id, backend) in &delta.backends {
        let Some(backend) = backend else {
            continue;
        };
        let old = have.backends.get(id);
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
    let mut removed = Vec::new();
    for (address, service) in &delta.services {
        let list = |it: Option<&Service>| it.and_then(|it| it.access.clone());
        let (had, now) = (list(have.services.get(address)), list(service.as_ref()));
        if had != now {
            steps.extend(now.map(Step::List));
            late.extend(had.map(Step::RemoveList));
        }
        let Some(service) = service else {
            removed.push(Step::RemoveService(*address));
            continue;
        };
        let old = have.services.get(address);
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
    steps.append(&mut removed);
    for (id, backend) in &delta.backends {
        if backend.is_none() {
            late.push(Step::RemoveBackend(*id));
        }
    }
    if !steps.is_empty() || !late.is_empty() {
        steps.push(Step::Grace);
    }
    steps.append(&mut late);
    steps
}
