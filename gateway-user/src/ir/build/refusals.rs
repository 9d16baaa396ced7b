//! What is understood but cannot be executed yet: refused with a problem, never dropped.
//!
//! A refused rule stays in its place and answers 503, so that no later rule serves what it would have decided. A refused
//! listener takes no connections.

use crate::ir::model::{ListenerProtocol, ListenerSettings};

/// Why a listener is not served; `None` when it is.
pub(super) fn listener(protocol: ListenerProtocol, settings: &ListenerSettings) -> Option<String> {
    match protocol {
        ListenerProtocol::Http => {}
        ListenerProtocol::Https | ListenerProtocol::Quic => {
            return Some(format!("{protocol} is not served yet"));
        }
    }
    settings.access.is_some().then(|| {
        "access lists are not executed yet, and without its list it would be open to everyone"
            .to_owned()
    })
}
