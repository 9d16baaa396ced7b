//! Actions that write addresses: Redirect and Rewrite.

use super::super::{json::Node, notes::Notes};
use crate::{
    ir::model::{Redirect, Rewrite},
    problem::shown,
};

/// Longest part of an address, in characters.
const PART_CHARS: usize = 128;

/// `RedirectConfig: {host, path, port, protocol, query, httpCode}`, all strings; "not everything may be left at default".
pub(super) fn redirect(entry: &Node<'_>, notes: &mut Notes) -> Option<Redirect> {
    let config = entry.object("RedirectConfig", notes)?;
    let parts = [
        part(&config, "protocol", protocol, notes),
        part(&config, "host", host, notes),
        part(&config, "port", port, notes),
        part(&config, "path", path, notes),
        part(&config, "query", query, notes),
    ];
    let code = match config.optional("httpCode", notes)? {
        "" | "301" => 301,
        "302" => 302,
        "303" => 303,
        "307" => 307,
        "308" => 308,
        other => {
            let remedy = r#"write "301", "302", "303", "307" or "308""#;
            config.wrong(
                "httpCode",
                other,
                "is not a status of a redirect",
                remedy,
                notes,
            );
            return None;
        }
    };
    let [protocol, host, port, path, query] = parts;
    let redirect = Redirect {
        protocol: protocol?,
        host: host?,
        port: port?,
        path: path?,
        query: query?,
        code,
    };
    let same = Redirect {
        code,
        ..Redirect::default()
    };
    if redirect == same {
        notes.error(
            config.field.as_str(),
            "redirects to the same address, without end",
            "change protocol, host, port, path or query",
        );
        return None;
    }
    Some(redirect)
}

/// `RewriteConfig: {Host, Path, Query}`; variables as in a redirect.
pub(super) fn rewrite(entry: &Node<'_>, notes: &mut Notes) -> Option<Rewrite> {
    let config = entry.object("RewriteConfig", notes)?;
    let parts = [
        part(&config, "host", host, notes),
        part(&config, "path", path, notes),
        part(&config, "query", query, notes),
    ];
    let [host, path, query] = parts;
    let rewrite = Rewrite {
        host: host?,
        path: path?,
        query: query?,
        captures: None,
    };
    let same = Redirect::default();
    if (&rewrite.host, &rewrite.path, &rewrite.query) == (&same.host, &same.path, &same.query) {
        notes.warning(
            config.field.as_str(),
            "changes nothing",
            "change host, path or query, or remove the Rewrite",
        );
    }
    Some(rewrite)
}

/// A part, by default (and when empty) that of the request; `Err` of `read` says what to write.
fn part(
    config: &Node<'_>,
    key: &str,
    read: fn(&str) -> Result<String, &'static str>,
    notes: &mut Notes,
) -> Option<String> {
    let text = config.optional(key, notes)?;
    if text.is_empty() {
        return Some(format!("${{{key}}}"));
    }
    let told = |remedy: &str| {
        let what = format!("{} cannot be the {key} of an address", shown(text));
        notes.error(config.at(key), what, remedy);
    };
    read(text).map_err(told).ok()
}

fn protocol(text: &str) -> Result<String, &'static str> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "http" | "https" | "${protocol}" => Ok(lower),
        _ => Err("write `HTTP`, `HTTPS` or `${protocol}`"),
    }
}

fn port(text: &str) -> Result<String, &'static str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        _ if text == "${port}" => Ok(text.to_owned()),
        Ok(number @ 1..) if digits => Ok(number.to_string()),
        _ => Err("write a number from 1 to 65535 in quotation marks, or `${port}`"),
    }
}

/// A host alone: its port has a field of its own.
fn host(text: &str) -> Result<String, &'static str> {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let named =
        (3..=PART_CHARS).contains(&text.len()) && text.contains('.') && text.split('.').all(label);
    if named || text == "${host}" {
        return Ok(text.to_owned());
    }
    Err("write a host of 3 to 128 characters with a dot, without wildcard and port, or `${host}`")
}

/// "path may mix text with `${host} ${protocol} ${port} ${path}` each once".
fn path(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"$-_.+/&~@:".contains(&byte);
    let starts = text.starts_with('/') || text.starts_with("${path}");
    let variables = ["${host}", "${protocol}", "${port}", "${path}"];
    if starts && mixes(text, &variables, allowed) {
        return Ok(text.to_owned());
    }
    Err(
        "start with `/` or `${path}` and use at most 128 letters, digits, `$-_.+/&~@:` and each of `${host}`, \
         `${protocol}`, `${port}` and `${path}` once",
    )
}

fn query(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !br##"#[]{}\|<>""##.contains(&byte);
    let variables = ["${host}", "${protocol}", "${port}", "${path}", "${query}"];
    if !text.starts_with('?') && mixes(text, &variables, allowed) {
        return Ok(text.to_owned());
    }
    Err(
        "leave the `?` out and use at most 128 printable ASCII characters without blanks and `#[]{}\\|<>\"`, and each of \
         `${host}`, `${protocol}`, `${port}`, `${path}` and `${query}` once",
    )
}

/// Allowed characters and variables, each at most once.
fn mixes(text: &str, variables: &[&str], allowed: impl Fn(u8) -> bool) -> bool {
    let mut plain = text.to_owned();
    for variable in variables {
        // A blank, which no text may hold: what lies around a variable must not join into another one.
        plain = plain.replacen(variable, " ", 1);
    }
    text.len() <= PART_CHARS
        && plain.bytes().all(|byte| byte == b' ' || allowed(byte))
        && !text.contains(' ')
}
