//! What may be published, and when: at the start nothing, then everything at once, then every change.

use std::{cell::RefCell, collections::BTreeSet};

use tokio::time::Instant;

use super::{
    super::feed::{Reader, Writer, feed},
    resource::Resource,
};
use crate::manifest::{ClusterId, Edit};

/// The door to the feed.
#[derive(Debug)]
pub(super) struct Gate {
    out: Writer,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// What waits, conflated like everything that waits for the agent; `None` once the gate is open.
    held: Option<(Writer, Reader)>,
    /// Lists without which nothing is published.
    required: BTreeSet<Resource>,
    /// Lists that are waited for, for a while.
    wanted: BTreeSet<Resource>,
    /// Members that are waited for, for a while.
    members: BTreeSet<ClusterId>,
    /// The end of the while; set when nothing required is missing any more.
    deadline: Option<Instant>,
    wait: std::time::Duration,
    whole: bool,
}

impl Gate {
    pub(super) fn new(out: Writer, wanted: &[Resource], wait: std::time::Duration) -> Self {
        Self {
            out,
            state: RefCell::new(State {
                held: Some(feed()),
                required: Resource::FLEET.into(),
                wanted: wanted.iter().copied().collect(),
                members: BTreeSet::new(),
                deadline: None,
                wait,
                whole: false,
            }),
        }
    }

    /// Nobody reads the feed any more.
    pub(super) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Hands edits on, together, or holds them.
    pub(super) fn send(&self, edits: Vec<Edit>) {
        if edits.is_empty() {
            return;
        }
        match &self.state.borrow().held {
            Some((held, _)) => held.send(edits),
            None => self.out.send(edits),
        }
    }

    /// A member came before the first publication.
    pub(super) fn expect(&self, member: ClusterId) {
        let mut state = self.state.borrow_mut();
        if state.held.is_some() {
            state.members.insert(member);
        }
    }

    /// A member was listed, or is none any more.
    pub(super) fn settled(&self, member: &ClusterId, now: Instant) {
        self.state.borrow_mut().members.remove(member);
        self.look(now);
    }

    /// A list of the fleet is there, or will not be.
    pub(super) fn fleet(&self, resource: Resource, now: Instant) {
        {
            let mut state = self.state.borrow_mut();
            state.required.remove(&resource);
            state.wanted.remove(&resource);
        }
        self.look(now);
    }

    /// Opens if it is time to. Whether it opened just now.
    pub(super) fn look(&self, now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        if !state.required.is_empty() {
            return false;
        }
        let wait = state.wait;
        let deadline = *state.deadline.get_or_insert(now + wait);
        // Without the list of members an agent cannot know whether what it serves has gone from everywhere.
        let whole = !state.wanted.contains(&Resource::ClusterSecrets);
        let complete = state.members.is_empty() && state.wanted.is_empty();
        if state.held.is_some() {
            if !complete && now < deadline {
                return false;
            }
            let held = state.held.take().and_then(|(_, mut held)| held.take_now());
            state.whole = whole;
            let edits = held.unwrap_or_default();
            tracing::info!(edits = edits.len(), whole, "the fleet was read");
            self.out.send(edits.into_iter().chain([Edit::Whole(whole)]));
            return true;
        }
        if whole && !state.whole {
            state.whole = true;
            self.out.send([Edit::Whole(true)]);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::manifest::Reach;

    fn cluster() -> ClusterId {
        ClusterId("c1".into())
    }

    fn put() -> Vec<Edit> {
        vec![Edit::Cluster(cluster(), Reach::Unknown)]
    }

    const WAIT: Duration = Duration::from_secs(5);

    #[test]
    fn nothing_is_published_before_the_fleet_was_read() {
        let (writer, mut reader) = feed();
        let (gate, now) = (Gate::new(writer, &[], WAIT), Instant::now());
        gate.send(put());
        gate.fleet(Resource::AlbConfigs, now);
        gate.fleet(Resource::IngressClasses, now);
        assert!(!gate.look(now + WAIT * 100));
        assert_eq!(reader.take_now(), None);
        gate.fleet(Resource::Ingresses, now);
        let mut first = put();
        first.push(Edit::Whole(true));
        assert_eq!(reader.take_now(), Some(first));
        gate.send(put());
        assert_eq!(reader.take_now(), Some(put()));
    }

    #[test]
    fn members_are_waited_for_but_not_for_ever() {
        for late in [false, true] {
            let (writer, mut reader) = feed();
            let (gate, now) = (Gate::new(writer, &[], WAIT), Instant::now());
            gate.expect(cluster());
            gate.send(put());
            for resource in Resource::FLEET {
                gate.fleet(resource, now);
            }
            assert_eq!(reader.take_now(), None);
            if late {
                assert!(!gate.look(now + WAIT / 2));
                assert!(gate.look(now + WAIT));
            } else {
                gate.settled(&cluster(), now);
            }
            assert!(reader.take_now().is_some());
        }
    }

    #[test]
    fn without_the_list_of_members_the_source_is_not_whole() {
        let (writer, mut reader) = feed();
        let wanted = [Resource::Certificates, Resource::ClusterSecrets];
        let (gate, now) = (Gate::new(writer, &wanted, WAIT), Instant::now());
        for resource in Resource::FLEET {
            gate.fleet(resource, now);
        }
        gate.look(now + WAIT);
        assert_eq!(reader.take_now(), Some(vec![Edit::Whole(false)]));
        gate.fleet(Resource::ClusterSecrets, now);
        assert_eq!(reader.take_now(), Some(vec![Edit::Whole(true)]));
    }
}
