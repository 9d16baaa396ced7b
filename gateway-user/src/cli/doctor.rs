//! `fleetgate doctor`: what is wrong with the node, and what to do.

use serde::Serialize;

use super::{
    args::DoctorArgs,
    output::{Failure, Format, Outcome, View, show},
    table::{Cell, Paint, Table, Tone},
};
use crate::{
    dataplane::pins::Pins,
    doctor::{Finding, Verdict, judge, read},
};

/// Every check.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorView {
    /// The worst of all.
    pub verdict: Verdict,
    /// Each check, in the order in which they should be mended.
    pub checks: Vec<Finding>,
}

/// Reads, judges and prints.
pub fn run(args: &DoctorArgs) -> Result<Outcome, Failure> {
    let pins = Pins::new(&args.inspect.pins.pin_dir);
    let view = DoctorView::new(judge(&read::read(&pins, &args.interface)));
    let format = if args.json {
        Format::Json
    } else {
        args.inspect.output.format
    };
    show(&view, format)?;
    Ok(match view.verdict {
        Verdict::Fail => Outcome::Negative,
        _ => Outcome::Fine,
    })
}

impl DoctorView {
    fn new(checks: Vec<Finding>) -> Self {
        let worst = checks.iter().map(|one| one.verdict).max();
        Self {
            verdict: worst.unwrap_or(Verdict::Unknown),
            checks,
        }
    }
}

impl View for DoctorView {
    fn text(&self, paint: Paint) -> String {
        let mut table = Table::new(&["CHECK", "", "READ"]);
        for one in &self.checks {
            let (word, tone) = match one.verdict {
                Verdict::Ok => ("ok", Tone::Good),
                Verdict::Unknown => ("unknown", Tone::Faint),
                Verdict::Warn => ("warn", Tone::Warn),
                Verdict::Fail => ("FAIL", Tone::Bad),
            };
            table.row([
                one.check.as_str().into(),
                Cell::toned(tone, word),
                one.read.as_str().into(),
            ]);
        }
        let mut out = table.render(paint);
        let todo: Vec<&Finding> = self
            .checks
            .iter()
            .filter(|one| !one.remedy.is_empty())
            .collect();
        if !todo.is_empty() {
            out.push_str("\nTo do:\n");
            let mut table = Table::new(&["", ""]).indented(2);
            for one in todo {
                table.row([one.check.as_str().into(), one.remedy.as_str().into()]);
            }
            out.push_str(&table.render(paint));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_verdict_and_remedies_stand_together() {
        let finding = |check: &str, verdict, remedy: &str| Finding {
            check: check.into(),
            verdict,
            read: "seen".into(),
            remedy: remedy.into(),
        };
        let view = DoctorView::new(vec![
            finding("kernel", Verdict::Ok, ""),
            finding("routes", Verdict::Fail, "ip route add"),
            finding("mtu", Verdict::Unknown, ""),
        ]);
        assert_eq!(view.verdict, Verdict::Fail);
        let text = view.text(Paint::Plain);
        assert!(text.contains("routes  FAIL     seen"), "{text}");
        assert!(text.ends_with("To do:\n  routes  ip route add\n"), "{text}");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["checks"][1]["do"], "ip route add");
        assert_eq!(json["checks"][1]["verdict"], "fail");
    }
}
