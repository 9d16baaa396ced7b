//! An authority that clients trust, and one certificate after the other for the listener.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, client::Resumption};

use super::world::HOST;

/// Signs what clients trust.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate for the host of all rules.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Certificate and key, PEM.
    pub(super) pem: (String, String),
    /// The certificate, DER.
    pub(super) der: Vec<u8>,
}

impl Authority {
    /// A new one.
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// A certificate with a key of its own.
    pub(super) fn sign(&self) -> Result<Made> {
        let params = CertificateParams::new(vec![HOST.to_owned()])?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Made {
            pem: (certificate.pem(), key.serialize_pem()),
            der: certificate.der().to_vec(),
        })
    }

    /// A client that trusts the authority and resumes no session: each handshake is shown a certificate.
    pub(super) fn client(&self, protocol: &str) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let provider = gateway_user::tls::policy::provider();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
