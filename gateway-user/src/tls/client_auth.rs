//! Certificates of clients: `caEnabled` with one entry in `caCertificates` (contract section 2.3), and what backends are
//! told of them (section 2.4).

use std::{fmt::Write, sync::Arc};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::{
    RootCertStore,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

use super::{
    certificate::{Fault, chain},
    policy,
};
use crate::manifest::{Sealed, Secret};

/// What `X-Forwarded-Clientcert-clientverify` says of every client that got through: one that did not is not served.
pub const VERIFIED: &str = "SUCCESS";

/// `ca.crt` of a Secret: whoever shows a certificate that one of these signed may connect.
pub fn authorities(secret: Option<&Secret>) -> Result<Sealed, Fault> {
    let secret = secret.ok_or(Fault::Missing)?;
    if secret.data.ca.is_empty() {
        return Err(Fault::Lacks("ca.crt"));
    }
    roots(&secret.data.ca)?;
    Ok(secret.data.ca.clone())
}

fn roots(ca: &Sealed) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(ca, "ca.crt")? {
        let added = roots.add(certificate);
        added.map_err(|_| Fault::NotX509("ca.crt"))?;
    }
    Ok(roots)
}

/// Demands a certificate of every client.
pub(super) fn verifier(ca: &Sealed) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let roots = Arc::new(roots(ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, policy::provider());
    builder.build().map_err(|_| Fault::NotX509("ca.crt"))
}

/// What backends are told of a client's certificate. All of it fits into a header field: visible ASCII and blanks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientIdentity {
    /// Subject, as RFC 4514 writes it: `CN=alice,O=Example`.
    pub subject: String,
    /// Issuer, in the same way.
    pub issuer: String,
    /// SHA-1 over the certificate, lower-case hex, as nginx and those built on it tell it: backends compare it with
    /// lists that were made for them. (The contract names no digest.)
    pub fingerprint: String,
}

impl ClientIdentity {
    /// Reads a certificate that was verified. `None` where it is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let print = digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate);
        Some(Self {
            subject: distinguished(read.subject()),
            issuer: distinguished(read.issuer()),
            fingerprint: hex(print.as_ref()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// RFC 4514 section 2.1: "starting with the last element of the sequence and moving backwards toward the first".
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<&_> = name.iter_rdn().collect();
    let parts = parts.iter().rev().map(|rdn| {
        let attributes: Vec<String> = rdn.iter().map(attribute).collect();
        attributes.join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

/// Names of section 3, and `emailAddress` (RFC 2985), which certificates of people have.
fn attribute(it: &AttributeTypeAndValue<'_>) -> String {
    let oid = it.attr_type().to_id_string();
    let short = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "1.2.840.113549.1.9.1" => "emailAddress",
        // Section 2.4: "in the form of an octothorpe followed by the hexadecimal representation" - of the value's
        // content, for the certificate's own encoding is not kept.
        _ => return format!("{oid}=#{}", hex(it.attr_value().data)),
    };
    match it.as_str() {
        Ok(text) => format!("{short}={}", escaped(text)),
        Err(_) => format!("{short}=#{}", hex(it.attr_value().data)),
    }
}

/// Section 2.4; whatever is neither visible ASCII nor a blank is escaped byte by byte, too, as the section allows: a
/// client must not write header fields, or attributes that it does not have.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                text.extend(['\\', char::from(byte)]);
            }
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::tests::made, *};

    #[test]
    fn a_subject_is_told_backwards_and_cannot_forge_attributes_or_fields() {
        let made = made::client(&[("O", "Ex, Inc."), ("CN", " a\r\nX: b=c,CN=root\u{e9}#")]);
        let identity = ClientIdentity::of(&made.der).unwrap();
        assert_eq!(
            identity.subject,
            "CN=\\ a\\0D\\0AX: b\\=c\\,CN\\=root\\C3\\A9#,O=Ex\\, Inc."
        );
        assert_eq!(identity.fingerprint.len(), 40);
        assert_eq!(identity.issuer, "CN=ca");
    }

    #[test]
    fn what_signs_clients_is_in_ca_crt_and_nowhere_else() {
        let made = made::certificate(&["a"]);
        let mut secret = made::secret("demo", "ca", &made.certificate, &made.key);
        assert_eq!(authorities(Some(&secret)), Err(Fault::Lacks("ca.crt")));
        secret.data.ca = Sealed::from(b"A".as_slice());
        assert_eq!(authorities(Some(&secret)), Err(Fault::NotPem("ca.crt")));
        secret.data.ca = Sealed::from(made::authority().certificate.as_bytes());
        assert_eq!(authorities(Some(&secret)).as_ref(), Ok(&secret.data.ca));
    }
}
