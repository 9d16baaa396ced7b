//! The measurement itself: contenders take turns, round by round.

use std::{collections::BTreeMap, process::Child};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};

use super::{
    StageOptions,
    cases::{CASES, Case, IDLE},
    contender::{Contender, Programs, Running},
    idle, load, logs, network,
    usage::{Machine, TICKS},
};
use crate::{
    bench::{self, figure::Figure, stage},
    console, process,
};

/// Files that a process opens beside idle connections.
const SPARE: u64 = 2_000;

/// Figures of one contender in one case, a value for each round.
#[derive(Clone, Debug, Default)]
struct Values {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
    user_us: Vec<f64>,
    proxy_us: Vec<f64>,
    others_us: Vec<f64>,
    idle: Vec<f64>,
}

/// Inside the namespaces: everything that was asked for.
pub(super) fn run(options: &StageOptions) -> Result<Value> {
    stage::enter()?;
    open_files(u64::from(options.idle) + SPARE)?;
    network::build()?;
    network::certificate()?;
    logs::take()?;
    let mut origin = network::origin()?;
    let result = measure(options);
    end(&mut origin);
    result
}

/// Raises the limit of open files of this process and of all that it starts, if it is lower.
fn open_files(wanted: u64) -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(now.current) {
        return Ok(());
    }
    let maximum = if enough(now.maximum) {
        now.maximum
    } else {
        Some(wanted)
    };
    let files = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, files)
        .with_context(|| format!("cannot raise the limit of open files to {wanted}"))
}

fn measure(options: &StageOptions) -> Result<Value> {
    let programs = Programs {
        agent: options.agent.clone(),
        envoy: options.envoy.clone(),
        logs: !options.without_logs,
    };
    let contenders: Vec<Contender> = options
        .contender
        .iter()
        .filter_map(|name| Contender::by_name(name))
        .collect();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    let mut memory = Vec::new();
    for (name, about, front) in IDLE.into_iter().filter(|(name, ..)| wanted(name)) {
        console::note(format_args!("{} idle {about}", options.idle));
        let mut figures = Map::new();
        for who in &contenders {
            let found = idle::run(*who, &programs, front, options.idle)
                .with_context(|| format!("{name}, {}", who.name()))?;
            figures.insert(
                who.name().into(),
                match found {
                    Ok(bytes) => json!({ "bytes_each": Figure::of([bytes]) }),
                    Err(why) => json!({ "not_served": why }),
                },
            );
        }
        memory.push(json!({
            "case": name, "about": about, "connections": options.idle, "contenders": figures,
        }));
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| wanted(case.name)).collect();
    let mut results = Vec::new();
    if !cases.is_empty() {
        let running: Vec<Running> = contenders
            .iter()
            .map(|who| who.start(&programs))
            .collect::<Result<_>>()?;
        for case in cases {
            console::note(case.about);
            results.push(one(case, &running, options)?);
        }
    }
    Ok(json!({
        "machine": bench::machine(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "logs": programs.logs,
        "cases": results,
        "memory": memory,
    }))
}

fn one(case: &Case, running: &[Running], options: &StageOptions) -> Result<Value> {
    let mut refused = BTreeMap::new();
    for one in running {
        if let Some(why) = one.refuses(case)? {
            refused.insert(one.who, why);
        }
    }
    let mut all: BTreeMap<Contender, Values> = BTreeMap::new();
    for _ in 0..options.rounds {
        for one in running.iter().filter(|one| !refused.contains_key(&one.who)) {
            let values = all.entry(one.who).or_default();
            round(case, one, options.seconds, values)
                .with_context(|| format!("{}, {}", case.name, one.who.name()))?;
        }
    }
    let ours = all.get(&Contender::Fleetgate);
    let mut contenders = Map::new();
    let mut by = Map::new();
    for (who, values) in &all {
        let mut figures = json!({
            "per_second": Figure::of(values.per_second.iter().copied()),
            "cpu_us": Figure::of(values.cpu_us.iter().copied()),
            "user_us": Figure::of(values.user_us.iter().copied()),
            "others_us": Figure::of(values.others_us.iter().copied()),
            "idle_share": Figure::of(values.idle.iter().copied()),
        });
        if *who == Contender::Fleetgate {
            figures["proxy_threads_us"] = json!(Figure::of(values.proxy_us.iter().copied()));
        } else if let Some(ours) = ours {
            by.insert(
                who.name().into(),
                json!({
                    "per_second": Figure::ratio(&ours.per_second, &values.per_second),
                    "cpu_us": Figure::ratio(&ours.cpu_us, &values.cpu_us),
                }),
            );
        }
        contenders.insert(who.name().into(), figures);
    }
    for (who, why) in refused {
        contenders.insert(who.name().into(), json!({ "not_served": why }));
    }
    Ok(
        json!({ "case": case.name, "about": case.about, "contenders": contenders, "fleetgate_by": by }),
    )
}

fn round(case: &Case, one: &Running, seconds: u8, values: &mut Values) -> Result<()> {
    let machine = || Machine::now().context("/proc/stat does not tell what the CPUs did");
    let (before, all) = (one.usage()?, machine()?);
    let seen = load::run(case, one.who, seconds)?;
    let (after, then) = (one.usage()?, machine()?);
    let requests = seen.requests as f64;
    let micros = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1000.0 / requests;
    let cpu = micros(before.cpu_ns, after.cpu_ns);
    let user = after.user_ticks.saturating_sub(before.user_ticks) as f64;
    let system = after.system_ticks.saturating_sub(before.system_ticks) as f64;
    let busy = then.busy.saturating_sub(all.busy) as f64;
    let idle = then.idle.saturating_sub(all.idle) as f64;
    values
        .others_us
        .push((busy / TICKS * 1e6 / requests - cpu).max(0.0));
    values.idle.push(idle / (busy + idle).max(1.0));
    values.per_second.push(seen.per_second);
    values.cpu_us.push(cpu);
    values.user_us.push(cpu * user / (user + system).max(1.0));
    values
        .proxy_us
        .push(micros(before.proxy_ns, after.proxy_ns));
    Ok(())
}

fn end(child: &mut Child) {
    if let Some(known) = process::Known::of(child.id(), "origin") {
        process::end(&[known]);
    }
    let _ = child.wait();
}
