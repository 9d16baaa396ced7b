//! A directory of plain Kubernetes YAML: `fleet/**` and `clusters/<id>/**`.

use std::{io, path::PathBuf};

use super::{
    Writer,
    listing::{self, Bounds, Listing},
    watching,
};
use crate::{
    manifest::{self, Broken, Edit, Limits, Snapshot},
    problem::Problem,
};

/// One state of a source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Published {
    /// All objects, with the last good version of what is broken now.
    pub snapshot: Snapshot,
    /// What could not be read or decoded, sorted by object.
    pub problems: Vec<Problem>,
}

impl Published {
    pub(super) fn new(mut snapshot: Snapshot, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        for problem in &problems {
            let about = snapshot.problems.entry(problem.object.clone()).or_default();
            about.push(problem.clone());
        }
        Self { snapshot, problems }
    }
}

/// What could not be listed is a problem, and broken in the snapshot.
pub(super) fn add_gaps(listing: &Listing, snapshot: &mut Snapshot, problems: &mut Vec<Problem>) {
    for gap in &listing.gaps {
        problems.push(gap.problem.clone());
        if let Some(folder) = &gap.unseen {
            snapshot.broken.push(Broken {
                file: folder.as_str().into(),
                object: None,
            });
        }
    }
}

/// Reads a manifest directory, once or again whenever it changes.
#[derive(Debug)]
pub struct DirectorySource {
    root: PathBuf,
    pub(super) bounds: Bounds,
    listing: Option<Listing>,
    published: Option<Published>,
}

impl DirectorySource {
    /// A source over `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>, bounds: Bounds) -> Self {
        Self {
            root: root.into(),
            bounds,
            listing: None,
            published: None,
        }
    }

    /// The directory.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Reads everything, whether it changed or not. Never fails: what cannot be read is a problem, and what was read
    /// before stands in for it.
    pub fn read(&mut self) -> Published {
        self.listing = None;
        self.changed().unwrap_or_default()
    }

    /// Reads everything; `None` when nothing differs from the time before.
    pub fn changed(&mut self) -> Option<Published> {
        let listing = listing::list(&self.root, self.bounds);
        if self.listing.as_ref() == Some(&listing) {
            return None;
        }
        let limits = Limits {
            file_bytes: self.bounds.file_bytes,
            ..Limits::default()
        };
        let none = Snapshot::default();
        let before = self.published.as_ref().map_or(&none, |it| &it.snapshot);
        let (mut snapshot, mut problems) = manifest::snapshot_after(
            before,
            listing.clusters.clone(),
            listing.files.clone(),
            limits,
        );
        add_gaps(&listing, &mut snapshot, &mut problems);
        snapshot.whole = !snapshot.unread();
        if let Some(before) = &self.published {
            snapshot.keep_last_good(&before.snapshot);
        }
        let published = Published::new(snapshot, problems);
        self.listing = Some(listing);
        self.published = Some(published.clone());
        Some(published)
    }

    /// Follows the directory from a thread of its own until nobody reads the feed.
    ///
    /// A change is published about 100 ms after the last write to a file; changes that the kernel does not report (a
    /// link to elsewhere, a network file system) are found within 2 s. Fails only when no thread can be started.
    pub fn follow(self, feed: Writer) -> io::Result<()> {
        std::thread::Builder::new()
            .name("manifests".to_owned())
            .spawn(move || watching::follow(self, &feed))?;
        Ok(())
    }

    /// As [`changed`](Self::changed), as edits since the time before.
    pub(super) fn edits(&mut self) -> Option<Vec<Edit>> {
        let before = self.published.clone();
        let now = self.changed()?;
        let none = Snapshot::default();
        Some(
            now.snapshot
                .edits_since(before.as_ref().map_or(&none, |it| &it.snapshot)),
        )
    }
}
