//! `spec.listeners` (contract section 2.3).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Kept, Key, Settings, access, forwarding, tls};
use crate::{
    ir::{
        build::{l4, notes::Notes},
        model::{Limits, ListenerProtocol, Transport},
    },
    manifest::{AlbListener, IntOrString, XForwardedForConfig},
    problem::shown,
};

/// Most listeners of one AlbConfig; a cloud has 50.
const MOST_LISTENERS: usize = 200;

/// Listeners by port and protocol.
pub(super) struct Listed {
    pub(super) settings: BTreeMap<Key, Settings>,
    pub(super) places: BTreeMap<Key, String>,
}

/// Part of a listener that restricts who may use it, and is not understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unclear {
    /// A mistake: an earlier restriction may stand in.
    Mistake,
    /// Valid, but nothing here knows what it says.
    Unknown,
}

pub(super) fn read(written: &[AlbListener], before: Option<&Kept>, notes: &mut Notes) -> Listed {
    let mut listed = Listed {
        settings: BTreeMap::new(),
        places: BTreeMap::new(),
    };
    let mut seen: BTreeMap<Key, usize> = BTreeMap::new();
    for (index, listener) in written.iter().enumerate() {
        if index == MOST_LISTENERS {
            notes.error(
                "spec.listeners",
                format!("lists more than {MOST_LISTENERS} listeners; the others are left out"),
                "spread them over several AlbConfigs",
            );
            break;
        }
        let field = format!("spec.listeners[{index}]");
        let Some(key) = key(listener, &field, notes) else {
            continue;
        };
        if clashes(key, index, &mut seen, notes) {
            continue;
        }
        let before = before.and_then(|kept| kept.listeners.get(&key));
        if let Some(settings) = settings(listener, key, &field, before, notes) {
            listed.settings.insert(key, settings);
            listed.places.insert(key, field);
        }
    }
    if written.is_empty() {
        notes.warning(
            "spec.listeners",
            "is empty, so this gateway listens nowhere",
            "add a listener, for example `- port: 80` with `protocol: HTTP`",
        );
    }
    listed
}

/// Every valid port that is listed, whatever is to be spoken there.
pub(super) fn ports(written: &[AlbListener]) -> BTreeSet<(u16, Transport)> {
    let transport = |listener: &AlbListener| match listener.protocol.as_deref() {
        Some("QUIC" | "UDP") => Transport::Udp,
        _ => Transport::Tcp,
    };
    let listed = |listener| Some((port(listener)?, transport(listener)));
    written.iter().filter_map(listed).collect()
}

fn port(listener: &AlbListener) -> Option<u16> {
    let port = match &listener.port {
        None => Some(80),
        Some(IntOrString::Int(port)) => u16::try_from(*port).ok(),
        Some(IntOrString::Text(port)) => port.parse().ok(),
    };
    port.filter(|port| *port != 0)
}

fn key(listener: &AlbListener, field: &str, notes: &mut Notes) -> Option<Key> {
    let Some(port) = port(listener) else {
        let text = listener.port.as_ref().map(ToString::to_string);
        notes.error(
            format!("{field}.port"),
            format!("{} is not a port", shown(&text.unwrap_or_default())),
            "write 1 to 65535",
        );
        return None;
    };
    let protocol = match listener.protocol.as_deref() {
        None | Some("" | "HTTP") => ListenerProtocol::Http,
        Some("HTTPS") => ListenerProtocol::Https,
        Some("QUIC") => ListenerProtocol::Quic,
        Some("TCP") => ListenerProtocol::Tcp,
        Some("UDP") => ListenerProtocol::Udp,
        Some(other) => {
            notes.error(
                format!("{field}.protocol"),
                format!("unknown protocol {} on port {port}", shown(other)),
                "write HTTP, HTTPS, QUIC, TCP or UDP in capitals",
            );
            return None;
        }
    };
    Some((port, protocol))
}

/// "HTTPS and QUIC may share a port number; HTTP and HTTPS may not." So do ours: what is TCP may share one with UDP.
fn clashes(key: Key, index: usize, seen: &mut BTreeMap<Key, usize>, notes: &mut Notes) -> bool {
    let (port, protocol) = key;
    let field = format!("spec.listeners[{index}].port");
    if seen.contains_key(&key) {
        notes.error(
            field,
            format!("{protocol} {port} is listed twice; the first one counts"),
            "delete one of the two listeners",
        );
        return true;
    }
    let rival = seen
        .iter()
        .find(|((other, rival), _)| *other == port && rival.transport() == protocol.transport());
    if let Some(((_, rival), first)) = rival {
        notes.error(
            field,
            format!(
                "{protocol} {port} and {rival} {port} (spec.listeners[{first}]) cannot share a port; the first one counts"
            ),
            "give one of the two another port, or delete it",
        );
        return true;
    }
    seen.insert(key, index);
    false
}

