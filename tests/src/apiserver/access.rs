//! Who may ask: certificates, tokens, and kubeconfigs that carry them.

use std::{collections::HashMap, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use super::base64;

/// How a kubeconfig logs in.
#[derive(Clone, Copy, Debug)]
pub enum Login<'a> {
    /// Not at all.
    Nobody,
    /// A bearer token.
    Token(&'a str),
    /// A file with a bearer token, which the client reads again from time to time.
    TokenFile(&'a Path),
    /// A client certificate for a user of this name, issued now.
    Certificate(&'a str),
}

/// The certificate authority of one server.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `CERTIFICATE`
    pub certificate: String,
    /// `PRIVATE KEY`
    pub key: String,
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "kubernetes");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// TLS with a certificate for 127.0.0.1; clients may show one of this authority.
    pub(super) fn server_config(&self) -> Result<ServerConfig> {
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        let mut params = CertificateParams::new(names.map(str::to_owned).to_vec())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;

        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn client(&self, user: &str) -> Result<(Identity, CertificateDer<'static>)> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, user);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        Ok((identity, certificate.der().clone()))
    }
}

/// The users that the server knows.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) login: bool,
    tokens: HashMap<String, String>,
    certificates: HashMap<CertificateDer<'static>, String>,
}

impl Access {
    pub(super) fn new(login: bool) -> Self {
        Self {
            login,
            ..Self::default()
        }
    }

    pub(super) fn accept_token(&mut self, token: &str, user: &str) {
        self.tokens.insert(token.to_owned(), user.to_owned());
    }

    pub(super) fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    pub(super) fn revoke_certificates(&mut self) {
        self.certificates.clear();
    }

    pub(super) fn issue(&mut self, authority: &Authority, user: &str) -> Result<Identity> {
        let (identity, certificate) = authority.client(user)?;
        self.certificates.insert(certificate, user.to_owned());
        Ok(identity)
    }

    /// The user behind a request; none if it must be refused. A token that is wrong is refused even with a good
    /// certificate beside it only if the certificate is unknown: any one proof is enough.
    pub(super) fn user(
        &self,
        authorization: Option<&str>,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Option<String> {
        let by_certificate = certificate.and_then(|shown| self.certificates.get(shown));
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let by_token = token.and_then(|token| self.tokens.get(token.trim()));
        match by_certificate.or(by_token) {
            Some(user) => Some(user.clone()),
            None if !self.login => Some("system:anonymous".to_owned()),
            None => None,
        }
    }
}

/// The text of a kubeconfig with one cluster, one user and one context, all called `test`.
pub(super) fn kubeconfig(url: &str, authority: Option<&Authority>, user: &User) -> String {
    let mut cluster = format!("    server: {url}\n");
    if let Some(authority) = authority {
        let pem = base64::encode(authority.pem().as_bytes());
        cluster.push_str(&format!("    certificate-authority-data: {pem}\n"));
    }
    let user = match user {
        User::Nobody => " {}\n".to_owned(),
        User::Token(token) => format!("\n    token: {token}\n"),
        User::TokenFile(path) => format!("\n    tokenFile: {path}\n"),
        User::Certificate(identity) => format!(
            "\n    client-certificate-data: {}\n    client-key-data: {}\n",
            base64::encode(identity.certificate.as_bytes()),
            base64::encode(identity.key.as_bytes()),
        ),
    };
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: test\n  cluster:\n{cluster}users:\n- name: test\n  user:{user}contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\ncurrent-context: test\n"
    )
}

/// What a kubeconfig says of its user.
pub(super) enum User {
    Nobody,
    Token(String),
    TokenFile(String),
    Certificate(Identity),
}

impl User {
    pub(super) fn of(
        login: Login<'_>,
        authority: Option<&Authority>,
        access: &mut Access,
    ) -> Result<Self> {
        Ok(match login {
            Login::Nobody => Self::Nobody,
            Login::Token(token) => Self::Token(token.to_owned()),
            Login::TokenFile(path) => Self::TokenFile(path.display().to_string()),
            Login::Certificate(user) => {
                let authority = authority.context("client certificates need a server with TLS")?;
                Self::Certificate(access.issue(authority, user)?)
            }
        })
    }
}
