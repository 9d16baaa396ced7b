//! The law of a case.

use super::{
    cases::Case,
    reading::{self, Read},
    stage::Outcome,
};

/// One answer as the client got it.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Method and target that the origin has answered; none of the proxy's own.
    seen: Option<Vec<u8>>,
}

/// Says what is wrong, and notes the statuses.
pub fn judge(case: &Case, outcome: &Outcome) -> Result<(), String> {
    if outcome.stuck {
        return Err("the connection does not end after the client has left".into());
    }
    if let Some((why, bytes)) = outcome.bad.first() {
        return Err(format!(
            "the origin was sent what is no request: {why}: {}",
            bytes.escape_ascii()
        ));
    }
    let answers = answers(&outcome.got)?;
    let good = answers.iter().filter(|it| (200..300).contains(&it.status));
    let acknowledged: Vec<_> = good.map(|it| it.seen.clone().unwrap_or_default()).collect();
    let told = |read: &Read| [&read.method, b" ".as_slice(), &read.target].concat();
    let served: Vec<_> = outcome.served.iter().map(told).collect();
    if acknowledged != served {
        return Err(format!(
            "the origin has seen {}, and the client was told of {}",
            text(&served),
            text(&acknowledged)
        ));
    }
    if let Some(at) = answers.iter().position(|it| it.status >= 400)
        && at + 1 < answers.len()
    {
        return Err(format!("more follows a refusal: {answers:?}"));
    }
    let sent = reading::all(&case.bytes);
    for (index, seen) in outcome.served.iter().enumerate() {
        let Some(sent) = sent.get(index) else {
            let what = text(&[told(seen)]);
            return Err(format!("{what} is a request to the proxy alone"));
        };
        let same = seen.method == sent.method
            && decoded(&seen.target) == decoded(path(&sent.target))
            && seen.body == sent.body;
        if !same {
            let pair = text(&[told(seen), told(sent)]);
            return Err(format!("other requests, or other bodies: {pair}"));
        }
        canonical(seen)?;
    }
    Ok(())
}

/// What is passed on has one framing, one host, and asks for no other HTTP.
fn canonical(seen: &Read) -> Result<(), String> {
    let hosts = seen.all(b"host").count();
    let http = |protocol: &[u8]| {
        let name = protocol.split(|byte| *byte == b'/').next();
        let name = name.unwrap_or_default().trim_ascii().to_ascii_lowercase();
        [b"h2c".as_slice(), b"h2", b"http"].contains(&name.as_slice())
    };
    let mut upgrades = seen.all(b"upgrade");
    let upgrades = upgrades.any(|it| it.split(|byte| *byte == b',').any(http));
    let codings = seen.all(b"transfer-encoding").all(|it| it == b"chunked");
    match hosts == 1 && !upgrades && codings && seen.version == (1, 1) {
        true => Ok(()),
        false => Err(format!("the origin was sent {:?}", seen.fields)),
    }
}

/// Takes apart all that the client got.
fn answers(got: &[u8]) -> Result<Vec<Answer>, String> {
    let mut rest = got;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let Some(end) = rest.windows(4).position(|it| it == b"\r\n\r\n") else {
            // Cut off with the connection.
            return match rest.starts_with(b"HTTP/1.1 ") || b"HTTP/1.1 ".starts_with(rest) {
                true => Ok(all),
                false => Err(format!("answered {}", rest.escape_ascii())),
            };
        };
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let status = head.strip_prefix("HTTP/1.1 ");
        let status: Option<u16> = status.and_then(|it| it.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| format!("answered {head:?}"))?;
        if status < 200 {
            continue;
        }
        let field = |name: &str| {
            let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
            let mut named = lines.filter(|(it, _)| it.eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value.to_owned())
        };
        let seen = field("x-seen").map(String::into_bytes);
        let length: Option<usize> = field("content-length").and_then(|it| it.parse().ok());
        let length = length.ok_or_else(|| format!("an answer of no length: {head:?}"))?;
        let head_only = seen.as_ref().is_some_and(|it| it.starts_with(b"HEAD "));
        if !head_only {
            rest = rest.get(length..).unwrap_or_default();
        }
        all.push(Answer { status, seen });
    }
    Ok(all)
}

/// The final statuses that the client got.
pub fn statuses(got: &[u8]) -> Vec<u16> {
    let answers = answers(got).unwrap_or_default();
    answers.iter().map(|it| it.status).collect()
}

/// The path and query of a target in whatever form.
fn path(target: &[u8]) -> &[u8] {
    let scheme = target.windows(3).position(|it| it == b"://");
    match scheme.filter(|_| !target.starts_with(b"/")) {
        None => target,
        Some(at) => {
            let rest = &target[at + 3..];
            let end = rest.iter().position(|it| matches!(it, b'/' | b'?'));
            &rest[end.unwrap_or(rest.len())..]
        }
    }
}

/// Without escapes, so that all spellings are equal; no path is the root.
fn decoded(target: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !target.starts_with(b"/") && target != b"*" {
        out.push(b'/');
    }
    let mut rest = target;
    while let Some((first, behind)) = rest.split_first() {
        let escape = behind.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let byte = escape.and_then(|it| u8::from_str_radix(it, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &behind[2..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

fn text(lines: &[Vec<u8>]) -> String {
    let all: Vec<_> = lines
        .iter()
        .map(|it| it.escape_ascii().to_string())
        .collect();
    format!("[{}]", all.join(", "))
}
