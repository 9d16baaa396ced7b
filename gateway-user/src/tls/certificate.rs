//! A Secret -> a certificate that can be shown, with its key; or what is wrong with it.

use std::{fmt, sync::Arc};

use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::manifest::{Sealed, Secret, TLS_SECRET};

/// Most certificates of one chain; clients give up sooner.
const MOST_CHAIN: usize = 10;
/// Most names that are read of one certificate; public authorities sign 100.
const MOST_NAMES: usize = 1_000;

/// A certificate with its chain and its key.
#[derive(Clone)]
pub struct Certificate {
    /// What rustls signs with.
    pub key: Arc<CertifiedKey>,
    /// DNS names that it is for, as written, lower-case: `subjectAltName`, or the common name where there is none.
    pub names: Vec<String>,
    /// From when on it is good, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is good, in seconds since 1970.
    pub not_after: i64,
    /// `not_before` for people.
    pub from: String,
    /// `not_after` for people.
    pub until: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a Secret cannot be used. Reads on from "Secret namespace/name ...", and tells nothing of what it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// There is no such Secret.
    Missing,
    /// It is of another type.
    Type,
    /// A part is empty; which.
    Lacks(&'static str),
    /// A part holds no PEM, or PEM of something else; which.
    NotPem(&'static str),
    /// The first certificate of a part is no X.509 certificate; which.
    NotX509(&'static str),
    /// More certificates than a chain has.
    LongChain,
    /// A key with a passphrase.
    Encrypted,
    /// Neither RSA of 2048 bits or more, nor P-256, P-384 or Ed25519.
    KeyType,
    /// The key is that of another certificate.
    Mismatch,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist"),
            Self::Type => write!(f, "is not of type {TLS_SECRET}"),
            Self::Lacks(part) => write!(f, "lacks {part}"),
            Self::NotPem("tls.key") => f.write_str("has no private key in PEM in tls.key"),
            Self::NotPem(part) => write!(f, "has no certificate in PEM in {part}"),
            Self::NotX509(part) => write!(f, "has no X.509 certificate in {part}"),
            Self::LongChain => write!(f, "has more than {MOST_CHAIN} certificates in tls.crt"),
            Self::Encrypted => f.write_str("has a key with a passphrase in tls.key"),
            Self::KeyType => f.write_str("has a key of a type that is not supported in tls.key"),
            Self::Mismatch => f.write_str(
                "has a key in tls.key that does not belong to the first certificate of tls.crt",
            ),
        }
    }
}

impl Fault {
    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Missing | Self::Type => {
                "create the Secret with `kubectl create secret tls`, or correct the name"
            }
            Self::Lacks("ca.crt") | Self::NotPem("ca.crt") | Self::NotX509("ca.crt") => {
                "put the certificates that sign those of clients into ca.crt, in PEM"
            }
            Self::Lacks(_) | Self::NotPem(_) | Self::NotX509(_) => {
                "put the certificate and its chain into tls.crt and its key into tls.key, in PEM"
            }
            Self::LongChain => "keep the server's certificate and those that lead to its root",
            Self::Encrypted => "store the key without its passphrase, as `openssl pkey` writes it",
            Self::KeyType => "use an RSA key of 2048 to 8192 bits, or an EC key on P-256 or P-384",
            Self::Mismatch => {
                "put the server's certificate first, and the key that it was made with into tls.key"
            }
        }
    }
}

/// The certificate in a Secret of type `kubernetes.io/tls`. Whether it is over is for [`Certificate::lapse`].
pub fn of(secret: Option<&Secret>) -> Result<Certificate, Fault> {
    let secret = secret.ok_or(Fault::Missing)?;
    if secret.secret_type != TLS_SECRET {
        return Err(Fault::Type);
    }
    let data = &secret.data;
    if data.certificate.is_empty() || data.key.is_empty() {
        return Err(Fault::Lacks("tls.crt or tls.key"));
    }
    let chain = chain(&data.certificate, "tls.crt")?;
    if chain.len() > MOST_CHAIN {
        return Err(Fault::LongChain);
    }
    let key = any_supported_type(&private_key(&data.key)?).map_err(|_| Fault::KeyType)?;
    let leaf = X509Certificate::from_der(&chain[0]);
    let (_, leaf) = leaf.map_err(|_| Fault::NotX509("tls.crt"))?;
    let public = key.public_key();
    if public.is_some_and(|public| public.as_ref() != leaf.public_key().raw) {
        return Err(Fault::Mismatch);
    }
    let validity = leaf.validity();
    Ok(Certificate {
        names: names(&leaf),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        from: validity.not_before.to_string(),
        until: validity.not_after.to_string(),
        key: Arc::new(CertifiedKey::new(chain, key)),
    })
}

