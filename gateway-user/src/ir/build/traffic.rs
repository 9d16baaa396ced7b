//! Annotations that shape the traffic of all rules of an Ingress (contract section 12).

mod cors;
mod rewrite;

use std::collections::BTreeMap;

pub(super) use self::rewrite::RewriteTarget;
pub(super) use self::{cors::cors, rewrite::rewrite_target};
use super::{
    annotations,
    notes::{Notes, alb},
};
use crate::{ir::model::TrafficLimit, problem::shown};

/// "Max 100 000 (older) / 1 000 000 (newer)."
const MOST_PER_SECOND: u32 = 1_000_000;

/// `traffic-limit-qps` and `traffic-limit-ip-qps`; `None` where there are none, or after an error.
pub(super) fn limit(
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Option<TrafficLimit> {
    let errors = notes.errors();
    let limit = TrafficLimit {
        per_second: rate(annotations, "traffic-limit-qps", notes),
        per_client: rate(annotations, "traffic-limit-ip-qps", notes),
    };
    // "Per-IP must be strictly less than total, else error."
    if let TrafficLimit {
        per_second: Some(all),
        per_client: Some(one),
    } = limit
        && one >= all
    {
        notes.error(
            alb("traffic-limit-ip-qps"),
            format!("{one} for one client is not less than the {all} of traffic-limit-qps"),
            format!("write less than {all}, or remove one of the two"),
        );
    }
    (notes.errors() == errors && limit != TrafficLimit::default()).then_some(limit)
}

fn rate(annotations: &BTreeMap<String, String>, key: &str, notes: &mut Notes) -> Option<u32> {
    let text = annotations::get(annotations, key)?;
    let rate = text.parse::<u32>().ok();
    let rate = rate.filter(|rate| (1..=MOST_PER_SECOND).contains(rate));
    if rate.is_none() {
        notes.error(
            alb(key),
            format!("{} is no number of requests per second", shown(text)),
            format!("write an integer from 1 to {MOST_PER_SECOND}"),
        );
    }
    rate
}

/// Paths of type Prefix are regular expressions. The cloud takes any value for yes, even `false`; here only `true` counts.
pub(super) fn use_regex(annotations: &BTreeMap<String, String>) -> bool {
    annotations::on(annotations, "use-regex")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ir::build::notes::ALB;

    fn read(pairs: &[(&str, &str)]) -> (Option<TrafficLimit>, usize) {
        let pairs = pairs.iter();
        let annotations = pairs
            .map(|(key, value)| (format!("{ALB}{key}"), (*value).to_owned()))
            .collect();
        let mut notes = Notes::on("Ingress", "demo", "a");
        let limit = limit(&annotations, &mut notes);
        (limit, notes.errors())
    }

    const ALL: &str = "traffic-limit-qps";
    const ONE: &str = "traffic-limit-ip-qps";

    #[test]
    fn limits_are_of_the_rule_of_each_client_or_of_both() {
        let limit = |per_second, per_client| {
            Some(TrafficLimit {
                per_second,
                per_client,
            })
        };
        assert_eq!(read(&[]), (None, 0));
        assert_eq!(read(&[(ALL, "1")]), (limit(Some(1), None), 0));
        assert_eq!(read(&[(ONE, "1000000")]), (limit(None, Some(1_000_000)), 0));
        assert_eq!(
            read(&[(ALL, "5"), (ONE, "4")]),
            (limit(Some(5), Some(4)), 0)
        );
    }

    #[test]
    fn a_client_may_have_less_than_the_rule_only() {
        assert_eq!(read(&[(ALL, "5"), (ONE, "5")]), (None, 1));
        assert_eq!(read(&[(ALL, "5"), (ONE, "6")]), (None, 1));
    }

    #[test]
    fn a_limit_that_is_no_number_is_an_error_and_never_no_limit_in_silence() {
        for bad in [
            "0",
            "-1",
            "1.5",
            "",
            "ten",
            "1000001",
            "99999999999999999999",
        ] {
            assert_eq!(read(&[(ALL, bad)]), (None, 1), "{bad}");
            assert_eq!(read(&[(ALL, "5"), (ONE, bad)]), (None, 1), "{bad}");
        }
    }

    #[test]
    fn use_regex_is_on_for_exactly_true() {
        for (value, on) in [
            ("true", true),
            ("false", false),
            ("True", false),
            ("", false),
        ] {
            let annotations = [(format!("{ALB}use-regex"), value.to_owned())].into();
            assert_eq!(use_regex(&annotations), on, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_limit_is_within_its_range_or_an_error(all in "(-?[0-9]{0,9}|.{0,8})", one in "[0-9]{0,9}") {
            let (limit, errors) = read(&[(ALL, &all), (ONE, &one)]);
            prop_assert_eq!(limit.is_none(), errors > 0);
            if let Some(limit) = limit {
                prop_assert!(limit.per_client < limit.per_second);
                prop_assert!(limit.per_client >= Some(1) && limit.per_second <= Some(MOST_PER_SECOND));
            }
        }
    }
}
