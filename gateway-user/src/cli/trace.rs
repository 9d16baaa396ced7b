//! `fleetgate trace`: where a packet or a request would go, and why.

pub mod packet;
pub mod request;
pub mod view;

use std::{collections::BTreeSet, net::SocketAddr};

use aya::maps::lpm_trie::Key;
use gateway_common::{
    affinity::{AffinityKey, members},
    backend::Backend,
    datapath::{Tables, tables::Memory},
    flow::{Flow, FlowKey, state},
    limits::AclKey,
    maps,
    pod::Shared,
    service::{Service, mode},
    verdict::{Action, Reason},
};

use self::{
    packet::Steered,
    view::{Answer, Kernel, Pod, TraceView},
};
use super::{
    args::TraceArgs,
    live::{Live, Slots, Ticks, monotonic},
    output::{Failure, Outcome, show},
    units, views,
};
use crate::{
    dataplane::{Error, record::Record, tables::service_key},
    ir::{Listener, SteeringMode},
    metrics::Readings,
    plan::{ServiceAddr, Transport},
};

/// Client port of the example when none was given.
const EXAMPLE_PORT: u16 = 50_000;

/// Answers and prints.
pub fn run(args: &TraceArgs) -> Result<Outcome, Failure> {
    let live = Live::open(&args.inspect.pins)?;
    let view = trace(&live, args)?;
    let outcome = match view.answer {
        Answer::Forwarded | Answer::Proxied => Outcome::Fine,
        _ => Outcome::Negative,
    };
    show(&view, args.inspect.output.format)?;
    Ok(outcome)
}

/// By the kernel.
const fn steered(mode: u8) -> bool {
    matches!(mode, mode::NAT | mode::L4)
}

fn trace(live: &Live, args: &TraceArgs) -> Result<TraceView, Failure> {
    let transport = Transport::from(args.proto);
    let address = ServiceAddr {
        transport,
        address: args.to,
    };
    let listener = listener(&live.record, &address);
    let mut view = TraceView::new(args.from, address, listener.map(|l| l.name.to_string()));
    let entry = live.tables.services.get(&service_key(&address), 0).ok();
    view.steering = entry.and_then(|entry| match entry.mode {
        mode::NAT | mode::L4 => Some(SteeringMode::Connection),
        mode::L7 => Some(SteeringMode::Request),
        _ => None,
    });
    let client = SocketAddr::new(args.from.ip, args.from.port.unwrap_or(EXAMPLE_PORT));
    if client.is_ipv4() != args.to.is_ipv4() {
        return Err(Failure::Usage(format!(
            "a packet has addresses of one family, and --from {} and --to {} are of two",
            args.from, args.to
        )));
    }
    let known = args.from.port.is_some();
    through_the_kernel(live, &mut view, (client, known), args.to, entry)?;
    if view.answer == Answer::Proxied {
        let Some(listener) = listener else {
            view.answer = Answer::Passed;
            view.reason =
                "the record does not know this listener; is the agent starting?".to_owned();
            return Ok(view);
        };
        let Some(line) = &args.request else {
            return Err(Failure::Usage(format!(
                "{} is steered by the proxy ({}), which reads the request: add --request 'GET /path' \
                 and the headers that matter with --header 'Name: value'",
                listener.name, listener.steering.reason
            )));
        };
        view.request(request::evaluate(
            &live.record.ir,
            listener,
            args.from.ip,
            args.to,
            line,
            &args.header,
        ));
    }
    Ok(view)
}

/// The listener behind an address, as the plan or else the model says.
fn listener<'a>(record: &'a Record, address: &ServiceAddr) -> Option<&'a Listener> {
    let planned = record.plan.services.get(address);
    record
        .ir
        .served()
        .find(|listener| match planned {
            Some(service) => service.listener == listener.name.to_string(),
            None => {
                let addresses = if listener.addresses.is_empty() {
                    &record.vips
                } else {
                    &listener.addresses
                };
                address.transport == Transport::Tcp
                    && listener.name.port == address.address.port()
                    && addresses.contains(&address.address.ip())
            }
        })
        .map(|listener| &**listener)
}

