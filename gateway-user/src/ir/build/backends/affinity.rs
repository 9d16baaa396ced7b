//! `sessionAffinity` of a Service.

use super::member;
use crate::{
    ir::build::notes::Notes,
    manifest::{ClusterId, Service},
};

/// Of a Service that does not say (`core/v1`, `DefaultClientIPServiceAffinitySeconds`).
const DEFAULT: u32 = 10_800;
/// "The value must be >0 && <=86400 (for 1 day) if ServiceAffinity == ClientIP".
const MOST: i64 = 86_400;

/// For how long a client keeps its pod, in seconds; 0 without affinity.
pub(super) fn seconds(service: &Service, id: &ClusterId, notes: &mut Notes) -> u32 {
    let Service { metadata, spec } = service;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let Some(written) = spec.session_affinity_config.client_ip.timeout_seconds else {
        return DEFAULT;
    };
    match u32::try_from(written) {
        Ok(seconds) if (1..=MOST).contains(&written) => seconds,
        _ => {
            let mut told = Notes::of(member("Service", id, &metadata.namespace, &metadata.name));
            told.warning(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                format!("{written} is no number from 1 to {MOST}; {DEFAULT} counts"),
                format!("write an integer from 1 to {MOST}, or remove the field"),
            );
            notes.elsewhere(told);
            DEFAULT
        }
    }
}
