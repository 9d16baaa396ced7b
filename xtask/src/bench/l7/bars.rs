//! What must hold.

use serde_json::Value;

use crate::bench::bars::{Bar, Bound};

/// Memory of an idle connection, bytes.
const PLAIN_BYTES: f64 = 20_000.0;
const TLS_BYTES: f64 = 60_000.0;

/// All bars of the cases and contenders that were measured. Of a ratio the median of the rounds counts.
pub(super) fn judge(result: &Value) -> Vec<Bar> {
    let mut bars = Vec::new();
    for case in result["cases"].as_array().into_iter().flatten() {
        let name = case["case"].as_str().unwrap_or("?");
        let most = match name {
            "h1-33-rules" | "h1-16k-rules" => Some(1.0),
            "h1-128k" => Some(1.1),
            _ => None,
        };
        if let Some(most) = most {
            let what = format!("CPU per request by haproxy, {name}");
            bars.extend(ratio(case, "haproxy", "cpu_us", what, Bound::AtMost(most)));
        }
        let peers: &[&str] = match name {
            "close-33" => &["haproxy"],
            _ => &["haproxy", "nginx", "envoy"],
        };
        for peer in peers {
            let what = format!("requests/s by {peer}, {name}");
            bars.extend(ratio(case, peer, "per_second", what, Bound::AtLeast(1.0)));
        }
    }
    for case in result["memory"].as_array().into_iter().flatten() {
        let most = if case["case"] == "idle" {
            PLAIN_BYTES
        } else {
            TLS_BYTES
        };
        let figure = &case["contenders"]["fleetgate"]["bytes_each"];
        let about = case["about"].as_str().unwrap_or("?");
        bars.push(bar(
            format!("bytes for each of the idle {about}"),
            figure,
            Bound::AtMost(most),
        ));
    }
    bars
}

/// `None` if that peer took no part.
fn ratio(case: &Value, peer: &str, unit: &str, what: String, bound: Bound) -> Option<Bar> {
    let there = case["contenders"].get(peer)?;
    there
        .get("not_served")
        .is_none()
        .then(|| bar(what, &case["fleetgate_by"][peer][unit], bound))
}

fn bar(what: String, figure: &Value, bound: Bound) -> Bar {
    let at = |name: &str| figure[name].as_f64();
    Bar {
        what,
        measured: at("median"),
        spread: (at("min").unwrap_or(0.0), at("max").unwrap_or(0.0)),
        bound,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_case_that_is_not_served_misses_its_bars_and_one_without_peers_has_none() {
        let served = json!({ "per_second": { "median": 1.0 } });
        let result = json!({
            "cases": [
                { "case": "tls-33", "contenders": { "fleetgate": { "not_served": "x" }, "haproxy": served } },
                { "case": "h1-33", "contenders": { "fleetgate": served } },
            ],
            "memory": [{ "case": "idle", "about": "plain connections",
                "contenders": { "fleetgate": { "bytes_each": { "median": 20_000.0 } } } }],
        });
        let bars = judge(&result);
        assert_eq!(bars.len(), 2);
        assert!(!bars[0].held() && bars[0].measured.is_none());
        assert!(bars[1].held());
    }

    #[test]
    fn more_cpu_than_haproxy_misses_the_bar() {
        let peer = json!({ "cpu_us": { "median": 1.01, "min": 1.0, "max": 1.1 }, "per_second": { "median": 1.0 } });
        let result = json!({ "cases": [{ "case": "h1-33-rules",
            "contenders": { "fleetgate": {}, "haproxy": {} }, "fleetgate_by": { "haproxy": peer } }] });
        let bars = judge(&result);
        assert_eq!(
            bars.iter().map(Bar::held).collect::<Vec<_>>(),
            [false, true]
        );
    }
}
