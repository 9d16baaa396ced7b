//! What the proxy routes by: one immutable value, replaced whole.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    keyed::Key,
    limits::{Limits, RuleLimit},
    sticky::GroupTokens,
};
use crate::{
    ir::{
        Filter, Group, GroupName, Ir, Listener, ListenerName, ListenerProtocol, Rule, Target,
        Touched, matching::RuleIndex,
    },
    tls::{Server, Servers, names::Names},
};

/// The listeners the proxy serves, by address, with their groups.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    listeners: Arc<HashMap<SocketAddr, Arc<Routes>, RandomState>>,
    pub(super) groups: Vec<Option<Arc<Group>>>,
    /// Nothing is known yet, which is not the same as nothing to serve.
    pub(super) starting: bool,
}

/// One listener, and for each of its rules the groups it forwards to, by their index in [`RouteTable::groups`].
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) listener: Arc<Listener>,
    pub(super) groups: Vec<Vec<usize>>,
    /// Finds the rule of a request.
    pub(super) index: RuleIndex,
    /// Traffic limits, by rule.
    pub(super) limits: HashMap<usize, Arc<RuleLimit>>,
    /// Groups that get copies, with their weights, by rule.
    pub(super) mirrors: HashMap<usize, Vec<(usize, u32)>>,
    /// Cookies that keep a client at a group, by rule.
    pub(super) tokens: HashMap<usize, GroupTokens>,
    /// What an HTTPS listener ends TLS with; `None` for HTTP, and for HTTPS without any certificate that can be used.
    pub(super) tls: Option<Arc<Server>>,
    /// Whose TLS goes on to pods as it is.
    pub(super) passthrough: Passthrough,
}

/// Hosts whose TLS goes on to pods, with their groups by their index in [`RouteTable::groups`].
#[derive(Clone, Debug, Default)]
pub(super) struct Passthrough {
    names: Names,
    groups: Vec<usize>,
}

impl Passthrough {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The group of a name that a ClientHello asks for: exact, then by one wildcard label.
    pub(super) fn find(&self, sni: &str) -> Option<usize> {
        self.groups.get(self.names.find(sni)?).copied()
    }
}

impl Routes {
    /// Whether a connection of this peer begins with a PROXY header.
    pub(super) fn announces(&self, peer: IpAddr) -> bool {
        let networks = self.listener.settings.proxy_protocol.as_ref();
        networks.is_some_and(|it| it.iter().any(|network| network.contains(peer)))
    }

    /// Whether something is to be read of a connection of this peer before it is served.
    pub(super) fn opens(&self, peer: IpAddr) -> bool {
        self.announces(peer) || !self.passthrough.is_empty()
    }

    /// The group that serves a request which met the `rule`th rule, by its place among those of the rule: the only one,
    /// or one by weight. `turn` yields numbers that are spread evenly over all of its range.
    pub(super) fn share(&self, rule: usize, turn: impl FnOnce() -> u32) -> Option<usize> {
        let Target::Forward(forward) = &self.listener.rules.get(rule)?.target else {
            return None;
        };
        let total: u64 = forward.groups.iter().map(|it| u64::from(it.weight)).sum();
        if total == 0 {
            return None;
        }
        if forward.groups.len() == 1 {
            return Some(0);
        }
        let mut at = (u64::from(turn()) * total) >> 32;
        forward.groups.iter().position(|group| {
            let rest = at.checked_sub(u64::from(group.weight));
            at = rest.unwrap_or(0);
            rest.is_none()
        })
    }

    /// The group that gets a copy of a request, by its index in [`RouteTable::groups`].
    pub(super) fn mirror(&self, rule: usize, turn: impl FnOnce() -> u32) -> Option<usize> {
        let groups = self.mirrors.get(&rule)?;
        let total: u64 = groups.iter().map(|it| u64::from(it.1)).sum();
        let mut at = (u64::from(turn()) * total) >> 32;
        let found = groups.iter().find(|(_, weight)| {
            let rest = at.checked_sub(u64::from(*weight));
            at = rest.unwrap_or(0);
            rest.is_none()
        });
        found.map(|it| it.0)
    }

