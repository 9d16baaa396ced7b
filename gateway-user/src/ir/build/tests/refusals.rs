//! What the proxy cannot answer is refused and told, wherever it was asked for.

use super::*;
use crate::problem::Severity;

const REDIRECT: &str = r#"[{"type": "Redirect", "RedirectConfig": {"host": "www.example.com"}}]"#;
const FIXED: &str = r#"[{"type": "FixedResponse", "FixedResponseConfig": {"contentType": "text/plain", "httpCode": "403"}}]"#;

/// Fields of the errors, and the reasons of the first listener's rules.
fn refused(built: &Built) -> (Vec<&str>, Vec<Option<&str>>) {
    let errors = built.problems.iter();
    let errors = errors.filter(|it| it.severity == Severity::Error);
    let rules = listener(built).rules.iter();
    (
        errors.map(|it| it.field.as_str()).collect(),
        rules.map(|it| it.refused.as_deref()).collect(),
    )
}

#[test]
fn a_redirect_and_a_fixed_response_are_refused_at_their_annotation() {
    for (action, what) in [(REDIRECT, "redirects"), (FIXED, "fixed responses")] {
        let annotation = format!(", alb.ingress.kubernetes.io/actions.svc: '{action}'");
        let text = ingress("a", &annotation, "/").replace("number: 80", "name: use-annotation");
        let built = compile(format!("{FLEET}{text}"), &LastGood::default());
        let (errors, rules) = refused(&built);
        assert_eq!(
            errors,
            ["metadata.annotations[alb.ingress.kubernetes.io/actions.svc]"]
        );
        assert_eq!(rules, [Some(format!("{what} not executed yet").as_str())]);
    }
}

#[test]
fn rules_that_only_redirect_to_https_are_refused_once_for_the_ingress() {
    let annotation = r#", alb.ingress.kubernetes.io/ssl-redirect: "true""#;
    let text = format!("{FLEET}{}", ingress("a", annotation, "/")).replace("8001", "80");
    let built = compile(text, &LastGood::default());
    let (errors, rules) = refused(&built);
    assert_eq!(
        errors,
        ["metadata.annotations[alb.ingress.kubernetes.io/ssl-redirect]"]
    );
    assert_eq!(rules, [Some("redirects not executed yet")]);
}
