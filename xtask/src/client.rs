//! The lab's client: real TCP connections, real HTTP/1.1 requests, and an account of who answered.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use self::exchange::{Connection, Failure};

pub mod exchange;

/// What to send.
#[derive(Clone, Debug)]
pub struct Job {
    /// The VIP, or a pod.
    pub target: SocketAddr,
    /// Path of every request.
    pub path: String,
    /// Added to every request, as `(name, value)`.
    pub headers: Vec<(String, String)>,
    /// How requests are laid over connections.
    pub pattern: Pattern,
    /// Connections open at once.
    pub threads: u16,
    /// Wait between two requests of one thread.
    pub pause: Duration,
    /// Stops early, with whatever was done by then.
    pub at_most: Duration,
    /// Keep a line for each answer in [`Tally::timeline`].
    pub timeline: bool,
}

/// How requests are laid over connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pattern {
    /// A new connection for each request, `Connection: close`; this many.
    OnePerConnection(u64),
    /// One keep-alive connection for each thread, and this many requests over all of them.
    KeepAlive(u64),
}

impl Job {
    /// One request over each of `connections` connections, by 16 threads.
    pub fn connections(target: SocketAddr, connections: u64) -> Self {
        Self {
            target,
            path: "/".into(),
            headers: Vec::new(),
            pattern: Pattern::OnePerConnection(connections),
            threads: 16,
            pause: Duration::ZERO,
            at_most: Duration::from_secs(60),
            timeline: false,
        }
    }

    /// `requests` over 16 keep-alive connections.
    pub fn requests(target: SocketAddr, requests: u64) -> Self {
        Self {
            pattern: Pattern::KeepAlive(requests),
            ..Self::connections(target, 0)
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Connections that were established.
    pub connections: u64,
    /// Requests that got a good answer.
    pub requests: u64,
    /// Failures by kind; see [`Failure`].
    pub errors: BTreeMap<String, u64>,
    /// Good answers by `cluster/pod`.
    pub by_pod: BTreeMap<String, u64>,
    /// Keep-alive connections on which more than one pod answered.
    pub moved: u64,
    /// How long it all took.
    pub seconds: f64,
    /// When asked for: moment the request was begun, and who answered; in no particular order.
    #[serde(skip)]
    pub timeline: Vec<(SystemTime, String)>,
}

impl Tally {
    /// Failures of every kind.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.moved += other.moved;
        self.timeline.extend(other.timeline);
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        for (pod, count) in other.by_pod {
            *self.by_pod.entry(pod).or_default() += count;
        }
    }
}

/// Does the job, on `job.threads` threads that inherit the caller's network namespace.
pub fn run(job: &Job) -> Tally {
    run_until(job, &AtomicBool::new(false))
}

/// Does the job until it is done or `stop` becomes true.
pub fn run_until(job: &Job, stop: &AtomicBool) -> Tally {
    let started = Instant::now();
    let (Pattern::OnePerConnection(total) | Pattern::KeepAlive(total)) = job.pattern;
    let tickets = AtomicU64::new(0);
    let go_on = || {
        !stop.load(Ordering::Relaxed)
            && started.elapsed() < job.at_most
            && tickets.fetch_add(1, Ordering::Relaxed) < total
    };
    let mut all = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..job.threads.max(1))
            .map(|_| scope.spawn(|| work(job, &go_on)))
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => all.add(tally),
                Err(_) => *all.errors.entry("client_panicked".into()).or_default() += 1,
            }
        }
    });
    all.seconds = started.elapsed().as_secs_f64();
    all
}

fn work(job: &Job, go_on: &dyn Fn() -> bool) -> Tally {
    let mut tally = Tally::default();
    let request = exchange::request(job);
    let mut open: Option<Held> = None;
    while go_on() {
        let begun = SystemTime::now();
        match one(job, &request, &mut open, &mut tally.connections) {
            Ok(pod) => {
                tally.requests += 1;
                if let Some(held) = &mut open {
                    tally.moved += u64::from(held.answered_by(&pod));
                }
                if job.timeline {
                    tally.timeline.push((begun, pod.clone()));
                }
                *tally.by_pod.entry(pod).or_default() += 1;
            }
            Err(failure) => {
                open = None;
                *tally.errors.entry(failure.to_string()).or_default() += 1;
                // A refusing target must not be hammered.
                thread::sleep(Duration::from_millis(5));
            }
        }
        if !job.pause.is_zero() {
            thread::sleep(job.pause);
        }
    }
    tally
}

/// One request, over a new connection or the open one.
fn one(
    job: &Job,
    request: &[u8],
    open: &mut Option<Held>,
    connections: &mut u64,
) -> Result<String, Failure> {
    if job.pattern_closes() {
        let mut connection = Connection::open(job.target)?;
        *connections += 1;
        let answer = connection.exchange(request)?;
        connection.finish()?;
        return Ok(answer.pod);
    }
    let mut held = match open.take() {
        Some(held) => held,
        None => {
            let connection = Connection::open(job.target)?;
            *connections += 1;
            Held {
                connection,
                pod: None,
                moved: false,
            }
        }
    };
    let answer = held.connection.exchange(request)?;
    // The server may close after any answer; then the next request opens anew.
    if answer.keep_alive {
        *open = Some(held);
    }
    Ok(answer.pod)
}

impl Job {
    fn pattern_closes(&self) -> bool {
        matches!(self.pattern, Pattern::OnePerConnection(_))
    }
}

struct Held {
    connection: Connection,
    pod: Option<String>,
    moved: bool,
}

impl Held {
    /// True the first time another pod answers than the first one.
    fn answered_by(&mut self, pod: &str) -> bool {
        match &self.pod {
            None => {
                self.pod = Some(pod.to_owned());
                false
            }
            Some(first) => first != pod && !std::mem::replace(&mut self.moved, true),
        }
    }
}

/// One GET, for metrics and readiness: status and body.
pub fn get(target: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    exchange::get(target, path)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::pod;

    fn some_pod(name: &'static str) -> SocketAddr {
        let free = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("loopback");
        thread::spawn(move || pod::serve("c1", name, free));
        while std::net::TcpStream::connect(free).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        free
    }

    #[test]
    fn every_connection_is_counted_once_with_the_pod_that_answered() {
        let tally = run(&Job::connections(some_pod("p1"), 300));
        assert_eq!(
            (tally.connections, tally.requests, tally.failed()),
            (300, 300, 0)
        );
        assert_eq!(tally.by_pod, BTreeMap::from([("c1/p1".into(), 300)]));
    }

    #[test]
    fn keep_alive_needs_no_more_connections_than_threads() {
        let job = Job {
            threads: 4,
            timeline: true,
            ..Job::requests(some_pod("p1"), 200)
        };
        let tally = run(&job);
        assert_eq!((tally.requests, tally.failed(), tally.moved), (200, 0, 0));
        assert!(tally.connections <= 4, "{}", tally.connections);
        assert_eq!(tally.timeline.len(), 200);
    }

    #[test]
    fn a_closed_port_is_counted_as_refused() {
        let free = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("loopback");
        let tally = run(&Job {
            threads: 1,
            ..Job::connections(free, 3)
        });
        assert_eq!(
            tally.errors,
            BTreeMap::from([("connect_refused".into(), 3)])
        );
        assert_eq!(tally.connections, 0);
    }

    #[test]
    fn a_get_returns_status_and_body() {
        let (status, body) = get(some_pod("p9"), "/").expect("an answer");
        assert_eq!(
            (status, body.as_str()),
            (200, r#"{"cluster":"c1","pod":"p9"}"#)
        );
    }
}
