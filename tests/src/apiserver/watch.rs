//! Watches: the answer that goes on, one JSON event a line.

mod wire;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Shared,
    faults::{Older, Signal},
    query::Query,
    read::{self, Shape},
    refusal::Refusal,
    resource::Target,
    selector::Selector,
    store::{Change, Happened, Stored},
};

use wire::error_event;

/// Parts of the body of an answer; an error breaks the connection.
pub(super) type Parts = Sender<io::Result<Bytes>>;

/// Events on their way to one client, at most.
pub(super) const AHEAD: usize = 64;
/// How long an event waits for a neighbour to change places with.
const SWAP_PATIENCE: Duration = Duration::from_millis(250);
/// How long a watch lasts that does not say. The real server picks 30 to 60 minutes.
const TIMEOUT_DEFAULT: u64 = 1_800;

/// A watch that was asked for and found sound.
pub(super) struct Watch {
    target: Target,
    selector: Selector,
    shape: Shape,
    bookmarks: bool,
    deadline: Instant,
    start: Start,
    seen: Signal,
}

enum Start {
    /// These states first, as events, then the changes after `revision`.
    From {
        states: Vec<Arc<Stored>>,
        revision: u64,
        /// The client wants to be told where the states end.
        mark_end: bool,
    },
    /// The version is too old: told in an event.
    Gone(Refusal),
}

struct Event {
    name: &'static str,
    object: Arc<Stored>,
    before: Option<Arc<Stored>>,
}

/// Why a watch ends from outside.
enum End {
    Told(Signal),
    Timeout,
    Over,
    /// The history it would have to read is gone.
    TooSlow,
}

