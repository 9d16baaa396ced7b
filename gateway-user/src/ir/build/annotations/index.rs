//! The annotation index (contract section 17): one table for the review of objects, for the docs and for tests.

/// Object that carries an annotation.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Ingress.
    Ingress,
    /// AlbConfig.
    AlbConfig,
    /// Service of a member cluster.
    Service,
}

/// What becomes of an annotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It is compiled; what cannot be carried out yet is refused with a problem.
    Supported,
    /// It is accepted without a word and has no effect, for this reason.
    Ignored(&'static str),
}

/// What values an annotation takes, as far as the review looks at them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Values {
    /// On for exactly `true`.
    Switch,
    /// Read where it is used.
    Other,
}

/// One annotation, or all that begin with a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The whole key; a prefix ends with a dot, and a name follows.
    pub key: &'static str,
    /// What carries it.
    pub scope: Scope,
    /// What becomes of it.
    pub state: State,
    /// What values it takes.
    pub values: Values,
    /// One line for the docs: what it does, its values and default.
    pub says: &'static str,
}

impl Entry {
    /// The key is only how it begins.
    pub fn prefix(&self) -> bool {
        self.key.ends_with('.')
    }

    /// It stands for this key of an object.
    pub fn covers(&self, key: &str) -> bool {
        match self.prefix() {
            true => key.len() > self.key.len() && key.starts_with(self.key),
            false => key == self.key,
        }
    }
}

/// Every annotation that is known, in the order of the contract.
pub fn index() -> &'static [Entry] {
    INDEX
}

const CLOUD: State = State::Ignored("it describes the cloud's load balancer");

const fn on_ingress(key: &'static str, values: Values, says: &'static str) -> Entry {
    Entry {
        key,
        scope: Scope::Ingress,
        state: State::Supported,
        values,
        says,
    }
}

const fn switch(key: &'static str, says: &'static str) -> Entry {
    on_ingress(key, Values::Switch, says)
}

const fn value(key: &'static str, says: &'static str) -> Entry {
    on_ingress(key, Values::Other, says)
}

const fn legacy(key: &'static str) -> Entry {
    Entry {
        key,
        scope: Scope::Ingress,
        state: CLOUD,
        values: Values::Other,
        says: "of older versions, about the cloud's load balancer",
    }
}

/// With the prefix of ALB annotations.
macro_rules! alb {
    ($key:literal) => {
        concat!("alb.ingress.kubernetes.io/", $key)
    };
}

/// With the prefix of the NGINX controller.
macro_rules! nginx {
    ($key:literal) => {
        concat!("nginx.ingress.kubernetes.io/", $key)
    };
}

