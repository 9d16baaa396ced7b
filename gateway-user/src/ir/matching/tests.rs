use super::*;

mod laws;

/// A request written out.
#[derive(Clone, Debug, Default)]
struct Sample {
    host: Option<String>,
    method: String,
    path: String,
    query: Option<String>,
    source: Option<IpAddr>,
    /// Field lines: lower-case name, value.
    headers: Vec<(String, String)>,
}

impl RequestParts for Sample {
    fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn source(&self) -> Option<IpAddr> {
        self.source
    }

    fn header_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let of_name = move |line: &&(String, String)| line.0 == name;
        self.headers
            .iter()
            .filter(of_name)
            .map(|line| line.1.as_bytes())
    }
}

#[test]
fn a_hostile_glob_stays_cheap() {
    let pattern = b"*a".repeat(64);
    let text = b"a".repeat(8 * 1024);
    assert!(glob(&pattern, &text));
    assert!(!glob(&[&pattern[..], b"b"].concat(), &text));
}

#[test]
fn a_prefix_matches_whole_elements() {
    let foo = PathPattern::Prefix("/foo".into());
    assert!(foo.matches("/foo") && foo.matches("/foo/") && foo.matches("/foo/bar"));
    assert!(!foo.matches("/foobar") && !foo.matches("/Foo") && !foo.matches("/"));
}

#[test]
fn a_wildcard_host_is_exactly_one_label() {
    let pattern = HostPattern::OneLabel(".example.com".into());
    assert!(pattern.matches("a.example.com") && pattern.matches("A.EXAMPLE.com"));
    assert!(
        !pattern.matches("example.com")
            && !pattern.matches("a.b.example.com")
            && !pattern.matches(".example.com")
    );
}

#[test]
fn the_port_and_the_final_dot_of_an_authority_do_not_count() {
    for (authority, host) in [
        ("a.com:80", "a.com"),
        ("a.com", "a.com"),
        ("a.com.:80", "a.com"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("a.com:", "a.com"),
        ("", ""),
    ] {
        assert_eq!(without_port(authority), host);
    }
}

fn pair(key: &str, value: &str) -> PairMatch {
    PairMatch {
        key: key.into(),
        value: value.into(),
    }
}

#[test]
fn a_query_parameter_is_compared_decoded() {
    for (query, found) in [
        ("stage=gray", true),
        ("a=b&stage=gray&c", true),
        ("s%74age=%67ray", true),
        ("&&stage=gray&", true),
        ("stage=gr%61y%", false),
        ("stage=GRAY", false),
        ("stage=gray+", false),
        ("stage", false),
        ("xstage=gray", false),
        ("stage=gray;a=b", false),
        ("", false),
    ] {
        assert_eq!(pair("stage", "gray").in_query(query), found, "{query}");
    }
    assert!(pair("stage", "*").in_query("stage") && pair("st*", "g?ay").in_query("stage=gray"));
    assert!(pair("a", "1+1").in_query("a=1+1") && pair("a", "100%").in_query("a=100%"));
    assert!(pair("a", "b=c").in_query("a=b=c") && pair("a", "x%zz").in_query("a=x%zz"));
}

#[test]
fn a_cookie_is_found_on_every_line_and_with_or_without_quotation_marks() {
    for (lines, found) in [
        (&["stage=gray"][..], true),
        (&["a=b; stage=gray"], true),
        (&["a=b;stage = gray ;c=d"], true),
        (&["a=b", "stage=gray"], true),
        (&["stage=\"gray\""], true),
        (&["stage=%67ray"], false),
        (&["stage=\"gray"], false),
        (&["stage"], false),
        (&["a=b, stage=gray"], false),
        (&[], false),
    ] {
        let read = lines.iter().map(|line| line.as_bytes());
        assert_eq!(pair("stage", "gray").in_cookies(read), found, "{lines:?}");
    }
}

#[test]
fn a_query_or_cookie_too_long_to_read_meets_no_condition() {
    let long = format!("stage=gray&{}", "a".repeat(32 * 1024));
    assert!(!pair("stage", "gray").in_query(&long));
    let lines = [long.as_bytes(), b"stage=gray"];
    assert!(!pair("stage", "gray").in_cookies(lines.into_iter()));
}

#[test]
fn a_mapped_source_is_its_ipv4_address() {
    let conditions = Conditions {
        sources: vec!["10.0.0.0/8".parse().unwrap()],
        ..Conditions::default()
    };
    let from = |source: Option<&str>| {
        conditions.matches(&Sample {
            source: source.map(|it| it.parse().unwrap()),
            ..Sample::default()
        })
    };
    assert!(from(Some("10.1.2.3")) && from(Some("::ffff:10.1.2.3")));
    assert!(!from(Some("11.0.0.1")) && !from(Some("::10.1.2.3")) && !from(None));
}

#[test]
fn several_blocks_of_pairs_hold_together_and_one_pair_of_a_block_suffices() {
    let conditions = Conditions {
        queries: vec![vec![pair("a", "1"), pair("a", "2")], vec![pair("b", "*")]],
        ..Conditions::default()
    };
    let asks = |query: &str| {
        conditions.matches(&Sample {
            query: Some(query.into()),
            ..Sample::default()
        })
    };
    assert!(asks("a=2&b=x") && asks("b&a=1"));
    assert!(!asks("a=1") && !asks("b=1") && !asks("a=3&b=1"));
}

#[test]
fn a_response_is_read_by_its_status_and_headers_only() {
    let conditions = Conditions {
        methods: vec!["GET".into()],
        response_statuses: vec![404, 500],
        response_headers: vec![HeaderMatch {
            name: "server".into(),
            values: vec!["ngin?".into()],
        }],
        ..Conditions::default()
    };
    let meets = |status, server: &'static [u8]| {
        conditions.matches_response(status, |name| (name == "server").then_some(server))
    };
    assert!(meets(404, b"nginx") && meets(500, b"nginy"));
    assert!(!meets(200, b"nginx") && !meets(404, b"apache"));
}
