//! How a path is read: by the folders of a manifest directory, or as one bundle.

use std::{collections::BTreeSet, fmt, path::Path};

use serde::Serialize;

use crate::{
    manifest::{ClusterId, Object},
    source::{Bounds, DirectorySource, Published, read_bundle},
};

/// How a path was read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `fleet/` and `clusters/<id>/`, as `run --manifests` reads it.
    #[default]
    Folders,
    /// A file, or a directory with neither of the two: all YAML in it.
    Bundle,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folders => "fleet/ and clusters/<id>/",
            Self::Bundle => "one bundle: Services and EndpointSlices count in the first cluster",
        })
    }
}

/// The member of a bundle that names none.
const IMPLIED: &str = "local";
/// Members that a bundle can name: more than any gateway has.
const MOST: usize = 64;
const REMOTE: &str = "alb.ingress.kubernetes.io/remote-clusters";
const WEIGHT: &str = "alb.ingress.kubernetes.io/cluster-weight.";

/// Reads `path` once.
pub(super) fn read(path: &Path) -> (Layout, Published) {
    let folder = |name: &str| path.join(name).is_dir();
    // What is not there at all is told as a missing manifest directory.
    if folder("fleet") || folder("clusters") || !path.exists() {
        let read = DirectorySource::new(path, Bounds::default()).read();
        return (Layout::Folders, read);
    }
    let read = read_bundle(path, Bounds::default(), members);
    (Layout::Bundle, read)
}

/// The clusters that AlbConfigs name; or those that Ingresses give a weight; or one that stands for all.
fn members(objects: &[Object]) -> Vec<ClusterId> {
    let mut remote = BTreeSet::new();
    let mut weighted = BTreeSet::new();
    for object in objects {
        match object {
            Object::AlbConfig(it) => {
                let named = it.metadata.annotations.get(REMOTE);
                let named = named.into_iter().flat_map(|text| text.split(','));
                remote.extend(named.map(str::trim));
            }
            Object::Ingress(it) => {
                let keys = it.metadata.annotations.keys();
                weighted.extend(keys.filter_map(|key| key.strip_prefix(WEIGHT)));
            }
            _ => {}
        }
    }
    let valid = |names: BTreeSet<&str>| -> Vec<ClusterId> {
        let names = names.into_iter().filter_map(ClusterId::new);
        names.take(MOST).collect()
    };
    let mut named = valid(remote);
    if named.is_empty() {
        named = valid(weighted);
    }
    if named.is_empty() {
        named.push(ClusterId(IMPLIED.into()));
    }
    named
}
