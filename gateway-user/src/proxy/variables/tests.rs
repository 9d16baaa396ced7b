use hyper::{Uri, header::HeaderValue};
use proptest::{option, prelude::*};

use super::*;
use crate::{
    ir::Regex,
    proxy::framing::{HeadLimits, head},
};

fn asked<'a>(host: &'a str, port: u16, path: &'a str, query: Option<&'a str>) -> Asked<'a> {
    Asked {
        protocol: "http",
        host,
        port,
        path,
        query,
    }
}

fn told(redirect: &Redirect, asked: &Asked<'_>) -> String {
    String::from_utf8(location(redirect, asked)).expect("ASCII")
}

/// `protocol host port path query`; `-` is the request's own.
fn redirect(parts: &str) -> Redirect {
    let mut parts = parts.split(' ');
    let mut part = |name: &str| match parts.next() {
        None | Some("-") => format!("${{{name}}}"),
        Some(text) => text.to_owned(),
    };
    Redirect {
        protocol: part("protocol"),
        host: part("host"),
        port: part("port"),
        path: part("path"),
        query: part("query"),
        code: 301,
    }
}

#[test]
fn a_redirect_leads_to_its_parts_and_keeps_the_others() {
    let own = asked("a.com", 80, "/x/y", Some("q=1&r"));
    for (parts, wanted) in [
        ("https - 443 - -", "https://a.com/x/y?q=1&r"),
        ("- b.com - - -", "http://b.com/x/y?q=1&r"),
        ("- - 8080 - -", "http://a.com:8080/x/y?q=1&r"),
        ("https - - - -", "https://a.com:80/x/y?q=1&r"),
        ("- - - /new${path} -", "http://a.com/new/x/y?q=1&r"),
        (
            "- - - /${host}/${protocol}/${port} -",
            "http://a.com/a.com/http/80?q=1&r",
        ),
        ("- - - / a=${path}&${query}", "http://a.com/?a=/x/y&q=1&r"),
        ("- - - /${unknown}$ -", "http://a.com/$%7Bunknown%7D$?q=1&r"),
    ] {
        assert_eq!(told(&redirect(parts), &own), wanted, "{parts}");
    }
}

#[test]
fn an_empty_query_and_the_protocols_own_port_are_left_out() {
    for query in [None, Some("")] {
        let own = asked("a.com", 8080, "/", query);
        assert_eq!(told(&Redirect::to_https(), &own), "https://a.com/");
        assert_eq!(told(&redirect("- b.com"), &own), "http://b.com:8080/");
    }
    let six = asked("[2001:db8::1]", 80, "/", None);
    assert_eq!(told(&Redirect::to_https(), &six), "https://[2001:db8::1]/");
}

#[test]
fn what_a_request_holds_cannot_leave_its_place_in_a_redirect() {
    for (host, path, query, wanted) in [
        ("a", "/b\r\nX: y", None, "https://a/b%0D%0AX:%20y"),
        (
            "a",
            "/\u{fc}\\\"<>",
            Some("{|}"),
            "https://a/%C3%BC%5C%22%3C%3E?%7B%7C%7D",
        ),
        ("a", "/100%/%zz/%41", None, "https://a/100%25/%25zz/%41"),
        ("a", "/b?c#d", Some("e#f"), "https://a/b%3Fc%23d?e%23f"),
        ("a", "*", None, "https://a/*"),
        ("a", "/${query}", Some("b"), "https://a/$%7Bquery%7D?b"),
        ("a", "//b", None, "https://a//b"),
        // No host: never another one.
        ("", "//b", None, "/b"),
        ("a@b", "///b", Some("c"), "/b?c"),
        ("a/b", "/\\b", None, "/%5Cb"),
        ("[a", "c", None, "/c"),
    ] {
        let told = told(&Redirect::to_https(), &asked(host, 80, path, query));
        assert_eq!(told, wanted, "{host}{path}");
    }
}

#[test]
fn a_value_in_a_query_adds_no_parameter() {
    let own = asked("a.com", 80, "/b&admin=1+1;c", Some("d=1&e"));
    let found = told(&redirect("- - - /login next=${path}&${query}"), &own);
    assert_eq!(found, "http://a.com/login?next=/b%26admin=1%2B1%3Bc&d=1&e");
}

fn rewriting(host: &str, path: &str, query: &str, captures: Option<&str>) -> Rewrite {
    Rewrite {
        host: host.into(),
        path: path.into(),
        query: query.into(),
        captures: captures.map(|text| Regex::new(text, true).unwrap()),
    }
}

fn target(path: &str, regex: &str, asked_path: &str) -> Option<String> {
    let rewriting = rewriting("${host}", path, "${query}", Some(regex));
    let found = rewrite(&rewriting, &asked("a.com", 80, asked_path, None)).ok()?;
    Some(String::from_utf8(found.path).expect("ASCII"))
}

