//! `fleetgate flows`: connections that the kernel steers, both directions joined.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use gateway_common::{
    addr::{Addr, Port},
    flow::{Flow, FlowKey, UDP, flag, state},
};
use serde::Serialize;

use crate::{
    cli::{
        live::Ticks,
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
        values::Endpoint,
    },
    dataplane::record::Record,
};

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Only of this client.
    pub client: Option<Endpoint>,
    /// Only to this listener address.
    pub service: Option<Endpoint>,
    /// Only to this backend: id, cluster, cluster/pod, pod, IP or IP:PORT.
    pub backend: Option<String>,
    /// At most this many.
    pub limit: usize,
}

/// See [`flows`].
#[derive(Clone, Debug, Serialize)]
pub struct FlowsView {
    /// Flows that match, also those beyond the limit.
    pub matching: usize,
    /// All flows in the table.
    pub total: usize,
    /// Sorted by client.
    pub flows: Vec<FlowView>,
}

/// One flow.
#[derive(Clone, Debug, Serialize)]
pub struct FlowView {
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Client address and port.
    pub client: SocketAddr,
    /// Listener address and port.
    pub service: SocketAddr,
    /// Source address and port that the pod sees.
    pub source: SocketAddr,
    /// Pod address and port.
    pub backend: SocketAddr,
    /// Backend id.
    pub backend_id: u32,
    /// Member cluster; empty once the id belongs to another pod.
    pub cluster: String,
    /// Pod; empty once the id belongs to another pod.
    pub pod: String,
    /// Name of the state.
    pub state: &'static str,
    /// Since the last packet of either direction.
    pub idle_seconds: f64,
    /// Frame bytes from the client.
    pub in_bytes: u64,
    /// Frame bytes to the client.
    pub out_bytes: u64,
    /// Both entries are there.
    pub complete: bool,
}

/// Joins entries to flows and filters them.
pub fn flows(
    record: &Record,
    entries: &[(FlowKey, Flow)],
    ticks: Ticks,
    filter: &FlowFilter,
) -> FlowsView {
    let replies: HashMap<&FlowKey, &Flow> = entries
        .iter()
        .filter(|(_, flow)| flow.life.flags & flag::REPLY != 0)
        .map(|(key, flow)| (key, flow))
        .collect();
    let mut total = 0;
    let mut matching = Vec::new();
    for (key, flow) in entries {
        if flow.life.flags & flag::REPLY != 0 {
            continue;
        }
        total += 1;
        let reply = replies.get(&flow.nat.reverse_key(key.proto)).copied();
        let view = join(record, key, flow, reply, ticks);
        if filter.covers(&view) {
            matching.push(view);
        }
    }
    matching.sort_by_key(|flow| (flow.client, flow.service));
    FlowsView {
        matching: matching.len(),
        total,
        flows: matching.into_iter().take(filter.limit).collect(),
    }
}

fn join(
    record: &Record,
    key: &FlowKey,
    flow: &Flow,
    reply: Option<&Flow>,
    ticks: Ticks,
) -> FlowView {
    let Flow { nat, life } = flow;
    let owner = super::backend(record, nat.backend).filter(|b| b.generation == life.generation);
    let idle = ticks.since(life.last_seen);
    let idle = reply.map_or(idle, |r| idle.min(ticks.since(r.life.last_seen)));
    FlowView {
        proto: if key.proto == UDP { "udp" } else { "tcp" },
        client: socket(key.src, key.src_port),
        service: socket(key.dst, key.dst_port),
        source: socket(nat.src, nat.src_port),
        backend: socket(nat.dst, nat.dst_port),
        backend_id: nat.backend,
        cluster: owner.map_or_else(String::new, |b| b.key.cluster.to_string()),
        pod: owner.map_or_else(String::new, |b| b.pod.to_string()),
        state: state::NAMES.get(life.state as usize).unwrap_or(&"?"),
        idle_seconds: (idle.as_secs_f64() * 1000.0).round() / 1000.0,
        in_bytes: life.bytes,
        out_bytes: reply.map_or(0, |r| r.life.bytes),
        complete: reply.is_some(),
    }
}

/// Address and port of a key as people write them.
pub(in crate::cli) fn socket(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(IpAddr::from(addr), port.host())
}

