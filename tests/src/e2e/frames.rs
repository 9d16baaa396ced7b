//! Single frames on the client's wire, and what comes back: for what no ordinary socket sends.

use std::{
    io::{self, Read},
    net::SocketAddrV4,
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use xtask::{lab::topology::CLIENT, netns};

use super::Gateway;
use crate::packets::{Builder, Mac};

/// The client's end of its cable.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// The device, as `sendto` wants it.
    address: SockAddr,
    /// MAC address of the client.
    client: Mac,
    /// MAC address of the gateway on this cable.
    gateway: Mac,
}

/// A TCP segment that the client's node received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Port it came from.
    pub from: u16,
    /// Port it is for.
    pub to: u16,
    /// TCP flags.
    pub flags: u8,
}

impl Wire {
    /// Opens the client's device.
    pub fn open(gateway: &Gateway) -> Result<Self> {
        let (index, client) = device(gateway, CLIENT, "eth0")?;
        let (_, near) = device(gateway, xtask::lab::topology::GATEWAY, "cl0")?;
        let socket = netns::inside(CLIENT, || Socket::new(Domain::PACKET, Type::RAW, None))?
            .context("a packet socket")?;
        Ok(Self {
            socket,
            address: link_address(index)?,
            client,
            gateway: near,
        })
    }

    /// Sends a frame from the client to the gateway.
    pub fn send(&self, frame: &Builder) -> Result<()> {
        let mut bytes = frame.clone().from_mac(self.client).bytes();
        bytes[..6].copy_from_slice(&self.gateway);
        self.socket
            .send_to(&bytes, &self.address)
            .context("cannot send a frame")?;
        Ok(())
    }
}

/// TCP segments that reach the client's node, from now on.
#[derive(Debug)]
pub struct Segments(Socket);

impl Segments {
    /// Begins to listen.
    pub fn listen() -> Result<Self> {
        let socket = netns::inside(CLIENT, || {
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))
        })??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self(socket))
    }

    /// Waits up to a second for a segment to this end.
    pub fn answer(&mut self, to: SocketAddrV4) -> Result<Option<Seen>> {
        for _ in 0..10 {
            let mut packet = [0; 2048];
            let length = match self.0.read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let header = usize::from(packet[0] & 0x0f) * 4;
            let segment = packet[..length].get(header..).context("an IPv4 packet")?;
            let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            if segment.len() >= 20 && port(2) == to.port() {
                return Ok(Some(Seen {
                    from: port(0),
                    to: port(2),
                    flags: segment[13],
                }));
            }
        }
        Ok(None)
    }
}

/// Index and MAC address of a device.
fn device(gateway: &Gateway, namespace: &str, name: &str) -> Result<(i32, Mac)> {
    let text = gateway.tool(namespace, "ip", &format!("-j link show {name}"))?;
    let links: serde_json::Value = serde_json::from_str(&text).context("ip -j")?;
    let link = &links[0];
    let index = link["ifindex"]
        .as_i64()
        .and_then(|index| i32::try_from(index).ok());
    let mac = link["address"].as_str().context("a MAC address")?;
    let mac = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<Vec<u8>, _>>()?;
    let mac = Mac::try_from(mac).ok().context("six bytes")?;
    Ok((index.context("an index")?, mac))
}

/// packet(7): where `sendto` sends. The frame itself holds the addresses.
fn link_address(index: i32) -> Result<SockAddr> {
    // SAFETY: the storage is large and aligned enough for any socket address, all zeros is a valid `sockaddr_ll`,
    // and the length is that of what was written.
    #[allow(unsafe_code, reason = "socket2 has no link-layer addresses")]
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_ifindex = index;
            (*address).sll_halen = 6;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