fn through_the_kernel(
    live: &Live,
    view: &mut TraceView,
    (client, known): (SocketAddr, bool),
    to: SocketAddr,
    entry: Option<Service>,
) -> Result<(), Error> {
    let transport = view.transport;
    let look = |key: &FlowKey| live.tables.flows.get(key, 0).ok();
    let before = look(&packet::flow_key(transport, client, to));
    let ring = match entry {
        Some(entry) if steered(entry.mode) => live.region(&entry)?,
        _ => Vec::new(),
    };
    let readings = readings(live, &ring, before.as_ref(), entry, view)?;
    let mut memory = scene(&readings, &ring);
    memory.config = live
        .tables
        .config
        .get(&0, 0)
        .map_err(|e| Error::Map(maps::CONFIG.0, e.to_string()))?;
    let ticks = live.ticks()?;
    memory.now = ticks.now;
    if let Some(entry) = entry {
        let key = AffinityKey {
            client: client.ip().into(),
            service: entry.id,
            zero: 0,
        };
        if let Ok(had) = live.tables.affinity.get(&key, 0) {
            memory.remember(&key, &had);
        }
    }
    if let Some(entry) = entry.filter(Service::limited) {
        limits(live, &mut memory, &entry, client);
    }
    let steered = packet::steer(memory, &look, transport, client, to);
    describe(view, &live.record, &readings, &ring, entry, &steered);
    if let (Some(flow), Some(kernel)) = (&before, view.kernel.as_mut()) {
        kernel.before = Some(existing(flow, ticks, steered.opened));
    }
    if !known {
        view.spread(&live.record, &slots(&ring), entry.unwrap_or_default());
    }
    Ok(())
}

/// What the service's limits say of a client at this moment.
fn limits(live: &Live, memory: &mut Memory, entry: &Service, client: SocketAddr) {
    memory.nanoseconds = monotonic();
    let asked = AclKey::of(entry.acl, &client.ip().into());
    // The kernel's trie answers for the whole address.
    if let Ok(value) = live.tables.acls.get(&Key::new(asked.prefix, asked.net), 0) {
        memory.acls.insert(asked, value);
    }
    if let Ok(bucket) = live.tables.budgets.get(&entry.id, 0) {
        memory.budgets.insert(entry.id, Shared::new(bucket));
    }
}

/// Only what this packet can meet: its service, the backends of the ring and that of its flow.
fn readings(
    live: &Live,
    ring: &[u32],
    before: Option<&Flow>,
    entry: Option<Service>,
    view: &TraceView,
) -> Result<Readings, Error> {
    let mut readings = Readings::default();
    if let Some(entry) = entry {
        let address = view.address();
        readings
            .services
            .insert(address, (entry, Default::default()));
    }
    let mut ids: BTreeSet<u32> = ring.iter().copied().collect();
    ids.extend(before.map(|flow| flow.nat.backend));
    for id in ids {
        readings.backend(&live.tables, id)?;
    }
    Ok(readings)
}

/// The pipeline's tables, from readings and one ring.
fn scene(readings: &Readings, ring: &[u32]) -> Memory {
    let mut memory = Memory::default();
    memory.max_flows = usize::MAX;
    for (address, (entry, _)) in &readings.services {
        memory.services.insert(service_key(address), *entry);
        if steered(entry.mode) {
            memory.rings = vec![0; entry.ring_off.min(maps::RINGS.1) as usize];
            memory.rings.extend_from_slice(ring);
            let ids: BTreeSet<u32> = ring.iter().copied().collect();
            memory.rings.extend(members::build(ids, entry.ring_len));
        }
    }
    for (id, (backend, _)) in &readings.backends {
        memory.backends.insert(*id, *backend);
    }
    for (id, hop) in &readings.hops {
        memory.hops.insert(u32::from(*id), *hop);
    }
    let sources = readings.sources.keys().next_back().map_or(0, |id| id + 1);
    memory.snats = (0..sources)
        .map(|id| readings.sources.get(&id).copied().unwrap_or_default())
        .collect();
    memory
}

fn slots(ring: &[u32]) -> Slots {
    let mut slots = Slots::new();
    for id in ring {
        *slots.entry(*id).or_default() += 1;
    }
    slots
}

