//! `rewrite-target`: the path that pods see.

use std::collections::BTreeMap;

use crate::{
    ir::{
        build::{
            annotations::get,
            notes::{Notes, alb},
        },
        model::{Filter, PathPattern, Redirect, Rewrite},
    },
    problem::shown,
};

const KEY: &str = "rewrite-target";
/// Longest target, in bytes; that of a path pattern (contract section 5.4).
const TARGET_BYTES: usize = 128;
/// "At most three variables."
const MOST_VARIABLES: u8 = 3;

/// A target that is understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::ir::build) struct RewriteTarget {
    text: String,
    /// Highest `${n}`; 0 when there is none.
    highest: u8,
}

/// `None` where there is none, or after an error.
pub(in crate::ir::build) fn rewrite_target(
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Option<RewriteTarget> {
    let text = get(annotations, KEY)?;
    let wrong = match variables(text) {
        Ok(highest) if text.starts_with('/') && text.len() <= TARGET_BYTES => {
            return Some(RewriteTarget {
                text: text.to_owned(),
                highest,
            });
        }
        Ok(_) => format!("{} is not a path", shown(text)),
        Err(part) => format!("{} in {} is no part of a path", shown(part), shown(text)),
    };
    notes.error(
        alb(KEY),
        wrong,
        format!(
            "start with `/` and use at most {TARGET_BYTES} letters, digits, `$-_.+/&~@:`, and `${{1}}` to `${{{MOST_VARIABLES}}}`"
        ),
    );
    None
}

impl RewriteTarget {
    /// "Turns Prefix paths into regex (unless the value equals the path itself)", and never `/` (contract section 5.4).
    pub(in crate::ir::build) fn makes_regex(&self, path: &str) -> bool {
        !matches!(path, "" | "/") && path != self.text
    }

    /// The filter of a rule with this path; `None` after an error.
    ///
    /// Each `${n}` needs a group of its own in the path. Groups that the target leaves out are fine: the contract's own
    /// example, `/something(/|$)(.*)` to `/path/${2}`, has one.
    pub(in crate::ir::build) fn filter(
        &self,
        path: &PathPattern,
        notes: &mut Notes,
    ) -> Option<Filter> {
        let regex = match path {
            PathPattern::Regex(regex) => Some(regex),
            _ => None,
        };
        let compiled = regex.and_then(|regex| regex.regex());
        let groups = compiled.map_or(0, |regex| regex.captures_len() - 1);
        if usize::from(self.highest) > groups {
            notes.error(
                alb(KEY),
                format!(
                    "`${{{}}}` of {} needs as many groups, but path {} has {groups}",
                    self.highest,
                    shown(&self.text),
                    shown(&path.to_string())
                ),
                "put brackets around the parts of the path to keep, as in `/old(/|$)(.*)`, with pathType Prefix",
            );
            return None;
        }
        let Redirect { host, query, .. } = Redirect::default();
        Some(Filter::Rewrite(Rewrite {
            host,
            path: self.text.clone(),
            query,
            captures: regex.filter(|_| self.highest > 0).cloned(),
        }))
    }
}

/// The highest `${n}` of a target; `Err` is the part that cannot stand in one.
fn variables(text: &str) -> Result<u8, &str> {
    let mut highest = 0;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let whole = if let Some(inside) = rest.strip_prefix("${") {
            let end = inside.find('}').unwrap_or(inside.len());
            match inside.get(..end).map(str::as_bytes) {
                Some([digit @ b'1'..=b'9'])
                    if digit - b'0' <= MOST_VARIABLES && end < inside.len() =>
                {
                    highest = highest.max(digit - b'0');
                }
                _ => return Err(rest.get(..end + 3).unwrap_or(rest)),
            }
            end + 3
        } else if first == '$' && rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
            // The NGINX way; the cloud writes `${1}`.
            return Err(&rest[..2]);
        } else if first.is_ascii_alphanumeric() || "$-_.+/&~@:".contains(first) {
            1
        } else {
            return Err(&rest[..first.len_utf8()]);
        };
        rest = &rest[whole..];
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ir::{build::notes::ALB, model::Regex};

    fn notes() -> Notes {
        Notes::on("Ingress", "demo", "a")
    }

    fn read(text: &str) -> Option<RewriteTarget> {
        let mut notes = notes();
        let annotations = [(format!("{ALB}{KEY}"), text.to_owned())].into();
        let target = rewrite_target(&annotations, &mut notes);
        assert_eq!(target.is_none(), notes.errors() == 1, "{text}");
        target
    }

    fn regex(text: &str) -> PathPattern {
        PathPattern::Regex(Regex::new(text, true).unwrap())
    }

    fn filter(target: &str, path: &PathPattern) -> Option<Rewrite> {
        match read(target).unwrap().filter(path, &mut notes())? {
            Filter::Rewrite(rewrite) => Some(rewrite),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_contract_is_understood() {
        let path = regex(r"/something(/|$)(.*)");
        let rewrite = filter("/path/${2}", &path).unwrap();
        assert_eq!(rewrite.path, "/path/${2}");
        assert_eq!(
            (rewrite.host.as_str(), rewrite.query.as_str()),
            ("${host}", "${query}")
        );
        assert_eq!(rewrite.captures.map(PathPattern::Regex), Some(path));
    }

    #[test]
    fn a_target_without_variables_needs_no_expression() {
        for path in [
            regex("/old"),
            PathPattern::Prefix("/old".into()),
            PathPattern::Exact("/".into()),
        ] {
            assert_eq!(filter("/new", &path).unwrap().captures, None);
        }
    }

    #[test]
    fn every_variable_needs_a_group_of_the_path() {
        assert_eq!(filter("/${3}", &regex("/(a)(b)")), None);
        assert!(filter("/${2}/${1}", &regex("/(a)(b)")).is_some());
        assert_eq!(filter("/${1}", &PathPattern::Prefix("/a".into())), None);
        assert_eq!(filter("/${1}", &regex("/(?:a)")), None);
    }

    #[test]
    fn a_target_is_a_path_with_at_most_three_variables() {
        for bad in [
            "",
            "new",
            "${1}",
            "/$1",
            "/${0}",
            "/${4}",
            "/${10}",
            "/${a}",
            "/${",
            "/${}",
            "/${1",
            "/a b",
            "/a?b",
            "/a#b",
            "/\u{fc}",
            "/{1}",
            "/a\r\nb",
            "/${\u{fc}}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&format!("/{}", "a".repeat(128))), None);
        assert!(read("/a/${1}-${2}.${3}$").is_some());
    }

    #[test]
    fn a_prefix_becomes_an_expression_unless_it_is_the_target_or_all() {
        let target = read("/new").unwrap();
        assert!(target.makes_regex("/old"));
        assert!(!target.makes_regex("/new") && !target.makes_regex("/") && !target.makes_regex(""));
    }

    proptest! {
        #[test]
        fn no_target_makes_it_panic(text in "(/|[$]|[{]|[}]|[0-9]|[a-z]|.){0,40}") {
            if let Some(target) = read(&text) {
                prop_assert!(target.highest <= MOST_VARIABLES);
            }
        }
    }
}
