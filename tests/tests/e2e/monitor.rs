//! `fleetgate monitor` on packets of the lab.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::{
    e2e::{Gateway, Ran, VIP, eventually, frames::Wire, manifests::WEB, wire},
    packets::{flags, tcp},
};
use gateway_user::dataplane::{pins::Pins, tables::Tables};
use serde_json::Value;
use xtask::lab::topology::CLIENT_ADDRESS;

/// Runs the monitor until it has seen enough, while `traffic` comes again and again.
fn while_monitored(
    gateway: &Gateway,
    arguments: &[&str],
    mut traffic: impl FnMut() -> Result<()>,
) -> Result<Ran> {
    thread::scope(|scope| {
        let arguments = [&["monitor", "--seconds", "20"], arguments].concat();
        let monitor = scope.spawn(move || gateway.cli(&arguments));
        while !monitor.is_finished() {
            traffic()?;
        }
        monitor.join().ok().context("the monitor panicked")?
    })
}

fn lines(ran: &Ran) -> Result<Vec<Value>> {
    ensure!(ran.code == 0, "{ran:?}");
    let lines = ran.out.lines();
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}

#[test]
fn a_drop_is_shown_with_its_reason_and_a_forwarded_packet_with_its_pod() -> Result<()> {
    let gateway = Gateway::running()?;
    let wire = Wire::open(&gateway)?;
    let vip = SocketAddrV4::new(VIP, WEB);
    let from = SocketAddrV4::new(CLIENT_ADDRESS, 5_000);
    // One is dropped, and the sender of the other told: neither went on.
    let refused = [
        (flags::SYN | flags::FIN, 64, "FS", "drop", "malformed"),
        (flags::SYN, 1, "S", "answer", "ttl_answered"),
    ];
    for (flags, ttl, shown, action, reason) in refused {
        let frame = tcp(from, vip, flags).ttl(ttl);
        let send_one = || {
            wire.send(&frame)?;
            thread::sleep(std::time::Duration::from_millis(20));
            Ok(())
        };
        let ran = while_monitored(&gateway, &["--drops", "--json", "--count", "2"], send_one)?;
        let seen = lines(&ran)?;
        assert_eq!(seen.len(), 2, "{ran:?}");
        for line in seen {
            assert_eq!(line["action"], action, "{line}");
            assert_eq!(line["reason"], reason, "{line}");
            assert_eq!(line["src"], "10.210.0.2:5000", "{line}");
            assert_eq!(line["dst"], "10.210.0.1:8001", "{line}");
            assert_eq!(line["flags"], shown, "{line}");
            assert_eq!(line["interface"], "cl0", "{line}");
            assert_eq!(line["service"], "tcp/10.210.0.1:8001", "{line}");
        }
    }
    let arguments = [
        "--src",
        "10.210.0.2",
        "--dport",
        "8001",
        "--json",
        "--count",
        "3",
    ];
    let ran = while_monitored(&gateway, &arguments, || {
        wire::get(WEB, "/", "")?;
        Ok(())
    })?;
    let seen = lines(&ran)?;
    assert_eq!(seen.len(), 3);
    for line in seen {
        assert_eq!(line["action"], "forward", "{line}");
        let pod = line["backend"].as_str().unwrap_or_default();
        assert!(pod.starts_with("c1/") || pod.starts_with("c2/"), "{line}");
    }
    // The table for people, and the answers of pods, which the filter of the other direction does not see.
    let arguments = ["--src", "10.221.0.0/16", "--count", "1", "--every", "2"];
    let ran = while_monitored(&gateway, &arguments, || {
        wire::get(WEB, "/", "")?;
        Ok(())
    })?;
    assert!(ran.out.contains(": forward pod c"), "{ran:?}");
    let tables = Tables::open(&Pins::new(gateway.pins()))?;
    assert_eq!(
        tables.monitor.get(&0, 0)?.until,
        0,
        "a monitor that ended is off"
    );
    Ok(())
}

#[test]
fn a_filter_that_nothing_meets_shows_nothing() -> Result<()> {
    let gateway = Gateway::running()?;
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1).to_string();
    let arguments = ["monitor", "--src", &elsewhere, "--seconds", "2"];
    let ran = thread::scope(|scope| {
        let monitor = scope.spawn(|| gateway.cli(&arguments));
        while !monitor.is_finished() {
            wire::get(WEB, "/", "")?;
        }
        monitor.join().ok().context("the monitor panicked")?
    })?;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    Ok(())
}

#[test]
fn a_monitor_that_is_killed_costs_nothing_soon_and_keeps_a_second_one_away_until_then() -> Result<()>
{
    let gateway = Gateway::running()?;
    let tables = Tables::open(&Pins::new(gateway.pins()))?;
    let mut command = Command::new(gateway.program());
    command.args(["monitor", "--pin-dir"]).arg(gateway.pins());
    let mut first = command.stdout(Stdio::null()).spawn()?;
    let on = || Ok::<_, anyhow::Error>(tables.monitor.get(&0, 0)?.until != 0);
    let begun = eventually("the monitor is on", || Ok((on()?, ())));
    let second = gateway.cli(&["monitor", "--count", "1"]);
    first.kill()?;
    first.wait()?;
    begun?;
    let second = second?;
    assert_eq!(second.code, 3, "{second:?}");
    assert!(
        second.err.contains("another `fleetgate monitor`"),
        "{second:?}"
    );
    assert!(on()?, "nobody has told the kernel");
    eventually("the kernel has switched itself off", || {
        wire::get(WEB, "/", "")?;
        Ok((!on()?, ()))
    })
}
