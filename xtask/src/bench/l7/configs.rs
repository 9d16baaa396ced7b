//! What each contender is told. The same for all: one worker, an access log, connections kept on both sides,
//! `X-Forwarded-For` added, idle clients kept for a minute.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    cases::{self, Front, RULES},
    contender::Contender,
    network::{POD, POD_PORT, VIP},
};
use crate::bench::stage::SCRATCH;

fn prefixes() -> impl Iterator<Item = String> {
    (1..=RULES).map(|number| format!("/{}/", cases::rule(number)))
}

/// HAProxy: rules are a map searched by prefix, as its manual advises for many of them. Its log goes to a pipe by its
/// stdout, which is cheaper than a datagram for each line.
pub(super) fn haproxy(home: &Path, logs: bool) -> Vec<(String, String)> {
    let port = |front| Contender::Haproxy.port(front);
    let map = home.join("rules.map");
    let config = format!(
        "global
  nbthread 1
  maxconn 15000
  no strict-limits
{target}defaults
  mode http
{log}  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
frontend plain
  bind {VIP}:{plain}
  default_backend web
frontend rules
  bind {VIP}:{rules}
  use_backend %[path,map_beg({map})]
frontend tls
  bind {VIP}:{tls} ssl crt {SCRATCH}/both.pem alpn h2,http/1.1
  default_backend web
backend web
  server pod {POD}:{POD_PORT}
",
        target = if logs {
            "  log stdout format raw local0\n"
        } else {
            ""
        },
        log = if logs {
            "  log global\n  option httplog\n"
        } else {
            ""
        },
        plain = port(Front::Plain),
        rules = port(Front::Rules),
        tls = port(Front::Tls),
        map = map.display(),
    );
    let map = prefixes().map(|prefix| format!("{prefix} web\n")).collect();
    vec![("haproxy.cfg".into(), config), ("rules.map".into(), map)]
}

/// nginx: rules are locations.
pub(super) fn nginx(home: &Path, logs: bool) -> Vec<(String, String)> {
    let port = |front| Contender::Nginx.port(front);
    let locations: String = prefixes()
        .map(|prefix| format!("    location {prefix} {{ proxy_pass http://web; }}\n"))
        .collect();
    let config = format!(
        "daemon off;
user root;
worker_processes 1;
pid {home}/nginx.pid;
events {{ worker_connections 15000; }}
http {{
  access_log {log};
{temp}  keepalive_timeout 60s;
  keepalive_requests 1000000000;
  upstream web {{
    server {POD}:{POD_PORT};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_buffers 16 16k;
  proxy_max_temp_file_size 0;
  server {{
    listen {VIP}:{plain};
    location / {{ proxy_pass http://web; }}
  }}
  server {{
    listen {VIP}:{rules};
{locations}  }}
  server {{
    listen {VIP}:{tls} ssl http2;
    ssl_certificate {SCRATCH}/cert.pem;
    ssl_certificate_key {SCRATCH}/key.pem;
    location / {{ proxy_pass http://web; }}
  }}
}}
",
        home = home.display(),
        log = if logs {
            format!("{}/access.log combined buffer=64k flush=1s", home.display())
        } else {
            "off".to_owned()
        },
        temp = temporary(home),
        plain = port(Front::Plain),
        rules = port(Front::Rules),
        tls = port(Front::Tls),
    );
    vec![("nginx.conf".into(), config)]
}

/// nginx as the origin: files from memory, a worker for each CPU, nothing logged.
pub(super) fn origin(home: &Path) -> String {
    format!(
        "daemon off;
user root;
worker_processes auto;
pid {home}/nginx.pid;
events {{ worker_connections 15000; }}
http {{
  access_log off;
{temp}  sendfile on;
  tcp_nopush on;
  open_file_cache max=64;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  server {{
    listen {POD}:{POD_PORT} reuseport backlog=4096;
    root {home}/files;
  }}
}}
",
        home = home.display(),
        temp = temporary(home),
    )
}

/// nginx makes its folders at start; those built in belong to the machine's own.
fn temporary(home: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {}/{what};\n", home.display()))
        .concat()
}

/// Envoy: rules are routes of one virtual host. Request ids and statistics of its own headers are off: the others have
/// none.
pub(super) fn envoy(logs: bool) -> String {
    let rules: Vec<Value> = prefixes().map(|prefix| route(&prefix)).collect();
    let one = || vec![route("/")];
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": { "filename": format!("{SCRATCH}/cert.pem") },
                    "private_key": { "filename": format!("{SCRATCH}/key.pem") },
                }],
            },
        },
    });
    let config = json!({
        "static_resources": {
            "listeners": [
                listener(Front::Plain, one(), None, logs),
                listener(Front::Rules, rules, None, logs),
                listener(Front::Tls, one(), Some(tls), logs),
            ],
            "clusters": [{
                "name": "web",
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": {
                    "cluster_name": "web",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(&POD.to_string(), POD_PORT) } }] }],
                },
            }],
        },
    });
    config.to_string()
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

fn route(prefix: &str) -> Value {
    json!({ "match": { "prefix": prefix }, "route": { "cluster": "web" } })
}

fn listener(front: Front, routes: Vec<Value>, tls: Option<Value>, logs: bool) -> Value {
    let name = format!("{front:?}");
    let log = Contender::Envoy.access_log();
    let log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
        },
    });
    let logs: Vec<Value> = logs.then_some(log).into_iter().collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": true,
        "generate_request_id": false,
        "common_http_protocol_options": { "idle_timeout": "60s" },
        "access_log": logs,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
            },
        }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
    });
    let mut chain = json!({
        "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
    });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({
        "name": name,
        "address": address(&VIP.to_string(), Contender::Envoy.port(front)),
        "filter_chains": [chain],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_every_rule() {
        let home = Path::new("/x");
        let texts = [
            haproxy(home, true)[1].1.clone(),
            nginx(home, true)[0].1.clone(),
            envoy(true),
        ];
        for text in texts {
            assert_eq!(
                text.matches("/r0").count() + text.matches("/r1").count(),
                usize::from(RULES)
            );
        }
    }
}
