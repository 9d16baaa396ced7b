//! Secrets that hold certificates. What they keep secret is carried, and shown to nobody.

use std::{fmt, sync::Arc};

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::Value;

use super::super::{ObjectMeta, or_default};

/// Type of the Secrets that hold a certificate and its key.
pub const TLS_SECRET: &str = "kubernetes.io/tls";

/// Longest value of a Secret that is kept, in bytes: a chain of certificates longer than 64 KiB fits into no handshake
/// (RFC 8446 section 4 leaves it to implementations; rustls takes messages of 64 KiB), and PEM takes a third more.
pub const MOST_SECRET_BYTES: usize = 128 << 10;

/// A Secret with a certificate and its key, or with the certificates that sign those of clients.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Secret {
    /// Metadata; without annotations, for `kubectl apply` writes a copy of the whole Secret into one of them.
    pub metadata: ObjectMeta,
    /// [`TLS_SECRET`] for certificates.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub secret_type: String,
    /// What it holds; `data` and `stringData` together.
    #[serde(flatten)]
    pub data: SecretData,
}

/// The values of a Secret that mean something here, decoded; empty where the Secret has none.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct SecretData {
    /// `tls.crt`: PEM, the certificate of the server first.
    pub certificate: Sealed,
    /// `tls.key`: PEM.
    pub key: Sealed,
    /// `ca.crt`: PEM.
    pub ca: Sealed,
}

/// Bytes that never show in what is printed, logged or written; compared whole, so that a change counts.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// The bytes, for whoever parses them.
    pub fn open(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Sealed {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// Values of any type: an error about a wrong one must not tell it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    data: Value,
    string_data: Value,
}

impl TryFrom<Written> for SecretData {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let value = |key| written.value(key);
        Ok(Self {
            certificate: value("tls.crt")?,
            key: value("tls.key")?,
            ca: value("ca.crt")?,
        })
    }
}

impl Written {
    /// "stringData ... overwrites any existing values" of `data` (Kubernetes API, Secret v1).
    fn value(&self, key: &str) -> Result<Sealed, String> {
        let plain = text(&self.string_data, "stringData", key)?;
        let encoded = text(&self.data, "data", key)?;
        let value = match (plain, encoded) {
            (Some(plain), _) => Sealed::from(plain.as_bytes()),
            (None, Some(encoded)) => {
                // Lines of a YAML block; API servers store none.
                let joined = encoded.split_ascii_whitespace().collect::<String>();
                let bytes = serde_json::from_value::<ByteString>(Value::String(joined));
                let ByteString(bytes) = bytes.map_err(|_| format!("{key} is not base64"))?;
                Sealed::from(bytes.as_slice())
            }
            (None, None) => Sealed::default(),
        };
        if value.0.len() > MOST_SECRET_BYTES {
            return Err(format!(
                "{key} holds {} bytes, more than the {MOST_SECRET_BYTES} that are read",
                value.0.len()
            ));
        }
        Ok(value)
    }
}

fn text<'a>(map: &'a Value, field: &str, key: &str) -> Result<Option<&'a str>, String> {
    match map {
        Value::Null => Ok(None),
        Value::Object(map) => match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{key} of {field} is no string")),
        },
        _ => Err(format!("{field} is no map of strings")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Secret, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_decoded_and_plain_ones_win() {
        let secret = read(json!({"type": TLS_SECRET, "data": {"tls.crt": "QUJD", "tls.key": "QQ\n==", "ca.crt": null},
            "stringData": {"tls.crt": "plain"}}))
        .unwrap();
        assert_eq!(secret.data.certificate.open(), b"plain");
        assert_eq!(secret.data.key.open(), b"A");
        assert!(secret.data.ca.is_empty());
        assert_eq!(read(json!({})).unwrap(), Secret::default());
    }

    #[test]
    fn a_changed_key_is_another_secret() {
        let with = |key: &str| read(json!({"stringData": {"tls.key": key}})).unwrap();
        assert_eq!(with("one"), with("one"));
        assert_ne!(with("one"), with("two"));
    }

    #[test]
    fn what_is_secret_shows_neither_in_debug_nor_in_what_went_wrong() {
        let secret = read(json!({"stringData": {"tls.key": "hush"}})).unwrap();
        let shown = format!("{secret:?}");
        assert!(
            !shown.contains("hush") && shown.contains("<4 bytes>"),
            "{shown}"
        );
        for (wrong, why) in [
            (
                json!({"data": {"tls.key": "hush!"}}),
                "tls.key is not base64",
            ),
            (json!({"data": "hush"}), "data is no map of strings"),
            (
                json!({"stringData": {"tls.key": ["hush"]}}),
                "tls.key of stringData is no string",
            ),
            (
                json!({"stringData": {"tls.key": "hush".repeat(MOST_SECRET_BYTES)}}),
                "tls.key holds 524288 bytes, more than the 131072 that are read",
            ),
        ] {
            assert_eq!(read(wrong).unwrap_err(), why);
        }
    }
}