/// What is wrong is taken from `before`, which must never restrict less than the listener does now.
fn settings(
    listener: &AlbListener,
    (port, protocol): Key,
    field: &str,
    before: Option<&Settings>,
    notes: &mut Notes,
) -> Option<Settings> {
    let bare;
    let listener = if protocol.is_l4() {
        bare = l4::bare(listener, (port, protocol), field, notes);
        &bare
    } else {
        listener
    };
    let access = access::read(listener.acl_config.as_ref(), field, notes);
    let tls = tls::read(listener, protocol, field, notes);
    let errors = notes.errors();
    let none = XForwardedForConfig::default();
    let forwarding = forwarding::read(
        listener.x_forwarded_for_config.as_ref().unwrap_or(&none),
        protocol,
        &format!("{field}.xForwardedForConfig"),
        notes,
    );
    let now = Settings {
        idle_timeout: seconds(
            listener.idle_timeout.as_ref(),
            15,
            60,
            &format!("{field}.idleTimeout"),
            notes,
        ),
        request_timeout: seconds(
            listener.request_timeout.as_ref(),
            60,
            600,
            &format!("{field}.requestTimeout"),
            notes,
        ),
        gzip: listener.gzip_enabled != Some(false),
        forwarded_for: forwarding.forwarded_for,
        forwarded: forwarding.forwarded,
        identity: forwarding.identity,
        trusted: forwarding.trusted,
        proxy_protocol: None,
        writes: forwarding.writes,
        tls: None,
        access: None,
        limits: Limits::default(),
        quic_upgrade: quic_upgrade(listener, (port, protocol), field, notes),
        h2c: protocol == ListenerProtocol::Http && listener.http2_enabled == Some(true),
    };
    let mut settings = if access.is_ok() && tls.is_ok() && notes.errors() == errors {
        now
    } else {
        before?.clone()
    };
    match access {
        Ok(access) => settings.access = access,
        // What served before may have served everyone.
        Err(Unclear::Mistake) if settings.access.is_some() => {}
        Err(_) => return None,
    }
    let asked = |settings: &Settings| {
        settings
            .tls
            .as_ref()
            .is_some_and(|it| it.client_ca.is_some())
    };
    match tls {
        Ok(tls) => settings.tls = tls,
        Err(Unclear::Mistake) if listener.ca_enabled != Some(true) || asked(&settings) => {}
        Err(_) => return None,
    }
    Some(settings)
}

fn seconds(
    written: Option<&IntOrString>,
    default: u64,
    most: u64,
    field: &str,
    notes: &mut Notes,
) -> Duration {
    let seconds = match written {
        None => return Duration::from_secs(default),
        Some(IntOrString::Int(seconds)) => u64::try_from(*seconds).ok(),
        Some(IntOrString::Text(text)) => text.parse().ok(),
    };
    if let Some(seconds) = seconds.filter(|seconds| (1..=most).contains(seconds)) {
        return Duration::from_secs(seconds);
    }
    let text = match written {
        Some(IntOrString::Text(text)) => shown(text),
        number => number.map(ToString::to_string).unwrap_or_default(),
    };
    notes.error(
        field,
        format!("{text} s is out of range, so this listener is not served as written"),
        format!("write 1 to {most} seconds, or leave it out for {default}"),
    );
    Duration::from_secs(default)
}

/// `quicConfig`: "on the HTTPS listener, advertises a QUIC listener".
fn quic_upgrade(
    listener: &AlbListener,
    (_, protocol): Key,
    field: &str,
    notes: &mut Notes,
) -> bool {
    let upgrade = listener.quic_config.as_ref();
    let upgrade = upgrade.and_then(|config| config.get("quicUpgradeEnabled"));
    let on = upgrade.is_some_and(|value| *value == true);
    if on && protocol != ListenerProtocol::Https {
        notes.warning(
            format!("{field}.quicConfig.quicUpgradeEnabled"),
            format!("has no effect on a listener of protocol {protocol}"),
            "set it on the HTTPS listener, or remove it",
        );
    }
    on && protocol == ListenerProtocol::Https
}