impl Certificate {
    /// Why clients refuse it at `now` (seconds since 1970), or will within `soon` seconds.
    pub fn lapse(&self, now: i64, soon: i64) -> Option<Lapse> {
        if now < self.not_before {
            return Some(Lapse::NotYet);
        }
        let left = self.not_after.saturating_sub(now);
        if left < 0 {
            return Some(Lapse::Over);
        }
        (left < soon).then_some(Lapse::Soon)
    }
}

/// What time makes of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lapse {
    /// It is not good yet.
    NotYet,
    /// It is good, and will not be for long.
    Soon,
    /// It was good.
    Over,
}

/// All certificates of a part of a Secret, at least one.
pub(super) fn chain(
    pem: &Sealed,
    part: &'static str,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let all = CertificateDer::pem_slice_iter(pem.open());
    // The parser's own words quote what it read.
    let all: Result<Vec<_>, _> = all.collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Fault::NotPem(part)),
    }
}

fn private_key(pem: &Sealed) -> Result<PrivateKeyDer<'static>, Fault> {
    let has = |text: &[u8]| pem.open().windows(text.len()).any(|it| it == text);
    // RFC 7468 section 11, and RFC 1421 section 4.6.1.1 as OpenSSL still writes it.
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(Fault::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(pem.open()).map_err(|_| Fault::NotPem("tls.key"))
}

/// RFC 9525 section 6.3 counts `subjectAltName` alone; certificates made by hand often have a common name alone, and are
/// shown for it, whatever clients make of them.
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|it| &it.value.general_names);
    let dns = alternatives.filter_map(|it| match it {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let names: Vec<String> = dns.take(MOST_NAMES).collect();
    if !names.is_empty() {
        return names;
    }
    let common = leaf.subject().iter_common_name();
    let common = common.filter_map(|it| it.as_str().ok()).take(1);
    common.map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::made, *};

    fn secret(certificate: &str, key: &str) -> Secret {
        made::secret("demo", "x", certificate, key)
    }

    #[test]
    fn a_certificate_tells_the_names_and_times_it_is_good_for() {
        let made = made::certificate(&["A.example.com", "*.example.org"]);
        let read = of(Some(&secret(&made.certificate, &made.key))).unwrap();
        assert_eq!(read.names, ["a.example.com", "*.example.org"]);
        let (from, to) = (read.not_before, read.not_after);
        assert_eq!(read.lapse(from - 1, 10), Some(Lapse::NotYet));
        assert_eq!(read.lapse(from, 10), None);
        assert_eq!(read.lapse(to - 9, 10), Some(Lapse::Soon));
        assert_eq!(read.lapse(to + 1, 10), Some(Lapse::Over));
    }

    #[test]
    fn each_mistake_is_told_by_its_name() {
        let made = made::certificate(&["a.example.com"]);
        let other = made::certificate(&["a.example.com"]);
        let fault = |certificate: &str, key: &str| of(Some(&secret(certificate, key))).unwrap_err();
        let begin = |what: &str| format!("-----BEGIN {what}-----\nQUJD\n-----END {what}-----\n");
        assert_eq!(of(None).unwrap_err(), Fault::Missing);
        assert_eq!(fault("", &made.key), Fault::Lacks("tls.crt or tls.key"));
        assert_eq!(fault("A", &made.key), Fault::NotPem("tls.crt"));
        assert_eq!(fault(&made.key, &made.key), Fault::NotPem("tls.crt"));
        assert_eq!(fault(&made.certificate, "A"), Fault::NotPem("tls.key"));
        assert_eq!(fault(&made.certificate, &other.key), Fault::Mismatch);
        assert_eq!(
            fault(&begin("CERTIFICATE"), &made.key),
            Fault::NotX509("tls.crt")
        );
        assert_eq!(
            fault(&made.certificate, &begin("PRIVATE KEY")),
            Fault::KeyType
        );
        assert_eq!(
            fault(&made.certificate, &begin("ENCRYPTED PRIVATE KEY")),
            Fault::Encrypted
        );
        assert_eq!(
            fault(&made.certificate.repeat(11), &made.key),
            Fault::LongChain
        );
        let opaque = Secret {
            secret_type: "Opaque".into(),
            ..secret(&made.certificate, &made.key)
        };
        assert_eq!(of(Some(&opaque)).unwrap_err(), Fault::Type);
    }

    #[test]
    fn noise_is_refused_without_a_panic() {
        use proptest::prelude::*;
        let made = made::certificate(&["a.example.com"]);
        proptest!(|(at in 0..made.certificate.len(), byte: u8, key_at in 0..made.key.len())| {
            let mut certificate = made.certificate.clone().into_bytes();
            certificate[at] = byte;
            let mut key = made.key.clone().into_bytes();
            key[key_at] = byte;
            let mut secret = secret("", "");
            secret.data.certificate = Sealed::from(certificate.as_slice());
            secret.data.key = Sealed::from(key.as_slice());
            let _ = of(Some(&secret));
        });
    }
}
