//! Certificates as Secrets hold them, and as files for clients and pods.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Signs certificates of servers and clients. Its own lies in a file, for who is to trust it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Made {
    certificate: String,
    key: String,
    /// The certificate, as TLS shows it.
    pub der: CertificateDer<'static>,
}

impl Authority {
    /// One of this name, which signs itself.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named(name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ca.pem"), issuer.pem())?;
        Ok(Self { issuer, folder })
    }

    /// Its certificate, in PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for these host names; its subject is the first one.
    pub fn server(&self, names: &[&str]) -> Result<Made> {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name = named(names.first().unwrap_or(&"nobody"));
        self.sign(params)
    }

    /// A certificate of a client of this name.
    pub fn client(&self, name: &str) -> Result<Made> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = named(name);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Made> {
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(Made {
            certificate: signed.pem(),
            key: key.serialize_pem(),
            der: signed.der().clone(),
        })
    }

    /// The Secret of this name in namespace `demo` that tells a listener whose clients it lets in.
    pub fn secret(&self, name: &str) -> String {
        secret(name, "Opaque", &[("ca.crt", &self.issuer.pem())])
    }
}

impl Made {
    /// The Secret of this name in namespace `demo`.
    pub fn secret(&self, name: &str) -> String {
        let data = [("tls.crt", &*self.certificate), ("tls.key", &self.key)];
        secret(name, "kubernetes.io/tls", &data)
    }

    /// Certificate and key in one file, as curl and HAProxy take them.
    pub fn save(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let file = folder.join(name).with_extension("pem");
        fs::write(&file, format!("{}{}", self.certificate, self.key))?;
        Ok(file)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

fn secret(name: &str, kind: &str, data: &[(&str, &str)]) -> String {
    let data: String = data
        .iter()
        .map(|(key, pem)| {
            let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
            format!("  {key}: |\n{lines}")
        })
        .collect();
    format!(
        "apiVersion: v1
kind: Secret
type: {kind}
metadata:
  name: {name}
  namespace: demo
stringData:
{data}---
"
    )
}
