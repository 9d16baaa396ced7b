//! Changes while traffic runs: new weights, and an agent killed and started again.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::{
    agent::{self, Agent},
    bars::Bars,
    iperf, iperf_target, manifests,
    scenario::{self, Mode, Rules},
    survivors::{self, Survivors},
    web_target, write,
};
use crate::{
    client::{self, Job, Pattern, Tally},
    lab::{Lab, topology},
    netns,
};

/// Keep-alive connections that must not move.
const HELD: u16 = 8;
/// Connections of one iperf3 run: control and data.
const IPERF_CONNECTIONS: usize = 2;

/// The split before and after the change, in percent for c1 and c2.
const OLD: [u8; 2] = [60, 40];
const NEW: [u8; 2] = [20, 80];

/// What the change of weights did.
#[derive(Clone, Debug, Serialize)]
pub struct LiveChange {
    /// Failed connections of every kind, the held ones included.
    pub errors: u64,
    /// From the moment the file was saved to the first connection of the new split; `None` when it never came.
    pub seconds_to_new_split: Option<f64>,
    /// New connections made meanwhile.
    pub connections: u64,
    /// Percent before the change, by cluster.
    pub before: BTreeMap<String, f64>,
    /// Percent after the change, by cluster.
    pub after: BTreeMap<String, f64>,
    /// Keep-alive connections held through the change.
    pub held_connections: u64,
    /// Those that another pod answered later.
    pub held_moved: u64,
}

/// Edits the weights under load.
pub fn change_weights(manifests_dir: &Path) -> Result<LiveChange> {
    const NAME: &str = "web-live-connection";
    save(manifests_dir, NAME, OLD)?;
    agent::wait_serves(NAME)?;
    let stop = AtomicBool::new(false);
    let load = Job {
        threads: 8,
        pause: Duration::from_millis(2),
        timeline: true,
        ..Job::connections(web_target(), u64::MAX)
    };
    let (saved, mut tally, held) = thread::scope(|scope| {
        let load =
            scope.spawn(|| netns::inside(topology::CLIENT, || client::run_until(&load, &stop)));
        let held = scope.spawn(|| hold(&stop));
        thread::sleep(Duration::from_millis(1500));
        let saved = save(manifests_dir, NAME, NEW);
        thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok((saved?, join(load)??, join(held)??))
    })?;
    tally.timeline.sort_by_key(|(at, _)| *at);
    let in_c1: Vec<bool> = tally
        .timeline
        .iter()
        .map(|(_, pod)| pod.starts_with("c1/"))
        .collect();
    let turn = turning_point(&in_c1, f64::from(OLD[0]) / 100.0, f64::from(NEW[0]) / 100.0);
    let moment = tally.timeline.get(turn).map(|(at, _)| *at);
    Ok(LiveChange {
        errors: tally.failed() + held.failed(),
        seconds_to_new_split: moment
            .map(|at| at.duration_since(saved).unwrap_or_default().as_secs_f64()),
        connections: tally.connections,
        before: shares(&tally.timeline[..turn]),
        after: shares(&tally.timeline[turn..]),
        held_connections: held.connections,
        held_moved: held.moved,
    })
}

/// Holds the change against its bars.
pub fn judge_change(found: &LiveChange, bars: &mut Bars) {
    bars.hold(found.errors == 0, || {
        format!("live change: {} connections failed", found.errors)
    });
    match found.seconds_to_new_split {
        Some(seconds) => bars.hold(seconds <= 1.0, || {
            format!("live change: {seconds:.2} s from the saved file to the new split, at most 1 s is asked for")
        }),
        None => bars.hold(false, || format!("live change: the new split never came; the shares stayed {:?}", found.before)),
    }
    // The old split is the weighted scenario's, which has its own bars.
    let (got, asked) = (
        found.after.get("c1").copied().unwrap_or(0.0),
        f64::from(NEW[0]),
    );
    bars.hold((got - asked).abs() <= 2.0, || {
        format!("live change: c1 got {got:.2} % after the change, asked for {asked:.2} % (within 2 points)")
    });
    judge_held(
        "live change",
        found.held_connections,
        found.held_moved,
        bars,
    );
}

