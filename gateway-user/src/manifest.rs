//! Kubernetes objects as written, and the snapshot of all of them.
//!
//! Pure: bytes in, values and [`Problem`](crate::problem::Problem)s out. Invariant: this room knows what
//! objects *look* like, never what they *mean*; annotations stay strings here.

mod decode;
mod documents;
pub mod edit;
pub mod object;
pub mod parse;
pub mod snapshot;
mod yaml;

pub use decode::{MOST_WEIGHT, too_heavy_text};
pub use edit::{Changes, Edit, Key, Reach};
pub use object::*;
pub use parse::{Broken, Limits, Object, Origin, Parsed, object as object_of, parse};
pub use snapshot::{
    ClusterObjects, File, SERVICE_NAME, Snapshot, bundle, snapshot, snapshot_after,
};
