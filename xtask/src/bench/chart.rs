//! A chart: bars with their spread, one group for each part. Plain SVG, text in, text out.

use serde_json::Value;

/// One bar: label, figure, whether it is ours.
pub(super) struct Bar {
    pub(super) label: String,
    median: f64,
    min: f64,
    max: f64,
    ours: bool,
}

/// One part of the chart.
pub(super) struct Group {
    pub(super) title: String,
    pub(super) digits: usize,
    pub(super) bars: Vec<Bar>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 110.0;
const STEP: f64 = 22.0;

/// The whole chart.
pub(super) fn svg(groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 20.0 + rows as f64 * STEP + groups.len() as f64 * 44.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut y = 24.0;
    for group in groups {
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

/// A figure as a bar; `None` if it has not been measured.
pub(super) fn bar(label: impl Into<String>, figure: &Value, ours: bool) -> Option<Bar> {
    let at = |name: &str| figure[name].as_f64();
    Some(Bar {
        label: label.into(),
        median: at("median")?,
        min: at("min")?,
        max: at("max")?,
        ours,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_bar_fits_and_ours_has_its_own_colour() {
        let ours = json!({ "median": 100.0, "min": 90.0, "max": 110.0 });
        let other = json!({ "median": 20.0, "min": 19.0, "max": 21.0 });
        let bars = [bar("ours", &ours, true), bar("other", &other, false)];
        let text = svg(&[Group {
            title: "connections per second".into(),
            digits: 0,
            bars: bars.into_iter().flatten().collect(),
        }]);
        assert_eq!(text.matches("#1b6ca8").count(), 1);
        assert_eq!(text.matches("<rect x=").count(), 2);
        // 110 of 110 is the whole width.
        assert!(text.contains(&format!("H{:.1}", WIDTH - RIGHT)));
    }
}
