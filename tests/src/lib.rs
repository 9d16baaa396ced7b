//! What the privileged and end-to-end tests share.

pub mod render;
