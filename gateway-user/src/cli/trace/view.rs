//! What `trace` shows.

use std::{collections::BTreeMap, net::SocketAddr};

use gateway_common::{backend::state, service::Service};
use serde::Serialize;

use super::request::RequestView;
use crate::{
    cli::{
        live::Slots,
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
        values::Endpoint,
        views::{self, HopView},
    },
    dataplane::record::Record,
    ir::SteeringMode,
    plan::{ServiceAddr, Transport},
};

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// By the kernel, to a pod.
    Forwarded,
    /// By the proxy, to a pod.
    Proxied,
    /// The proxy answers by itself: no rule, or no pod.
    Refused,
    /// The kernel drops it.
    Dropped,
    /// Not ours: the node's own stack answers.
    Passed,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct TraceView {
    /// Client.
    pub from: String,
    /// Listener address and port.
    pub to: SocketAddr,
    /// Transport protocol.
    pub transport: Transport,
    /// Listener in the routing model.
    pub listener: Option<String>,
    /// Who steers it, as the kernel's entry says.
    pub steering: Option<SteeringMode>,
    /// What becomes of it.
    pub answer: Answer,
    /// Why, one sentence.
    pub reason: String,
    /// What the packet pipeline did; for a client without port, with an example port.
    pub kernel: Option<Kernel>,
    /// What the rules say; for listeners that the proxy steers.
    pub request: Option<RequestView>,
    /// Share of each pod over all client ports, where no port was given.
    pub pods: Vec<Share>,
    /// The same by cluster.
    pub clusters: BTreeMap<String, f64>,
}

/// What the packet pipeline did.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    /// A new flow; otherwise an existing one goes on.
    pub opened: bool,
    /// State of the flow that was there before.
    pub before: Option<String>,
    /// Slot of the ring; null for an existing flow.
    pub slot: Option<u32>,
    /// Slots of the ring.
    pub ring_length: usize,
    /// The pod.
    pub backend: Pod,
    /// Source address and port that the pod sees.
    pub source: SocketAddr,
    /// Where the packet leaves; null if the kernel's own routing decides.
    pub next_hop: Option<HopView>,
}

/// A pod.
#[derive(Clone, Debug, Serialize)]
pub struct Pod {
    /// Backend id.
    pub id: u32,
    /// Member cluster.
    pub cluster: String,
    /// Pod name.
    pub pod: String,
    /// Address and port.
    pub address: SocketAddr,
    /// State in the kernel's table.
    pub state: &'static str,
}

/// Share of one pod.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Member cluster.
    pub cluster: String,
    /// Pod name.
    pub pod: String,
    /// Slots of the ring.
    pub slots: u32,
    /// Fraction, 0 to 1.
    pub share: f64,
}

impl Pod {
    /// A backend with the names that the record has for it.
    pub fn of(record: &Record, id: u32, address: SocketAddr, number: u8) -> Self {
        let (cluster, pod) = names(record, id);
        Self {
            id,
            cluster,
            pod,
            address,
            state: state::NAMES.get(number as usize).unwrap_or(&"?"),
        }
    }
}

fn names(record: &Record, id: u32) -> (String, String) {
    views::backend(record, id).map_or_else(
        || ("?".to_owned(), format!("#{id}")),
        |b| (b.key.cluster.to_string(), b.pod.to_string()),
    )
}

impl TraceView {
    /// A view that knows no answer yet.
    pub fn new(from: Endpoint, to: ServiceAddr, listener: Option<String>) -> Self {
        Self {
            from: from.to_string(),
            to: to.address,
            transport: to.transport,
            listener,
            steering: None,
            answer: Answer::Passed,
            reason: String::new(),
            kernel: None,
            request: None,
            pods: Vec::new(),
            clusters: BTreeMap::new(),
        }
    }

    /// What was asked for.
    pub fn address(&self) -> ServiceAddr {
        ServiceAddr {
            transport: self.transport,
            address: self.to,
        }
    }

    /// Adds what the rules say.
    pub fn request(&mut self, request: RequestView) {
        self.reason = match (request.rule, request.status) {
            (None, _) => "no rule matches, so the proxy answers 404".to_owned(),
            (Some(rule), Some(status)) => {
                format!("rule {rule} matches, but no pod is ready: the proxy answers {status}")
            }
            (Some(rule), None) => format!(
                "rule {rule} is the first whose conditions all hold; the proxy picks a pod by weight"
            ),
        };
        if request.status.is_some() {
            self.answer = Answer::Refused;
        }
        self.request = Some(request);
    }

