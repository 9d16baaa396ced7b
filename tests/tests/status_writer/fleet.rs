//! A fleet with one gateway, and nodes that write its status.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetgate_tests::apiserver::{ApiServer, Login, Options as ServerOptions, Resource, Verb};
use gateway_user::{
    problem::{ObjectRef, Problem},
    status::{
        self, Counters, GatewayView, Handle, IngressView, ListenerView, Options, Timing, View,
        Wanted,
    },
};
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Nothing here takes longer, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Short times, in the proportions of the real ones.
pub(crate) fn quick() -> Timing {
    Timing {
        lease: Duration::from_millis(1500),
        request: Duration::from_millis(400),
        write_each: Duration::from_millis(2),
        event_each: Duration::from_millis(2),
        event_burst: 30,
        first_retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(200),
        look_again: Duration::from_secs(600),
    }
}

pub(crate) fn server() -> ApiServer {
    ApiServer::start(ServerOptions {
        login: true,
        ..ServerOptions::default()
    })
    .expect("a server")
}

/// What the fleet holds and what its gateway does, as the agent would say it.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) gateways: Vec<GatewayView>,
    pub(crate) ingresses: Vec<IngressView>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) suffix: Option<String>,
}

impl Fleet {
    /// A gateway, and these Ingresses of the namespace `demo`, which the server holds too.
    pub(crate) fn new(server: &ApiServer, ingresses: &[&str]) -> Self {
        let config = json!({"apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig", "metadata": {"name": "mcg"},
            "spec": {"config": {"name": "mcg"}, "listeners": [{"port": 80, "protocol": "HTTP"}]}});
        server.put(config).expect("an AlbConfig");
        let gateway = GatewayView {
            name: "mcg".into(),
            clusters: vec!["c1".into(), "c2".into()],
            addresses: vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])],
            listeners: vec![ListenerView {
                port: 80,
                protocol: "HTTP".into(),
                served: true,
                ..ListenerView::default()
            }],
            ..GatewayView::default()
        };
        let mut fleet = Self {
            gateways: vec![gateway],
            ingresses: Vec::new(),
            problems: Vec::new(),
            suffix: Some("gw.example.com".into()),
        };
        for name in ingresses {
            fleet.add(server, name);
        }
        fleet
    }

    /// One more Ingress, here and on the server.
    pub(crate) fn add(&mut self, server: &ApiServer, name: &str) {
        server.put(ingress(name)).expect("an Ingress");
        self.ingresses.push(IngressView {
            namespace: "demo".into(),
            name: name.into(),
            gateway: "mcg".into(),
            served: true,
            ..IngressView::default()
        });
    }

    /// Gives an Ingress an error.
    pub(crate) fn fail(&mut self, name: &str, message: &str) {
        let problem = Problem::error(&object(name), "spec.rules", message, "mend it");
        self.problems.push(problem);
    }

    pub(crate) fn wanted(&self) -> Arc<Wanted> {
        Arc::new(status::wanted(&View {
            whole: true,
            instance: "fleetgate",
            dns_suffix: self.suffix.as_deref(),
            gateways: &self.gateways,
            ingresses: &self.ingresses,
            problems: &self.problems,
        }))
    }
}

pub(crate) fn ingress(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": "demo", "name": name}, "spec": {"ingressClassName": "alb"}})
}

pub(crate) fn object(name: &str) -> ObjectRef {
    ObjectRef {
        kind: "Ingress".into(),
        namespace: "demo".into(),
        name: name.into(),
        ..ObjectRef::default()
    }
}

/// One node's writer.
pub(crate) struct Node {
    pub(crate) wanted: watch::Sender<Arc<Wanted>>,
    pub(crate) counters: Arc<Counters>,
    handle: Handle,
}

impl Node {
    /// A node that is alone.
    pub(crate) fn start(server: &ApiServer, fleet: &Fleet) -> Self {
        Self::with(server, fleet, quick())
    }

    pub(crate) fn with(server: &ApiServer, fleet: &Fleet, timing: Timing) -> Self {
        Self::at(server, &server.url(), "alone", fleet, timing, false)
    }

    /// A node of this name that reaches the server at `url`.
    pub(crate) fn at(
        server: &ApiServer,
        url: &str,
        name: &str,
        fleet: &Fleet,
        timing: Timing,
        leader_elect: bool,
    ) -> Self {
        server.accept_token(name, name);
        let yaml = server
            .kubeconfig(Login::Token(name))
            .expect("a kubeconfig")
            .replace(&server.url(), url);
        let kubeconfig = Kubeconfig::from_yaml(&yaml).expect("a kubeconfig");
        let config = kube::Config::try_from(kubeconfig).expect("a client configuration");
        let (wanted, newest) = watch::channel(fleet.wanted());
        let options = Options {
            namespace: "fleetgate-system".into(),
            identity: status::identity(name),
            leader_elect,
            timing,
        };
        let handle = status::start(options, config, newest).expect("a thread");
        Self {
            wanted,
            counters: handle.counters(),
            handle,
        }
    }

    pub(crate) fn want(&self, fleet: &Fleet) {
        self.wanted.send_replace(fleet.wanted());
    }

    /// Whether it ended in good order.
    pub(crate) fn stop(self) -> bool {
        self.handle.shutdown(Duration::from_secs(5))
    }
}

/// `status.loadBalancer` of an Ingress.
pub(crate) fn shown(server: &ApiServer, name: &str) -> Value {
    let object = server.get(Resource::Ingresses, Some("demo"), name);
    object.map_or(Value::Null, |it| it["status"]["loadBalancer"].clone())
}

/// `status.loadBalancer` of the gateway.
pub(crate) fn gateway(server: &ApiServer) -> Value {
    let object = server.get(Resource::AlbConfigs, None, "mcg");
    object.map_or(Value::Null, |it| it["status"]["loadBalancer"].clone())
}

/// What an Ingress shows when it is served.
pub(crate) fn served() -> Value {
    json!({"ingress": [{"hostname": "mcg.gw.example.com"}]})
}

/// Events about an object: reason, note and how often.
pub(crate) fn events(server: &ApiServer, name: &str) -> Vec<(String, String, i64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = server.list(Resource::Events, None);
    let about = events.iter().filter(|it| it["regarding"]["name"] == name);
    let mut told: Vec<_> = about
        .map(|event| {
            let times = event["series"]["count"].as_i64().unwrap_or(1);
            (text(&event["reason"]), text(&event["note"]), times)
        })
        .collect();
    told.sort();
    told
}

/// Writes that were asked of the server, apart from the Lease.
pub(crate) fn writes(server: &ApiServer) -> u64 {
    let counts = server.counts();
    let writes = counts.iter().filter(|((verb, resource), _)| {
        *resource != Resource::Leases && !matches!(verb, Verb::Get | Verb::List | Verb::Watch)
    });
    writes.map(|(_, count)| count).sum()
}
