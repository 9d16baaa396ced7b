//! Kubernetes objects as written, and the snapshot of all of them.
