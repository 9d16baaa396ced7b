//! The result as a chart.

use serde_json::Value;

use crate::bench::chart::{self, Bar, Group, bar};

/// The whole chart.
pub(super) fn svg(result: &Value) -> String {
    chart::svg(&groups(result))
}

fn groups(result: &Value) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut add = |title: &str, digits, bars: Vec<Bar>| {
        if !bars.is_empty() {
            groups.push(Group {
                title: title.to_owned(),
                digits,
                bars,
            });
        }
    };
    let cases = result["ns"].as_array().into_iter().flatten();
    let requests = cases.filter(|case| case["proto"] == "udp" && case["way"] == "request");
    let nanos = requests.flat_map(|case| {
        [("reference", false), ("fleetgate", true)].map(|(name, ours)| {
            bar(
                format!("{name}, {} flows", case["flows"]),
                &case[name],
                ours,
            )
        })
    });
    add(
        "ns per packet of an established flow, net of an empty program (less is better)",
        0,
        nanos.flatten().collect(),
    );
    for rates in result["pps"].as_array().into_iter().flatten() {
        let lines = rates["contenders"].as_array().into_iter().flatten();
        let rate = lines.filter_map(|line| {
            let who = line["who"].as_str()?;
            bar(
                who.replace('_', " "),
                &line["mpps"],
                who.starts_with("fleetgate"),
            )
        });
        let title = format!(
            "million packets per second, one CPU, {} flows",
            rates["flows"]
        );
        add(&title, 2, rate.collect());
    }
    let of = |figures: &Value| -> Vec<Bar> {
        let all = figures.as_object().into_iter().flatten();
        all.filter_map(|(who, figure)| bar(who, figure, who == "fleetgate"))
            .collect()
    };
    for line in result["tcp"].as_array().into_iter().flatten() {
        let title = format!(
            "bulk TCP, Gbit/s, {} streams, ends: {}",
            line["streams"], line["ends"]
        );
        add(&title.replace('"', ""), 1, of(&line["gbps"]));
    }
    for line in result["conn"].as_array().into_iter().flatten() {
        let title = format!("connections per second, ends: {}", line["ends"]);
        add(&title.replace('"', ""), 0, of(&line["per_second"]));
    }
    groups
}
