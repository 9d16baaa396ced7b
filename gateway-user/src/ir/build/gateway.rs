//! One AlbConfig -> its clusters, addresses and listeners (contract section 2).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    annotations,
    claims::Place,
    notes::{ADDRESSES, ALB, Notes, alb, annotation},
};
use crate::{
    ir::model::{ForwardedFor, ForwardedHeaders, ListenerProtocol, ListenerSettings, SteeringWish},
    manifest::{AlbConfig, AlbListener, ClusterId, IntOrString, XForwardedForConfig},
    problem::shown,
};

/// An AlbConfig that is understood.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    /// Member clusters whose pods serve.
    pub(super) clusters: BTreeSet<ClusterId>,
    pub(super) steering: Option<SteeringWish>,
    /// Ports that the AlbConfig lists, served or not.
    pub(super) written: BTreeSet<u16>,
    pub(super) kept: Kept,
}

/// What of an AlbConfig outlives a later mistake in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Kept {
    /// `None` until there was a good list; empty means every VIP.
    pub(super) addresses: Option<Vec<IpAddr>>,
    pub(super) listeners: BTreeMap<Place, Settings>,
}

/// One listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) serving: Arc<ListenerSettings>,
    /// A header the listener is explicitly told to write.
    pub(super) writes: Option<&'static str>,
}

/// `associated` are the clusters that exist. What is wrong is taken from `before`, or left out.
pub(super) fn understand(
    config: &AlbConfig,
    associated: &BTreeSet<ClusterId>,
    before: Option<&Kept>,
    notes: &mut Notes,
) -> Gateway {
    let annotations = &config.metadata.annotations;
    annotations::review_gateway(annotations, notes);
    let addresses = match annotations.get(ADDRESSES) {
        None => Some(Vec::new()),
        Some(text) => {
            addresses(text, notes).or_else(|| before.and_then(|kept| kept.addresses.clone()))
        }
    };
    Gateway {
        clusters: clusters(annotations, associated, notes),
        steering: annotations::steering(annotations, notes),
        written: config.spec.listeners.iter().filter_map(port).collect(),
        kept: Kept {
            addresses,
            listeners: listeners(&config.spec.listeners, before, notes),
        },
    }
}

/// Without `remote-clusters` every associated cluster serves: a directory that holds one gateway needs no list of its own.
fn clusters(
    annotations: &BTreeMap<String, String>,
    associated: &BTreeSet<ClusterId>,
    notes: &mut Notes,
) -> BTreeSet<ClusterId> {
    let Some(text) = annotations.get(&format!("{ALB}remote-clusters")) else {
        return associated.clone();
    };
    let field = alb("remote-clusters");
    let named: BTreeSet<ClusterId> = text
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| ClusterId(id.into()))
        .collect();
    if named.is_empty() {
        notes.warning(
            field.clone(),
            "names no cluster, so no pod serves",
            "write the IDs of member clusters, or remove the annotation to use all of them",
        );
    }
    for id in named.difference(associated) {
        let known: Vec<_> = associated.iter().take(8).map(ToString::to_string).collect();
        let remedy = match known.as_slice() {
            [] => format!(
                "create `clusters/{}/`, or correct the ID",
                id.0.escape_debug()
            ),
            known => format!(
                "correct the ID (associated: {}), or associate the cluster",
                known.join(", ")
            ),
        };
        notes.warning(
            field.clone(),
            format!("cluster {} is not associated and is skipped", shown(&id.0)),
            remedy,
        );
    }
    named.intersection(associated).cloned().collect()
}

fn addresses(text: &str, notes: &mut Notes) -> Option<Vec<IpAddr>> {
    let mut found = BTreeSet::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        match item.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                found.insert(address);
            }
            _ => {
                notes.error(
                    annotation(ADDRESSES),
                    format!("{} is not an address clients can connect to", shown(item)),
                    "write IP addresses of this gateway, separated by commas",
                );
                return None;
            }
        }
    }
    if found.is_empty() {
        notes.error(
            annotation(ADDRESSES),
            "names no address",
            "write IP addresses of this gateway, or remove the annotation to listen on all of them",
        );
        return None;
    }
    Some(found.into_iter().collect())
}

fn listeners(
    written: &[AlbListener],
    before: Option<&Kept>,
    notes: &mut Notes,
) -> BTreeMap<Place, Settings> {
    let mut listeners = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (index, listener) in written.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        let Some(port) = port(listener) else {
            let text = listener
                .port
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            notes.error(
                format!("{field}.port"),
                format!("{} is not a port", shown(&text)),
                "write 1 to 65535",
            );
            continue;
        };
        match listener.protocol.as_deref() {
            None | Some("" | "HTTP") => {}
            Some(protocol @ ("HTTPS" | "QUIC")) => {
                notes.error(
                    format!("{field}.protocol"),
                    format!("listener {protocol} {port} is not served yet and is left out"),
                    "serve this port as HTTP, or keep it on a gateway that ends TLS",
                );
                continue;
            }
            Some(other) => {
                notes.error(
                    format!("{field}.protocol"),
                    format!("unknown protocol {} on port {port}", shown(other)),
                    "write HTTP in capitals (HTTPS and QUIC are not served yet)",
                );
                continue;
            }
        }
        if !seen.insert(port) {
            notes.error(
                format!("{field}.port"),
                format!("HTTP {port} is listed twice; the first one counts"),
                "delete one of the two listeners",
            );
            continue;
        }
        let good = settings(listener, &field, notes);
        // What served before served everyone: it must not stand in for a listener that now asks to filter.
        if access_list(listener, &field, notes) {
            continue;
        }
        if let Some(settings) = good.or_else(|| {
            before.and_then(|kept| kept.listeners.get(&(port, ListenerProtocol::Http)).cloned())
        }) {
            listeners.insert((port, ListenerProtocol::Http), settings);
        }
    }
    if written.is_empty() {
        notes.warning(
            "spec.listeners",
            "is empty, so this gateway listens nowhere",
            "add a listener, for example `- port: 80` with `protocol: HTTP`",
        );
    }
    listeners
}