fn describe(
    view: &mut TraceView,
    record: &Record,
    readings: &Readings,
    ring: &[u32],
    entry: Option<Service>,
    steered: &Steered,
) {
    let verdict = steered.verdict;
    if verdict.action() != Action::Forward {
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| *reason as u32 == verdict.reason());
        view.answer = match (verdict.action(), reason) {
            (_, Some(Reason::Proxy)) => Answer::Proxied,
            (Action::Drop, _) => Answer::Dropped,
            _ => Answer::Passed,
        };
        view.reason = why_not(reason, view);
        return;
    }
    let Some(flow) = steered.flow else { return };
    let entry = entry.unwrap_or_default();
    view.answer = Answer::Forwarded;
    view.reason = match (steered.opened, entry.affinity) {
        (false, _) => "the flow is in the table and stays with its pod".to_owned(),
        (true, 0) => {
            "the hash of client and listener address chooses a slot of the ring".to_owned()
        }
        (true, _) => "the hash of the client's address alone chooses a slot of the ring".to_owned(),
    };
    let id = flow.nat.backend;
    let state = readings
        .backends
        .get(&id)
        .map_or(0, |(b, _): &(Backend, _)| b.state);
    view.kernel = Some(Kernel {
        opened: steered.opened,
        before: None,
        slot: steered.slot.map(|at| at.saturating_sub(entry.ring_off)),
        ring_length: ring.len(),
        backend: Pod::of(
            record,
            id,
            views::socket(flow.nat.dst, flow.nat.dst_port),
            state,
        ),
        source: views::socket(flow.nat.src, flow.nat.src_port),
        next_hop: readings
            .hops
            .get(&flow.nat.hop)
            .and_then(|hop| views::next_hop(record, hop)),
    });
}

fn existing(flow: &Flow, ticks: Ticks, replaced: bool) -> String {
    let name = state::NAMES.get(flow.life.state as usize).unwrap_or(&"?");
    let idle = units::span(ticks.since(flow.life.last_seen));
    let over = if replaced {
        "; over, so a new one is opened"
    } else {
        ""
    };
    format!("{name}, client silent for {idle}{over}")
}

fn why_not(reason: Option<Reason>, view: &TraceView) -> String {
    match reason {
        None => format!(
            "the kernel knows no listener {}: the node's own stack answers",
            view.address()
        ),
        Some(Reason::Proxy) => "the listener belongs to the proxy".to_owned(),
        Some(Reason::NoBackend) => "no backend of the ring takes new flows".to_owned(),
        Some(Reason::SnatExhausted) => {
            "no free source port towards the chosen pod was found; add source addresses with --snat"
                .to_owned()
        }
        Some(Reason::AclDenied) => {
            "the listener's access list (aclConfig) does not let this client in".to_owned()
        }
        Some(Reason::FlowBudget) => {
            "the listener has taken its new flows of this second (fleetgate.io/new-flows-per-second)"
                .to_owned()
        }
        Some(Reason::FlowTableFull) => "the flow table is full; see --max-flows".to_owned(),
        Some(reason) => format!("the pipeline says {}", reason.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{output::View, table::Paint, views::sample};

    fn traced(client: &str, flows: &[(FlowKey, Flow)]) -> TraceView {
        let record = sample::record();
        let readings = sample::readings();
        let address = sample::service_addr("10.0.0.1:80");
        let found = listener(&record, &address).map(|l| l.name.to_string());
        let mut view = TraceView::new(client.parse().unwrap(), address, found);
        let entry = readings.services[&address].0;
        view.steering = Some(SteeringMode::Connection);
        let look = |key: &FlowKey| flows.iter().find(|(k, _)| k == key).map(|(_, flow)| *flow);
        let steered = packet::steer(
            scene(&readings, &sample::region()),
            &look,
            Transport::Tcp,
            client.parse().unwrap(),
            "10.0.0.1:80".parse().unwrap(),
        );
        describe(
            &mut view,
            &record,
            &readings,
            &sample::region(),
            Some(entry),
            &steered,
        );
        view
    }

    #[test]
    fn an_existing_flow_is_named_with_its_pod_and_source() {
        let view = traced("198.51.100.7:4000", &sample::flows());
        assert_eq!(view.answer, Answer::Forwarded);
        let kernel = view.kernel.as_ref().unwrap();
        assert!(!kernel.opened);
        assert_eq!(kernel.backend.pod, "web-a");
        assert_eq!(kernel.source, sample::address("10.9.0.1:20000"));
    }

    #[test]
    fn a_listener_is_found_by_plan_and_by_model() {
        let mut record = sample::record();
        let address = sample::service_addr("10.0.0.1:8080");
        assert_eq!(listener(&record, &address).unwrap().name.port, 8080);
        record.plan.services.clear();
        assert_eq!(listener(&record, &address).unwrap().name.port, 8080);
        record.vips.clear();
        assert!(listener(&record, &address).is_none());
    }

    #[test]
    fn the_text_tells_the_pod_the_slot_and_why() {
        let text = traced("198.51.100.9:1234", &[]).text(Paint::Plain);
        for part in [
            "demo:80/HTTP",
            "connection",
            "new flow, slot ",
            " of 1 021",
            "seen from",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
