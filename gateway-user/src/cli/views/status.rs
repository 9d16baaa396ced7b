//! `fleetgate status`: does it work?

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use gateway_common::{backend::state, config::Admission};
use serde::Serialize;

use crate::{
    cli::{
        live::FlowCount,
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
    },
    dataplane::record::{ClusterRecord, InterfaceRecord, Record, UpgradeRecord},
    ir::SteeringMode,
    metrics::Readings,
    plan::Mode,
    problem::{Problem, Severity},
};

/// What neither record nor maps tell.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Seconds since the epoch.
    pub now: u64,
    /// The agent runs.
    pub alive: bool,
    /// Names of pinned links.
    pub links: Vec<String>,
}

/// See [`status`].
#[derive(Clone, Debug, Serialize)]
pub struct StatusView {
    /// The agent that wrote the record.
    pub agent: AgentView,
    /// The configuration in the kernel.
    pub config: ConfigView,
    /// Addresses of listeners that name none.
    pub vips: Vec<IpAddr>,
    /// Hooks by interface, and why.
    pub interfaces: Vec<InterfaceRecord>,
    /// Member clusters and whether they answer.
    pub clusters: Vec<ClusterRecord>,
    /// Pinned links: what works without the agent.
    pub links: Vec<String>,
    /// Listeners by who steers them.
    pub listeners: BTreeMap<SteeringMode, usize>,
    /// Listener addresses by who steers them.
    pub services: BTreeMap<SteeringMode, usize>,
    /// Backends by the state that the kernel's table holds.
    pub backends: BTreeMap<&'static str, usize>,
    /// The flow table.
    pub flows: FlowTableView,
    /// Packets dropped since the maps were made.
    pub dropped: CountView,
    /// The last time that maps of another version were taken over.
    pub upgrade: Option<UpgradeRecord>,
    /// What is wrong with the configuration.
    pub problems: Vec<Problem>,
    /// What did not fit, or cannot be reached.
    pub warnings: Vec<String>,
}

/// The agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentView {
    /// It runs.
    pub alive: bool,
    /// Its process id, or that of the last one.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Seconds since the epoch.
    pub started: u64,
    /// Seconds since then; 0 for an agent that is gone.
    pub uptime_seconds: u64,
}

/// The configuration in the kernel.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigView {
    /// Counts configurations applied.
    pub generation: u64,
    /// Seconds since the epoch.
    pub applied_at: u64,
    /// Seconds since then.
    pub age_seconds: u64,
    /// An apply has begun and not ended.
    pub applying: bool,
}

/// The flow table.
#[derive(Clone, Debug, Serialize)]
pub struct FlowTableView {
    /// Connections.
    pub flows: u64,
    /// Entries, two for each connection.
    pub entries: u64,
    /// Most entries.
    pub size: u64,
}

/// Packets and bytes.
#[derive(Clone, Debug, Serialize)]
pub struct CountView {
    /// Packets.
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
}

/// The state of a gateway in one page.
pub fn status(
    record: &Record,
    readings: &Readings,
    flows: &FlowCount,
    moment: Moment,
) -> StatusView {
    let mut listeners = by_mode();
    for listener in record.ir.served() {
        *listeners.entry(listener.steering.mode).or_default() += 1;
    }
    let mut services = by_mode();
    for service in record.plan.services.values() {
        let mode = match service.mode {
            Mode::Connection(_) | Mode::Empty => SteeringMode::Connection,
            Mode::Request => SteeringMode::Request,
        };
        *services.entry(mode).or_default() += 1;
    }
    let mut backends = BTreeMap::new();
    for (backend, _) in readings.backends.values() {
        let name = state::NAMES.get(backend.state as usize).unwrap_or(&"?");
        *backends.entry(*name).or_default() += 1;
    }
    let dropped = readings.dropped();
    let uptime = moment.now.saturating_sub(record.started);
    StatusView {
        agent: AgentView {
            alive: moment.alive,
            pid: record.pid,
            version: record.version.clone(),
            started: record.started,
            uptime_seconds: if moment.alive { uptime } else { 0 },
        },
        config: ConfigView {
            generation: record.generation,
            applied_at: record.applied_at,
            age_seconds: moment.now.saturating_sub(record.applied_at),
            applying: record.applying.is_some(),
        },
        vips: record.vips.clone(),
        interfaces: record.interfaces.clone(),
        clusters: record.clusters.clone(),
        links: moment.links,
        listeners,
        services,
        backends,
        flows: FlowTableView {
            flows: flows.flows(),
            entries: flows.entries,
            size: readings.flow_table_size,
        },
        dropped: CountView {
            packets: dropped.packets,
            bytes: dropped.bytes,
        },
        upgrade: record.upgrade.clone(),
        problems: record.problems.clone(),
        warnings: [record.warnings.clone(), scarce(record, readings, flows)].concat(),
    }
}

