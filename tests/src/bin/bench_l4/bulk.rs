//! Bulk TCP: iperf3 with one stream and with eight, through each contender in turn.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use xtask::{console, netns, process};

use crate::{
    Options,
    contenders::{ALL, IPERF},
    network::{CLIENT, Contender},
    rounds::Figure,
};

/// Measures one stream and eight.
pub(crate) fn run(options: &Options) -> Result<Vec<Value>> {
    let rounds = options.rounds.min(7);
    let mut all = Vec::new();
    for streams in [1, 8] {
        let mut retried = Vec::new();
        let mut gbps: Vec<Vec<f64>> = vec![Vec::new(); ALL.len()];
        for round in 0..rounds {
            for step in 0..ALL.len() {
                let k = (round + step) % ALL.len();
                let seconds = if options.quick { 1 } else { 2 };
                gbps[k].push(iperf(ALL[k], streams, seconds, &mut retried)?);
            }
        }
        let about = json!({ "streams": streams, "ends": "iperf3", "retried": retried });
        all.push(summary(&about, &gbps, "gbps"));
    }
    Ok(all)
}

/// Figures of each contender, and ours by each other's. `unit` names the figures.
pub(crate) fn summary(about: &Value, values: &[Vec<f64>], unit: &str) -> Value {
    let mut line = about.as_object().cloned().unwrap_or_default();
    let mut figures = Map::new();
    let mut ratios = Map::new();
    for (who, all) in ALL.iter().zip(values) {
        let figure = Figure::of(all.iter().copied());
        let ratio = Figure::ratio(&values[0], all);
        console::note(format_args!(
            "   {about} {}: {:.2} {unit} ({:.2} to {:.2}); fleetgate by it {:.2} ({:.2} to {:.2})",
            who.name(),
            figure.median,
            figure.min,
            figure.max,
            ratio.median,
            ratio.min,
            ratio.max
        ));
        figures.insert(who.name().into(), json!(figure));
        if *who != Contender::Agent {
            ratios.insert(who.name().into(), json!(ratio));
        }
    }
    line.insert(unit.into(), Value::Object(figures));
    line.insert("fleetgate_by".into(), Value::Object(ratios));
    line.insert("rounds".into(), json!(values[0].len()));
    Value::Object(line)
}

/// Gbit/s that arrived. iperf3 is tried again where it ends early, at most three times in all; each is in `retried`.
fn iperf(who: Contender, streams: u32, seconds: u32, retried: &mut Vec<String>) -> Result<f64> {
    let mut command = netns::command(CLIENT, "iperf3");
    command.args(["--json", "--connect-timeout", "3000", "--client"]);
    command.args([who.target().to_string(), "--port".into(), IPERF.to_string()]);
    command.args(["--parallel".into(), streams.to_string()]);
    command.args(["--time".into(), seconds.to_string()]);
    let mut busy = 0;
    let mut failed = 0;
    loop {
        match process::output(&mut command).and_then(|text| received(&text)) {
            Ok(gbps) => return Ok(gbps),
            // The server has not put the last test away yet.
            Err(error) if error.to_string().contains("busy") && busy < 20 => busy += 1,
            Err(error) if failed < 2 => {
                failed += 1;
                retried.push(format!("{}: {error:#}", who.name()));
            }
            Err(error) => return Err(error).with_context(|| format!("iperf3, {}", who.name())),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn received(text: &str) -> Result<f64> {
    let result: Value = serde_json::from_str(text).context("iperf3 wrote no JSON")?;
    let bits = result["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3: {}", result["error"]))? / 1e9)
}
