//! Access lists and budgets: who may open connections, how many, and what that does to those that are open.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::{
    e2e::{
        Gateway, VIP, eventually,
        frames::{Segments, Wire},
        manifests::{self, Ingress, WEB},
        wire::{self, Held},
    },
    packets::{ETHERNET, MORE_FRAGMENTS, flags, other, tcp},
};
use gateway_common::flow::state;
use gateway_user::dataplane::apply;
use xtask::lab::topology::CLIENT_ADDRESS;

/// A listener that the proxy steers.
const PROXIED: u16 = 8002;
/// Keeps the lab's client out.
const BLACK: &str = "    aclConfig: {aclType: Black, aclEntries: [10.210.0.0/30]}\n";
/// Lets the lab's client in.
const WHITE: &str = "    aclConfig: {aclType: White, aclEntries: [192.0.2.0/24, 10.210.0.2]}\n";
/// Lets others in.
const OTHERS: &str =
    "    aclConfig: {aclType: White, aclEntries: [192.0.2.0/24, \"2001:db8::/32\"]}\n";

/// Whether a new connection gets an answer: without one it is dropped, not refused. Time for two SYNs.
fn answered(port: u16) -> Result<bool> {
    const LONG: Duration = Duration::from_millis(1_500);
    match wire::outcome_within(port, LONG).as_str() {
        "TimedOut" => Ok(false),
        said if said.starts_with('c') => Ok(true),
        said => anyhow::bail!("a connection to {port} met {said}"),
    }
}

fn with(gateway: &Gateway, more: &str) -> Result<()> {
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway(&[WEB, PROXIED], more),
    )
}

#[test]
fn access_lists_hold_for_both_kinds_of_listeners_and_change_while_they_serve() -> Result<()> {
    let gateway = Gateway::new()?;
    with(&gateway, "")?;
    let proxied = Ingress::new("proxied", PROXIED).steering("request");
    gateway.write("fleet/proxied.yaml", &proxied.yaml())?;
    let mut gateway = gateway;
    gateway.start()?;
    assert_eq!(gateway.steering(WEB)?.0, "connection");
    assert_eq!(gateway.steering(PROXIED)?.0, "request");
    let mut by_kernel = Held::open(WEB, 3)?;
    let mut by_proxy = Held::open(PROXIED, 1)?;

    with(&gateway, BLACK)?;
    for port in [WEB, PROXIED] {
        eventually("the client is kept out", || Ok((!answered(port)?, port)))?;
    }
    let denied = gateway.counted("acl_denied")?;
    assert!(denied > 0);
    // What the kernel has open goes on; the proxy's connection is cut, since each of its segments is judged.
    by_kernel.stay()?;
    assert!(by_proxy.stay().is_err());
    assert!(gateway.counted("acl_denied")? > denied);

    with(&gateway, WHITE)?;
    for port in [WEB, PROXIED] {
        eventually("the client is let in", || Ok((answered(port)?, port)))?;
    }
    with(&gateway, OTHERS)?;
    for port in [WEB, PROXIED] {
        eventually("only others are let in", || Ok((!answered(port)?, port)))?;
    }
    let trace = gateway.json(&[
        "trace",
        "--from",
        "10.210.0.2:40000",
        "--to",
        "10.210.0.1:8001",
    ])?;
    assert_eq!(trace["answer"], "dropped", "{trace}");
    assert!(
        trace["reason"]
            .as_str()
            .is_some_and(|it| it.contains("aclConfig")),
        "{trace}"
    );
    with(&gateway, "")?;
    for port in [WEB, PROXIED] {
        eventually("everybody is let in", || Ok((answered(port)?, port)))?;
    }
    by_kernel.stay()
}

#[test]
fn a_syn_in_fragments_too_small_for_its_flags_meets_the_list_too() -> Result<()> {
    let gateway = Gateway::new()?;
    with(&gateway, "")?;
    let proxied = Ingress::new("proxied", PROXIED).steering("request");
    gateway.write("fleet/proxied.yaml", &proxied.yaml())?;
    let mut gateway = gateway;
    gateway.start()?;
    let wire = Wire::open(&gateway)?;
    let mut segments = Segments::listen()?;
    let mut answer = |port: u16| -> Result<Option<u8>> {
        let from = SocketAddrV4::new(CLIENT_ADDRESS, port);
        let vip = SocketAddrV4::new(VIP, PROXIED);
        let whole = tcp(from, vip, flags::SYN).bytes();
        let (head, rest) = whole[ETHERNET + 20..].split_at(8);
        for (part, fragment) in [(head, MORE_FRAGMENTS), (rest, 1)] {
            let frame = other(*from.ip(), *vip.ip(), 6).payload(part);
            wire.send(&frame.fragment(fragment))?;
        }
        Ok(segments.answer(from)?.map(|seen| seen.flags))
    };
    // The hooks cannot read its flags, and the stack puts it together.
    assert_eq!(answer(6_001)?, Some(flags::SYN | flags::ACK));
    with(&gateway, BLACK)?;
    eventually("the client is kept out", || Ok((!answered(PROXIED)?, ())))?;
    let denied = gateway.counted("acl_denied")?;
    assert_ne!(answer(6_002)?, Some(flags::SYN | flags::ACK));
    assert!(gateway.counted("acl_denied")? > denied);
    Ok(())
}