    /// Adds the shares over all client ports. With client affinity every port goes to one pod.
    pub fn spread(&mut self, record: &Record, slots: &Slots, entry: Service) {
        if entry.affinity != 0 {
            return;
        }
        let total: u64 = slots.values().map(|n| u64::from(*n)).sum();
        for (id, mine) in slots {
            let (cluster, pod) = names(record, *id);
            let share = units::fraction(u64::from(*mine), total);
            *self.clusters.entry(cluster.clone()).or_default() += share;
            self.pods.push(Share {
                cluster,
                pod,
                slots: *mine,
                share,
            });
        }
    }
}

impl View for TraceView {
    fn text(&self, paint: Paint) -> String {
        let mut table = Table::new(&["", ""]);
        let mut line = |name: &str, value: Cell| {
            table.row([Cell::toned(Tone::Strong, name), value]);
        };
        line("from", self.from.as_str().into());
        line("to", self.address().to_string().into());
        let mode = match self.steering {
            Some(SteeringMode::Connection) => ", steered by connection (kernel)",
            Some(SteeringMode::Request) => ", steered by request (proxy)",
            None => "",
        };
        let listener = self.listener.as_deref().unwrap_or("none");
        line("listener", format!("{listener}{mode}").into());
        let (tone, answer) = match self.answer {
            Answer::Forwarded => (Tone::Good, "forwarded by the kernel"),
            Answer::Proxied => (Tone::Good, "forwarded by the proxy"),
            Answer::Refused => (Tone::Bad, "refused by the proxy"),
            Answer::Dropped => (Tone::Bad, "dropped by the kernel"),
            Answer::Passed => (Tone::Warn, "left to the node's own stack"),
        };
        line("answer", Cell::toned(tone, answer));
        line("because", self.reason.as_str().into());
        if let Some(kernel) = &self.kernel {
            kernel.lines(&mut line);
        }
        let mut out = table.render(paint);
        out.push_str(&self.shares(paint));
        if let Some(request) = &self.request {
            out.push_str(&rules(request, paint));
        }
        out
    }
}

impl TraceView {
    fn shares(&self, paint: Paint) -> String {
        if self.pods.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["CLUSTER", "POD", "SLOTS>", "SHARE>"]);
        for (cluster, share) in &self.clusters {
            table.row([
                cluster.as_str().into(),
                "(all)".into(),
                "".into(),
                units::percent(*share).into(),
            ]);
        }
        for pod in &self.pods {
            table.row([
                pod.cluster.as_str().into(),
                pod.pod.as_str().into(),
                units::count(u64::from(pod.slots)).into(),
                units::percent(pod.share).into(),
            ]);
        }
        format!(
            "\nNo client port was given: over all ports, connections spread like this (above: port {} as an example)\n{}",
            super::EXAMPLE_PORT,
            table.render(paint)
        )
    }
}

impl Kernel {
    fn lines(&self, line: &mut impl FnMut(&str, Cell)) {
        if let Some(before) = &self.before {
            line("known flow", before.as_str().into());
        }
        let flow = match (self.opened, self.slot) {
            (true, Some(slot)) => format!(
                "new flow, slot {slot} of {}",
                units::count(self.ring_length as u64)
            ),
            (true, None) => "new flow".to_owned(),
            (false, _) => "existing flow".to_owned(),
        };
        line("flow", flow.into());
        let pod = &self.backend;
        line(
            "pod",
            format!(
                "{}/{} at {} (backend {}, {})",
                pod.cluster, pod.pod, pod.address, pod.id, pod.state
            )
            .into(),
        );
        line("seen from", self.source.to_string().into());
        let hop = match &self.next_hop {
            Some(hop) => format!("{} {}", hop.interface, hop.mac),
            None => "by the kernel's own routes (not resolved yet)".to_owned(),
        };
        line("next hop", hop.into());
    }
}

fn rules(request: &RequestView, paint: Paint) -> String {
    let mut tried = Table::new(&["RULE>", "MATCH", "WHY", "FROM"]);
    for rule in &request.tried {
        let (tone, mark) = if rule.matched {
            (Tone::Good, "yes")
        } else {
            (Tone::Faint, "no")
        };
        tried.row([
            rule.priority.to_string().into(),
            Cell::toned(tone, mark),
            rule.why.as_str().into(),
            Cell::toned(Tone::Faint, format!("{} {}", rule.ingress, rule.place)),
        ]);
    }
    let mut out = format!(
        "\n{} {} of host {}\n{}",
        request.method,
        request.path,
        request.host,
        tried.render(paint)
    );
    let mut pods = Table::new(&["CLUSTER", "POD", "ADDRESS", "SHARE>"]);
    for server in &request.backends {
        pods.row([
            server.cluster.as_str().into(),
            server.pod.as_str().into(),
            server.address.to_string().into(),
            units::percent(server.share).into(),
        ]);
    }
    if !pods.is_empty() {
        let service = request.service.as_deref().unwrap_or_default();
        out.push_str(&format!("\n{service}\n{}", pods.render(paint)));
    }
    out
}
