//! Addresses of listeners in the kernel: the agent keeps them, and the kernel answers an echo to them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{Gateway, VIP, eventually};
use gateway_common::vip::VipKey;
use gateway_user::dataplane::{pins::Pins, tables::Tables};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::{lab::topology::CLIENT, netns};

fn known(gateway: &Gateway) -> Result<Vec<IpAddr>> {
    let tables = Tables::open(&Pins::new(gateway.pins()))?;
    let keys = tables.vips.keys().collect::<Result<Vec<_>, _>>()?;
    Ok(keys.into_iter().map(|key| key.addr.into()).collect())
}

/// One echo from the client to the listener's address.
fn ping() -> Result<()> {
    netns::inside(CLIENT, || {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
        let socket: UdpSocket =
            Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?.into();
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.send_to(&[8, 0, 0, 0, 0, 0, 0, 1, 0xaa], SocketAddr::from((VIP, 0)))?;
        let mut answer = [0; 64];
        let (len, _) = socket.recv_from(&mut answer).context("no echo reply")?;
        assert_eq!((len, answer[0], answer[8]), (9, 0, 0xaa));
        Ok(())
    })?
}

#[test]
fn the_kernel_knows_the_addresses_of_listeners_and_answers_echoes_to_them() -> Result<()> {
    let mut gateway = Gateway::running()?;
    assert_eq!(known(&gateway)?, [IpAddr::from(VIP)]);
    ping()?;
    assert_eq!(gateway.counted("echo_answered")?, 1);

    // An agent of before wrote no such table.
    gateway.kill()?;
    let mut tables = Tables::open(&Pins::new(gateway.pins()))?;
    let addr = IpAddr::from(VIP).into();
    tables.vips.remove(&VipKey { addr })?;
    gateway.start()?;
    assert_eq!(known(&gateway)?, [IpAddr::from(VIP)]);
    ping()?;
    assert_eq!(gateway.counted("echo_answered")?, 2);

    gateway.remove("fleet/gateway.yaml")?;
    eventually("the last listener's address is forgotten", || {
        let left = known(&gateway)?;
        Ok((left.is_empty(), left))
    })
}
