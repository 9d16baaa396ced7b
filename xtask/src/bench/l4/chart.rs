//! The result as a chart: bars with their spread, one group for each part. Plain SVG, text in, text out.

use serde_json::Value;

/// One bar: label, figure, whether it is ours.
struct Bar {
    label: String,
    median: f64,
    min: f64,
    max: f64,
    ours: bool,
}

/// One part of the chart.
struct Group {
    title: String,
    digits: usize,
    bars: Vec<Bar>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 110.0;
const STEP: f64 = 22.0;

/// The whole chart.
pub(super) fn svg(result: &Value) -> String {
    let groups = groups(result);
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 20.0 + rows as f64 * STEP + groups.len() as f64 * 44.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut y = 24.0;
    for group in &groups {
        text += &format!(
            "<text x=\"12\" y=\"{y}\" font-weight=\"bold\">{}</text>\n",
            group.title
        );
        y += 10.0;
        let most = group
            .bars
            .iter()
            .map(|bar| bar.max)
            .fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LEFT + value.max(0.0) / most * (WIDTH - LEFT - RIGHT);
        for bar in &group.bars {
            let (middle, fill) = (y + STEP / 2.0, if bar.ours { "#1b6ca8" } else { "#b9c4cc" });
            text += &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>\
                 <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#333\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{:.*}</text>\n",
                LEFT - 8.0,
                middle + 4.0,
                bar.label,
                y + 3.0,
                x(bar.median) - LEFT,
                STEP - 6.0,
                x(bar.min),
                x(bar.max),
                x(bar.max) + 6.0,
                middle + 4.0,
                group.digits,
                bar.median,
            );
            y += STEP;
        }
        y += 34.0;
    }
    text + "</svg>\n"
}

fn bar(label: impl Into<String>, figure: &Value, ours: bool) -> Option<Bar> {
    let at = |name: &str| figure[name].as_f64();
    Some(Bar {
        label: label.into(),
        median: at("median")?,
        min: at("min")?,
        max: at("max")?,
        ours,
    })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_bar_fits_and_ours_has_its_own_colour() {
        let result = json!({ "conn": [{ "ends": "xdp", "per_second": {
            "fleetgate": { "median": 100.0, "min": 90.0, "max": 110.0 },
            "haproxy": { "median": 20.0, "min": 19.0, "max": 21.0 },
        } }] });
        let text = svg(&result);
        assert_eq!(text.matches("#1b6ca8").count(), 1);
        assert_eq!(text.matches("<rect x=").count(), 2);
        // 110 of 110 is the whole width.
        assert!(text.contains(&format!("H{:.1}", WIDTH - RIGHT)));
    }
}