impl Watch {
    /// Reads what the request asks for.
    ///
    /// Source: "Semantics for watch" and "Streaming lists" in
    /// <https://kubernetes.io/docs/reference/using-api/api-concepts/>.
    pub(super) fn open(
        shared: &Shared,
        target: &Target,
        query: &Query,
        shape: Shape,
    ) -> Result<Self, Refusal> {
        let resource = target.resource;
        let selector = Selector::parse(resource, query)?;
        let version = query.number("resourceVersion")?;
        let rule = query.text("resourceVersionMatch");
        let initial = query.text("sendInitialEvents");
        let forbidden = |field: &str, why: &str| {
            let cause = (field.to_owned(), format!("Forbidden: {why}"));
            Refusal::invalid("ListOptions.meta.k8s.io", "", &[cause])
        };
        match (initial, rule) {
            (None, Some(_)) => {
                return Err(forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            (Some(_), rule) if rule != Some("NotOlderThan") => {
                return Err(forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            _ => {}
        }
        let bookmarks = query.flag("allowWatchBookmarks");
        let seconds = query
            .number("timeoutSeconds")?
            .filter(|seconds| *seconds > 0);
        let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(TIMEOUT_DEFAULT));
        let gone_as_status = shared.faults().gone_as_status;
        let stale = shared.faults().stale;

        let store = shared.store();
        let now = store.revision();
        let oldest = store.oldest(resource);
        let with_states = match (initial, version) {
            (Some(_), _) => query.flag("sendInitialEvents"),
            (None, version) => matches!(version, None | Some(0)),
        };
        let start = match version {
            Some(version) if with_states && version > now => {
                return Err(Refusal::too_large(version, now));
            }
            _ if with_states => {
                let at = stale.filter(|_| version == Some(0)).unwrap_or(now);
                Start::From {
                    states: read::matching(&store, target, &selector, at)?,
                    revision: at,
                    mark_end: initial.is_some() && bookmarks,
                }
            }
            None | Some(0) => Start::From {
                states: Vec::new(),
                revision: now,
                mark_end: false,
            },
            Some(version) if version < oldest => {
                let refusal =
                    Refusal::expired(format!("too old resource version: {version} ({oldest})"));
                if gone_as_status {
                    return Err(refusal);
                }
                Start::Gone(refusal)
            }
            // A version that has not come yet is not refused: the client sees nothing until it has.
            Some(version) => Start::From {
                states: Vec::new(),
                revision: version,
                mark_end: false,
            },
        };
        Ok(Self {
            target: target.clone(),
            selector,
            shape,
            bookmarks,
            deadline,
            start,
            seen: shared.signal(resource),
        })
    }

    /// Writes events until the client, the clock or a fault ends the watch.
    pub(super) async fn run(self, shared: Arc<Shared>, parts: Parts) {
        let resource = self.target.resource;
        let mut signals = shared.signals();
        let sent = AtomicU64::new(0);
        let told = async {
            match signals
                .wait_for(|all| all[resource.index()] != self.seen)
                .await
            {
                Ok(all) => End::Told(all[resource.index()]),
                Err(_) => End::Over,
            }
        };
        let end = tokio::select! {
            biased;
            end = told => end,
            () = parts.closed() => End::Over,
            () = sleep_until(self.deadline) => End::Timeout,
            end = self.pump(&shared, &parts, &sent) => end.unwrap_or(End::Over),
        };
        // What the client does not take is dropped with the connection; nothing to do about it.
        let _ = match end {
            End::Told(now) if now.cut != self.seen.cut => cut(&parts).await,
            End::Told(now) if now.expire != self.seen.expire => {
                let refusal =
                    Refusal::expired("The resourceVersion for the provided watch is too old.");
                parts.send(Ok(error_event(&refusal))).await.map_err(drop)
            }
            End::TooSlow => {
                let refusal = Refusal::expired("too old resource version: the history is gone");
                parts.send(Ok(error_event(&refusal))).await.map_err(drop)
            }
            End::Timeout => match sent.load(Ordering::Relaxed) {
                revision if revision > 0 && self.bookmarks => parts
                    .send(Ok(self.bookmark(revision, false)))
                    .await
                    .map_err(drop),
                _ => Ok(()),
            },
            End::Told(_) | End::Over => Ok(()),
        };
    }

    /// None when nothing is left to say, or nobody to say it to. `sent`: the revision up to which the client has
    /// every event, 0 while it has not.
    async fn pump(&self, shared: &Shared, parts: &Parts, sent: &AtomicU64) -> Option<End> {
        let resource = self.target.resource;
        let (states, mut position, mark_end) = match &self.start {
            Start::Gone(refusal) => {
                parts.send(Ok(error_event(refusal))).await.ok()?;
                return None;
            }
            Start::From {
                states,
                revision,
                mark_end,
            } => (states, *revision, *mark_end),
        };
        let mut wake = shared.store().wake(resource);
        for object in states {
            let event = Event {
                name: "ADDED",
                object: Arc::clone(object),
                before: None,
            };
            self.deliver(shared, parts, &event).await?;
        }
        if mark_end {
            parts.send(Ok(self.bookmark(position, true))).await.ok()?;
        }
        let mut held: Option<Event> = None;
        let mut next_bookmark = Instant::now() + shared.bookmark_every();
        loop {
            wake.mark_unchanged();
            let (changes, revision) = {
                let store = shared.store();
                (store.changes_after(resource, position), store.revision())
            };
            let Some(changes) = changes else {
                return Some(End::TooSlow);
            };
            if !changes.is_empty() {
                sent.store(0, Ordering::Relaxed);
            }
            for event in changes.iter().filter_map(|change| self.event(change)) {
                let swap = shared.faults().watches[resource.index()].swap;
                match held.take() {
                    None if swap => held = Some(event),
                    Some(first) if swap && first.object.key != event.object.key => {
                        self.deliver(shared, parts, &event).await?;
                        self.deliver(shared, parts, &first).await?;
                    }
                    first => {
                        if let Some(first) = first {
                            self.deliver(shared, parts, &first).await?;
                        }
                        self.deliver(shared, parts, &event).await?;
                    }
                }
            }
            // A version from the future stays where it is until the server has come there.
            position = position.max(revision);
            if held.is_some() {
                let waited = timeout(SWAP_PATIENCE, wake.changed()).await;
                if waited.is_err()
                    && let Some(first) = held.take()
                {
                    self.deliver(shared, parts, &first).await?;
                }
                continue;
            }
            sent.store(position, Ordering::Relaxed);
            let until = sleep_until(next_bookmark);
            tokio::select! {
                changed = wake.changed() => changed.ok()?,
                () = until => {
                    next_bookmark = Instant::now() + shared.bookmark_every();
                    let revision = {
                        // Nothing of this resource may have come in between.
                        let store = shared.store();
                        let quiet = store.changes_after(resource, position).is_some_and(|new| new.is_empty());
                        quiet.then(|| store.revision())
                    };
                    if let Some(revision) = revision {
                        position = position.max(revision);
                        sent.store(position, Ordering::Relaxed);
                        if self.bookmarks {
                            parts.send(Ok(self.bookmark(position, false))).await.ok()?;
                        }
                    }
                }
            }
        }
    }

    /// The event that a change is to this client: by what the selectors held for before and after.
    fn event(&self, change: &Change) -> Option<Event> {
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
        let before = change.before.clone().filter(|_| name == "MODIFIED");
        Some(Event {
            name,
            object: Arc::clone(&change.object),
            before,
        })
    }

    async fn deliver(&self, shared: &Shared, parts: &Parts, event: &Event) -> Option<()> {
        let resource = self.target.resource;
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
async fn cut(parts: &Parts) -> Result<(), ()> {
    let broken = io::Error::new(io::ErrorKind::ConnectionReset, "cut by a test");
    parts.send(Err(broken)).await.map_err(drop)
}