    /// The index in [`RouteTable::groups`] of a group by its place in a rule.
    pub(super) fn group(&self, rule: usize, place: usize) -> Option<usize> {
        self.groups.get(rule)?.get(place).copied()
    }
}

/// Builds route tables, each from the one before, at a cost that grows with what changed.
#[derive(Debug)]
pub struct Router {
    /// Of the tokens in cookies.
    key: Key,
    limits: Limits<(ListenerName, Arc<str>, String)>,
    table: RouteTable,
    routes: BTreeMap<ListenerName, Arc<Routes>>,
    known: HashMap<GroupName, usize>,
    free: Vec<usize>,
    used: bool,
}

impl Default for Router {
    fn default() -> Self {
        Self::new(b"")
    }
}

impl Router {
    /// `secret` is shared by nodes whose cookies must mean the same groups.
    pub fn new(secret: &[u8]) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        Self {
            key: Key::of(secret, "sticky"),
            limits: Limits::new(seed),
            table: RouteTable::default(),
            routes: BTreeMap::new(),
            known: HashMap::new(),
            free: Vec::new(),
            used: false,
        }
    }

    /// Whether it has built a table yet.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// The table for `ir`, of which `touched` differs from the time before.
    ///
    /// Takes every listener: the kernel decides which of them get here, and connections that are open when it takes
    /// one over, or that it cannot steer (no ready backend), stay served. None of protocol TCP or UDP: those are never
    /// spoken to. One without addresses of its own is on every VIP;
    /// where two claim the same address and port, the first by name has it. `tls` has followed `touched` already.
    pub fn update(
        &mut self,
        ir: &Ir,
        touched: &Touched,
        vips: &[IpAddr],
        tls: &Servers,
    ) -> RouteTable {
        for name in &touched.groups {
            match ir.groups.get(name) {
                Some(group) => {
                    let index = self.index(name);
                    self.table.groups[index] = Some(Arc::clone(group));
                }
                None => {
                    if let Some(index) = self.known.remove(name) {
                        self.table.groups[index] = None;
                        self.free.push(index);
                    }
                }
            }
        }
        self.used = true;
        let mut moved = false;
        for name in &touched.listeners {
            let http = |it: &&Arc<Listener>| it.refused.is_none() && !name.protocol.is_l4();
            let now = ir.listeners.get(name).filter(http);
            match now {
                Some(listener) => {
                    let tls = tls.server(name);
                    let same = self.routes.get(name).is_some_and(|had| {
                        Arc::ptr_eq(&had.listener, listener)
                            && had.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
                    });
                    if same {
                        continue;
                    }
                    let groups = listener.rules.iter().map(|rule| self.forward(rule));
                    let routes = Routes {
                        groups: groups.collect(),
                        index: RuleIndex::build(&listener.rules),
                        mirrors: self.mirrors(listener),
                        limits: self.limits(listener),
                        passthrough: self.passthrough(listener),
                        tokens: self.tokens(listener),
                        listener: Arc::clone(listener),
                        tls: tls.cloned(),
                    };
                    self.routes.insert(name.clone(), Arc::new(routes));
                    moved = true;
                }
                None => moved |= self.routes.remove(name).is_some(),
            }
        }
        if moved {
            self.place(vips);
        }
        self.table.clone()
    }

    fn mirrors(&mut self, listener: &Listener) -> HashMap<usize, Vec<(usize, u32)>> {
        let mut mirrors = HashMap::new();
        for (rule, at) in listener.rules.iter().zip(0..) {
            for filter in &rule.filters {
                if let Filter::Mirror(groups) = filter {
                    let groups = groups.iter().map(|it| (self.index(&it.group), it.weight));
                    mirrors.insert(at, groups.collect());
                }
            }
        }
        mirrors
    }

    fn passthrough(&mut self, listener: &Listener) -> Passthrough {
        let mut found = Passthrough::default();
        for rule in &listener.passthrough {
            let Some(group) = rule.only_group() else {
                continue;
            };
            for host in &rule.conditions.hosts {
                found.names.insert(&host.to_string(), found.groups.len());
            }
            found.groups.push(self.index(group));
        }
        found
    }

    fn limits(&self, listener: &Listener) -> HashMap<usize, Arc<RuleLimit>> {
        let limited = listener
            .rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| {
                let limit = rule.filters.iter().find_map(|filter| match filter {
                    Filter::TrafficLimit(limit) => Some(limit),
                    _ => None,
                })?;
                let name = (
                    listener.name.clone(),
                    Arc::clone(&rule.ingress),
                    rule.place.clone(),
                );
                let limit = self.limits.rule(name, limit.per_second, limit.per_client);
                Some((index, limit))
            });
        limited.collect()
    }

    fn tokens(&self, listener: &Listener) -> HashMap<usize, GroupTokens> {
        let sticky = listener
            .rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| {
                let Target::Forward(forward) = &rule.target else {
                    return None;
                };
                Some((index, GroupTokens::new(self.key, forward)?))
            });
        sticky.collect()
    }

    fn forward(&mut self, rule: &Rule) -> Vec<usize> {
        match &rule.target {
            Target::Forward(forward) => {
                let groups = forward.groups.iter();
                groups.map(|it| self.index(&it.group)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn index(&mut self, name: &GroupName) -> usize {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.table.groups.push(None);
            self.table.groups.len() - 1
        });
        self.known.insert(name.clone(), index);
        index
    }

    fn place(&mut self, vips: &[IpAddr]) {
        let mut listeners = HashMap::default();
        for routes in self.routes.values() {
            let listener = &routes.listener;
            let addresses = if listener.addresses.is_empty() {
                vips
            } else {
                &listener.addresses
            };
            for address in addresses {
                let address = SocketAddr::new(address.to_canonical(), listener.name.port);
                listeners
                    .entry(address)
                    .or_insert_with(|| Arc::clone(routes));
            }
        }
        self.table.listeners = Arc::new(listeners);
    }
}

impl RouteTable {
    /// What a proxy has before it was told anything.
    pub(super) fn unknown() -> Self {
        Self {
            starting: true,
            ..Self::default()
        }
    }

    /// The table for `ir`, at once, without TLS.
    pub fn build(ir: &Ir, vips: &[IpAddr]) -> Self {
        Self::build_secured(ir, vips, &Servers::default())
    }

    /// The table for `ir`, at once.
    pub fn build_secured(ir: &Ir, vips: &[IpAddr], tls: &Servers) -> Self {
        Router::default().update(ir, &Touched::all(ir), vips, tls)
    }

    /// The listener at the address a client connected to, for a connection in plain: never one of HTTPS, so that nobody
    /// speaks plain HTTP there by mistake.
    pub(super) fn routes(&self, local: SocketAddr) -> Option<&Arc<Routes>> {
        let plain = |it: &&Arc<Routes>| it.listener.name.protocol == ListenerProtocol::Http;
        self.any(local).filter(plain)
    }

    /// The HTTPS listener at the address a client connected to, with what it ends TLS with. `None` also where it has no
    /// certificate that can be used: then a connection can only be closed.
    pub(super) fn secured(&self, local: SocketAddr) -> Option<(&Arc<Routes>, &Arc<Server>)> {
        let routes = self.any(local)?;
        Some((routes, routes.tls.as_ref()?))
    }

    /// The listener for requests of a connection, in plain or through TLS.
    pub(super) fn serving(&self, local: SocketAddr, tls: bool) -> Option<&Arc<Routes>> {
        match tls {
            true => self.secured(local).map(|it| it.0),
            false => self.routes(local),
        }
    }

    /// Whether there is a listener that cannot serve: HTTPS without a certificate. Nobody is to speak plain HTTP there.
    pub(super) fn is_mute(&self, local: SocketAddr) -> bool {
        self.any(local).is_some_and(|it| {
            it.tls.is_none() && it.listener.name.protocol != ListenerProtocol::Http
        })
    }

    /// The listener at the address a client connected to.
    pub(super) fn any(&self, local: SocketAddr) -> Option<&Arc<Routes>> {
        self.listeners
            .get(&SocketAddr::new(local.ip().to_canonical(), local.port()))
    }
}

/// Whether both route every request alike: where groups lie in the table does not count, nor do certificates.
impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        let alike = |(address, routes): (&SocketAddr, &Arc<Routes>)| {
            other.listeners.get(address).is_some_and(|others| {
                routes.listener == others.listener
                    && routes.groups.len() == others.groups.len()
                    && routes.groups.iter().zip(&others.groups).all(|(one, two)| {
                        let one = one.iter().map(|at| self.groups.get(*at));
                        one.eq(two.iter().map(|at| other.groups.get(*at)))
                    })
                    && {
                        let (one, two) = (&routes.passthrough.groups, &others.passthrough.groups);
                        let one = one.iter().map(|at| self.groups.get(*at));
                        one.eq(two.iter().map(|at| other.groups.get(*at)))
                    }
            })
        };
        self.starting == other.starting
            && self.listeners.len() == other.listeners.len()
            && self.listeners.iter().all(alike)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{ListenerProtocol, Steering, SteeringMode};

    fn listener(
        gateway: &str,
        addresses: &[&str],
        mode: SteeringMode,
    ) -> (ListenerName, Arc<Listener>) {
        let name = ListenerName {
            gateway: gateway.into(),
            port: 80,
            protocol: ListenerProtocol::Http,
        };
        let listener = Listener {
            name: name.clone(),
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            settings: Arc::default(),
            refused: None,
            rules: Vec::new(),
            passthrough: Vec::new(),
            steering: Steering {
                mode,
                reason: String::new(),
            },
        };
        (name, Arc::new(listener))
    }

    #[test]
    fn every_listener_is_served_whoever_steers_it_and_on_its_own_addresses() {
        let ir = Ir {
            listeners: BTreeMap::from([
                listener("a", &["10.0.0.1"], SteeringMode::Request),
                listener("b", &["10.0.0.2"], SteeringMode::Connection),
                listener("c", &[], SteeringMode::Request),
            ]),
            ..Ir::default()
        };
        let vips = ["10.0.0.1", "10.0.0.3"].map(|vip| vip.parse().expect("an address"));
        let table = RouteTable::build(&ir, &vips);
        let served = |local: &str| {
            let routes = table.routes(local.parse().expect("an address"))?;
            Some(routes.listener.name.gateway.clone())
        };
        assert_eq!(
            served("10.0.0.1:80").as_deref(),
            Some("a"),
            "the first by name has it"
        );
        assert_eq!(served("10.0.0.2:80").as_deref(), Some("b"));
        assert_eq!(served("10.0.0.3:80").as_deref(), Some("c"));
        assert_eq!(served("[::ffff:10.0.0.3]:80").as_deref(), Some("c"));
        assert_eq!(served("10.0.0.3:81"), None);
    }

    #[test]
    fn an_https_listener_is_met_with_its_certificates_and_never_in_plain() {
        use crate::tls::tests::{handshakes, made};
        let ir = handshakes::model(handshakes::tls(&["a"]));
        let vips = ["10.0.0.1".parse().expect("an address")];
        let local = "10.0.0.1:443".parse().expect("an address");
        let mut secrets = crate::tls::servers::Secrets::new();
        let mut tls = Servers::default();
        let mut router = Router::default();
        let mut table = |secrets: &_| {
            let touched = Touched::all(&ir);
            tls.update(&ir, &touched.listeners, secrets);
            router.update(&ir, &touched, &vips, &tls)
        };
        let without = table(&secrets);
        assert!(without.routes(local).is_none() && without.secured(local).is_none());
        handshakes::put(&mut secrets, "a", &made::certificate(&["a"]));
        let with = table(&secrets);
        assert!(with.routes(local).is_none() && with.secured(local).is_some());
        assert!(without.secured(local).is_none(), "a table never changes");
    }
}
