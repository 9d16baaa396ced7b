//! Annotations of a canary (contract section 9); which Ingress it is the canary of is found where rules are put together.

use std::collections::BTreeMap;

use super::{
    annotations::aliased,
    notes::{ALB, Notes, annotation},
};
use crate::problem::shown;

/// What an Ingress with `canary: "true"` takes: header and cookie together (AND), or a weight.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Canary {
    /// Lower-case name, and the value; `None`: the header is there.
    pub(super) header: Option<(String, Option<String>)>,
    /// This cookie is `always`.
    pub(super) cookie: Option<String>,
    /// 0 to 100 of 100.
    pub(super) weight: Option<u8>,
}

const DETAILS: [&str; 4] = [
    "canary-by-header",
    "canary-by-header-value",
    "canary-by-cookie",
    "canary-weight",
];

/// `None` where the Ingress is no canary, or after an error: without a good word on its share it serves nothing.
pub(super) fn parse(annotations: &BTreeMap<String, String>, notes: &mut Notes) -> Option<Canary> {
    match aliased(annotations, "canary") {
        Some((_, "true")) => {}
        canary => {
            let detail = DETAILS.iter().find_map(|key| aliased(annotations, key));
            // Off by its own word, what remains is meant for later.
            if let (Some((field, _)), None) = (detail, canary) {
                notes.warning(
                    field,
                    "has no effect without `canary: \"true\"`: the rules compete with those of production",
                    "add that, or remove the annotation",
                );
            }
            return None;
        }
    }
    let errors = notes.errors();
    let canary = Canary {
        header: header(annotations, notes),
        cookie: cookie(annotations, notes),
        weight: weight(annotations, notes),
    };
    if notes.errors() == errors {
        together(&canary, annotations, notes);
    }
    (notes.errors() == errors).then_some(canary)
}