/// SYNs of the flood.
const FLOOD: u32 = 20_000;
/// New flows a second that the listener takes.
const RATE: u32 = 200;

#[test]
fn a_flood_of_syns_is_cut_to_the_budget_and_disturbs_no_open_connection() -> Result<()> {
    let gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 4)?;
    let limited = manifests::gateway(&[WEB], "").replace(
        "  annotations:\n",
        &format!("  annotations:\n    fleetgate.io/new-flows-per-second: '{WEB}={RATE}'\n"),
    );
    gateway.write("fleet/gateway.yaml", &limited)?;
    let service = |gateway: &Gateway| -> Result<u64> {
        let plan = gateway.json(&["services"])?;
        Ok(plan[0]["epoch"].as_u64().unwrap_or_default())
    };
    eventually("the listener has its budget", || {
        let epoch = service(&gateway)?;
        Ok((epoch > 1, epoch))
    })?;
    let wire = Wire::open(&gateway)?;
    let vip = SocketAddrV4::new(VIP, WEB);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let rounds = thread::scope(|scope| -> Result<u32> {
        let flood = scope.spawn(|| {
            let sent = (0..FLOOD).try_for_each(|number| {
                // 198.18.0.0/15 is for measurements (RFC 2544): nobody is there.
                let from = Ipv4Addr::from(0xc612_0000 + number);
                let from = SocketAddrV4::new(from, 1024 + (number % 60_000) as u16);
                wire.send(&tcp(from, vip, flags::SYN))
            });
            over.store(true, Ordering::Relaxed);
            sent
        });
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) || rounds == 0 {
            held.stay()?;
            rounds += 1;
        }
        flood.join().ok().context("the flood panicked")??;
        Ok(rounds)
    })?;
    let seconds = u32::try_from(began.elapsed().as_secs())? + 1;
    let opened = u32::try_from(gateway.flows()?.len())?;
    let refused = u32::try_from(gateway.counted("flow_budget")?)?;
    // One second's worth at once, then the rate; those that were open before count, too.
    let most = RATE * (seconds + 1) + 4;
    assert!(opened <= most, "{opened} flows in {seconds} s");
    assert!(
        opened >= RATE,
        "{opened} flows: the budget lets its own through"
    );
    assert!(refused > 0 && refused <= FLOOD);
    let services = gateway.json(&["services"])?;
    assert_eq!(services[0]["refused"], refused, "{services}");
    assert_eq!(services[0]["agrees"], true, "{services}");
    ensure!(
        refused + opened >= FLOOD,
        "{refused} refused and {opened} opened of {FLOOD}: where are the others?"
    );
    held.stay()?;
    assert!(rounds > 0);
    // And a client that comes when the flood is over is served.
    thread::sleep(Duration::from_secs(1));
    assert!(answered(WEB)?);
    Ok(())
}

/// Entries of a small flow table.
const ENTRIES: u32 = 4_096;

#[test]
fn a_listener_that_was_flooded_full_takes_connections_again_long_before_half_open_flows_time_out()
-> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.arguments = vec!["--max-flows".to_owned(), ENTRIES.to_string()];
    gateway.start()?;
    let mut held = Held::open(WEB, 4)?;
    let wire = Wire::open(&gateway)?;
    let vip = SocketAddrV4::new(VIP, WEB);
    let began = Instant::now();
    for number in 0..ENTRIES {
        let from = SocketAddrV4::new(Ipv4Addr::from(0xc612_0000 + number), 1024);
        wire.send(&tcp(from, vip, flags::SYN))?;
    }
    assert!(
        gateway.counted("high_water")? > 0,
        "the table was not filled"
    );
    assert!(!answered(WEB)?, "the listener has its share of the table");
    held.stay()?;
    // Alone, flows that nobody answered would hold the table for half a minute.
    let easy = Duration::from_secs(apply::TIMEOUTS[usize::from(state::TCP_OPENING)].into());
    while !answered(WEB)? {
        ensure!(began.elapsed() < easy, "{}", gateway.words());
    }
    held.stay()
}

#[test]
fn one_client_that_opens_too_much_leaves_the_listener_to_others() -> Result<()> {
    let gateway = Gateway::running()?;
    let limited = manifests::gateway(&[WEB], "").replace(
        "  annotations:\n",
        "  annotations:\n    fleetgate.io/new-flows-per-second-per-source: '5'\n",
    );
    gateway.write("fleet/gateway.yaml", &limited)?;
    let wire = Wire::open(&gateway)?;
    let vip = SocketAddrV4::new(VIP, WEB);
    let mut port = 1024;
    eventually("a client has spent its budget", || {
        for _ in 0..50 {
            port += 1;
            let from = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), port);
            wire.send(&tcp(from, vip, flags::SYN))?;
        }
        let refused = gateway.counted("source_budget")?;
        Ok((refused > 0, refused))
    })?;
    assert!(answered(WEB)?);
    Ok(())
}
