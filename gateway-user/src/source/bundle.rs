//! Any file or directory of Kubernetes YAML, read once: what a chart renders, what a repository holds.

use std::path::Path;

use super::{
    directory::{Published, add_gaps},
    listing::{self, Bounds},
};
use crate::manifest::{self, ClusterId, Limits, Object};

/// Reads everything below `path` (or that one file) as one [bundle](manifest::bundle). Never fails: what cannot be read is
/// a problem.
pub fn read_bundle(
    path: &Path,
    bounds: Bounds,
    members: impl FnOnce(&[Object]) -> Vec<ClusterId>,
) -> Published {
    let mut listing = listing::list_all(path, bounds);
    let limits = Limits {
        file_bytes: bounds.file_bytes,
        ..Limits::default()
    };
    let files = std::mem::take(&mut listing.files);
    let (mut snapshot, mut problems) = manifest::bundle(files, members, limits);
    add_gaps(&listing, &mut snapshot, &mut problems);
    snapshot.whole = !snapshot.unread();
    Published::new(snapshot, problems)
}