/// What the loss of the agent did.
#[derive(Clone, Debug, Serialize)]
pub struct AgentKilled {
    /// Throughput of the iperf3 run during which the agent was killed and started again; `None` when it broke off.
    pub iperf_gbps: Option<f64>,
    /// Why it broke off.
    pub iperf_error: Option<String>,
    /// How long iperf3 ran on after the new agent was ready; negative when it had ended before.
    pub iperf_seconds_after_restart: f64,
    /// New connections opened while no agent ran.
    pub connections_without_agent: u64,
    /// Failures of those and of the held connections.
    pub errors: u64,
    /// Flows shown by `fleetgate flows` after the restart, those of closed connections included.
    pub flows_after_restart: usize,
    /// The held connections, from before SIGKILL to after the restart.
    pub held: Survivors,
    /// iperf3's control and data connection, likewise.
    pub iperf: Survivors,
    /// Keep-alive connections held through it.
    pub held_connections: u64,
    /// Those that another pod answered later.
    pub held_moved: u64,
}

/// Kills the agent during an iperf3 run and starts it again; returns the new agent.
pub fn kill_agent(lab: &mut Lab, manifests_dir: &Path, old: Agent) -> Result<(AgentKilled, Agent)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let bulk = scope.spawn(|| {
            let outcome = iperf::run(topology::VIP, manifests::IPERF_LISTENER, 6);
            (outcome, Instant::now())
        });
        let held = scope.spawn(|| hold(&stop));
        let middle = (|| {
            thread::sleep(Duration::from_secs(1));
            let before = survivors::look()?;
            old.kill()?;
            let alone = netns::inside(topology::CLIENT, || {
                client::run(&Job::connections(web_target(), 500))
            })?;
            thread::sleep(Duration::from_millis(500));
            let new = Agent::start(lab, manifests_dir, "agent-restarted", &[])?;
            let ready = Instant::now();
            let after = survivors::look()?;
            // Traffic goes on for a while under the new agent, which could still break it.
            thread::sleep(Duration::from_secs(1));
            anyhow::Ok((alone, new, before, ready, after))
        })();
        let (bulk, ended) = join(bulk)?;
        stop.store(true, Ordering::Relaxed);
        let held = join(held)??;
        let (alone, new, before, ready, after) = middle?;
        let found = AgentKilled {
            iperf_gbps: bulk.as_ref().ok().copied(),
            iperf_error: bulk.err().map(|error| format!("{error:#}")),
            iperf_seconds_after_restart: match ended.checked_duration_since(ready) {
                Some(after) => after.as_secs_f64(),
                None => -ready.duration_since(ended).as_secs_f64(),
            },
            connections_without_agent: alone.connections,
            errors: alone.failed() + held.failed(),
            flows_after_restart: after.flows(),
            held: survivors::follow(web_target(), &before, &after),
            iperf: survivors::follow(iperf_target(), &before, &after),
            held_connections: held.connections,
            held_moved: held.moved,
        };
        Ok((found, new))
    })
}

/// Holds the loss of the agent against its bars.
pub fn judge_killed(found: &AgentKilled, bars: &mut Bars) {
    bars.hold(found.iperf_gbps.is_some_and(|rate| rate > 0.0), || {
        format!(
            "agent killed: the iperf3 run did not complete: {}",
            found.iperf_error.as_deref().unwrap_or("nothing arrived")
        )
    });
    bars.hold(found.iperf_seconds_after_restart > 0.0, || {
        format!(
            "agent killed: iperf3 had ended {:.2} s before the new agent was ready, so it shows nothing about the restart",
            -found.iperf_seconds_after_restart
        )
    });
    bars.hold(found.errors == 0, || {
        format!("agent killed: {} connections failed", found.errors)
    });
    for (what, expected, survivors) in [
        ("held", usize::from(HELD), &found.held),
        ("iperf3", IPERF_CONNECTIONS, &found.iperf),
    ] {
        bars.hold(
            survivors.connections == expected && survivors.kept == expected,
            || {
                format!(
                    "agent killed: of {expected} {what} connections {} were established before and {} kept their flow: {}",
                    survivors.connections,
                    survivors.kept,
                    survivors.lost.join("; ")
                )
            },
        );
    }
    judge_held(
        "agent killed",
        found.held_connections,
        found.held_moved,
        bars,
    );
}

