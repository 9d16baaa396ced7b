//! What must hold.

use serde_json::Value;

use crate::bench::bars::{Bar, Bound};

/// All bars of the parts that were measured.
pub(super) fn judge(result: &Value) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |what: String, figure: &Value, bound| {
        if let Some(measured) = figure["median"].as_f64() {
            let end = |name: &str| figure[name].as_f64().unwrap_or(measured);
            bars.push(Bar {
                what,
                measured: Some(measured),
                spread: (end("min"), end("max")),
                bound,
            });
        }
    };
    for case in result["ns"].as_array().into_iter().flatten() {
        let most = match case["flows"].as_u64() {
            Some(1_000) => 1.6,
            Some(100_000 | 1_000_000) => 1.25,
            _ => continue,
        };
        let text = |name: &str| case[name].as_str().unwrap_or("?").to_owned();
        let what = format!(
            "ns/packet by reference, {} flows, {} {}",
            case["flows"],
            text("proto"),
            text("way")
        );
        add(what, &case["ratio"], Bound::AtMost(most));
    }
    let rates = result["pps"].as_array().into_iter().flatten();
    for line in rates.filter(|line| line["flows"] == 1_000) {
        add(
            "packets/s by nftables (XDP), 1000 flows".into(),
            &line["xdp_by_nftables"],
            Bound::AtLeast(4.0),
        );
    }
    // With ends that cost as much as the gateway, or more, plain routing itself would miss these: such lines are shown.
    let judged = |line: &&Value| line["ends"] != "iperf3" && line["ends"] != "sockets";
    for line in result["tcp"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(judged)
    {
        let streams = &line["streams"];
        let by = &line["fleetgate_by"];
        add(
            format!("bulk TCP by routed, {streams} streams"),
            &by["routed"],
            Bound::AtLeast(1.0),
        );
        add(
            format!("bulk TCP by HAProxy, {streams} streams"),
            &by["haproxy"],
            Bound::AtLeast(2.5),
        );
    }
    for line in result["conn"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(judged)
    {
        add(
            "connections/s by HAProxy".into(),
            &line["fleetgate_by"]["haproxy"],
            Bound::AtLeast(3.0),
        );
    }
    bars
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ratio_on_the_wrong_side_of_its_bound_is_a_missed_bar() {
        let result = json!({
            "ns": [
                { "flows": 1, "proto": "udp", "way": "request", "ratio": { "median": 9.0 } },
                { "flows": 1000, "proto": "udp", "way": "request", "ratio": { "median": 1.7, "min": 1.5, "max": 2.0 } },
            ],
            "conn": [
                { "ends": "xdp", "fleetgate_by": { "haproxy": { "median": 3.0 } } },
                { "ends": "sockets", "fleetgate_by": { "haproxy": { "median": 2.0 } } },
            ],
        });
        let bars = judge(&result);
        assert_eq!(bars.len(), 2);
        assert!(!bars[0].held() && bars[0].spread == (1.5, 2.0));
        assert!(bars[1].held());
    }
}
