use super::*;

const LEASE: Duration = Duration::from_secs(15);

/// A Lease as the API server keeps it.
#[derive(Default)]
struct Server {
    lease: Option<(Record, u64)>,
}

/// A node, its own clock and what it can reach.
struct Node {
    election: Election,
    /// This node's wall clock is ahead by so much.
    skew_seconds: i64,
    start: Instant,
}

impl Node {
    fn new(name: &str, skew_seconds: i64) -> Self {
        // Monotonic clocks of two machines have nothing to do with each other.
        let start = Instant::now() + Duration::from_secs(skew_seconds.unsigned_abs());
        Self {
            election: Election::new(name.into(), LEASE, start),
            skew_seconds,
            start,
        }
    }

    fn now(&self, at: Duration) -> Instant {
        self.start + at
    }

    fn wall(&self, at: Duration) -> Timestamp {
        let seconds = 1_700_000_000 + self.skew_seconds + at.as_secs() as i64;
        Timestamp::from_second(seconds).expect("a time")
    }

    fn leads(&self, at: Duration) -> bool {
        self.election.term(self.now(at)).is_some()
    }

    /// Makes every request that is due at `at`; all of them are answered at once.
    fn run(&mut self, server: &mut Server, at: Duration) {
        for _ in 0..8 {
            if !self.step(server, at) {
                return;
            }
        }
        panic!("requests without end");
    }

    fn step(&mut self, server: &mut Server, at: Duration) -> bool {
        let now = self.now(at);
        match self.election.next(now, self.wall(at)) {
            Move::Wait(until) => {
                assert!(until > now);
                return false;
            }
            Move::Read => {
                let lease = server.lease.clone();
                let lease = lease.map(|(record, version)| (record, version.to_string()));
                self.election.observed(lease, now);
            }
            Move::Create(record) if server.lease.is_none() => {
                server.lease = Some((record.clone(), 1));
                self.election.written(record, "1".into(), now);
            }
            Move::Create(_) => self.election.refused(),
            Move::Replace(record, version) => match &mut server.lease {
                Some((held, at)) if at.to_string() == version => {
                    *held = record.clone();
                    *at += 1;
                    self.election.written(record, at.to_string(), now);
                }
                _ => self.election.refused(),
            },
        }
        true
    }