/// What new flows will soon lack: source ports towards a backend from 90 % on, entries from the high water on.
fn scarce(record: &Record, readings: &Readings, flows: &FlowCount) -> Vec<String> {
    let mut all = Vec::new();
    let admission = Admission::of(u32::try_from(readings.flow_table_size).unwrap_or(u32::MAX));
    if admission.high != 0 && flows.flows() > admission.high {
        all.push(format!(
            "the flow table is nearly full: services with more than {} flows open no others (`high_water`); see --max-flows",
            units::count(admission.share)
        ));
    }
    for (id, (backend, _)) in &readings.backends {
        let used = flows.by_backend.get(id).copied().unwrap_or(0);
        let ports = readings.source_ports(backend);
        let Some(known) = record.plan.backends.get(id) else {
            continue;
        };
        if ports != 0 && used * 10 >= ports * 9 {
            all.push(format!(
                "{} of {} source ports towards {} (pod {}, cluster {}) are in use; give --snat more addresses, or the \
                 service more pods",
                units::count(used),
                units::count(ports),
                known.key.address,
                known.pod,
                known.key.cluster
            ));
        }
    }
    all
}

fn by_mode() -> BTreeMap<SteeringMode, usize> {
    [(SteeringMode::Connection, 0), (SteeringMode::Request, 0)].into()
}

