//! The nine types of conditions. Each reader gives `None` after an error.

use serde_json::Value;

use super::{
    super::{json::Node, notes::Notes, patterns},
    MOST_VALUES, each,
};
use crate::{
    ir::model::{HeaderMatch, HostPattern, Network, PairMatch, PathPattern},
    problem::shown,
};

const METHODS: [&str; 7] = ["HEAD", "GET", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"];

/// `hostConfig: {values: [host...]}`
pub(super) fn hosts(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<HostPattern>> {
    let config = block.object("hostConfig", notes)?;
    each(&config, notes, patterns::host_condition)
}

/// `pathConfig: {values: [pattern...]}`
pub(super) fn paths(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<PathPattern>> {
    let config = block.object("pathConfig", notes)?;
    each(&config, notes, patterns::verbatim)
}

/// `methodConfig: {values: [GET...]}`
pub(super) fn methods(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<String>> {
    let config = block.object("methodConfig", notes)?;
    each(&config, notes, |text, field, notes| {
        if METHODS.contains(&text) {
            return Some(text.to_owned());
        }
        notes.error(
            field,
            format!("{} is not a method of a condition", shown(text)),
            format!("use {}, in upper case", METHODS.join(", ")),
        );
        None
    })
}

/// `sourceIpConfig: {values: [ip or CIDR...]}`
pub(super) fn sources(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<Network>> {
    let config = block.object("sourceIpConfig", notes)?;
    each(&config, notes, |text, field, notes| {
        let network = text.parse::<Network>();
        let told = |error| {
            notes.error(
                field,
                format!("{} is {error}", shown(text)),
                "write an address or a network, such as `10.0.0.0/8` or `2001:db8::1`",
            );
        };
        network.map_err(told).ok()
    })
}

/// `headerConfig: {key, values: [v...]}`; "not `Cookie` or `Host`".
pub(super) fn header(block: &Node<'_>, notes: &mut Notes) -> Option<HeaderMatch> {
    let config = block.object("headerConfig", notes)?;
    let key = config.string("key", notes)?;
    if !header_name(key) || ["cookie", "host"].contains(&key.to_ascii_lowercase().as_str()) {
        config.wrong(
            "key",
            key,
            "cannot be the name of a header condition",
            "use 1 to 40 letters, digits, `-` and `_`; Cookie and Host have conditions of their own",
            notes,
        );
        return None;
    }
    header_values(&config, key, notes)
}

/// `responseHeaderConfig: {key, values: [v...]}`
pub(super) fn response_header(block: &Node<'_>, notes: &mut Notes) -> Option<HeaderMatch> {
    let config = block.object("responseHeaderConfig", notes)?;
    let key = config.string("key", notes)?;
    if !header_name(key) {
        config.wrong(
            "key",
            key,
            "cannot be the name of a header condition",
            "use 1 to 40 letters, digits, `-` and `_`",
            notes,
        );
        return None;
    }
    header_values(&config, key, notes)
}

fn header_name(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=40).contains(&key.len()) && key.bytes().all(allowed)
}

fn header_values(config: &Node<'_>, key: &str, notes: &mut Notes) -> Option<HeaderMatch> {
    let values = each(config, notes, |text, field, notes| {
        let valid = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| (32..=126).contains(&byte))
            && text.trim_matches(' ').len() == text.len();
        if valid {
            return Some(text.to_owned());
        }
        notes.error(
            field,
            format!("{} cannot be the value of a header condition", shown(text)),
            "use a string of 1 to 128 printable ASCII characters without blanks at its ends",
        );
        None
    })?;
    Some(HeaderMatch {
        name: key.to_ascii_lowercase(),
        values,
    })
}

/// `queryStringConfig: {values: [{key, value}...]}`; "key 1-100, value 1-128".
pub(super) fn queries(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<PairMatch>> {
    let config = block.object("queryStringConfig", notes)?;
    pairs(&config, 128, r##"#[]{}\|<>&""##, notes)
}

/// `cookieConfig: {values: [{key, value}...]}`; "key, value 1-100".
pub(super) fn cookies(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<PairMatch>> {
    let config = block.object("cookieConfig", notes)?;
    pairs(&config, 100, r##";#[]{}\|<>&""##, notes)
}

/// Keys of 1 to 100 and values of 1 to `most` characters, without upper case, blanks and what is `forbidden`.
fn pairs(
    config: &Node<'_>,
    most: usize,
    forbidden: &str,
    notes: &mut Notes,
) -> Option<Vec<PairMatch>> {
    let mut found = Vec::new();
    let part = |pair: &Node<'_>, key: &str, most: usize, notes: &mut Notes| {
        let text = pair.string(key, notes)?;
        let allowed =
            |it: char| it.is_ascii_graphic() && !it.is_ascii_uppercase() && !forbidden.contains(it);
        if (1..=most).contains(&text.len()) && text.chars().all(allowed) {
            return Some(text.to_owned());
        }
        pair.wrong(
            key,
            text,
            &format!("cannot be the {key} of this condition"),
            &format!(
                "use 1 to {most} printable ASCII characters without upper case, blanks and `{forbidden}`"
            ),
            notes,
        );
        None
    };
    let values = config.array("values", MOST_VALUES, notes)?;
    for (index, value) in values.iter().enumerate() {
        let field = format!("{}.values[{index}]", config.field);
        let Value::Object(pair) = value else {
            notes.error(
                field,
                format!(
                    "{} is not an object with key and value",
                    shown(&value.to_string())
                ),
                r#"write `{"key": "stage", "value": "gray"}`"#,
            );
            return None;
        };
        let pair = Node::new(pair, field, r#"write `{"key": "stage", "value": "gray"}`"#);
        found.push(PairMatch {
            key: part(&pair, "key", 100, notes)?,
            value: part(&pair, "value", most, notes)?,
        });
    }
    Some(found)
}

/// `responseStatusCodeConfig: {values: ["400"...]}`
pub(super) fn statuses(block: &Node<'_>, notes: &mut Notes) -> Option<Vec<u16>> {
    let config = block.object("responseStatusCodeConfig", notes)?;
    each(&config, notes, |text, field, notes| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status = text
            .parse()
            .ok()
            .filter(|code| digits && (100..600).contains(code));
        if status.is_none() {
            notes.error(
                field,
                format!("{} is not a status code", shown(text)),
                r#"write a number from 100 to 599 in quotation marks, such as `"404"`"#,
            );
        }
        status
    })
}
