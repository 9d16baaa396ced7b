//! What the privileged and end-to-end tests share.
//!
//! Packet behaviour is one table of rows ([`fixtures`]). A row is run on slices ([`slices`]) and in
//! the kernel ([`kernel`]), and both must do what the row says, byte for byte alike.

pub mod fixtures;
pub mod kernel;
pub mod packets;
pub mod render;
pub mod row;
pub mod slices;
pub mod world;