impl StatusView {
    /// Whether any object is in error.
    pub fn in_error(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    fn agent(&self) -> Cell {
        let AgentView { pid, version, .. } = &self.agent;
        if self.agent.alive {
            let up = units::span(Duration::from_secs(self.agent.uptime_seconds));
            Cell::toned(
                Tone::Good,
                format!("running, pid {pid}, version {version}, up {up}"),
            )
        } else {
            let on = if self.links.is_empty() {
                "and nothing is attached"
            } else {
                "the kernel steers on as last configured"
            };
            Cell::toned(
                Tone::Warn,
                format!("not running (last pid {pid}, version {version}); {on}"),
            )
        }
    }

    fn config(&self) -> Cell {
        let age = units::span(Duration::from_secs(self.config.age_seconds));
        let text = format!("generation {}, applied {age} ago", self.config.generation);
        if self.config.applying {
            Cell::toned(Tone::Warn, format!("{text}; another is being applied"))
        } else {
            text.into()
        }
    }

    fn flow_table(&self) -> Cell {
        let FlowTableView {
            flows,
            entries,
            size,
        } = self.flows;
        let full = units::fraction(entries, size);
        let tone = if full > 0.9 { Tone::Bad } else { Tone::Plain };
        Cell::toned(
            tone,
            format!(
                "{}; {} of {} entries ({})",
                units::count(flows),
                units::count(entries),
                units::count(size),
                units::percent(full)
            ),
        )
    }

    fn dropped(&self) -> Cell {
        let packets = units::count(self.dropped.packets);
        match self.dropped.packets {
            0 => Cell::toned(Tone::Good, "none"),
            _ => Cell::toned(
                Tone::Warn,
                format!(
                    "{packets} packets, {}; see `fleetgate stats`",
                    units::bytes(self.dropped.bytes)
                ),
            ),
        }
    }
}

fn upgraded(upgrade: &UpgradeRecord) -> Cell {
    let UpgradeRecord {
        version,
        layout,
        flows,
        milliseconds,
        ..
    } = upgrade;
    let of = if version.is_empty() {
        String::new()
    } else {
        format!(" of version {version}")
    };
    let flows = units::count(*flows);
    let text = format!("{flows} flows taken over from layout {layout}{of}, in {milliseconds} ms");
    Cell::toned(
        if upgrade.left.is_empty() {
            Tone::Plain
        } else {
            Tone::Warn
        },
        text,
    )
}

fn modes(counts: &BTreeMap<SteeringMode, usize>) -> String {
    let of = |mode| counts.get(&mode).copied().unwrap_or(0);
    format!(
        "{} by connection (kernel), {} by request (proxy)",
        of(SteeringMode::Connection),
        of(SteeringMode::Request)
    )
}

impl View for StatusView {
    fn text(&self, paint: Paint) -> String {
        let mut table = Table::new(&["", ""]);
        let mut line = |name: &str, value: Cell| {
            table.row([Cell::toned(Tone::Strong, name), value]);
        };
        let list = |items: &mut dyn Iterator<Item = String>| -> Cell {
            super::or_dash(items.collect::<Vec<_>>().join(", ")).into()
        };
        line("agent", self.agent());
        line("config", self.config());
        line("vips", list(&mut self.vips.iter().map(ToString::to_string)));
        for interface in &self.interfaces {
            let InterfaceRecord {
                name,
                hooks,
                reason,
            } = interface;
            let why = if reason.is_empty() {
                String::new()
            } else {
                format!(" ({reason})")
            };
            line("interface", format!("{name}: {hooks}{why}").into());
        }
        line("links", list(&mut self.links.iter().cloned()));
        for ClusterRecord { id, reach } in &self.clusters {
            let cell = match reach.as_str() {
                "connected" => format!("{id}: {reach}").into(),
                "lost" => Cell::toned(Tone::Bad, format!("{id}: lost; its last pods serve on")),
                _ => Cell::toned(Tone::Warn, format!("{id}: {reach}; it was never listed")),
            };
            line("cluster", cell);
        }
        if let Some(upgrade) = &self.upgrade {
            line("upgrade", upgraded(upgrade));
            for left in &upgrade.left {
                let left = format!("not taken over: {left}");
                line("", Cell::toned(Tone::Warn, left));
            }
        }
        line("listeners", modes(&self.listeners).into());
        line("addresses", modes(&self.services).into());
        let states = self
            .backends
            .iter()
            .map(|(state, n)| format!("{n} {state}"));
        line("backends", list(&mut states.into_iter()));
        line("flows", self.flow_table());
        line("dropped", self.dropped());
        let mut out = table.render(paint);
        out.push_str(&problems(&self.problems, paint));
        for warning in &self.warnings {
            let name = paint.paint(Tone::Warn, "warning");
            out.push_str(&format!("{name}: {warning}\n"));
        }
        out
    }
}

/// Each problem on three lines: object and field, what, remedy.
pub(in crate::cli) fn problems(problems: &[Problem], paint: Paint) -> String {
    let mut out = String::new();
    for problem in problems {
        let (name, tone) = match problem.severity {
            Severity::Error => ("error", Tone::Bad),
            Severity::Warning => ("warning", Tone::Warn),
        };
        let mut table = Table::new(&[""]);
        table.row([format!("{}: {}", problem.object, problem.field).into()]);
        let object = table.render(Paint::Plain);
        let mut table = Table::new(&["", ""]).indented(2);
        table.row(["what".into(), problem.message.as_str().into()]);
        table.row(["do".into(), problem.remedy.as_str().into()]);
        let name = paint.paint(tone, name);
        out.push_str(&format!("{name}: {object}{}", table.render(paint)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    fn moment(alive: bool) -> Moment {
        Moment {
            now: 10_000,
            alive,
            links: vec!["sk_lookup".to_owned(), "tc-eth0".to_owned()],
        }
    }

    #[test]
    fn the_page_says_what_works_and_what_is_wrong() {
        let entries = sample::flows();
        let view = status(
            &sample::record(),
            &sample::readings(),
            &FlowCount::of(&entries),
            moment(true),
        );
        assert!(view.in_error());
        let expected = "\
agent      running, pid 42, version 0.1.0, up 15m0s
config     generation 7, applied 1m40s ago
vips       10.0.0.1
interface  eth0: tc (driver has no native XDP)
links      sk_lookup, tc-eth0
listeners  1 by connection (kernel), 1 by request (proxy)
addresses  1 by connection (kernel), 1 by request (proxy)
backends   2 active, 1 draining
flows      2; 3 of 1 048 576 entries (0.0 %)
dropped    4 packets, 4.0 KiB; see `fleetgate stats`
error: Ingress demo/bad: spec.rules[0]
  what  no Service \"nope\"
  do    create it
warning: no route to 10.9.9.9
";
        assert_eq!(view.text(Paint::Plain), expected);
    }

    #[test]
    fn what_new_flows_will_soon_lack_is_told_before_they_lack_it() {
        let (record, mut readings) = (sample::record(), sample::readings());
        let ports = readings.source_ports(&readings.backends[&1].0);
        let warnings = |readings: &Readings, used: u64| {
            let flows = FlowCount {
                entries: 2 * used,
                by_backend: [(1, used)].into(),
            };
            status(&record, readings, &flows, moment(true)).warnings
        };
        let before = warnings(&readings, ports * 9 / 10 - 1).len();
        let at = warnings(&readings, ports * 9 / 10 + 1);
        assert_eq!(at.len(), before + 1, "{at:?}");
        assert!(
            at[before].contains("source ports towards 10.1.0.1:80"),
            "{at:?}"
        );
        readings.flow_table_size = 32_000;
        let full = warnings(&readings, 15_001);
        assert!(full.iter().any(|it| it.contains("nearly full")), "{full:?}");
    }

    #[test]
    fn what_an_upgrade_took_over_and_what_not_is_told() {
        let mut record = sample::record();
        record.upgrade = Some(UpgradeRecord {
            version: "0.1.0".to_owned(),
            layout: "0123456789abcdef".to_owned(),
            flows: 12,
            left: vec!["3 flows: the flow table is full".to_owned()],
            milliseconds: 80,
            ..UpgradeRecord::default()
        });
        let flows = FlowCount::default();
        let text = status(&record, &sample::readings(), &flows, moment(true)).text(Paint::Plain);
        let expected = "\
upgrade    12 flows taken over from layout 0123456789abcdef of version 0.1.0, in 80 ms
           not taken over: 3 flows: the flow table is full
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_dead_agent_is_told_apart_from_a_gateway_that_is_off() {
        let text = |links: Vec<String>| {
            let moment = Moment {
                links,
                ..moment(false)
            };
            let flows = FlowCount::default();
            let view = status(&sample::record(), &sample::readings(), &flows, moment);
            assert_eq!(view.agent.uptime_seconds, 0);
            view.text(Paint::Plain)
        };
        assert!(text(vec!["tc-eth0".to_owned()]).contains("the kernel steers on"));
        assert!(text(Vec::new()).contains("nothing is attached"));
    }
}
