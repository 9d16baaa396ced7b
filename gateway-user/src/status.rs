//! What Fleetgate writes back to the fleet: status of AlbConfigs and Ingresses, and Events.
//!
//! `View -> wanted -> Wanted -> (thread) ledger, told -> API server`. Invariant: a node that does not hold the Lease
//! writes nothing but the Lease, and nobody waits for the API server.

mod api;
mod backoff;
mod bucket;
mod counters;
mod election;
mod lease;
mod ledger;
mod notice;
mod publisher;
mod thread;
mod told;
mod view;
mod wanted;

pub use counters::{Counters, Outcome, Written};
pub use ledger::MANAGER;
pub use notice::{NOTE_BYTES, Notice, Reason};
pub use thread::{Error, Handle, Options, Timing, identity, pod_namespace, start};
pub use view::{CertificateView, GatewayView, IngressView, ListenerView, View};
pub use wanted::{Document, Fields, Kind, Target, Wanted, wanted};
