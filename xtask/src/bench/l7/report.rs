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
    let all = [load(result), behind(result), memory(result)];
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
         system, by the kernel's scheduler (`schedstat`). All others are client, origin, interrupts and the measurement \
         itself: with all CPUs busy, requests per second are the CPUs by the sum of both. Every proxy has one worker, an access log to a pipe, as in a container, \
         connections kept on both sides and `X-Forwarded-For`. Load: wrk with 64 connections, h2load with 8 connections of \
         16 streams. The origin is nginx. 1000 rules are path prefixes: HAProxy searches a map, nginx its locations, \
         Envoy its routes, Fleetgate ten Ingresses; the one that is met is number 876.\n\n\
         {}\n\
         ## Behind a peer\n\n\
         Where a peer answers more requests per second, this is where the time goes: what a request takes more of than with \
         that peer, in us of a CPU, by the medians. All CPUs together are the sum.\n\n\
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
        markdown(&behind(result)),
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
                row.resize(9, "-".to_owned());
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
                figure(&figures["others_us"], 1),
                figure(&figures["idle_share"], 2),
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
            "CPU us/request of all others",
            "CPUs idle",
            "requests/s",
            "fleetgate by it, requests/s",
        ],
        rows.collect(),
    )
}

/// Why there are fewer requests per second than with a peer: the time of all CPUs that one takes, part by part.
fn behind(result: &Value) -> Table {
    let cpus = result["machine"]["cpus"].as_f64().unwrap_or(f64::NAN);
    let mut rows = Vec::new();
    for case in array(&result["cases"]) {
        let ours = parts(&case["contenders"]["fleetgate"], cpus);
        for (who, by) in case["fleetgate_by"].as_object().into_iter().flatten() {
            let ratio = &by["per_second"];
            let theirs = parts(&case["contenders"][who], cpus);
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                continue;
            };
            if ratio["median"].as_f64().is_none_or(|it| it >= 1.0) {
                continue;
            }
            let name = case["case"].as_str().unwrap_or("?").to_owned();
            let more = ours.iter().zip(theirs);
            let more = more.map(|(ours, theirs)| format!("{:+.1}", ours - theirs));
            rows.push(
                [name, who.clone(), figure(ratio, 2)]
                    .into_iter()
                    .chain(more)
                    .collect(),
            );
        }
    }
    (
        vec![
            "case",
            "proxy",
            "fleetgate by it, requests/s",
            "us more: user",
            "system",
            "all others",
            "idle",
            "sum",
        ],
        rows,
    )
}

/// User and system of the proxy, all others, idle, and their sum: us of the CPUs for each request.
fn parts(figures: &Value, cpus: f64) -> Option<[f64; 5]> {
    let median = |unit: &str| figures[unit]["median"].as_f64();
    let user = median("user_us")?;
    let (system, others) = (median("cpu_us")? - user, median("others_us")?);
    let idle = median("idle_share")? * cpus * 1e6 / median("per_second")?;
    Some([user, system, others, idle, user + system + others + idle])
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
    fn where_a_peer_is_ahead_it_is_told_where_the_time_goes() {
        let figures = |user: f64, cpu: f64, others: f64, idle: f64, per_second: f64| {
            json!({
                "user_us": { "median": user }, "cpu_us": { "median": cpu }, "others_us": { "median": others },
                "idle_share": { "median": idle }, "per_second": { "median": per_second },
            })
        };
        let ratio = |median: f64| json!({ "median": median, "min": 0.8, "max": 1.1 });
        let result = json!({ "machine": { "cpus": 2 }, "cases": [{ "case": "h2-33",
            "contenders": {
                "fleetgate": figures(8.0, 14.0, 16.0, 0.25, 50_000.0),
                "haproxy": figures(6.0, 12.5, 15.0, 0.2, 58_000.0),
                "nginx": figures(6.0, 12.5, 15.0, 0.2, 40_000.0),
            },
            "fleetgate_by": { "haproxy": { "per_second": ratio(0.86) }, "nginx": { "per_second": ratio(1.2) } },
        }] });
        let (_, rows) = behind(&result);
        assert_eq!(
            rows,
            [[
                "h2-33",
                "haproxy",
                "0.86 (0.80 to 1.10)",
                "+2.0",
                "-0.5",
                "+1.0",
                "+3.1",
                "+5.6"
            ]]
        );
        let alone = json!({ "cases": [{ "contenders": { "fleetgate": {} }, "fleetgate_by": {} }] });
        assert!(behind(&alone).1.is_empty());
    }

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
