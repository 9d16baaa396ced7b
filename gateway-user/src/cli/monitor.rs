//! `fleetgate monitor`: packets as the kernel decides on them.

pub mod line;

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gateway_common::{
    addr::{Addr, Port},
    limits::{ACL_BITS, AclKey, MAPPED_BITS},
    monitor::{Switch, want},
};

use self::line::Line;
use super::{
    args::MonitorArgs,
    live::{Live, monotonic},
    output::{Failure, Outcome},
};
use crate::{
    dataplane::{events::Events, record::Record, tables::Tables},
    ir::Network,
    plan::Transport,
};

/// Pause between two looks at the ring.
const LOOK: Duration = Duration::from_millis(10);
/// How often the kernel is told to go on.
const RENEW: Duration = Duration::from_secs(1);

/// Prints until told to end, or until nobody reads.
pub fn run(args: &MonitorArgs) -> Result<Outcome, Failure> {
    let Live {
        pins,
        mut tables,
        mut record,
    } = Live::open(&args.pins)?;
    let reader = Tables::open(&pins)?;
    let switch = switch(args);
    let mut events = Events::take(&pins, &mut tables)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let end = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut renewed = None;
    let mut seen = 0;
    let mut strange = false;
    loop {
        if renewed.is_none_or(|at: Instant| at.elapsed() >= RENEW) {
            events.renew(switch, monotonic())?;
            renewed = Some(Instant::now());
            let missed = events.missed()?;
            if missed > 0 && !printed(tell_missed(&mut out, args.json, missed))? {
                return Ok(Outcome::Fine);
            }
            // Pods and listeners come and go.
            if std::mem::take(&mut strange)
                && let Some(newer) = Record::load(&reader)?
            {
                record = newer;
            }
        }
        while let Some(event) = events.read() {
            let line = Line::new(&event, &record, epoch_nanoseconds());
            strange |= line.strange();
            let written = if args.json {
                serde_json::to_writer(&mut out, &line)
                    .map_err(io::Error::from)
                    .and_then(|()| out.write_all(b"\n"))
            } else {
                writeln!(out, "{line}")
            };
            seen += 1;
            if !printed(written)? {
                return Ok(Outcome::Fine);
            }
            if args.count.is_some_and(|count| seen >= count) {
                printed(out.flush())?;
                return Ok(Outcome::Fine);
            }
        }
        if !printed(out.flush())? || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(Outcome::Fine);
        }
        thread::sleep(LOOK);
    }
}

fn tell_missed(out: &mut impl Write, json: bool, missed: u64) -> io::Result<()> {
    if json {
        writeln!(out, "{{\"missed\":{missed}}}")
    } else {
        writeln!(
            out,
            "({missed} more did not fit the ring; narrow the filter, or --every)"
        )
    }
}

/// False: the reader went away (`| head`).
fn printed(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::Output(e)),
    }
}

/// What the arguments ask of the kernel.
fn switch(args: &MonitorArgs) -> Switch {
    let (src, src_mask) = args.src.as_ref().map(masked).unwrap_or_default();
    let (dst, dst_mask) = args.dst.as_ref().map(masked).unwrap_or_default();
    let port = |port: Option<u16>| Port::from_host(port.unwrap_or(0));
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    Switch {
        until: 0,
        every: args.every,
        want: bit(args.drops, want::DROPS) | bit(args.all, want::ALL),
        reason: args.reason.map_or(0, |reason| reason as u32),
        proto: args.proto.map_or(0, |it| Transport::from(it).number()),
        src,
        src_mask,
        dst,
        dst_mask,
        src_port: port(args.sport),
        dst_port: port(args.dport),
        zero: 0,
    }
}

/// A network's address, and the bits of it that count.
fn masked(network: &Network) -> (Addr, Addr) {
    let bits = u32::from(network.prefix());
    let before = if network.address().is_ipv4() {
        MAPPED_BITS
    } else {
        0
    };
    let mask = AclKey::network(0, &Addr([u32::MAX; 4]), ACL_BITS + before + bits);
    (network.address().into(), mask.net.addr)
}

/// Nanoseconds since the epoch when the monotonic clock was zero.
fn epoch_nanoseconds() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    now.saturating_sub(monotonic())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gateway_common::{flow::FlowKey, flow::UDP};
    use std::net::IpAddr;

    use super::*;
    use crate::cli::{Cli, Command};

    fn asked(words: &str) -> Switch {
        let line = format!("fleetgate monitor {words}");
        let Command::Monitor(args) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("another command")
        };
        switch(&args)
    }

    fn key(src: &str, dst: &str, dst_port: u16) -> FlowKey {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        FlowKey {
            src: addr(src),
            dst: addr(dst),
            src_port: Port::from_host(50_000),
            dst_port: Port::from_host(dst_port),
            proto: UDP,
        }
    }

    #[test]
    fn without_a_filter_every_packet_matches() {
        assert!(asked("").matches(&key("192.0.2.1", "203.0.113.1", 53)));
    }

    #[test]
    fn networks_match_their_own_family_only() {
        let v4 = asked("--src 192.0.2.0/24");
        assert!(v4.matches(&key("192.0.2.200", "203.0.113.1", 53)));
        assert!(!v4.matches(&key("192.0.3.1", "203.0.113.1", 53)));
        let any_v4 = asked("--src 0.0.0.0/0");
        assert!(any_v4.matches(&key("192.0.2.1", "203.0.113.1", 53)));
        assert!(!any_v4.matches(&key("2001:db8::1", "2001:db8::2", 53)));
        let v6 = asked("--dst 2001:db8::/32");
        assert!(v6.matches(&key("2001:db9::1", "2001:db8:7::2", 53)));
        assert!(!v6.matches(&key("2001:db9::1", "2001:db9::2", 53)));
    }

    #[test]
    fn ports_and_protocol_are_asked_of_the_kernel() {
        let dns = asked("--proto udp --dport 53 --sport 50000");
        assert!(dns.matches(&key("192.0.2.1", "203.0.113.1", 53)));
        assert!(!dns.matches(&key("192.0.2.1", "203.0.113.1", 54)));
        assert!(!asked("--proto tcp").matches(&key("192.0.2.1", "203.0.113.1", 53)));
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for words in [
            "--src 10.0.0.0/40",
            "--every 0",
            "--dport 0",
            "--reason nonsense",
            "--count 0",
        ] {
            let line = format!("fleetgate monitor {words}");
            let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words}");
        }
        assert_eq!(asked("--reason acl_denied").reason, 10);
    }
}
