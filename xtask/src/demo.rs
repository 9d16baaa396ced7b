//! `cargo xtask demo`: the four scenarios of a multi-cluster gateway on real connections, measured and judged.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result};

use self::{agent::Agent, bars::Bars, report::Report, scenario::Mode};
use crate::{
    client::{self, Job},
    console::{self, Step},
    ebpf, kernel,
    lab::{Lab, state, topology},
    netns, paths, process, setup,
};

pub mod agent;
pub mod bars;
pub mod iperf;
pub mod live;
pub mod manifests;
pub mod report;
pub mod scenario;
pub mod survivors;

/// Connections (`connection`) and requests (`request`) of one scenario.
///
/// Four standard deviations of a pod's share of its cluster stay below 3 points when the smallest cluster share (40 %,
/// three pods) still gets 4000: sqrt(1/3 x 2/3 / 4000) = 0.75 points.
const CONNECTIONS: u64 = 12_000;
const REQUESTS: u64 = 12_000;

/// Runs the demo; success only if every bar holds.
pub fn run(json: bool) -> Result<ExitCode> {
    let started = Instant::now();
    kernel::ensure()?;
    setup::ensure(setup::LAB)?;
    match paths::given_agent() {
        Some(agent) => console::note(format_args!(".. agent: {}", agent.display())),
        None => build()?,
    }
    let warm = Instant::now();
    let mut report = perform()?;
    report.warm(warm.elapsed().as_secs_f64());
    report.seconds = started.elapsed().as_secs_f64();
    if json {
        // The only line on stdout: everything on the way here went to stderr.
        console::say(report.json()?);
    } else {
        report.print();
    }
    for failed in report.bars_failed.iter().filter(|_| json) {
        console::note(format_args!("FAILED {failed}"));
    }
    if report.bars_failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    console::note(format_args!("the logs are in {}", paths::lab().display()));
    Ok(ExitCode::FAILURE)
}

/// The address the scenarios connect to.
pub fn web_target() -> SocketAddr {
    (topology::VIP, manifests::WEB_LISTENER).into()
}

/// The address that iperf3 connects to.
pub fn iperf_target() -> SocketAddr {
    (topology::VIP, manifests::IPERF_LISTENER).into()
}

/// Writes a manifest whole: a reader sees the old file or the new one.
pub fn write(dir: &Path, (name, text): &manifests::File) -> Result<()> {
    let path = dir.join(name);
    let aside = path.with_extension("new");
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&aside, text))
        .and_then(|()| fs::rename(&aside, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Builds the kernel programs, then the agent that embeds them.
pub fn build() -> Result<()> {
    ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building the agent");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    process::output(
        command
            .args(["build", "--release", "--package", "gateway-user"])
            .current_dir(paths::workspace()),
    )?;
    step.done();
    Ok(())
}

fn perform() -> Result<Report> {
    state::mount_bpffs()?;
    let step = Step::start("building the lab");
    let mut lab = Lab::up()?;
    lab.owns_pins(agent::PIN_DIR)?;
    step.done();

    let dir = manifest_dir()?;
    let all = scenario::all();
    let first = &all[0];
    for file in manifests::base().iter().chain([&manifests::ingress(
        &first.ingress,
        first.mode,
        &first.rules,
    )]) {
        write(&dir, file)?;
    }
    let step = Step::start("starting the agent");
    let agent = Agent::start(&mut lab, &dir, "agent", &[])?;
    step.done();
    measure(&mut lab, &dir, agent)
        .with_context(|| format!("the logs are in {}", paths::lab().display()))
}

fn measure(lab: &mut Lab, dir: &Path, agent: Agent) -> Result<Report> {
    let mut bars = Bars::default();
    let mut scenarios = Vec::new();
    for scenario in scenario::all() {
        let step = Step::start(format!(
            "scenario {}, steering {}",
            scenario.name,
            scenario.mode.as_str()
        ));
        let outcome = one(dir, &scenario).with_context(|| {
            format!(
                "scenario {}; the agent's last words:\n{}",
                scenario.name,
                agent.tail()
            )
        })?;
        scenario::judge(&outcome, scenario.mode, &mut bars);
        step.done_with(format_args!(
            "{} requests, {} errors",
            outcome.requests, outcome.errors
        ));
        scenarios.push(outcome);
    }

    let step = Step::start("iperf3 through the kernel path and directly, 5 runs each");
    let iperf = iperf::compare(5, 2).with_context(|| agent.tail())?;
    iperf::judge(&iperf, &mut bars);
    step.done_with(format_args!("ratio {:.3}", iperf.ratio));

    let step = Step::start("weights changed under load");
    let live_change = live::change_weights(dir).with_context(|| agent.tail())?;
    live::judge_change(&live_change, &mut bars);
    step.done();

    let step = Step::start("agent killed under load");
    let (agent_killed, agent) = live::kill_agent(lab, dir, agent)?;
    live::judge_killed(&agent_killed, &mut bars);
    step.done();

    let step = Step::start("iperf3 through XDP, without offloads");
    let (xdp, xdp_note) = match through_xdp(lab, dir, agent) {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    step.done();

    let report = Report {
        scenarios,
        iperf,
        xdp,
        xdp_note,
        live_change,
        agent_killed,
        bars_held: 0,
        bars_failed: Vec::new(),
        seconds: 0.0,
        warm_seconds: 0.0,
    };
    Ok(report.judged(bars))
}

fn one(dir: &Path, scenario: &scenario::Scenario) -> Result<scenario::Outcome> {
    write(
        dir,
        &manifests::ingress(&scenario.ingress, scenario.mode, &scenario.rules),
    )?;
    let route = agent::wait_serves(&scenario.ingress)?;
    let mut job = match scenario.mode {
        Mode::Connection => Job::connections(web_target(), CONNECTIONS),
        Mode::Request => Job::requests(web_target(), REQUESTS),
    };
    job.headers.extend(
        scenario
            .header
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let before = agent::proxy_counters()?;
    let tally = netns::inside(topology::CLIENT, || client::run(&job))?;
    let after = agent::proxy_counters()?;
    let mut outcome = scenario::outcome(scenario, tally);
    outcome.steering = route.steering;
    outcome.reason = route.reason;
    outcome.listener = route.listener;
    outcome.proxy_connections = after.connections.saturating_sub(before.connections);
    outcome.proxy_received_bytes = after.received_bytes.saturating_sub(before.received_bytes);
    Ok(outcome)
}

/// The same comparison with native XDP, on frames as a network card would deliver them.
fn through_xdp(lab: &mut Lab, dir: &Path, agent: Agent) -> Result<iperf::Comparison> {
    agent.stop()?;
    agent::unload()?;
    iperf::prepare_for_xdp()?;
    let agent = Agent::start(lab, dir, "agent-xdp", &["--xdp", "native"])?;
    let found = iperf::compare(2, 2).with_context(|| agent.tail())?;
    agent.stop()?;
    agent::unload()?;
    Ok(found)
}

/// An empty folder for the manifests, beside the logs, where one can look at them afterwards.
fn manifest_dir() -> Result<PathBuf> {
    let dir = paths::lab().join("manifests");
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", dir.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