    /// Makes one request at `at` that nobody answers.
    fn lost(&mut self, at: Duration) {
        let now = self.now(at);
        if !matches!(self.election.next(now, self.wall(at)), Move::Wait(_)) {
            self.election.unanswered(now);
        }
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_first_node_makes_the_lease_and_keeps_it() {
    let mut server = Server::default();
    let (mut a, mut b) = (Node::new("a", 0), Node::new("b", 0));
    for second in 0..120 {
        a.run(&mut server, s(second));
        b.run(&mut server, s(second));
        assert!(a.leads(s(second)) && !b.leads(s(second)), "at {second} s");
    }
    let (record, version) = server.lease.expect("there is a Lease");
    assert_eq!((record.holder.as_str(), record.transitions), ("a", 0));
    // Made once, renewed every 5 s.
    assert_eq!(version, 1 + 119 / 5);
}

#[test]
fn clocks_that_disagree_by_an_hour_change_nothing() {
    for skew in [-3600, 3600] {
        let mut server = Server::default();
        let (mut a, mut b) = (Node::new("a", 0), Node::new("b", skew));
        for second in 0..60 {
            a.run(&mut server, s(second));
            b.run(&mut server, s(second));
            assert!(a.leads(s(second)) && !b.leads(s(second)));
        }
        // a is gone.
        let taken = (60..120).find(|second| {
            b.run(&mut server, s(*second));
            b.leads(s(*second))
        });
        // Renewed last at 55 s, which b saw at 57 s.
        assert_eq!(taken, Some(72));
    }
}

#[test]
fn a_leader_that_cannot_renew_stops_before_another_begins() {
    for cut_at in 1..20 {
        let mut server = Server::default();
        let (mut a, mut b) = (Node::new("a", 0), Node::new("b", 7));
        let mut changed = None;
        for tenth in 0..600 {
            let at = Duration::from_millis(100 * tenth);
            if at < s(cut_at) {
                a.run(&mut server, at);
            } else {
                a.lost(at);
            }
            b.run(&mut server, at);
            assert!(!(a.leads(at) && b.leads(at)), "two leaders at {at:?}");
            if b.leads(at) && changed.is_none() {
                changed = Some(at);
            }
        }
        let changed = changed.expect("b took over");
        // b looks every 3 s, and counts from when it saw the last renewal.
        assert!(changed <= s(cut_at) + LEASE + s(3), "{changed:?}");
        let (record, _) = server.lease.expect("there is a Lease");
        assert_eq!((record.holder.as_str(), record.transitions), ("b", 1));
    }
}

#[test]
fn writes_of_a_lost_term_end_before_the_next_begins() {
    let mut server = Server::default();
    let mut a = Node::new("a", 0);
    a.run(&mut server, s(0));
    let term = a.election.term(a.now(s(9))).expect("a leads");
    assert_eq!(term.allows(a.now(s(9)), s(3)), Some(s(3)));
    assert_eq!(term.allows(a.now(s(9)), s(30)), Some(s(6)));
    assert_eq!(term.allows(a.now(s(10)), s(3)), None);
    assert_eq!(a.election.term(a.now(s(10))), None);
    assert_eq!(Term::ENDLESS.allows(a.now(s(99)), s(3)), Some(s(3)));
}

#[test]
fn a_renewal_whose_answer_was_lost_is_found_again() {
    let mut server = Server::default();
    let mut a = Node::new("a", 0);
    a.run(&mut server, s(0));
    // Carried out, but a does not hear of it.
    let Move::Replace(record, _) = a.election.next(a.now(s(5)), a.wall(s(5))) else {
        panic!("a renewal was due");
    };
    server.lease = Some((record, 2));
    a.election.unanswered(a.now(s(5)));
    for second in 6..30 {
        a.run(&mut server, s(second));
        assert!(a.leads(s(second)));
        assert_eq!(
            a.election.term(a.now(s(second))).map(|it| it.number),
            Some(1)
        );
    }
}

#[test]
fn a_label_on_the_lease_costs_a_read_and_is_no_sign_of_life() {
    let mut server = Server::default();
    let (mut a, mut b) = (Node::new("a", 0), Node::new("b", 0));
    let touch = |server: &mut Server| {
        if let Some((_, version)) = &mut server.lease {
            *version += 1;
        }
    };
    for second in 0..30 {
        a.run(&mut server, s(second));
        b.run(&mut server, s(second));
        touch(&mut server);
        assert!(a.leads(s(second)) && !b.leads(s(second)));
    }
    let taken = (30..90).find(|second| {
        touch(&mut server);
        b.run(&mut server, s(*second));
        b.leads(s(*second))
    });
    // Renewed last at 25 s, which b saw at 27 s.
    assert_eq!(taken, Some(42));
}

#[test]
fn a_leader_whose_lease_was_taken_stops_at_once() {
    let mut server = Server::default();
    let mut a = Node::new("a", 0);
    a.run(&mut server, s(0));
    if let Some((record, version)) = &mut server.lease {
        record.holder = "b".into();
        *version += 1;
    }
    a.run(&mut server, s(5));
    assert!(!a.leads(s(5)));
}

#[test]
fn a_deleted_lease_is_made_anew_by_one_of_them() {
    let mut server = Server::default();
    let (mut a, mut b) = (Node::new("a", 0), Node::new("b", 0));
    for second in 0..60 {
        if second == 20 {
            server.lease = None;
        }
        a.run(&mut server, s(second));
        b.run(&mut server, s(second));
    }
    assert!(a.leads(s(59)) != b.leads(s(59)));
}

#[test]
fn a_released_lease_is_taken_at_the_next_look() {
    let mut server = Server::default();
    let (mut a, mut b) = (Node::new("a", 0), Node::new("b", 0));
    a.run(&mut server, s(0));
    b.run(&mut server, s(0));
    let (record, version) = a.election.release(a.wall(s(1))).expect("a held it");
    assert_eq!((record.holder.as_str(), version.as_str()), ("", "1"));
    server.lease = Some((record, 2));
    assert!(!a.leads(s(1)));
    assert_eq!(b.election.release(b.wall(s(1))), None);
    for second in 1..=3 {
        b.run(&mut server, s(second));
    }
    assert!(b.leads(s(3)));
    let (record, _) = server.lease.expect("there is a Lease");
    assert_eq!(record.transitions, 1);
}

#[test]
fn a_lease_that_says_it_lasts_for_years_does_not() {
    let record = Record {
        holder: "x".into(),
        duration: Duration::from_secs(1 << 31),
        ..Record::default()
    };
    let mut server = Server {
        lease: Some((record, 9)),
    };
    let mut a = Node::new("a", 0);
    let taken = (0..200).find(|second| {
        a.run(&mut server, s(*second));
        a.leads(s(*second))
    });
    assert_eq!(taken, Some(60));
}
