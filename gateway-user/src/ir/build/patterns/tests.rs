use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn notes() -> Notes {
    Notes::on("Ingress", "demo", "a")
}

fn specific(text: &str) -> Option<PathPattern> {
    path(
        text,
        Some("ImplementationSpecific"),
        false,
        "f",
        &mut notes(),
    )
}

fn regex(text: &str, ignore_case: bool) -> Regex {
    Regex::new(text, ignore_case).unwrap()
}

#[test]
fn a_prefix_loses_one_trailing_slash_and_root_covers_all() {
    for path_type in [None, Some("Prefix")] {
        let read = |text: &str| path(text, path_type, false, "f", &mut notes());
        assert_eq!(read("/foo/"), Some(PathPattern::Prefix("/foo".into())));
        assert_eq!(read("/foo"), Some(PathPattern::Prefix("/foo".into())));
        assert_eq!(read("/"), Some(PathPattern::Prefix(String::new())));
        assert_eq!(read(""), Some(PathPattern::Prefix(String::new())));
    }
}

#[test]
fn a_prefix_of_an_ingress_with_regex_is_one_in_either_case_except_root() {
    let read = |text: &str, path_type| path(text, path_type, true, "f", &mut notes());
    let something = "/something(/|$)(.*)";
    let wanted = Some(PathPattern::Regex(regex(something, true)));
    assert_eq!(read(something, Some("Prefix")), wanted);
    assert_eq!(read(something, None), wanted);
    assert_eq!(
        read("/", Some("Prefix")),
        Some(PathPattern::Prefix(String::new()))
    );
    assert_eq!(
        read("/a", Some("Exact")),
        Some(PathPattern::Exact("/a".into()))
    );
    assert_eq!(read("/a?", Some("Exact")), None);
    assert_eq!(read("a.*", Some("Prefix")), None);
    assert_eq!(read("/(a", Some("Prefix")), None);
}

#[test]
fn implementation_specific_is_taken_verbatim() {
    assert_eq!(specific("/foo/"), Some(PathPattern::Exact("/foo/".into())));
    assert_eq!(specific("/"), Some(PathPattern::Exact("/".into())));
    assert_eq!(specific("/foo/*"), Some(PathPattern::Glob("/foo/*".into())));
    assert_eq!(specific("/fo?"), Some(PathPattern::Glob("/fo?".into())));
    assert_eq!(specific("/*"), Some(PathPattern::Prefix(String::new())));
    assert_eq!(specific("/?"), Some(PathPattern::Glob("/?".into())));
    assert_eq!(
        specific("~*/Foo"),
        Some(PathPattern::Regex(regex("/Foo", true)))
    );
    assert_eq!(
        specific("~^/[0-9]+$"),
        Some(PathPattern::Regex(regex("^/[0-9]+$", false)))
    );
}

#[test]
fn a_wildcard_in_prefix_or_exact_is_refused() {
    for path_type in [None, Some("Prefix"), Some("Exact")] {
        for text in ["/a*", "/a?b"] {
            let mut notes = notes();
            assert_eq!(path(text, path_type, false, "f", &mut notes), None);
            assert!(notes.problems[0].message.contains("holds a wildcard"));
        }
    }
}

#[test]
fn a_path_that_cannot_match_is_refused() {
    for text in [
        "foo",
        "*",
        "/a b",
        "//",
        "/a/../b",
        "/a/.",
        "/\u{fc}",
        "/%2f",
        &format!("/{}", "a".repeat(128)),
    ] {
        for path_type in ["Exact", "Prefix", "ImplementationSpecific"] {
            let mut notes = notes();
            assert_eq!(
                path(text, Some(path_type), false, "f", &mut notes),
                None,
                "{text}"
            );
            assert_eq!(notes.errors(), 1, "{text}");
        }
    }
}

