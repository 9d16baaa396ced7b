//! Events as they go over the wire: one JSON object a line.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    super::{read::Shape, refusal::Refusal, store::Stored},
    Watch,
};

impl Watch {
    pub(super) fn line(&self, name: &str, object: &Stored) -> Bytes {
        let text = self.shape.text(object);
        let mut out = BytesMut::with_capacity(text.len() + 40);
        out.put_slice(format!("{{\"type\":\"{name}\",\"object\":").as_bytes());
        out.put_slice(&text);
        out.put_slice(b"}\n");
        out.freeze()
    }

    /// `end`: the states are all sent.
    pub(super) fn bookmark(&self, revision: u64, end: bool) -> Bytes {
        let resource = self.target.resource;
        let (kind, api_version) = match self.shape {
            Shape::Whole => (resource.kind(), resource.api_version()),
            Shape::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
        };
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
    }
}

pub(super) fn error_event(refusal: &Refusal) -> Bytes {
    let event: Value = json!({"type": "ERROR", "object": refusal.status()});
    format!("{event}\n").into()
}