fn port(listener: &AlbListener) -> Option<u16> {
    let port = match &listener.port {
        None => Some(80),
        Some(IntOrString::Int(port)) => u16::try_from(*port).ok(),
        Some(IntOrString::Text(port)) => port.parse().ok(),
    };
    port.filter(|port| *port != 0)
}

/// "an empty list under either type passes everything"; any other type means no list.
fn access_list(listener: &AlbListener, field: &str, notes: &mut Notes) -> bool {
    let filters = listener.acl_config.as_ref().is_some_and(|acl| {
        matches!(acl.acl_type.as_str(), "White" | "Black")
            && !(acl.acl_entries.is_empty() && acl.acl_ids.is_empty())
    });
    if filters {
        notes.restriction(
            format!("{field}.aclConfig"),
            "access lists are not supported yet, so this listener is left out rather than open to everyone",
            "remove aclConfig if everyone may connect, or filter before this gateway",
        );
    }
    filters
}

fn settings(listener: &AlbListener, field: &str, notes: &mut Notes) -> Option<Settings> {
    let errors = notes.errors();
    let idle_timeout = seconds(
        listener.idle_timeout,
        15,
        60,
        &format!("{field}.idleTimeout"),
        notes,
    );
    let request_timeout = seconds(
        listener.request_timeout,
        60,
        600,
        &format!("{field}.requestTimeout"),
        notes,
    );
    let none = XForwardedForConfig::default();
    let config = listener.x_forwarded_for_config.as_ref().unwrap_or(&none);
    let (forwarded_for, forwarded, writes) =
        forwarding(config, &format!("{field}.xForwardedForConfig"), notes);
    (notes.errors() == errors).then(|| Settings {
        serving: Arc::new(ListenerSettings {
            idle_timeout,
            request_timeout,
            forwarded_for,
            forwarded,
            ..ListenerSettings::default()
        }),
        writes,
    })
}

fn seconds(
    written: Option<i64>,
    default: u64,
    most: u64,
    field: &str,
    notes: &mut Notes,
) -> Duration {
    let Some(written) = written else {
        return Duration::from_secs(default);
    };
    match u64::try_from(written) {
        Ok(seconds) if (1..=most).contains(&seconds) => Duration::from_secs(seconds),
        _ => {
            notes.error(
                field,
                format!("{written} s is out of range, so this listener is not served as written"),
                format!("write 1 to {most} seconds, or leave it out for {default}"),
            );
            Duration::from_secs(default)
        }
    }
}

fn forwarding(
    config: &XForwardedForConfig,
    field: &str,
    notes: &mut Notes,
) -> (ForwardedFor, ForwardedHeaders, Option<&'static str>) {
    let on = |switch: Option<bool>| switch == Some(true);
    let mode = config.x_forwarded_for_processing_mode.as_deref();
    let forwarded_for = match (config.x_forwarded_for_enabled, mode) {
        (Some(false), _) => ForwardedFor::Keep,
        (_, Some("remove")) => ForwardedFor::Remove,
        (_, None | Some("" | "append")) => ForwardedFor::Append,
        (_, Some(other)) => {
            notes.error(
                format!("{field}.XForwardedForProcessingMode"),
                format!("unknown mode {}", shown(other)),
                "write append or remove",
            );
            ForwardedFor::Append
        }
    };
    for (switch, key) in [
        (
            config.x_forwarded_for_slb_id_enabled,
            "XForwardedForSLBIdEnabled",
        ),
        (
            config.x_forwarded_for_client_source_ips_enabled,
            "XForwardedForClientSourceIpsEnabled",
        ),
    ] {
        if on(switch) {
            notes.warning(
                format!("{field}.{key}"),
                "is not supported yet and is ignored",
                "nothing needs to be done, or set it to false to silence this",
            );
        }
    }
    let forwarded = ForwardedHeaders {
        proto: on(config.x_forwarded_for_proto_enabled),
        port: on(config.x_forwarded_for_slb_port_enabled),
        host: on(config.x_forwarded_for_host_enabled),
        client_port: on(config.x_forwarded_for_client_src_port_enabled),
    };
    let explicit = on(config.x_forwarded_for_enabled) || forwarded_for == ForwardedFor::Remove;
    let writes = [
        (explicit, "X-Forwarded-For"),
        (forwarded.proto, "X-Forwarded-Proto"),
        (forwarded.port, "X-Forwarded-Port"),
        (forwarded.host, "X-Forwarded-Host"),
        (forwarded.client_port, "X-Forwarded-Client-srcport"),
    ]
    .into_iter()
    .find_map(|(wanted, header)| wanted.then_some(header));
    (forwarded_for, forwarded, writes)
}
