//! `securityPolicyId` -> protocol versions and cipher suites (contract section 2.3).
//!
//! A policy names the oldest version that may be spoken; rustls has no TLS 1.0 and 1.1 (RFC 8996 retires both), so
//! the policies that would let them in begin with 1.2. Every suite that rustls has is forward secret and authenticated
//! (ECDHE with AES-GCM or ChaCha20-Poly1305), which is what `strict` asks for, so all policies have the same suites.

use std::sync::{Arc, OnceLock};

use rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

static STRICT: &[&SupportedProtocolVersion] = &[&TLS12];
static ANY: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Versions of a policy, of which there is always one.
///
/// | policy | versions |
/// |---|---|
/// | `tls_cipher_policy_1_0`, `_1_1`, `_1_2` | 1.2, 1.3: this one or newer |
/// | `tls_cipher_policy_1_2_strict` | 1.2 |
/// | `tls_cipher_policy_1_2_strict_with_1_3` | 1.2, 1.3 |
///
/// `strict` alone means what it says beside `strict_with_1_3`. An unknown one, which the model never holds, has all.
pub fn versions(policy: &str) -> &'static [&'static SupportedProtocolVersion] {
    match policy {
        "tls_cipher_policy_1_2_strict" => STRICT,
        _ => ANY,
    }
}

/// Cryptography of every connection: ring.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_forward_secret_and_authenticated() {
        for suite in &provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            let forward = name.starts_with("TLS13_") || name.contains("_ECDHE_");
            assert!(
                forward && (name.contains("_GCM_") || name.contains("_POLY1305_")),
                "{name}"
            );
        }
    }
}
