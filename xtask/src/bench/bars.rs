//! One thing that must hold, and how it is shown.

use serde_json::{Value, json};

/// One bar, judged.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// What was measured.
    pub(super) what: String,
    /// Median of all rounds; `None`: there was nothing to measure, which misses the bar.
    pub(super) measured: Option<f64>,
    /// Smallest and largest round.
    pub(super) spread: (f64, f64),
    /// What is asked for.
    pub(super) bound: Bound,
}

/// On which side of a number a figure must lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Bar {
    /// Whether it holds.
    pub(super) fn held(&self) -> bool {
        self.measured.is_some_and(|measured| match self.bound {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        })
    }

    /// `at most 1.6`.
    pub(super) fn bound(&self) -> String {
        match self.bound {
            Bound::AtMost(most) => format!("at most {most}"),
            Bound::AtLeast(least) => format!("at least {least}"),
        }
    }

    /// For `--json`.
    pub(super) fn json(&self) -> Value {
        json!({
            "bar": self.what,
            "measured": self.measured,
            "spread": self.measured.map(|_| [self.spread.0, self.spread.1]),
            "bound": self.bound(),
            "held": self.held(),
        })
    }
}

/// Header and rows of a table.
pub(super) type Table = (Vec<&'static str>, Vec<Vec<String>>);

/// All bars as a table.
pub(super) fn table(judged: &[Bar]) -> Table {
    let row = |bar: &Bar| {
        let (measured, spread) = match bar.measured {
            Some(measured) => (
                format!("{measured:.2}"),
                format!("{:.2} to {:.2}", bar.spread.0, bar.spread.1),
            ),
            None => ("not served".to_owned(), "-".to_owned()),
        };
        vec![
            bar.what.clone(),
            measured,
            spread,
            bar.bound(),
            if bar.held() { "held" } else { "MISSED" }.to_owned(),
        ]
    };
    (
        vec!["bar", "measured", "spread", "asked", ""],
        judged.iter().map(row).collect(),
    )
}

/// A table as Markdown.
pub(super) fn markdown((header, rows): &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rule = vec!["---".to_owned(); header.len()];
    line(&head) + &line(&rule) + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// `12.3 (11.9 to 12.8)`.
pub(super) fn figure(value: &Value, digits: usize) -> String {
    let at = |name: &str| value[name].as_f64().unwrap_or(f64::NAN);
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        at("median"),
        at("min"),
        at("max")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_misses_its_bar_in_these_words() {
        let bar = Bar {
            what: "x".into(),
            measured: None,
            spread: (0.0, 0.0),
            bound: Bound::AtMost(1.0),
        };
        assert!(!bar.held());
        assert_eq!(table(&[bar]).1[0][1], "not served");
    }
}
