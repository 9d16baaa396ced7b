//! Certificates, made as tests ask for them.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, DnValue, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use crate::manifest::{ObjectMeta, Sealed, Secret, SecretData, TLS_SECRET};

/// A certificate and its key, as PEM, and the certificate as it is on the wire.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

/// Signed by itself, for these names.
pub(crate) fn certificate(names: &[&str]) -> Made {
    let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
    let params = CertificateParams::new(names).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    made(&certificate, &key)
}

/// Good until the end of 2001.
pub(crate) fn expired(name: &str) -> Made {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2001, 12, 31);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    made(&certificate, &key)
}

fn made(certificate: &rcgen::Certificate, key: &KeyPair) -> Made {
    Made {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        der: certificate.der().clone(),
    }
}

fn issuer() -> &'static CertifiedIssuer<'static, KeyPair> {
    static ISSUER: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "ca");
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    })
}

/// Who signs certificates of clients, `CN=ca`.
pub(crate) fn authority() -> Made {
    let issuer = issuer();
    Made {
        certificate: issuer.pem(),
        key: String::new(),
        der: issuer.der().clone(),
    }
}

/// A client's, signed by [`authority`]; of `subject` only `O` and `CN`.
pub(crate) fn client(subject: &[(&str, &str)]) -> Made {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in subject {
        let kind = match *kind {
            "O" => DnType::OrganizationName,
            _ => DnType::CommonName,
        };
        let value = DnValue::Utf8String((*value).to_owned());
        params.distinguished_name.push(kind, value);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer()).unwrap();
    made(&certificate, &key)
}

/// A Secret of type `kubernetes.io/tls`.
pub(crate) fn secret(namespace: &str, name: &str, certificate: &str, key: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..ObjectMeta::default()
        },
        secret_type: TLS_SECRET.to_owned(),
        data: SecretData {
            certificate: Sealed::from(certificate.as_bytes()),
            key: Sealed::from(key.as_bytes()),
            ca: Sealed::default(),
        },
    }
}