impl FlowFilter {
    fn covers(&self, flow: &FlowView) -> bool {
        let client = self.client.is_none_or(|e| e.covers(flow.client));
        let service = self.service.is_none_or(|e| e.covers(flow.service));
        let backend = self.backend.as_deref().is_none_or(|wanted| {
            wanted == flow.cluster
                || wanted == flow.pod
                || wanted == flow.backend_id.to_string()
                || wanted
                    .split_once('/')
                    .is_some_and(|(cluster, pod)| cluster == flow.cluster && pod == flow.pod)
                || wanted
                    .parse::<Endpoint>()
                    .is_ok_and(|endpoint| endpoint.covers(flow.backend))
        });
        client && service && backend
    }
}

impl View for FlowsView {
    fn text(&self, paint: Paint) -> String {
        let mut table = Table::new(&[
            "PROTO",
            "CLIENT",
            "LISTENER",
            "POD",
            "ADDRESS",
            "SEEN FROM",
            "STATE",
            "IDLE>",
            "IN>",
            "OUT>",
        ]);
        for flow in &self.flows {
            let pod = match flow.cluster.as_str() {
                "" => Cell::toned(Tone::Warn, "(gone)"),
                cluster => format!("{cluster}/{}", flow.pod).into(),
            };
            let state = if flow.complete {
                flow.state.into()
            } else {
                Cell::toned(Tone::Warn, format!("{} (half)", flow.state))
            };
            let idle = Duration::try_from_secs_f64(flow.idle_seconds).unwrap_or_default();
            table.row([
                flow.proto.into(),
                flow.client.to_string().into(),
                flow.service.to_string().into(),
                pod,
                flow.backend.to_string().into(),
                flow.source.to_string().into(),
                state,
                units::span(idle).into(),
                units::bytes(flow.in_bytes).into(),
                units::bytes(flow.out_bytes).into(),
            ]);
        }
        let shown = self.flows.len();
        let mut count = format!("{} of {} flows", self.matching, self.total);
        if self.matching == self.total {
            let plural = if self.total == 1 { "" } else { "s" };
            count = format!("{} flow{plural}", self.total);
        }
        if shown < self.matching {
            count.push_str(&format!(", {shown} shown; --limit shows more"));
        }
        if table.is_empty() {
            return format!("{count}\n");
        }
        format!("{}{count}\n", table.render(paint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    fn view(filter: FlowFilter) -> FlowsView {
        let ticks = Ticks {
            now: 1_000,
            rate: 100,
        };
        flows(&sample::record(), &sample::flows(), ticks, &filter)
    }

    fn all() -> FlowFilter {
        FlowFilter {
            limit: usize::MAX,
            ..FlowFilter::default()
        }
    }

    #[test]
    fn both_directions_are_one_line() {
        let text = view(all()).text(Paint::Plain);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "PROTO  CLIENT             LISTENER     POD       ADDRESS      SEEN FROM       STATE            IDLE       IN      OUT",
                "tcp    198.51.100.7:4000  10.0.0.1:80  c1/web-a  10.1.0.1:80  10.9.0.1:20000  established        1s  1.0 KiB  4.0 KiB",
                "tcp    198.51.100.8:4000  10.0.0.1:80  (gone)    10.2.0.1:80  10.9.0.1:20001  syn-sent (half)    9s     60 B      0 B",
                "2 flows",
            ]
        );
    }

    #[test]
    fn filters_take_clients_listeners_and_every_name_of_a_pod() {
        let count = |filter: FlowFilter| view(filter).matching;
        let client = |text: &str| FlowFilter {
            client: Some(text.parse().unwrap()),
            ..all()
        };
        assert_eq!(count(client("198.51.100.7")), 1);
        assert_eq!(count(client("198.51.100.7:4001")), 0);
        let service = FlowFilter {
            service: Some("10.0.0.1:80".parse().unwrap()),
            ..all()
        };
        assert_eq!(count(service), 2);
        for name in ["1", "c1", "c1/web-a", "web-a", "10.1.0.1", "10.1.0.1:80"] {
            let filter = FlowFilter {
                backend: Some(name.to_owned()),
                ..all()
            };
            assert_eq!(count(filter), 1, "{name}");
        }
    }

    #[test]
    fn a_limit_is_said() {
        let limited = view(FlowFilter { limit: 1, ..all() });
        assert_eq!(limited.flows.len(), 1);
        let text = limited.text(Paint::Plain);
        assert!(
            text.ends_with("2 flows, 1 shown; --limit shows more\n"),
            "{text}"
        );
    }
}
