//! A proxy on loopback between one client and an origin that reads strictly.

use std::{
    io::{self, Read as _, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use gateway_user::{
    ir::Touched,
    proxy::{Proxy, ProxyConfig, Router},
};

use super::{
    cases::Case,
    lock,
    reading::{Front, Read, front},
    site::everything_to,
};

/// What the origin met, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A complete request.
    Request(Box<Read>),
    /// The connection ended in the middle of one.
    Broken,
    /// What is no request: why, and the bytes.
    Bad(&'static str, Vec<u8>),
}

/// What came of a case.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All that the client got.
    pub got: Vec<u8>,
    /// The final statuses in it.
    pub statuses: Vec<u16>,
    /// Complete requests at the origin.
    pub served: Vec<Read>,
    /// Requests that were broken off there.
    pub broken: u64,
    /// What was no request there.
    pub bad: Vec<(&'static str, Vec<u8>)>,
    /// The client was not rid of its connection.
    pub stuck: bool,
}

/// A proxy and its origin.
#[derive(Debug)]
pub struct Stage {
    proxy: Option<Proxy>,
    address: SocketAddr,
    events: Arc<Mutex<Vec<Event>>>,
    /// Connections of the origin that are open.
    open: Arc<AtomicUsize>,
    origin: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.origin);
    }
}

/// Between fewer writes than these, the proxy is given the time to read.
const FEW_CUTS: usize = 8;
/// What ends this long after it should is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

impl Stage {
    /// Starts both, with one rule for everything.
    pub fn build() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the origin")?;
        let origin = listener.local_addr()?;
        let (events, open, stop) = <(Arc<Mutex<_>>, Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        {
            let (events, open, stop) = (Arc::clone(&events), Arc::clone(&open), Arc::clone(&stop));
            thread::spawn(move || accept(&listener, &events, &open, &stop));
        }
        let config = ProxyConfig {
            workers: 1,
            ..ProxyConfig::default()
        };
        let proxy = Proxy::start(config)?;
        let address = proxy.local_addr();
        let ir = everything_to(origin, address.port());
        let vips = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let table = Router::default().update(
            &ir,
            &Touched::all(&ir),
            &vips,
            &gateway_user::tls::Servers::default(),
        );
        proxy.update(table);
        Ok(Self {
            proxy: Some(proxy),
            address,
            events,
            open,
            origin,
            stop,
        })
    }

    /// Sends a case; the client leaves after nothing was heard for `quiet`.
    pub fn play(&mut self, case: &Case, quiet: Duration) -> Result<Outcome> {
        lock(&self.events).clear();
        let mut outcome = Outcome::default();
        let mut stream = TcpStream::connect(self.address).context("the proxy accepts no more")?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        for piece in case.writes() {
            // Who was refused in the middle is not listened to any more.
            if stream.write_all(piece).is_err() {
                break;
            }
            if case.cuts.len() <= FEW_CUTS {
                thread::yield_now();
            }
        }
        stream.set_read_timeout(Some(quiet))?;
        let mut left = false;
        let mut buf = [0; 4096];
        loop {
            match stream.read(&mut buf) {
                Ok(len @ 1..) => outcome.got.extend_from_slice(&buf[..len]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock && !left => {
                    left = true;
                    let _ = stream.shutdown(Shutdown::Write);
                    stream.set_read_timeout(Some(PATIENCE))?;
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    outcome.stuck = true;
                    break;
                }
                Ok(_) | Err(_) => break,
            }
        }
        self.collect(&mut outcome);
        Ok(outcome)
    }

    /// Whether a plain request of a new client is served.
    pub fn serves(&mut self) -> bool {
        let ask = || -> io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut got = String::new();
            stream.read_to_string(&mut got)?;
            Ok(got)
        };
        let before = lock(&self.events).len();
        let served = ask().is_ok_and(|got| got.starts_with("HTTP/1.1 200 OK\r\n"));
        let mut events = lock(&self.events);
        let plain = |event: &Event| matches!(event, Event::Request(it) if it.target == b"/plain");
        let at = events.iter().skip(before).position(plain);
        match at {
            Some(at) => drop(events.remove(before + at)),
            None => return false,
        }
        served
    }

    /// Ends the proxy, and adds what the origin still met then.
    pub fn end(mut self, outcome: &mut Outcome) {
        drop(self.proxy.take());
        let until = Instant::now() + PATIENCE;
        while self.open.load(SeqCst) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        self.collect(outcome);
    }

    /// Takes what the origin has met.
    fn collect(&mut self, outcome: &mut Outcome) {
        for event in lock(&self.events).drain(..) {
            match event {
                Event::Request(read) => outcome.served.push(*read),
                Event::Broken => outcome.broken += 1,
                Event::Bad(why, bytes) => outcome.bad.push((why, bytes)),
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    events: &Arc<Mutex<Vec<Event>>>,
    open: &Arc<AtomicUsize>,
    stop: &AtomicBool,
) {
    for stream in listener.incoming() {
        if stop.load(SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let (events, open) = (Arc::clone(events), Arc::clone(open));
        open.fetch_add(1, SeqCst);
        thread::spawn(move || {
            // An error is an end, too.
            let _ = serve(stream, &events);
            open.fetch_sub(1, SeqCst);
        });
    }
}

/// Answers every request with what it was.
fn serve(mut stream: TcpStream, events: &Mutex<Vec<Event>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    let mut buf = [0; 16 * 1024];
    let mut told = false;
    loop {
        match front(&held) {
            Front::Request(read, len) => {
                held.drain(..len);
                told = false;
                let body: &[u8] = if read.method == b"HEAD" { b"" } else { b"ok" };
                let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-seen: ".to_vec();
                answer.extend([&read.method, b" ".as_slice(), &read.target].concat());
                answer.extend([b"\r\n\r\n".as_slice(), body].concat());
                lock(events).push(Event::Request(read));
                stream.write_all(&answer)?;
                continue;
            }
            Front::Bad(why) => {
                lock(events).push(Event::Bad(why, held));
                return Ok(());
            }
            Front::More { expects: true } if !told => {
                told = true;
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            Front::More { .. } => {}
        }
        match stream.read(&mut buf) {
            Ok(len @ 1..) => held.extend_from_slice(&buf[..len]),
            Ok(_) | Err(_) => {
                if !held.is_empty() {
                    lock(events).push(Event::Broken);
                }
                return Ok(());
            }
        }
    }
}