#[test]
fn a_rewrite_puts_the_groups_of_the_path_into_its_target() {
    const OLD: &str = "/old(/|$)(.*)";
    for (path, regex, asked, wanted) in [
        ("/path/${2}", OLD, "/old/a/b", "/path/a/b"),
        ("/path/${2}", OLD, "/OLD", "/path/"),
        ("/path/${2}", OLD, "/other", "/other"),
        ("/${2}", OLD, "/old//evil.com", "/evil.com"),
        ("/${2}/${1}", "/(a)(b)?", "/a", "/a"),
        ("/${3}-${2}-${1}", "/(.)(.)(.)", "/abc", "/c-b-a"),
        ("/${1}", "/old/(.*)", "/old/%41|${2}", "/%41%7C$%7B2%7D"),
        ("/${1}5", "/old/(%2)", "/old/%2e", "/%2525"),
    ] {
        assert_eq!(
            target(path, regex, asked).as_deref(),
            Some(wanted),
            "{path} {asked}"
        );
    }
}

#[test]
fn a_rewrite_that_makes_a_dot_segment_is_refused() {
    for (path, regex, asked) in [
        ("/path/${1}", "/a(.*)", "/a.."),
        ("/path/.${1}", "/a(.*)", "/a./b"),
        ("/path/${1}", "/a(.*)", "/a%2e;b"),
    ] {
        assert_eq!(target(path, regex, asked), None, "{asked}");
    }
}

#[test]
fn what_a_rewrite_does_not_name_stays_as_sent() {
    let own = asked("a.com", 80, "//b|c", Some("d={e}&100%"));
    let found = rewrite(&rewriting("b.com", "${path}", "${query}", None), &own).expect("kept");
    assert_eq!(found.authority.as_deref(), Some(&b"b.com"[..]));
    assert_eq!(found.path, b"//b|c");
    assert_eq!(found.query.as_deref(), Some(&b"d={e}&100%"[..]));

    let found =
        rewrite(&rewriting("${host}", "/n${path}", "x=${host}", None), &own).expect("sound");
    assert_eq!(found.authority, None);
    assert_eq!(found.path, b"/n//b%7Cc");
    assert_eq!(found.query.as_deref(), Some(&b"x=a.com"[..]));
}

fn templates() -> impl Strategy<Value = String> {
    "(/|\\$\\{path\\})([a-z$./&+:]|\\$\\{(host|path|port|protocol|query|1|2|3|x)\\}){0,6}"
}

/// What the gate lets pass as a path: no blank, control character, `?`, `#` or dot segment.
fn sent_paths() -> impl Strategy<Value = String> {
    let any = "/([a.;/?|%\\\\]|%2[eEfF]|%5c|\\PC){0,10}";
    any.prop_filter("the gate refuses it", |path| {
        let plain = |byte: u8| byte > b' ' && byte != 0x7f && byte != b'#' && byte != b'?';
        path.is_ascii()
            && path.bytes().all(plain)
            && unambiguous(path.as_bytes()).is_ok()
            && crate::proxy::framing::spelling::normal(path.as_bytes()).is_ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn a_location_is_a_header_value_and_a_uri(
        host in "[a-z.]{0,3}|\\[[0-9a-f:]{0,6}\\]|(?s:.){0,6}",
        own in any::<u16>(),
        path in "(?s:.){0,20}|/{0,3}[a.%\\\\]{0,6}",
        query in option::of("(?s:.){0,20}"),
        (to, port) in ("\\$\\{host\\}|b\\.c", "\\$\\{port\\}|443|80|1"),
        (path_to, query_to) in (templates(), templates()),
        protocol in "\\$\\{protocol\\}|http|https",
    ) {
        let redirect = Redirect { protocol, host: to, port, path: path_to, query: query_to, code: 301 };
        let asked = asked(&host, own, &path, query.as_deref());
        let found = location(&redirect, &asked);
        prop_assert!(found.iter().all(u8::is_ascii_graphic), "{:?}", found);
        prop_assert!(HeaderValue::from_bytes(&found).is_ok());
        let uri = Uri::try_from(&found[..]);
        prop_assert!(uri.is_ok(), "{:?} {:?}", String::from_utf8_lossy(&found), uri);
        let uri = uri.expect("a URI");
        // The host is that of the rule or of the request; no other.
        let wanted = if redirect.host == "${host}" { &host } else { &redirect.host };
        prop_assert!(uri.host().is_none_or(|it| it == wanted), "{}", uri);
        prop_assert!(uri.host().is_some() || !found.starts_with(b"//"));
        prop_assert!(uri.path().starts_with('/'));
    }

    #[test]
    fn a_rewritten_target_passes_the_gate(
        path in sent_paths(),
        query in option::of("[a-z&=%?]{0,8}"),
        (path_to, query_to) in (templates(), templates()),
        captures in option::of("/\\(\\.\\*\\)|/\\(\\.\\)\\(\\.\\?\\)"),
    ) {
        let rewriting = rewriting("b.c", &path_to, &query_to, captures.as_deref());
        let asked = asked("a", 80, &path, query.as_deref());
        if let Ok(found) = rewrite(&rewriting, &asked) {
            let own = found.path == path.as_bytes();
            prop_assert!(own || found.path.iter().all(u8::is_ascii_graphic));
            prop_assert!(own || found.path.starts_with(b"/") && !found.path.starts_with(b"//"));
            prop_assert!(found.query.iter().flatten().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
            let target = [&found.path[..], b"?", &found.query.unwrap_or_default()].concat();
            let head = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let limits = HeadLimits { head_bytes: 4096, target_bytes: 4096, fields: 5 };
            let mut request = crate::proxy::message::Request::default();
            prop_assert!(head::read(&head, limits, &mut request).is_ok(), "{:?}", String::from_utf8_lossy(&head));
        }
    }
}
