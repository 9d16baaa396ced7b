//! What the privileged and end-to-end tests share.
//!
//! Packet behaviour is one table of rows ([`fixtures`]). A row is run on slices ([`slices`]) and in
//! the kernel ([`kernel`]), and both must do what the row says, byte for byte alike. After each frame the
//! books must balance ([`ledger`]), and [`lockstep`] runs both at once, also on every packet cut short.
//!
//! A Kubernetes API server in this process ([`apiserver`]) is what everything that talks to Kubernetes is tested against.
//!
//! Slow and hostile clients ([`hostile`]) attack the proxy as a process, beside a client that must not notice.
//!
//! The end-to-end tests ([`e2e`]) run the agent itself, as a process, on the lab's real connections.

pub mod apiserver;
pub mod chaos;
pub mod corpus;
pub mod costs;
pub mod e2e;
pub mod fixtures;
pub mod fleet;
pub mod fuzz_proxy;
pub mod hostile;
pub mod kernel;
pub mod ledger;
pub mod lockstep;
pub mod mixed;
pub mod packets;
pub mod random;
pub mod render;
pub mod row;
pub mod six;
pub mod slices;
pub mod timeline;
pub mod world;
