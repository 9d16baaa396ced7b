//! The table: what the datapath does with packets, one named row for each behaviour.
//!
//! `fixtures_slices` and `fixtures_kernel` run every row of [`table`]; a new behaviour is a new row.

mod affinity;
mod backends;
mod ends;
mod handshakes;
mod headers;
mod l4;
mod lives;
mod pieces;
mod services;
mod shapes;
mod sums;
mod tcp;
mod udp;
mod untouched;

use std::net::SocketAddrV4;

use gateway_common::verdict::Reason;

use crate::{
    packets::{self, Builder, flags},
    row::{Expect, Row, Seen},
    world::{CLIENT, HOP_CLIENTS, HOP_PODS, POD, POD_UDP, SNAT, VIP, VIP_UDP, world},
};

/// All rows.
pub fn table() -> Vec<Row> {
    [
        tcp::rows(),
        udp::rows(),
        l4::rows(),
        lives::rows(),
        backends::rows(),
        affinity::rows(),
        ends::rows(),
        shapes::rows(),
        untouched::rows(),
        handshakes::rows(),
        headers::rows(),
        pieces::rows(),
        services::rows(),
        sums::rows(),
    ]
    .concat()
}

/// Not ours, nothing counted.
const PASS: Expect = Expect::Pass(Reason::None);
/// Client to pod of the TCP service.
const TO_POD: Expect = Expect::Forward(HOP_PODS, SNAT, POD);
/// Pod to client of the TCP service.
const TO_CLIENT: Expect = Expect::Forward(HOP_CLIENTS, VIP, CLIENT);
/// Client to pod of the UDP service.
const ASK: Expect = Expect::Forward(HOP_PODS, SNAT, POD_UDP);
/// Pod to client of the UDP service.
const ANSWER: Expect = Expect::Forward(HOP_CLIENTS, VIP_UDP, CLIENT);

/// The client's first segment.
fn syn() -> Builder {
    packets::tcp(CLIENT, VIP, flags::SYN)
}

/// A segment of the client.
fn up(flags: u8) -> Builder {
    packets::tcp(CLIENT, VIP, flags)
}

/// A segment of the pod.
fn down(flags: u8) -> Builder {
    packets::tcp(POD, SNAT, flags)
}

/// A datagram of the client.
fn ask() -> Builder {
    packets::udp(CLIENT, VIP_UDP).payload(b"question")
}

/// A datagram of the pod.
fn answer() -> Builder {
    packets::udp(POD_UDP, SNAT).payload(b"the answer")
}

/// A row in the usual world.
fn row(name: impl Into<String>) -> Row {
    Row::new(name, world())
}

/// A row with an open TCP flow.
fn opened(name: impl Into<String>) -> Row {
    row(name).send(&syn(), TO_POD)
}

/// A row with an established TCP flow.
fn connected(name: impl Into<String>) -> Row {
    opened(name)
        .send(&down(flags::SYN | flags::ACK), TO_CLIENT)
        .send(&up(flags::ACK), TO_POD)
}

/// A row with an answered UDP flow.
fn answered(name: impl Into<String>) -> Row {
    row(name).send(&ask(), ASK).send(&answer(), ANSWER)
}

/// Ends of every frame that was seen.
fn ends_of(seen: &[Seen]) -> Vec<(SocketAddrV4, SocketAddrV4)> {
    seen.iter()
        .map(|seen| {
            let ends = packets::ends(&seen.frame).expect("rows with laws send whole frames");
            (ends.src, ends.dst)
        })
        .collect()
}