fn judge_held(what: &str, connections: u64, moved: u64, bars: &mut Bars) {
    bars.hold(connections == u64::from(HELD), || {
        format!(
            "{what}: {connections} connections were opened to keep {HELD} open, so some were lost"
        )
    });
    bars.hold(moved == 0, || {
        format!("{what}: {moved} of {HELD} established connections moved to another pod")
    });
}

/// A handful of keep-alive connections with a request now and then.
fn hold(stop: &AtomicBool) -> Result<Tally> {
    let job = Job {
        threads: HELD,
        pattern: Pattern::KeepAlive(u64::MAX),
        pause: Duration::from_millis(100),
        ..Job::connections(web_target(), 0)
    };
    netns::inside(topology::CLIENT, || client::run_until(&job, stop))
}

fn save(dir: &Path, name: &str, [c1, c2]: [u8; 2]) -> Result<SystemTime> {
    let rules = Rules::Weights(vec![("c1", c1), ("c2", c2)]);
    write(dir, &manifests::ingress(name, Mode::Connection, &rules))?;
    Ok(SystemTime::now())
}

fn shares(timeline: &[(SystemTime, String)]) -> BTreeMap<String, f64> {
    let mut answers = BTreeMap::new();
    for (_, pod) in timeline {
        *answers.entry(pod.clone()).or_default() += 1;
    }
    scenario::by_cluster(&answers)
}

/// The most likely index from which answers follow the new share instead of the old; the length when none does.
///
/// Both shares are those of `true`, strictly between 0 and 1. Maximum likelihood of a single change point: the sum of
/// log-likelihood ratios of everything from that index on is greatest.
fn turning_point(answers: &[bool], old: f64, new: f64) -> usize {
    let (yes, no) = ((new / old).ln(), ((1.0 - new) / (1.0 - old)).ln());
    let (mut best, mut sum) = ((answers.len(), 0.0), 0.0);
    for (index, answer) in answers.iter().enumerate().rev() {
        sum += if *answer { yes } else { no };
        if sum > best.1 {
            best = (index, sum);
        }
    }
    best.0
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a client thread panicked"))
        .context("the load did not end well")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `of`-th pattern: `yes` true answers, then the others.
    fn answers(count: usize, yes: usize, of: usize) -> impl Iterator<Item = bool> {
        // A step coprime to `of` spreads the answers.
        (0..count).map(move |n| (n * 3) % of < yes)
    }

    #[test]
    fn the_turning_point_is_where_the_shares_change() {
        let all: Vec<bool> = answers(1000, 6, 10).chain(answers(2000, 2, 10)).collect();
        let turn = turning_point(&all, 0.6, 0.2);
        assert!((995..=1005).contains(&turn), "{turn}");
    }

    fn all_well() -> AgentKilled {
        let kept = |count| Survivors {
            connections: count,
            kept: count,
            lost: Vec::new(),
        };
        AgentKilled {
            iperf_gbps: Some(10.0),
            iperf_error: None,
            iperf_seconds_after_restart: 2.5,
            connections_without_agent: 500,
            errors: 0,
            flows_after_restart: 510,
            held: kept(8),
            iperf: kept(2),
            held_connections: 8,
            held_moved: 0,
        }
    }

    fn failures(found: &AgentKilled) -> usize {
        let mut bars = Bars::default();
        judge_killed(found, &mut bars);
        bars.failed.len()
    }

    #[test]
    fn a_kill_that_nothing_noticed_holds_every_bar() {
        assert_eq!(failures(&all_well()), 0);
    }

    #[test]
    fn one_lost_flow_fails_though_thousands_are_known() {
        let mut found = all_well();
        found.held.kept = 7;
        assert_eq!(failures(&found), 1);
        let mut found = all_well();
        found.iperf.kept = 1;
        assert_eq!(failures(&found), 1);
    }

    #[test]
    fn connections_that_were_not_there_before_prove_nothing() {
        let mut found = all_well();
        found.held = Survivors::default();
        found.iperf = Survivors::default();
        assert_eq!(failures(&found), 2);
    }

    #[test]
    fn an_iperf3_that_ended_before_the_restart_fails() {
        let mut found = all_well();
        found.iperf_seconds_after_restart = -0.1;
        assert_eq!(failures(&found), 1);
    }

    #[test]
    fn without_a_change_there_is_no_turning_point() {
        let all: Vec<bool> = answers(1000, 6, 10).collect();
        assert!(turning_point(&all, 0.6, 0.2) >= 995);
    }
}
