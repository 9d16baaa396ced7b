//! Follows a directory: kernel notifications first, comparing content as a safety net.

use std::{
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tracing::{info, warn};

use super::{DirectorySource, Writer, listing};

/// A burst of writes is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is read after this long.
const LONGEST_BURST: Duration = Duration::from_millis(400);
/// Content is compared this often in case a notification was lost.
const POLL: Duration = Duration::from_secs(2);
/// The same where the kernel cannot notify us.
const POLL_ALONE: Duration = Duration::from_millis(500);

/// Publishes every change until nobody listens.
pub(super) fn follow(mut source: DirectorySource, feed: &Writer) {
    // One slot: a burst of events is one reason to look.
    let (wake, woken) = sync_channel(1);
    let mut eye = Eye::default();
    loop {
        let watching = eye.look_at(source.root(), &wake);
        // Also right after the watch was (re)made: what changed before it was not reported.
        if let Some(edits) = source.edits() {
            info!(edits = edits.len(), "manifests changed");
            feed.send(edits);
        }
        wait(&woken, if watching { POLL } else { POLL_ALONE });
        if feed.is_closed() {
            return;
        }
    }
}

fn wait(woken: &Receiver<()>, longest: Duration) {
    match woken.recv_timeout(longest) {
        Ok(()) => {
            let start = Instant::now();
            while start.elapsed() < LONGEST_BURST && woken.recv_timeout(QUIET).is_ok() {}
        }
        Err(RecvTimeoutError::Timeout) => {}
        // No watcher holds the other end: wait like one that stays silent.
        Err(RecvTimeoutError::Disconnected) => std::thread::sleep(longest),
    }
}

/// The kernel watch, which belongs to a directory and not to its name.
#[derive(Default)]
struct Eye {
    on: Option<((u64, u64), RecommendedWatcher)>,
    told: bool,
}

impl Eye {
    /// Watches `root`, anew if another directory took its name. Whether the kernel will notify us.
    fn look_at(&mut self, root: &Path, wake: &SyncSender<()>) -> bool {
        let Ok(identity) = listing::identity(root) else {
            self.on = None;
            return false;
        };
        if self
            .on
            .as_ref()
            .is_some_and(|(watched, _)| *watched == identity)
        {
            return true;
        }
        match open(root, wake.clone()) {
            Ok(watcher) => {
                self.on = Some((identity, watcher));
                true
            }
            Err(error) => {
                self.on = None;
                if !self.told {
                    warn!(directory = %root.display(), %error, "cannot watch manifests, comparing them twice a second");
                    self.told = true;
                }
                false
            }
        }
    }
}

fn open(root: &Path, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is reported too; waking for it would never end.
        let ours = event.as_ref().is_ok_and(|event| {
            matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
        });
        if !ours {
            // A full slot already says what we came to say.
            let _ = wake.try_send(());
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}
