//! One packet as `fleetgate monitor` tells it.

use std::{fmt, net::SocketAddr};

use gateway_common::{
    flow::{TCP, UDP},
    monitor::{Event, action, hook},
    verdict::Reason,
};
use serde::Serialize;

use crate::{cli::views, dataplane::record::Record};

/// Letters of TCP's flag bits, the lowest first (RFC 9293 section 3.1), as packet dumps write them.
const FLAGS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// When the packet was decided on, nanoseconds since the epoch.
    pub unix_ns: u64,
    /// `xdp` or `tc`.
    pub hook: &'static str,
    /// Interface it came in on: its name, or its index.
    pub interface: String,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Source as it came in.
    pub src: SocketAddr,
    /// Destination as it came in.
    pub dst: SocketAddr,
    /// Flags of TCP, as letters.
    pub flags: String,
    /// Bytes of the frame.
    pub length: u32,
    /// `pass`, `drop` or `forward`.
    pub action: &'static str,
    /// Why it was not forwarded.
    pub reason: Option<&'static str>,
    /// Listener address.
    pub service: Option<String>,
    /// `cluster/pod`.
    pub backend: Option<String>,
}

impl Line {
    /// `boot` is when the kernel's monotonic clock was zero, in nanoseconds since the epoch.
    pub fn new(event: &Event, record: &Record, boot: u64) -> Self {
        let services = &record.plan.services;
        let service = services.iter().find(|(_, it)| it.id == event.service);
        let named = |id: u32| {
            views::backend(record, id).map_or_else(
                || format!("#{id}"),
                |it| format!("{}/{}", it.key.cluster, it.pod),
            )
        };
        let reason = Reason::ALL
            .into_iter()
            .find(|it| *it as u32 == event.reason);
        let interface = record.interface_names.get(&event.ifindex);
        Self {
            unix_ns: boot.saturating_add(event.nanoseconds),
            hook: hook::NAMES.get(usize::from(event.hook)).unwrap_or(&"?"),
            interface: interface.map_or_else(|| event.ifindex.to_string(), Clone::clone),
            proto: match event.key.proto {
                TCP => "tcp",
                UDP => "udp",
                _ => "?",
            },
            src: views::socket(event.key.src, event.key.src_port),
            dst: views::socket(event.key.dst, event.key.dst_port),
            flags: letters(event.flags),
            length: event.len,
            action: action::NAMES.get(usize::from(event.action)).unwrap_or(&"?"),
            reason: reason.map(Reason::name),
            service: (event.service != 0).then(|| {
                service.map_or_else(
                    || format!("#{}", event.service),
                    |(address, _)| address.to_string(),
                )
            }),
            backend: (event.backend != 0).then(|| named(event.backend)),
        }
    }

    /// It names something that the record does not know.
    pub fn strange(&self) -> bool {
        let unknown = |name: &Option<String>| name.as_ref().is_some_and(|it| it.starts_with('#'));
        unknown(&self.service) || unknown(&self.backend)
    }
}

fn letters(flags: u8) -> String {
    (0..8)
        .filter(|bit| flags & 1 << bit != 0)
        .map(|bit| FLAGS[bit])
        .collect()
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.unix_ns / 1_000 % 1_000_000;
        let seconds = self.unix_ns / 1_000_000_000 % 86_400;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{hour:02}:{minute:02}:{second:02}.{micros:06} {:<3} {:<8} {} {} > {}",
            self.hook, self.interface, self.proto, self.src, self.dst
        )?;
        if !self.flags.is_empty() {
            write!(f, " [{}]", self.flags)?;
        }
        write!(f, " {} B: {}", self.length, self.action)?;
        if let Some(reason) = self.reason {
            write!(f, " {reason}")?;
        }
        if let Some(backend) = &self.backend {
            write!(f, " pod {backend}")?;
        }
        if let Some(service) = &self.service {
            write!(f, " of {service}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gateway_common::{addr::Port, flow::FlowKey};

    use super::*;
    use crate::cli::views::sample;

    fn event() -> Event {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        Event {
            nanoseconds: 1_000_500_000,
            key: FlowKey {
                src: addr("198.51.100.7"),
                dst: addr("10.0.0.1"),
                src_port: Port::from_host(4000),
                dst_port: Port::from_host(80),
                proto: TCP,
            },
            ifindex: 4711,
            len: 74,
            flags: 0x02,
            hook: hook::TC,
            ..Event::default()
        }
    }

    fn text(event: &Event) -> String {
        let boot = 3_723_000_000_000;
        Line::new(event, &sample::record(), boot).to_string()
    }

    #[test]
    fn a_drop_tells_its_reason_and_its_listener() {
        let record = sample::record();
        let (address, service) = record.plan.services.first_key_value().unwrap();
        let denied = Event {
            action: action::DROP,
            reason: Reason::AclDenied as u32,
            service: service.id,
            ..event()
        };
        assert_eq!(
            text(&denied),
            format!(
                "01:02:04.000500 tc  4711     tcp 198.51.100.7:4000 > 10.0.0.1:80 [S] 74 B: drop acl_denied of {address}"
            )
        );
    }

    #[test]
    fn a_forwarded_packet_tells_its_pod() {
        let record = sample::record();
        let (id, backend) = record.plan.backends.first_key_value().unwrap();
        let sent = Event {
            action: action::FORWARD,
            backend: *id,
            flags: 0x10,
            ..event()
        };
        let pod = format!(
            "[.] 74 B: forward pod {}/{}",
            backend.key.cluster, backend.pod
        );
        assert!(text(&sent).ends_with(&pod), "{}", text(&sent));
    }

    #[test]
    fn ids_that_the_record_does_not_know_are_shown_as_numbers() {
        let odd = Event {
            service: 9_999,
            backend: 88_888,
            ..event()
        };
        let line = Line::new(&odd, &sample::record(), 0);
        assert!(line.strange());
        assert!(
            line.to_string().ends_with("pass pod #88888 of #9999"),
            "{line}"
        );
    }
}