fn header(
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Option<(String, Option<String>)> {
    let value = aliased(annotations, "canary-by-header-value");
    let Some((field, name)) = aliased(annotations, "canary-by-header") else {
        if let Some((field, _)) = value {
            notes.warning(
                field,
                "has no effect without canary-by-header",
                "name the header in `canary-by-header`, or remove the annotation",
            );
        }
        return None;
    };
    let known = ["cookie", "host"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(name));
    if known || !(1..=40).contains(&name.len()) || !name.bytes().all(header_byte) {
        notes.error(
            field,
            format!("{} is no header that a canary can be found by", shown(name)),
            "write a name of 1 to 40 letters, digits, `-` and `_`, other than Cookie and Host",
        );
        return None;
    }
    let value = match value {
        Some((field, value)) if !valid_value(value) => {
            notes.error(
                field,
                format!("{} is no value of a header", shown(value)),
                "write 1 to 128 printable ASCII characters without blanks at the ends",
            );
            return None;
        }
        value => value.map(|(_, value)| value.to_owned()),
    };
    Some((name.to_ascii_lowercase(), value))
}

fn header_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn valid_value(value: &str) -> bool {
    (1..=128).contains(&value.len())
        && value.trim() == value
        && value.bytes().all(|byte| (32..=126).contains(&byte))
}

fn cookie(annotations: &BTreeMap<String, String>, notes: &mut Notes) -> Option<String> {
    let (field, name) = aliased(annotations, "canary-by-cookie")?;
    let byte = |byte: u8| byte.is_ascii_graphic() && !b";=,#[]{}\\|<>&\"".contains(&byte);
    if (1..=100).contains(&name.len()) && name.bytes().all(byte) {
        return Some(name.to_owned());
    }
    notes.error(
        field,
        format!("{} is no name of a cookie", shown(name)),
        "write 1 to 100 characters without blanks and `;=,#[]{}\\|<>&\"`",
    );
    None
}

/// The cloud drops a canary whose weight it cannot read; a typing error must not do so without a word.
fn weight(annotations: &BTreeMap<String, String>, notes: &mut Notes) -> Option<u8> {
    let (field, text) = aliased(annotations, "canary-weight")?;
    let weight = text.parse::<u8>().ok().filter(|weight| *weight <= 100);
    if weight.is_none() {
        notes.error(
            field,
            format!("{} is not a weight", shown(text)),
            "write an integer from 0 (nothing) to 100 (all)",
        );
    }
    weight
}

/// What may stand beside what.
fn together(canary: &Canary, annotations: &BTreeMap<String, String>, notes: &mut Notes) {
    let matches = canary.header.is_some() || canary.cookie.is_some();
    let field = |key| aliased(annotations, key).map_or_else(String::new, |(field, _)| field);
    // "A canary Ingress with weight and header/cookie produces nothing at all."
    if matches && canary.weight.is_some() {
        notes.error(
            field("canary-weight"),
            "stands beside canary-by-header or canary-by-cookie, and both together select nothing",
            "put the weight on a second canary Ingress",
        );
    }
    if !matches && canary.weight.is_none() {
        notes.error(
            field("canary"),
            "is on, but nothing says which requests the canary takes",
            "add `canary-weight`, `canary-by-header` or `canary-by-cookie`",
        );
    }
    // "`canary` + `conditions.<svc>` on one Ingress -> error."
    let prefix = format!("{ALB}conditions.");
    let mut conditions = annotations.iter();
    if let Some((key, _)) =
        conditions.find(|(key, value)| key.starts_with(&prefix) && !value.is_empty())
    {
        notes.error(
            annotation(key),
            "stands on a canary, which takes its host and path from production and has no further conditions",
            "remove it, or remove `canary` and let the conditions select the requests",
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Canary, errors and warnings; keys without a slash are of the ALB.
    fn read(pairs: &[(&str, &str)]) -> (Option<Canary>, usize, usize) {
        let pairs = pairs.iter();
        let annotations = pairs
            .map(|(key, value)| match key.strip_prefix("N/") {
                Some(key) => (
                    format!("nginx.ingress.kubernetes.io/{key}"),
                    (*value).to_owned(),
                ),
                None => (format!("{ALB}{key}"), (*value).to_owned()),
            })
            .collect();
        let mut notes = Notes::on("Ingress", "demo", "a");
        let canary = parse(&annotations, &mut notes);
        (
            canary,
            notes.errors(),
            notes.problems.len() - notes.errors(),
        )
    }

    const ON: (&str, &str) = ("canary", "true");

    #[test]
    fn a_canary_takes_a_header_a_cookie_or_a_weight() {
        let header = |value: Option<&str>| Canary {
            header: Some(("x-stage".into(), value.map(str::to_owned))),
            ..Canary::default()
        };
        let by_header = ("canary-by-header", "X-Stage");
        assert_eq!(read(&[ON, by_header]), (Some(header(None)), 0, 0));
        let value = ("canary-by-header-value", "gray");
        assert_eq!(
            read(&[ON, by_header, value]),
            (Some(header(Some("gray"))), 0, 0)
        );
        let both = Canary {
            cookie: Some("Beta".into()),
            ..header(None)
        };
        assert_eq!(
            read(&[ON, by_header, ("canary-by-cookie", "Beta")]),
            (Some(both), 0, 0)
        );
        for weight in [0, 100] {
            let canary = Canary {
                weight: Some(weight),
                ..Canary::default()
            };
            let text = weight.to_string();
            assert_eq!(read(&[ON, ("canary-weight", &text)]), (Some(canary), 0, 0));
        }
    }

    #[test]
    fn keys_of_nginx_are_looked_up_first() {
        let (canary, ..) = read(&[
            ("N/canary", "true"),
            ("canary", "false"),
            ("canary-weight", "1"),
            ("N/canary-weight", "2"),
        ]);
        assert_eq!(canary.unwrap().weight, Some(2));
        let off = [("N/canary", "false"), ON, ("canary-weight", "1")];
        assert_eq!(read(&off), (None, 0, 0));
    }

    #[test]
    fn only_true_makes_a_canary() {
        for value in ["false", "True", "1", ""] {
            assert_eq!(read(&[("canary", value), ("canary-weight", "x")]).0, None);
        }
        assert_eq!(read(&[]), (None, 0, 0));
        for key in DETAILS {
            assert_eq!(read(&[(key, "1")]), (None, 0, 1), "{key}");
        }
    }

    #[test]
    fn weight_beside_header_or_cookie_is_an_error() {
        let weight = ("canary-weight", "10");
        assert_eq!(read(&[ON, weight, ("canary-by-header", "x")]), (None, 1, 0));
        assert_eq!(read(&[ON, weight, ("canary-by-cookie", "x")]), (None, 1, 0));
    }

    #[test]
    fn a_canary_of_nothing_or_with_conditions_is_an_error() {
        assert_eq!(read(&[ON]), (None, 1, 0));
        let weight = ("canary-weight", "10");
        assert_eq!(read(&[ON, weight, ("conditions.svc", "[]")]), (None, 1, 0));
        assert_eq!(read(&[ON, weight, ("conditions.svc", "")]).1, 0);
    }

    #[test]
    fn a_mistake_is_an_error_and_drops_no_canary_in_silence() {
        let long = "x".repeat(129);
        for pairs in [
            &[("canary-weight", "101")][..],
            &[("canary-weight", "-1")],
            &[("canary-weight", "ten")],
            &[("canary-weight", "")],
            &[("canary-by-header", "")],
            &[("canary-by-header", "a b")],
            &[("canary-by-header", "Cookie")],
            &[("canary-by-header", "host")],
            &[("canary-by-header", "x"), ("canary-by-header-value", "")],
            &[("canary-by-header", "x"), ("canary-by-header-value", " a")],
            &[("canary-by-header", "x"), ("canary-by-header-value", &long)],
            &[("canary-by-cookie", "a;b")],
            &[("canary-by-cookie", "")],
        ] {
            let pairs = [&[ON], pairs].concat();
            assert_eq!(read(&pairs), (None, 1, 0), "{pairs:?}");
        }
    }

    #[test]
    fn a_header_value_without_header_has_no_effect_and_says_so() {
        let (canary, errors, warnings) =
            read(&[ON, ("canary-by-header-value", "x"), ("canary-weight", "1")]);
        assert_eq!((errors, warnings), (0, 1));
        assert_eq!(canary.unwrap().header, None);
    }

    proptest! {
        #[test]
        fn a_weight_is_at_most_100_or_an_error(text in "(-?[0-9]{0,5}|.{0,8})") {
            let (canary, errors, _) = read(&[ON, ("canary-weight", &text)]);
            prop_assert_eq!(canary.is_none(), errors > 0);
            prop_assert!(canary.is_none_or(|it| it.weight <= Some(100)));
        }

        #[test]
        fn no_header_or_cookie_makes_it_panic(name in ".{0,50}", value in ".{0,50}") {
            let _ = read(&[ON, ("canary-by-header", &name), ("canary-by-header-value", &value), ("canary-by-cookie", &name)]);
        }
    }
}
