//! What an accepted expression costs at most, measured without optimisation.

use std::time::{Duration, Instant};

use super::Regex;

/// Far above what is measured (10 ms, all in), and below what an operator would notice.
const BUILD: Duration = Duration::from_millis(100);

#[test]
fn a_hostile_expression_of_256_bytes_is_cheap_to_build_and_to_search() {
    let cut = |text: &str| text.repeat(256 / text.len());
    let hostile = [
        cut(r"\w"),
        cut("."),
        cut(r"[\w--[^\d]&&\W]"),
        cut("(a|b|"),
        cut(r"(\w)"),
        cut("a{9}|"),
        cut(".{0,99}"),
        cut("(?:a?){3}"),
        cut(r"\b"),
        cut("[[:alnum:]]*"),
        "((((a{100}){100}){100}){100}){100}".into(),
        r"\w{500}".into(),
        ".*".repeat(127),
        "(a|b)*a(a|b){300}c".into(),
        "a[ab]{180}c".into(),
        format!("{}a{}", "(".repeat(31), ")*".repeat(31)),
        format!("{}a{}", "(".repeat(127), ")".repeat(127)),
        "(a*)*b".into(),
        "(x+x+)+y".into(),
    ];
    let path = format!("/{}", "ab".repeat(16 * 1024));
    for text in hostile {
        let started = Instant::now();
        let built = Regex::new(&text, true);
        assert!(started.elapsed() < BUILD, "{text}: {:?}", started.elapsed());
        let started = Instant::now();
        let accepted = built.is_ok_and(|regex| {
            regex.is_match(&path);
            true
        });
        // Longest path the proxy reads; the engine is linear in it, times at most 2000 states.
        let most = 10 * BUILD;
        assert!(
            started.elapsed() < most,
            "{text} ({accepted}): {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn unicode_classes_are_refused_in_every_spelling() {
    for text in [
        r"\pL",
        r"\p{Greek}",
        r"(?u)\w",
        r"(?u:\pL)",
        r"a(?iu-s)b",
        r"(?i:(?u)a)",
    ] {
        assert!(Regex::new(text, false).is_err(), "{text}");
    }
    for text in [r"\w", "(?i)a", "(?-u)a", "[^/]", "(?x) a # u", r"\(?u\)"] {
        assert!(Regex::new(text, false).is_ok(), "{text}");
    }
}

#[test]
fn an_error_is_one_short_line() {
    for text in [
        "(",
        "[z-a]",
        "a{2,1}",
        "*",
        r"\q",
        &"(".repeat(200),
        r"(\w{99}){99}",
        "(?=a)",
        r"(a)\1",
    ] {
        let error = Regex::new(text, false).unwrap_err();
        assert!(
            !error.contains('\n') && error.len() < 120,
            "{text}: {error}"
        );
    }
}

#[test]
fn an_expression_is_searched_and_minds_case_as_told() {
    let matches = |text, ignore_case, path| Regex::new(text, ignore_case).unwrap().is_match(path);
    assert!(matches("/foo", false, "/a/foo/b") && !matches("/foo", false, "/FOO"));
    assert!(matches("/foo", true, "/FOO") && !matches("^/foo$", true, "/foo/"));
    assert!(matches("^/[^/]+$", false, "/\u{fc}"));
}