const INDEX: &[Entry] = &[
    value(
        alb!("order"),
        "place among the Ingresses of the gateway, 1 to 1000, smaller first; default 10",
    ),
    value(
        alb!("albconfig.order"),
        "older name of order, which it beats",
    ),
    value(
        alb!("albconfig.name"),
        "the AlbConfig, in place of that of the IngressClass",
    ),
    value(
        alb!("listen-ports"),
        r#"listeners of all rules, such as `[{"HTTP": 80}, {"HTTPS": 443}]`; default by spec.tls"#,
    ),
    switch(
        alb!("ssl-redirect"),
        "adds HTTP 80 and answers there with a redirect (308) to HTTPS 443; default false",
    ),
    value(
        alb!("conditions."),
        "further conditions of the rules of a Service, a JSON array",
    ),
    value(
        alb!("actions."),
        "actions of the rules of a Service, a JSON array",
    ),
    value(
        alb!("rule-direction."),
        "`Request` (default) or `Response`: what the rules of a Service act on",
    ),
    value(
        alb!("cluster-weight."),
        "share of a member cluster, 0 to 100; all of an Ingress sum up to 100",
    ),
    switch(
        alb!("canary"),
        "the Ingress takes part of the traffic of another one with the same host and path; default false",
    ),
    value(
        alb!("canary-by-header"),
        "requests with this header go to the canary",
    ),
    value(
        alb!("canary-by-header-value"),
        "only with this value of that header; default any",
    ),
    value(
        alb!("canary-by-cookie"),
        "requests whose cookie of this name is `always` go to the canary",
    ),
    value(
        alb!("canary-weight"),
        "share of the canary, 0 to 100; not together with header or cookie",
    ),
    switch(
        alb!("use-regex"),
        "paths of type Prefix, other than `/`, are regular expressions; default false",
    ),
    value(
        alb!("rewrite-target"),
        "path sent to pods; `${1}` to `${3}` are the groups of the path as a regular expression",
    ),
    value(
        alb!("backend-protocol"),
        "`http` (default), `https` or `grpc`",
    ),
    value(
        alb!("backend-scheduler"),
        "`wrr` (default), `wlc`, `sch` or `uch`",
    ),
    value(
        alb!("backend-scheduler-uch-value"),
        "query parameter that `uch` hashes",
    ),
    switch(
        alb!("backend-keepalive"),
        "keep connections to pods for further requests; default false",
    ),
    switch(
        alb!("sticky-session"),
        "requests of a session stay with a pod; default false",
    ),
    value(
        alb!("sticky-session-type"),
        "`Insert` (default): a cookie of the gateway; `Server`: one of the application",
    ),
    value(
        alb!("cookie-timeout"),
        "life of the inserted cookie, 1 to 86400 s; default 1000",
    ),
    value(alb!("cookie"), "name of the application's cookie"),
    switch(
        alb!("slow-start-enabled"),
        "a new pod gets its full share only after a while; default false",
    ),
    value(
        alb!("slow-start-duration"),
        "that while, 30 to 900 s; default 30",
    ),
    switch(
        alb!("connection-drain-enabled"),
        "a pod that goes keeps its connections for a while; default false",
    ),
    value(
        alb!("connection-drain-timeout"),
        "that while, 0 to 900 s; default 300",
    ),
    Entry {
        key: alb!("cross-zone-enabled"),
        scope: Scope::Ingress,
        state: State::Ignored("this gateway has no zones: every pod is reached alike"),
        values: Values::Other,
        says: "spread over the zones of the cloud",
    },
    switch(
        alb!("healthcheck-enabled"),
        "probe the pods; default false: their readiness decides",
    ),
    value(
        alb!("healthcheck-path"),
        "path of the probe, for gRPC its method, 1 to 80 characters; default `/`",
    ),
    value(
        alb!("healthcheck-protocol"),
        "`HTTP` (default), `HTTPS`, `TCP` or `GRPC`",
    ),
    value(
        alb!("healthcheck-httpversion"),
        "`HTTP1.1` (default) or `HTTP1.0`",
    ),
    value(
        alb!("healthcheck-method"),
        "`HEAD` (default), `GET` or `POST`; `POST` (default) or `GET` for gRPC",
    ),
    value(
        alb!("healthcheck-httpcode"),
        "good answers, a list of `http_2xx` (default) to `http_5xx`",
    ),
    value(
        alb!("healthcheck-code"),
        "the same, which it beats; for gRPC codes and ranges such as `0,12-14`, default 0",
    ),
    value(
        alb!("healthcheck-timeout-seconds"),
        "wait for an answer, 1 to 300 s; default 5",
    ),
    value(
        alb!("healthcheck-interval-seconds"),
        "between two probes, 1 to 50 s; default 2",
    ),
    value(
        alb!("healthy-threshold-count"),
        "good answers in a row that make a pod healthy, 2 to 10; default 3",
    ),
    value(
        alb!("unhealthy-threshold-count"),
        "bad answers in a row that make a pod unhealthy, 2 to 10; default 3",
    ),
    value(
        alb!("healthcheck-connect-port"),
        "port of the probe; 0 (default) is that of the pod",
    ),
    value(
        alb!("traffic-limit-qps"),
        "requests per second of each rule, 1 to 1000000; more are answered 503",
    ),
    value(
        alb!("traffic-limit-ip-qps"),
        "requests per second of one client, less than that of the rule",
    ),
    switch(
        alb!("enable-cors"),
        "answer browsers from other origins, as the cors annotations say; default false",
    ),
    value(
        alb!("cors-allow-origin"),
        "`*` (default) or origins such as `https://*.example.com`",
    ),
    value(
        alb!("cors-allow-methods"),
        "methods; default GET, PUT, POST, DELETE, PATCH, OPTIONS",
    ),
    value(
        alb!("cors-allow-headers"),
        "request headers, or `*`; the default is a list of usual ones",
    ),
    value(
        alb!("cors-expose-headers"),
        "response headers that scripts may read; default none",
    ),
    value(
        alb!("cors-allow-credentials"),
        "`true` (default) or `false`: cookies may come along",
    ),
    value(
        alb!("cors-max-age"),
        "how long a browser keeps the answer, -1 to 172800 s; default 172800",
    ),
    switch(nginx!("canary"), "alias of canary, which it beats"),
    value(
        nginx!("canary-by-header"),
        "alias of canary-by-header, which it beats",
    ),
    value(
        nginx!("canary-by-header-value"),
        "alias of canary-by-header-value, which it beats",
    ),
    value(
        nginx!("canary-by-cookie"),
        "alias of canary-by-cookie, which it beats",
    ),
    value(
        nginx!("canary-weight"),
        "alias of canary-weight, which it beats",
    ),
    switch(
        nginx!("ssl-redirect"),
        "alias of ssl-redirect, which it beats",
    ),
    value(
        "fleetgate.io/steering",
        "`auto` (default), `connection` or `request`: whether kernel or proxy steers",
    ),
    value(
        "fleetgate.io/backend-proxy-protocol",
        "`v2`: connections to pods begin with a PROXY header that names the client; default none",
    ),
    switch(
        "fleetgate.io/tls-passthrough",
        "connections of its hosts go to pods as they are, which end TLS; default false",
    ),
    Entry {
        scope: Scope::AlbConfig,
        ..value(
            "fleetgate.io/steering",
            "the same for all listeners; Ingresses beat it",
        )
    },
    Entry {
        scope: Scope::AlbConfig,
        ..value(
            "fleetgate.io/addresses",
            "addresses of the listeners, separated by commas; default every VIP of the node",
        )
    },
    Entry {
        scope: Scope::AlbConfig,
        ..value(
            "fleetgate.io/proxy-protocol-from",
            "networks of load balancers whose connections begin with a PROXY header; default none",
        )
    },
    Entry {
        scope: Scope::AlbConfig,
        ..value(
            "fleetgate.io/new-flows-per-second",
            "new flows that each listener takes per second: `1000`, or by port `80=1000, 443=500`",
        )
    },
    Entry {
        scope: Scope::AlbConfig,
        ..value(
            "fleetgate.io/new-flows-per-second-per-source",
            "the same of each client address",
        )
    },
    Entry {
        scope: Scope::AlbConfig,
        ..value(
            alb!("remote-clusters"),
            "IDs of the member clusters whose pods serve, separated by commas; default all",
        )
    },
    Entry {
        key: alb!("server-group-id"),
        scope: Scope::Service,
        state: State::Ignored("there are no server groups of a cloud to join"),
        values: Values::Other,
        says: "joins a server group of the cloud",
    },
    legacy(alb!("address-type")),
    legacy(alb!("vswitch-ids")),
    legacy(alb!("charge-type")),
    legacy(alb!("id")),
    legacy(alb!("name")),
    legacy(alb!("edition")),
    legacy(alb!("address-allocated-mode")),
    legacy(alb!("access-log")),
    legacy(alb!("force-override-listeners")),
    legacy(alb!("backend-label")),
    legacy(alb!("remove-unscheduled-backend")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_annotation_is_listed_twice_for_one_kind_of_object() {
        let keys: BTreeSet<_> = index().iter().map(|it| (it.scope, it.key)).collect();
        assert_eq!(keys.len(), index().len());
    }

    #[test]
    fn every_entry_says_in_one_line_what_it_does() {
        for entry in index() {
            assert!((10..=110).contains(&entry.says.len()), "{}", entry.key);
            assert!(
                !entry.says.contains('\n') && !entry.says.ends_with('.'),
                "{}",
                entry.key
            );
        }
    }

    #[test]
    fn a_prefix_covers_only_what_has_a_name_behind_it() {
        let covers = |key: &str| index().iter().any(|entry| entry.covers(key));
        assert!(covers(alb!("conditions.svc")) && covers(alb!("order")));
        for key in ["conditions.", "conditions", "order.x", "canary-"] {
            assert!(!covers(&format!("{}{key}", alb!(""))), "{key}");
        }
    }
}
