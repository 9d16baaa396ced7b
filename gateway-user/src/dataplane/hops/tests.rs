//! What must hold for next hops.

use super::*;

fn interface() -> Interface {
    Interface {
        index: 3,
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        kind: None,
        addresses: Vec::new(),
        up: true,
    }
}

fn neighbour(last: u8, mac: u8) -> Neighbour {
    Neighbour {
        ifindex: 3,
        address: IpAddr::from([10, 0, 0, last]),
        mac: [2, 0, 0, 0, 1, mac],
    }
}

/// What one attached interface sees after some seconds.
fn look(
    hops: &mut Hops,
    neighbours: &[Neighbour],
    paths: &BTreeMap<IpAddr, Path>,
    now: Instant,
) -> HopChanges {
    hops.update(&Facts {
        interfaces: &[interface()],
        neighbours,
        paths,
        attached: &["eth0".into()],
        xdp: &BTreeSet::new(),
        now,
    })
}

fn path(via: u8) -> Path {
    Path {
        ifindex: 3,
        neighbour: IpAddr::from([10, 0, 0, via]),
        source: IpAddr::from([10, 0, 0, 1]),
    }
}

#[test]
fn a_neighbour_that_changes_its_mac_keeps_its_id() {
    let mut hops = Hops::default();
    let pod = IpAddr::from([10, 9, 0, 1]);
    let paths = BTreeMap::from([(pod, path(9))]);
    let first = look(&mut hops, &[neighbour(9, 1)], &paths, Instant::now());
    let id = hops.by_backend()[&pod];
    assert_eq!(first.hops.len(), 1);
    assert_eq!(first.addresses, BTreeSet::from([pod]));
    let second = look(&mut hops, &[neighbour(9, 2)], &paths, Instant::now());
    assert_eq!(
        second.hops,
        [(
            id,
            NextHop {
                dmac: [2, 0, 0, 0, 1, 2],
                ..first.hops[0].1
            }
        )]
    );
    assert!(second.addresses.is_empty());
    assert_eq!(second.gone.len(), 1);
}

#[test]
fn a_neighbour_that_vanishes_for_a_moment_keeps_serving() {
    let mut hops = Hops::default();
    let pod = IpAddr::from([10, 9, 0, 1]);
    let paths = BTreeMap::from([(pod, path(9))]);
    look(&mut hops, &[neighbour(9, 1)], &paths, Instant::now());
    let changes = look(&mut hops, &[], &paths, Instant::now());
    assert!(changes.hops.is_empty() && changes.addresses.is_empty());
    assert_ne!(hops.by_backend()[&pod], 0);
}

#[test]
fn ids_of_an_earlier_agent_are_kept() {
    let mut hops = Hops::from_record(&[(3, IpAddr::from([10, 0, 0, 9]), 7)]);
    look(
        &mut hops,
        &[neighbour(8, 1), neighbour(9, 2)],
        &BTreeMap::new(),
        Instant::now(),
    );
    let ids: BTreeMap<_, _> = hops
        .to_record()
        .into_iter()
        .map(|(_, ip, id)| (ip, id))
        .collect();
    assert_eq!(ids[&IpAddr::from([10, 0, 0, 9])], 7);
    assert_eq!(ids[&IpAddr::from([10, 0, 0, 8])], 1);
}

#[test]
fn an_unchanged_network_changes_nothing() {
    let mut hops = Hops::default();
    let seen = [neighbour(9, 1)];
    look(&mut hops, &seen, &BTreeMap::new(), Instant::now());
    assert!(look(&mut hops, &seen, &BTreeMap::new(), Instant::now()).is_empty());
}

#[test]
fn a_full_table_keeps_the_neighbours_it_has() {
    let full: Vec<_> = (1..maps::HOPS.1 as u16)
        .map(|id| (3, IpAddr::from([10, 1, (id >> 8) as u8, id as u8]), id))
        .collect();
    let mut hops = Hops::from_record(&full);
    let late = Neighbour {
        address: full[4094].1,
        ..neighbour(9, 2)
    };
    // The first of the two finds no id; the second one has its own.
    let changes = look(
        &mut hops,
        &[neighbour(8, 1), late.clone()],
        &BTreeMap::new(),
        Instant::now(),
    );
    assert_eq!(changes.hops.len(), 1);
    assert_eq!(changes.hops[0].0, 4095);
    assert_eq!(changes.neighbours, [(sender(&late), 4095)]);
}

