//! What the proxy answers by itself is in its rules, and nothing is said of it.

use super::*;
use crate::ir::{Redirect, Target};

const REDIRECT: &str = r#"[{"type": "Redirect", "RedirectConfig": {"host": "www.example.com"}}]"#;
const FIXED: &str = r#"[{"type": "FixedResponse", "FixedResponseConfig": {"contentType": "text/plain", "httpCode": "403"}}]"#;

/// Targets of the first listener's rules; no rule is refused, and there is nothing to tell.
fn targets(built: &Built) -> Vec<&Target> {
    assert!(built.problems.is_empty(), "{:?}", built.problems);
    let rules = listener(built).rules.iter();
    assert!(rules.clone().all(|it| it.refused.is_none()));
    rules.map(|it| &it.target).collect()
}

#[test]
fn a_redirect_and_a_fixed_response_are_targets() {
    for (action, redirects) in [(REDIRECT, true), (FIXED, false)] {
        let annotation = format!(", alb.ingress.kubernetes.io/actions.svc: '{action}'");
        let text = ingress("a", &annotation, "/").replace("number: 80", "name: use-annotation");
        let built = compile(format!("{FLEET}{text}"), &LastGood::default());
        let found = targets(&built);
        let [Target::Redirect(_) | Target::Respond(_)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(matches!(found[0], Target::Redirect(_)), redirects);
    }
}

#[test]
fn ssl_redirect_makes_redirects_of_rules() {
    let annotation = r#", alb.ingress.kubernetes.io/ssl-redirect: "true""#;
    let text = format!("{FLEET}{}", ingress("a", annotation, "/")).replace("8001", "80");
    let built = compile(text, &LastGood::default());
    let https = Target::Redirect(Redirect::to_https());
    assert_eq!(targets(&built), [&https]);
}
