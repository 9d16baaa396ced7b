//! Certificates and clients, made as tests ask for them.

use std::sync::Arc;

use gateway_user::{
    manifest::{SecretData, TLS_SECRET},
    tls::policy::provider,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};

/// A certificate and its key.
pub(super) struct Made {
    certificate: String,
    key: String,
    pub(super) der: CertificateDer<'static>,
}

impl Made {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    /// As a Secret holds it: its type and its data.
    pub(super) fn secret(&self) -> (&'static str, SecretData) {
        let data = SecretData {
            certificate: self.certificate.as_bytes().into(),
            key: self.key.as_bytes().into(),
            ..SecretData::default()
        };
        (TLS_SECRET, data)
    }
}

/// Of a server with these names, signed by itself.
pub(super) fn certificate(names: &[&str]) -> Made {
    let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
    let params = CertificateParams::new(names).unwrap();
    let key = KeyPair::generate().unwrap();
    Made::new(&params.self_signed(&key).unwrap(), &key)
}

/// Signs certificates of clients.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named(&[(DnType::CommonName, name)]);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn client(&self, subject: &[(DnType, &str)]) -> Made {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named(subject);
        let key = KeyPair::generate().unwrap();
        Made::new(&params.signed_by(&key, &self.0).unwrap(), &key)
    }

    /// As a Secret holds it: its type and its data.
    pub(super) fn secret(&self) -> (&'static str, SecretData) {
        let data = SecretData {
            ca: self.0.pem().as_bytes().into(),
            ..SecretData::default()
        };
        ("Opaque", data)
    }
}

fn named(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

/// A client; by default it speaks TLS 1.3 and 1.2, offers no protocol and has no certificate.
pub(super) struct Asking<'a> {
    versions: &'static [&'static SupportedProtocolVersion],
    protocols: &'a [&'a str],
    shows: Option<&'a Made>,
}

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub(super) const ONLY_1_2: &[&SupportedProtocolVersion] = &[&TLS12];
pub(super) const ONLY_1_3: &[&SupportedProtocolVersion] = &[&TLS13];

pub(super) fn client<'a>() -> Asking<'a> {
    Asking {
        versions: BOTH,
        protocols: &[],
        shows: None,
    }
}

impl<'a> Asking<'a> {
    pub(super) fn versions(
        mut self,
        versions: &'static [&'static SupportedProtocolVersion],
    ) -> Self {
        self.versions = versions;
        self
    }

    pub(super) fn alpn(mut self, protocols: &'a [&'a str]) -> Self {
        self.protocols = protocols;
        self
    }

    pub(super) fn shows(mut self, certificate: &'a Made) -> Self {
        self.shows = Some(certificate);
        self
    }

    pub(super) fn config(self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName));
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
                let chain = vec![made.der.clone()];
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let protocols = self.protocols.iter();
        config.alpn_protocols = protocols.map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Takes every certificate that the server has the key of: tests look at which one it is.
#[derive(Debug)]
struct AnyName;

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