#[test]
fn ids_come_back_only_when_few_are_left_and_oldest_first() {
    let start = Instant::now();
    let seconds = |s| start + Duration::from_secs(s);
    let used = |count: u16| -> Vec<_> {
        (1..=count)
            .map(|id| (3, IpAddr::from([10, 1, (id >> 8) as u8, id as u8]), id))
            .collect()
    };
    let none = BTreeMap::new();
    for (count, kept) in [(4095 - SPARE as u16, true), (4095, false)] {
        let mut hops = Hops::from_record(&used(count));
        let old = Neighbour {
            address: used(2)[1].1,
            ..neighbour(0, 1)
        };
        // All but the second are unseen from the start; that one is seen for longer.
        look(&mut hops, &[], &none, start);
        look(&mut hops, std::slice::from_ref(&old), &none, seconds(20));
        assert_eq!(
            look(&mut hops, &[], &none, seconds(31)).hops.len(),
            usize::from(count) - 1
        );
        let changes = look(&mut hops, &[neighbour(8, 3)], &none, seconds(32));
        let given = changes.neighbours[0].1;
        assert_eq!(hops.to_record().iter().filter(|r| r.2 == given).count(), 1);
        assert_eq!(given > count, kept);
        let second = hops.to_record().into_iter().find(|r| r.1 == old.address);
        assert_eq!(second.map(|r| r.2), Some(2), "seen later than the others");
    }
}

#[test]
fn only_neighbours_on_attached_interfaces_or_towards_backends_get_ids() {
    let mut hops = Hops::default();
    let other = Interface {
        index: 4,
        name: "docker0".into(),
        ..interface()
    };
    let on_other = |last| Neighbour {
        ifindex: 4,
        ..neighbour(last, last)
    };
    let pod = IpAddr::from([10, 9, 0, 1]);
    let via = Path {
        ifindex: 4,
        ..path(7)
    };
    let changes = hops.update(&Facts {
        interfaces: &[interface(), other],
        neighbours: &[neighbour(9, 1), on_other(7), on_other(8)],
        paths: &BTreeMap::from([(pod, via)]),
        attached: &["eth0".into()],
        xdp: &BTreeSet::new(),
        now: Instant::now(),
    });
    assert_eq!(changes.hops.len(), 2);
    let owners: Vec<_> = hops.to_record().into_iter().map(|r| (r.0, r.1)).collect();
    assert_eq!(
        owners,
        [
            (3, IpAddr::from([10, 0, 0, 9])),
            (4, IpAddr::from([10, 0, 0, 7]))
        ]
    );
}

#[test]
fn an_interface_made_again_leaves_no_entry_behind() {
    let mut hops = Hops::from_record(&[(2, IpAddr::from([10, 0, 0, 5]), 9)]);
    let pod = IpAddr::from([10, 9, 0, 1]);
    let paths = BTreeMap::from([(pod, path(9))]);
    // Index 2 died before this agent started.
    let first = look(&mut hops, &[neighbour(9, 1)], &paths, Instant::now());
    assert!(first.hops.contains(&(9, NextHop::default())));
    let id = hops.by_backend()[&pod];
    // Index 3 dies while it is towards a backend, and the route is not told yet.
    let anew = Interface {
        index: 7,
        ..interface()
    };
    let changes = hops.update(&Facts {
        interfaces: &[anew],
        neighbours: &[neighbour(9, 1)],
        paths: &paths,
        attached: &["eth0".into()],
        xdp: &BTreeSet::new(),
        now: Instant::now(),
    });
    assert_eq!(changes.hops, [(id, NextHop::default())]);
    assert_eq!(changes.gone.len(), 1);
    assert_eq!(changes.addresses, BTreeSet::from([pod]));
    assert_eq!(hops.by_backend()[&pod], 0);
}

