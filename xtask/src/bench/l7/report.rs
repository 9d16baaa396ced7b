//! The result for people: tables, and the page in `docs/`.

use serde_json::Value;

use crate::{
    bench::{
        bars::{self, Bar, Table, figure, markdown},
        chart::{self, Group, bar},
    },
    console,
};

/// All tables of the result, for a terminal.
pub(super) fn tables(result: &Value) -> String {
    let all = [load(result), memory(result)];
    let shown = all.iter().filter(|(_, rows)| !rows.is_empty());
    let text: String = shown
        .map(|(header, rows)| console::table(header, rows) + "\n\n")
        .collect();
    text + &remarks(result)
}

/// The judged bars.
pub(super) fn bars(judged: &[Bar]) -> String {
    let (header, rows) = bars::table(judged);
    console::table(&header, &rows)
}

/// Why cases are missing.
fn remarks(result: &Value) -> String {
    let mut text = String::new();
    if result["logs"] == false {
        text += "Nobody wrote an access log.\n";
    }
    for part in ["cases", "memory"] {
        for case in array(&result[part]) {
            for (who, figures) in case["contenders"].as_object().into_iter().flatten() {
                if let Some(why) = figures["not_served"].as_str() {
                    let name = case["case"].as_str().unwrap_or("?");
                    text += &format!("{name} is not served by {who}: {why}\n");
                }
            }
        }
    }
    text
}

/// `docs/bench-l7.md`.
pub(super) fn page(result: &Value, judged: &[Bar]) -> String {
    let machine = &result["machine"];
    let text = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
    let versions = result["versions"].as_object().into_iter().flatten();
    let versions: Vec<String> = versions
        .map(|(_, it)| it.as_str().unwrap_or("?").to_owned())
        .collect();
    let remarks: String = remarks(result)
        .lines()
        .map(|line| format!("- {line}\n"))
        .collect();
    format!(
        "# What a request costs\n\n\
         Written by `cargo xtask bench l7 --chart`; all figures are of one run: {}, {} CPUs, Linux {}, load {} before it; {}.\n\
         Contenders take turns, {} rounds of {} s for each case; median (smallest to largest), ratios round by round.\n\n\
         ![The same as a chart](bench-l7.svg)\n\n\
         ## Requests\n\n\
         Client, gateway and origin are in network namespaces of one machine and share its CPUs, so requests per second \
         count client and origin too; CPU per request is that of the proxy's process alone, all its threads, user and \
         system, by the kernel's scheduler (`schedstat`). Every proxy has one worker, an access log to a file in memory, \
         connections kept on both sides and `X-Forwarded-For`. Load: wrk with 64 connections, h2load with 8 connections of \
         16 streams. The origin is nginx. 1000 rules are path prefixes: HAProxy searches a map, nginx its locations, \
         Envoy its routes, Fleetgate ten Ingresses; the one that is met is number 876.\n\n\
         {}\n\
         ## Idle connections\n\n\
         Growth of the resident memory of a process just started, by the connections held; each has asked once.\n\n\
         {}\n\
         ## Bars\n\n\
         {}\n\
         {remarks}",
        text("cpu"),
        machine["cpus"],
        text("kernel"),
        text("load"),
        versions.join(", "),
        result["rounds"],
        result["seconds"],
        markdown(&load(result)),
        markdown(&memory(result)),
        markdown(&bars::table(judged)),
    )
}

/// `docs/bench-l7.svg`.
pub(super) fn svg(result: &Value) -> String {
    let mut groups = Vec::new();
    for (part, unit, title, digits) in [
        ("cases", "cpu_us", "CPU us per request (less is better)", 1),
        ("cases", "per_second", "requests per second", 0),
        (
            "memory",
            "bytes_each",
            "bytes for each idle connection (less is better)",
            0,
        ),
    ] {
        for case in array(&result[part]) {
            let all = case["contenders"].as_object().into_iter().flatten();
            let bars: Vec<_> = all
                .filter_map(|(who, it)| bar(who, &it[unit], who == "fleetgate"))
                .collect();
            if !bars.is_empty() {
                let about = case["about"].as_str().unwrap_or("?");
                groups.push(Group {
                    title: format!("{title}: {about}"),
                    digits,
                    bars,
                });
            }
        }
    }
    chart::svg(&groups)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Ours first, then as they come.
fn contenders(case: &Value) -> Vec<(&String, &Value)> {
    let mut all: Vec<_> = case["contenders"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    all.sort_by_key(|(who, _)| *who != "fleetgate");
    all
}

fn load(result: &Value) -> Table {
    let rows = array(&result["cases"]).iter().flat_map(|case| {
        contenders(case).into_iter().map(|(who, figures)| {
            let name = case["case"].as_str().unwrap_or("?").to_owned();
            if figures.get("not_served").is_some() {
                let mut row = vec![name, who.clone()];
                row.resize(7, "-".to_owned());
                return row;
            }
            let by = |unit: &str| {
                let ratio = &case["fleetgate_by"][who][unit];
                if ratio.is_null() {
                    String::new()
                } else {
                    figure(ratio, 2)
                }
            };
            vec![
                name,
                who.clone(),
                figure(&figures["cpu_us"], 1),
                format!(
                    "{:.1}",
                    figures["user_us"]["median"].as_f64().unwrap_or(f64::NAN)
                ),
                by("cpu_us"),
                figure(&figures["per_second"], 0),
                by("per_second"),
            ]
        })
    });
    (
        vec![
            "case",
            "proxy",
            "CPU us/request",
            "of it user",
            "fleetgate by it, CPU",
            "requests/s",
            "fleetgate by it, requests/s",
        ],
        rows.collect(),
    )
}

fn memory(result: &Value) -> Table {
    let rows = array(&result["memory"]).iter().flat_map(|case| {
        contenders(case).into_iter().map(|(who, figures)| {
            let each = figures["bytes_each"]["median"].as_f64();
            vec![
                format!(
                    "{} {}",
                    case["connections"],
                    case["about"].as_str().unwrap_or("?")
                ),
                who.clone(),
                each.map_or_else(|| "-".to_owned(), |it| format!("{it:.0}")),
            ]
        })
    });
    (vec!["idle", "proxy", "bytes each"], rows.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_case_that_is_not_served_is_a_dash_with_its_reason() {
        let result = json!({ "cases": [{ "case": "h2-33", "contenders": {
            "envoy": { "cpu_us": {}, "per_second": {} },
            "fleetgate": { "not_served": "refused" },
        } }] });
        let (_, rows) = load(&result);
        assert_eq!(rows[0][1..3], ["fleetgate", "-"]);
        assert!(tables(&result).contains("h2-33 is not served by fleetgate: refused"));
    }
}
