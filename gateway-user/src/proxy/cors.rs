//! Cross-origin requests of browsers (Fetch standard, "CORS protocol"; contract section 12). Pure.

use super::{
    fields::Name,
    message::{Request, Response},
};
use crate::ir::Cors;

/// What a response says to the browser.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Marked(Vec<(Name, Vec<u8>)>);

impl Marked {
    /// Says it; what a backend said of the same is replaced.
    pub(super) fn mark(&self, response: &mut Response) {
        // Also where nothing is allowed: then nobody else allows it either.
        response.fields.remove_any(|name| {
            matches!(
                name,
                Name::AccessControlAllowOrigin
                    | Name::AccessControlAllowCredentials
                    | Name::AccessControlAllowMethods
                    | Name::AccessControlAllowHeaders
                    | Name::AccessControlExposeHeaders
                    | Name::AccessControlMaxAge
            )
        });
        for (name, value) in &self.0 {
            response.fields.push_known(*name, value);
        }
    }
}

/// The answer to a preflight request; `None` where the request is none.
pub(super) fn preflight(cors: &Cors, request: &Request) -> Option<Marked> {
    let fields = &request.fields;
    if request.method() != b"OPTIONS" || !fields.has(Name::AccessControlRequestMethod) {
        return None;
    }
    let mut marked = actual(cors, request)?;
    let mut say = |name, value: String| {
        if !value.is_empty() {
            marked.0.push((name, value.into_bytes()));
        }
    };
    if !allowed(cors, fields.get(Name::Origin)?) {
        // The browser reads from what is missing that it may not.
        return Some(marked);
    }
    say(Name::AccessControlAllowMethods, cors.methods.join(", "));
    say(Name::AccessControlAllowHeaders, cors.headers.join(","));
    say(Name::AccessControlMaxAge, cors.max_age_seconds.to_string());
    Some(marked)
}

/// How the answer to a request from another origin is marked; `None` where the request names no origin.
pub(super) fn actual(cors: &Cors, request: &Request) -> Option<Marked> {
    let origin = request.fields.get(Name::Origin)?;
    let any = cors.origins.iter().any(|it| it == "*");
    let mut marked = Marked::default();
    if !any {
        // The answer to another origin is another one.
        marked.0.push((Name::Vary, b"Origin".to_vec()));
    }
    if !allowed(cors, origin) {
        return Some(marked);
    }
    // `*` is said as it is written: browsers then send no credentials, whatever is said of them.
    let named = if any { b"*".to_vec() } else { origin.to_vec() };
    marked.0.push((Name::AccessControlAllowOrigin, named));
    if cors.credentials {
        let yes = b"true".to_vec();
        marked.0.push((Name::AccessControlAllowCredentials, yes));
    }
    if !cors.expose.is_empty() && request.method() != b"OPTIONS" {
        let names = cors.expose.join(",").into_bytes();
        marked.0.push((Name::AccessControlExposeHeaders, names));
    }
    Some(marked)
}

fn allowed(cors: &Cors, origin: &[u8]) -> bool {
    let Ok(origin) = str::from_utf8(origin) else {
        return false;
    };
    cors.origins.iter().any(|allowed| covers(allowed, origin))
}

/// `https://*.example.com:8443` covers every name below `example.com`, on this scheme and port.
fn covers(allowed: &str, origin: &str) -> bool {
    if allowed == "*" {
        return true;
    }
    let Some((before, after)) = allowed.split_once("*.") else {
        return allowed.eq_ignore_ascii_case(origin);
    };
    let label_and_rest = origin
        .get(..before.len())
        .filter(|it| it.eq_ignore_ascii_case(before))
        .and_then(|_| origin.get(before.len()..));
    let Some(host) = label_and_rest else {
        return false;
    };
    let at = host.len().checked_sub(after.len());
    at.is_some_and(|at| {
        at > 1
            && host
                .get(at..)
                .is_some_and(|it| it.eq_ignore_ascii_case(after))
            && host.as_bytes().get(at - 1) == Some(&b'.')
            && host[..at - 1]
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            origins: origins.iter().map(|it| (*it).to_owned()).collect(),
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["X-A".into(), "X-B".into()],
            expose: vec!["X-C".into()],
            credentials: true,
            max_age_seconds: 600,
        }
    }

    fn asks(method: &str, origin: Option<&str>, preflight: bool) -> Request {
        let mut request = Request::default();
        request.method = request.fields.keep(method.as_bytes());
        if let Some(origin) = origin {
            request.fields.push(b"Origin", origin.as_bytes());
        }
        if preflight {
            request
                .fields
                .push(b"Access-Control-Request-Method", b"PUT");
        }
        request
    }

    fn said(marked: Option<Marked>) -> Vec<String> {
        let mut response = Response::default();
        marked.unwrap_or_default().mark(&mut response);
        let lines = response.fields.iter();
        lines
            .map(|(_, name, value)| {
                format!(
                    "{}: {}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                )
            })
            .collect()
    }

    #[test]
    fn an_origin_is_covered_by_itself_and_by_a_wildcard_for_its_labels() {
        for (allowed, origin, yes) in [
            ("*", "https://x", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            (
                "https://*.example.com",
                "https://evil.com/.example.com",
                false,
            ),
            ("https://*.example.com", "https://evilexample.com", false),
            (
                "https://*.example.com:8443",
                "https://a.example.com:8443",
                true,
            ),
            ("https://*.example.com:8443", "https://a.example.com", false),
            ("https://*.example.com", "null", false),
        ] {
            assert_eq!(covers(allowed, origin), yes, "{allowed} {origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_and_told_what_is_allowed() {
        let cors = cors(&["https://a.example"]);
        assert_eq!(
            said(preflight(
                &cors,
                &asks("OPTIONS", Some("https://a.example"), true)
            )),
            [
                "vary: Origin",
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: X-A,X-B",
                "access-control-max-age: 600",
            ]
        );
        assert_eq!(
            said(preflight(
                &cors,
                &asks("OPTIONS", Some("https://b.example"), true)
            )),
            ["vary: Origin"]
        );
        assert_eq!(
            preflight(&cors, &asks("OPTIONS", Some("https://a.example"), false)),
            None
        );
        assert_eq!(
            preflight(&cors, &asks("GET", Some("https://a.example"), true)),
            None
        );
    }

    #[test]
    fn answers_to_other_origins_are_marked_and_all_others_left_alone() {
        assert_eq!(
            said(actual(
                &cors(&["*"]),
                &asks("GET", Some("https://x"), false)
            )),
            [
                "access-control-allow-origin: *",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: X-C",
            ]
        );
        assert_eq!(actual(&cors(&["*"]), &asks("GET", None, false)), None);
    }
}
