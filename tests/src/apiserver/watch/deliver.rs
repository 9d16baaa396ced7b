//! Events on their way to one client, with the faults that meet them there.

use std::{io, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    super::{
        Shared,
        faults::Older,
        store::{Change, Happened, Stored},
    },
    Parts, Watch,
};

/// How often a silent watch looks whether it may speak again.
const SILENCE_STEP: Duration = Duration::from_millis(20);

/// A change as one client sees it.
pub(super) struct Event {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) name: &'static str,
    pub(super) object: Arc<Stored>,
    /// What a change changed; none if that is nothing to this client.
    pub(super) before: Option<Arc<Stored>>,
}

impl Watch {
    /// The event that a change is to this client: by what the selectors held for before and after.
    pub(super) fn event(&self, change: &Change) -> Option<Event> {
        let inside = |object: &Stored| {
            let namespace = self.target.namespace.as_deref();
            namespace.is_none_or(|namespace| namespace == object.key.namespace)
                && self.selector.matches(object)
        };
        let was = change.before.as_deref().is_some_and(inside);
        let is = change.happened != Happened::Deleted && inside(&change.object);
        let name = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        let object = match &change.before {
            // Out of the selector: the client gets the state that it knows, with the revision of now.
            Some(known) if name == "DELETED" && change.happened != Happened::Deleted => {
                Arc::new(known.as_of(change.revision))
            }
            _ => Arc::clone(&change.object),
        };
        let before = change.before.clone().filter(|_| name == "MODIFIED");
        Some(Event {
            name,
            object,
            before,
        })
    }

    /// Waits while watches are to be silent.
    pub(super) async fn voice(&self, shared: &Shared) {
        while shared.faults().watches[self.target.resource.index()].silent {
            sleep(SILENCE_STEP).await;
        }
    }

    /// None when the client is gone, or its connection was broken.
    pub(super) async fn deliver(
        &self,
        shared: &Shared,
        parts: &Parts,
        event: &Event,
    ) -> Option<()> {
        let resource = self.target.resource;
        self.voice(shared).await;
        let faults = shared.faults().watches[resource.index()];
        if !faults.delay.is_zero() {
            sleep(faults.delay).await;
        }
        let line = self.line(event.name, &event.object);
        if shared.faults().tear(resource) {
            let half = line.slice(..line.len() / 2);
            parts.send(Ok(half)).await.ok()?;
            // Let the half go out before the connection breaks.
            sleep(Duration::from_millis(20)).await;
            let _ = cut(parts).await;
            return None;
        }
        let times = if faults.duplicate { 2 } else { 1 };
        for _ in 0..times {
            parts.send(Ok(line.clone())).await.ok()?;
        }
        if let (Some(older), Some(before)) = (faults.older, &event.before) {
            parts.send(Ok(self.line("MODIFIED", before))).await.ok()?;
            if older == Older::ThenNewer {
                parts.send(Ok(line)).await.ok()?;
            }
        }
        Some(())
    }
}

/// Breaks the connection in the middle of the answer.
pub(super) async fn cut(parts: &Parts) -> Result<(), ()> {
    let broken = io::Error::new(io::ErrorKind::ConnectionReset, "cut by a test");
    parts.send(Err(broken)).await.map_err(drop)
}