#[test]
fn an_unusable_expression_names_itself_and_why() {
    let long = format!("~{}", "a".repeat(257));
    for (text, why) in [
        (
            "~/(a",
            "`/(a` is not usable as a regular expression: unclosed group",
        ),
        (
            "~*",
            "`` is not usable as a regular expression: it is empty",
        ),
        (r"~(\w{99}){99}", "memory"),
        ("~(?=a)", "look-around"),
        ("~\u{fc}", "printable ASCII"),
        (&long, "longer than 256 bytes"),
    ] {
        let mut notes = notes();
        assert_eq!(verbatim(text, "the.field", &mut notes), None, "{text}");
        let told = notes.problems[0].to_string();
        assert!(told.contains(why) && told.contains("the.field"), "{told}");
    }
}

#[test]
fn hosts_of_rules_are_dns_names_with_wildcards() {
    let read = |text: &str| host(text, "f", &mut notes());
    assert_eq!(read("*"), Some(None));
    assert_eq!(read(""), Some(None));
    let exact = HostPattern::Exact("shop.example.com".into());
    assert_eq!(read("Shop.Example.com"), Some(Some(exact)));
    let label = HostPattern::OneLabel(".example.com".into());
    assert_eq!(read("*.Example.com"), Some(Some(label)));
    for glob in [
        "*.*.com",
        "www.example.*",
        "a*.example.com",
        "?.example.com",
        "**.example.com",
    ] {
        assert_eq!(read(glob), Some(Some(HostPattern::Glob(glob.into()))));
    }
    for bad in [
        "localhost",
        "10.0.0.1",
        "a.com:80",
        ".a.com",
        "a.com.",
        "a..b",
        "-a.com",
        "~^a[.]com$",
        "a b.com",
        "\u{fc}.com",
    ] {
        let mut notes = notes();
        assert_eq!(host(bad, "f", &mut notes), None, "{bad}");
        assert_eq!(notes.errors(), 1);
    }
}

#[test]
fn hosts_of_conditions_are_globs_or_expressions() {
    let read = |text: &str| host_condition(text, "f", &mut notes());
    assert_eq!(read("*.A.com"), Some(HostPattern::Glob("*.a.com".into())));
    assert_eq!(read("A.com"), Some(HostPattern::Exact("a.com".into())));
    let expression = Some(HostPattern::Regex(regex("^www.example.com$", true)));
    assert_eq!(read("~^www.example.com$"), expression);
    assert_eq!(read("~*^www.example.com$"), expression);
    assert_eq!(read("*"), None);
    assert_eq!(read(""), None);
    assert_eq!(read("~("), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Also with text that looks right, and whatever is understood says again what it means.
    #[test]
    fn any_text_is_read_quickly_or_refused_with_one_note(
        text in prop_oneof![
            ".{0,40}",
            "[~]?[*]?[/a-c.*?]{0,140}",
            r"~[*]?([/a-c.*?+|()\\^$]|\[|\]|\\w|\\pL|\{[0-9]{1,4}\}|\(\?i?u?\)?){0,80}",
        ],
        kind in proptest::sample::select(vec![None, Some("Prefix"), Some("Exact"), Some("ImplementationSpecific"), Some("x")]),
        regex in any::<bool>(),
    ) {
        let started = Instant::now();
        let mut path_notes = notes();
        let read = path(&text, kind, regex, "f", &mut path_notes);
        prop_assert_eq!(usize::from(read.is_none()), path_notes.errors());
        let mut host_notes = notes();
        let of_rule = host(&text, "f", &mut host_notes);
        let of_condition = host_condition(&text, "f", &mut host_notes);
        let refused = usize::from(of_rule.is_none()) + usize::from(of_condition.is_none());
        prop_assert_eq!(refused, host_notes.errors());
        prop_assert!(started.elapsed() < Duration::from_millis(300), "{} {:?}", text, started.elapsed());
        for pattern in [of_rule.flatten(), of_condition].into_iter().flatten() {
            prop_assert_eq!(host_condition(&pattern.to_string(), "f", &mut notes()).is_some(), true);
        }
        if let Some(pattern @ (PathPattern::Glob(_) | PathPattern::Exact(_) | PathPattern::Regex(_))) = read {
            prop_assert_eq!(verbatim(&pattern.to_string(), "f", &mut notes()), Some(pattern));
        }
    }
}