#[test]
fn a_neighbour_gone_for_long_is_cleared_unless_a_backend_needs_it() {
    let mut hops = Hops::default();
    let start = Instant::now();
    let pod = IpAddr::from([10, 9, 0, 1]);
    let paths = BTreeMap::from([(pod, path(9))]);
    let first = look(
        &mut hops,
        &[neighbour(8, 1), neighbour(9, 2)],
        &paths,
        start,
    );
    let client = first.hops[1].0;
    let at = |s| start + Duration::from_secs(s);
    assert!(look(&mut hops, &[], &paths, at(30)).hops.is_empty());
    let over = look(&mut hops, &[], &paths, at(31));
    assert_eq!(over.hops, [(client, NextHop::default())]);
    assert_ne!(hops.by_backend()[&pod], 0);
    assert!(look(&mut hops, &[], &paths, at(90)).is_empty());
    // It comes back under the id its flows hold.
    let back = look(&mut hops, &[neighbour(8, 1)], &paths, at(91));
    assert_eq!(back.hops, [(client, first.hops[1].1)]);
}

#[test]
fn stale_neighbours_of_an_earlier_agent_are_removed() {
    let mut hops = Hops::from_record(&[(3, IpAddr::from([10, 0, 0, 9]), 7)]);
    assert!(hops.is_new());
    let (stays, stale) = (sender(&neighbour(9, 1)), sender(&neighbour(8, 2)));
    hops.take_up([(stays, 7), (stale, 8)].into_iter());
    assert!(!hops.is_new());
    let changes = look(
        &mut hops,
        &[neighbour(9, 1)],
        &BTreeMap::new(),
        Instant::now(),
    );
    assert_eq!(changes.gone, [stale]);
    assert!(changes.neighbours.is_empty());
}

#[test]
fn after_a_failed_write_everything_is_written_again() {
    let mut hops = Hops::default();
    let pod = IpAddr::from([10, 9, 0, 1]);
    let paths = BTreeMap::from([(pod, path(9))]);
    let now = Instant::now();
    let first = look(&mut hops, &[neighbour(9, 1)], &paths, now);
    let mut hops = Hops::from_record(&hops.to_record());
    assert_eq!(look(&mut hops, &[neighbour(9, 1)], &paths, now), first);
}

#[test]
fn a_backend_without_a_way_loses_its_hop() {
    let mut hops = Hops::default();
    let pod = IpAddr::from([10, 9, 0, 1]);
    let paths = BTreeMap::from([(pod, path(9))]);
    let now = Instant::now();
    look(&mut hops, &[neighbour(9, 1)], &paths, now);
    let changes = look(&mut hops, &[neighbour(9, 1)], &BTreeMap::new(), now);
    assert_eq!(changes.addresses, BTreeSet::from([pod]));
}

#[test]
fn everyone_in_use_is_probed_in_turn() {
    let mut hops = Hops::default();
    let clients: Vec<_> = (0..300u16)
        .map(|n| Neighbour {
            address: IpAddr::from([10, 2, (n >> 8) as u8, n as u8]),
            ..neighbour(0, 1)
        })
        .collect();
    let paths = BTreeMap::from([(IpAddr::from([10, 9, 0, 1]), path(9))]);
    look(&mut hops, &clients, &paths, Instant::now());
    let first = hops.probes(&paths, Some(3));
    let second = hops.probes(&paths, Some(3));
    assert_eq!(first.len(), PROBES);
    let all: BTreeSet<_> = first.into_iter().chain(second).collect();
    assert_eq!(all.len(), 301, "clients, and the way to the backend");
    // Elsewhere only what leads to backends.
    assert_eq!(hops.probes(&paths, None).len(), 1);
}

#[test]
fn an_entry_stays_while_its_neighbour_answers_under_an_address_of_the_other_family() {
    let mut hops = Hops::default();
    let start = Instant::now();
    let v6 = Neighbour {
        address: "fe80::9".parse().expect("an address"),
        ..neighbour(9, 1)
    };
    let both = [neighbour(9, 1), v6.clone()];
    let first = look(&mut hops, &both, &BTreeMap::new(), start);
    assert_eq!(first.hops.len(), 2);
    // The kernel forgets the IPv4 address of a client that speaks IPv6.
    let later = start + 2 * LINGER;
    let second = look(&mut hops, &[v6], &BTreeMap::new(), later);
    assert_eq!(second.hops, []);
    let gone = look(&mut hops, &[], &BTreeMap::new(), later + 2 * LINGER);
    assert_eq!(gone.hops.len(), 2, "both are cleared when it is gone");
}
