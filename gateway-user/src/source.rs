//! Where snapshots come from. Invariant: a source hands out whole snapshots, and never less than it once had only
//! because something could not be read.

pub mod bundle;
pub mod directory;
pub mod feed;
pub mod kubernetes;
mod listing;
mod watching;

pub use bundle::read_bundle;
pub use directory::{DirectorySource, Published};
pub use feed::{Reader, Writer, feed};
pub use listing::Bounds;

#[cfg(test)]
mod tests;
