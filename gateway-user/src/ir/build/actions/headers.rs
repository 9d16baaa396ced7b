//! Actions on headers: InsertHeader and RemoveHeader.

use super::super::{json::Node, notes::Notes};
use crate::ir::model::{Direction, InsertHeader, InsertedValue, SystemValue};

const EXAMPLE: &str =
    r#"write `{"key": "source", "value": "gateway", "valueType": "UserDefined"}`"#;
/// What a backend believes of the gateway, or what frames a message.
const FORBIDDEN: [&str; 18] = [
    "slb-id",
    "slb-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-eip",
    "x-forwarded-port",
    "x-forwarded-client-srcport",
    "x-forwarded-host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "te",
    "host",
    "cookie",
    "remoteip",
    "authority",
];
/// The contract names these for RemoveHeader; inserting them into a response would break its framing just so.
const FORBIDDEN_IN_RESPONSES: [&str; 4] = [
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
];

/// `InsertHeaderConfig: {key, value, valueType, coverEnabled}`
pub(super) fn insert(
    entry: &Node<'_>,
    direction: Direction,
    notes: &mut Notes,
) -> Option<InsertHeader> {
    let config = entry
        .explained(EXAMPLE)
        .object("InsertHeaderConfig", notes)?;
    let name = key(&config, direction, notes);
    let value = value(&config, notes);
    let overwrite = config.flag("coverEnabled", notes);
    Some(InsertHeader {
        name: name?,
        value: value?,
        overwrite: overwrite?,
    })
}

/// `RemoveHeaderConfig: {key}`; gives the name in lower case.
pub(super) fn remove(entry: &Node<'_>, direction: Direction, notes: &mut Notes) -> Option<String> {
    let config = entry
        .explained(r#"write `{"key": "x-debug"}`"#)
        .object("RemoveHeaderConfig", notes)?;
    key(&config, direction, notes)
}

fn key(config: &Node<'_>, direction: Direction, notes: &mut Notes) -> Option<String> {
    let text = config.string("key", notes)?;
    if !header_name(text, 40) {
        config.wrong(
            "key",
            text,
            "is not the name of a header",
            "use 1 to 40 letters, digits, `-` and `_`",
            notes,
        );
        return None;
    }
    let name = text.to_ascii_lowercase();
    let forbidden = match direction {
        Direction::Request => &FORBIDDEN[..],
        Direction::Response => &FORBIDDEN_IN_RESPONSES,
    };
    if forbidden.contains(&name.as_str()) {
        config.wrong(
            "key",
            text,
            "is a header that rules may not change",
            "choose another header; xForwardedForConfig of the AlbConfig rules over X-Forwarded-*",
            notes,
        );
        return None;
    }
    Some(name)
}

fn header_name(text: &str, most: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=most).contains(&text.len()) && text.bytes().all(allowed)
}

/// Without a `valueType` the value is `UserDefined`.
fn value(config: &Node<'_>, notes: &mut Notes) -> Option<InsertedValue> {
    let kind = config.optional("valueType", notes)?;
    let text = config.string("value", notes)?;
    let (value, remedy) = match kind.to_ascii_lowercase().as_str() {
        "" | "userdefined" => (
            literal(text),
            "use 1 to 128 printable ASCII characters without blanks at the ends",
        ),
        "referenceheader" => (
            header_name(text, 128).then(|| InsertedValue::Header(text.to_ascii_lowercase())),
            "write the name of the header to copy: 1 to 128 letters, digits, `-` and `_`",
        ),
        "systemdefined" => (
            system(text).map(InsertedValue::System),
            "write ClientSrcPort, ClientSrcIp, Protocol, SLBId or SLBPort",
        ),
        _ => {
            config.wrong(
                "valueType",
                kind,
                "is not a type of value",
                "write UserDefined, ReferenceHeader or SystemDefined",
                notes,
            );
            return None;
        }
    };
    if value.is_none() {
        config.wrong(
            "value",
            text,
            "cannot be the value of this header",
            remedy,
            notes,
        );
    }
    value
}

/// No control character: a line end in a value would begin a header of its own.
fn literal(text: &str) -> Option<InsertedValue> {
    let valid = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| (32..=126).contains(&byte))
        && text.trim_matches(' ').len() == text.len();
    valid.then(|| InsertedValue::Literal(text.to_owned()))
}

fn system(text: &str) -> Option<SystemValue> {
    Some(match text.to_ascii_lowercase().as_str() {
        "clientsrcport" => SystemValue::ClientPort,
        "clientsrcip" => SystemValue::ClientAddress,
        "protocol" => SystemValue::Protocol,
        "slbid" => SystemValue::GatewayId,
        "slbport" => SystemValue::ListenerPort,
        _ => return None,
    })
}
