//! A request in one line, and which rule decides on it.

use gateway_user::ir::{Ir, Listener, matching::PlainRequest};

/// `METHOD host/path?query name=value ...`: a header for each pair, but `from=` is the client's address and `on=` the
/// listener (`80/HTTP`) where it is not the first one.
pub fn answer(ir: &Ir, line: &str) -> String {
    let mut words = line.split_whitespace();
    let method = words.next().expect("a method");
    let target = words.next().expect("a target");
    let (target, query) = match target.split_once('?') {
        Some((target, query)) => (target, Some(query)),
        None => (target, None),
    };
    let at = target.find('/').expect("a path");
    let (host, path) = target.split_at(at);
    let mut headers = Vec::new();
    let (mut source, mut on) = (None, None);
    for word in words {
        match word.split_once('=').expect("name=value") {
            ("from", address) => source = Some(address.parse().expect("an address")),
            ("on", listener) => on = Some(listener),
            (name, value) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
        }
    }
    let request = PlainRequest {
        host: (!host.is_empty()).then_some(host),
        method,
        path,
        query,
        source,
        headers: &headers,
    };
    let meant =
        |it: &&Listener| on.is_none_or(|on| format!("{}/{}", it.name.port, it.name.protocol) == on);
    let verdict = match ir.listeners.values().map(|it| &**it).find(meant) {
        None => "no listener".to_owned(),
        Some(listener) => verdict(ir, listener, &request),
    };
    format!("request {line}: {verdict}\n")
}

fn verdict(ir: &Ir, listener: &Listener, request: &PlainRequest<'_>) -> String {
    if listener.refused.is_some() {
        return "refused with its listener".to_owned();
    }
    if let (Some(list), Some(client)) = (&listener.settings.access, request.source)
        && list.networks.iter().any(|it| it.contains(client)) != list.allow
    {
        return "kept out by the kernel: not on the access list, or on a black one".to_owned();
    }
    if listener.refused_response(request).is_some() {
        return "503, its rule for responses is refused".to_owned();
    }
    let Some(index) = listener.first_match(request) else {
        return "404, no rule".to_owned();
    };
    let rule = &listener.rules[index];
    let number = index + 1;
    if rule.refused.is_some() {
        return format!("503, rule {number} is refused");
    }
    let mut groups = rule.groups().peekable();
    let pods = |name| {
        ir.groups
            .get(name)
            .is_some_and(|group| !group.backends.is_empty())
    };
    if groups.peek().is_some() && !groups.any(|it| pods(&it.group)) {
        return format!("503, rule {number} has no pod");
    }
    format!("rule {number}")
}
