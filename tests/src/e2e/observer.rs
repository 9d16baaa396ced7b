//! Looks at what the kernel steers by, again and again, and notes every moment in which that is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gateway_common::{
    backend::state,
    service::{Service, ServiceKey, mode},
};
use gateway_user::{
    dataplane::{
        pins::Pins,
        tables::{Tables, service_key},
    },
    plan::{ServiceAddr, Transport},
};

use super::VIP;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(3);
/// Wrong moments that are told in full.
const TOLD: usize = 5;

/// Pod addresses and ports.
pub type Pods = BTreeSet<SocketAddr>;

/// A thread that looks at the pinned maps until it is dropped.
///
/// Of each listener that the kernel steers it knows which pods must be in the ring and which may be: while a change is
/// under way, those that are in both the old and the new state must be there, and those of either may be. As soon as the
/// new state was seen, nothing else is right.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rings: BTreeMap<u16, Ring>,
    /// Ports of listeners that the proxy must have.
    proxied: BTreeSet<u16>,
    wrong: Vec<String>,
    looks: u64,
}

/// What a ring should be.
#[derive(Debug)]
struct Ring {
    must: Pods,
    may: Pods,
    /// The new state, and since when it is wanted, until it was seen.
    wanted: Option<(Pods, Instant)>,
    seen: Pods,
    /// How long the last change took.
    took: Duration,
}

impl Observer {
    /// Looks at the maps pinned there. `proxied` are ports that must be in the hands of the proxy.
    pub fn start(pins: &Path, proxied: &[u16]) -> Result<Self> {
        let tables = Tables::open(&Pins::new(pins))?;
        let shared = Arc::new(Shared::default());
        shared.lock().proxied = proxied.iter().copied().collect();
        let watched = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !watched.stop.load(Ordering::Relaxed) {
                watched.look(&tables);
                thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// From now on the ring of this port should come to hold just these pods.
    pub fn want(&self, port: u16, pods: &Pods) {
        let mut state = self.shared.lock();
        let now = Instant::now();
        if let Some(ring) = state.rings.get_mut(&port) {
            ring.must = ring.must.intersection(pods).copied().collect();
            ring.may.extend(pods);
            ring.wanted = Some((pods.clone(), now));
            return;
        }
        let ring = Ring {
            must: Pods::new(),
            may: pods.clone(),
            wanted: Some((pods.clone(), now)),
            seen: Pods::new(),
            took: Duration::ZERO,
        };
        state.rings.insert(port, ring);
    }

    /// Counts the time of the changes that are under way from now: what kept them is over.
    pub fn from_now(&self) {
        let mut state = self.shared.lock();
        let now = Instant::now();
        for ring in state.rings.values_mut() {
            if let Some((_, since)) = &mut ring.wanted {
                *since = now;
            }
        }
    }

    /// Waits until the ring of this port is as wanted. Returns how long that took; fails after `within`.
    pub fn settled(&self, port: u16, within: Duration) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let state = self.shared.lock();
            let ring = state.rings.get(&port).context("nothing is wanted of it")?;
            match &ring.wanted {
                None => {
                    ensure!(
                        ring.took <= within,
                        "{port}: in force after {:?}, not within {within:?}",
                        ring.took
                    );
                    return Ok(ring.took);
                }
                Some((pods, _)) if begun.elapsed() > within => {
                    bail!(
                        "{port}: not in force within {within:?}: {:?}, wanted {pods:?}",
                        ring.seen
                    )
                }
                Some(_) => {}
            }
            drop(state);
            thread::sleep(PAUSE);
        }
    }

    /// [`Self::want`], does it, and waits until it is in force.
    pub fn change(
        &self,
        port: u16,
        pods: &Pods,
        within: Duration,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        self.want(port, pods);
        act()?;
        self.settled(port, within)
    }

    /// Fails if anything was wrong so far, or if nobody looked. Returns how often it was looked.
    pub fn all_right(&self) -> Result<u64> {
        let state = self.shared.lock();
        ensure!(state.looks > 0, "nobody looked");
        let told = state.wrong.iter().take(TOLD).cloned().collect::<Vec<_>>();
        ensure!(
            told.is_empty(),
            "{} of {} looks were wrong: {}",
            state.wrong.len(),
            state.looks,
            told.join("\n")
        );
        Ok(state.looks)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it panicked, the harness has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, tables: &Tables) {
        let (rings, proxied): (Vec<u16>, Vec<u16>) = {
            let state = self.lock();
            let rings = state.rings.keys().copied();
            (rings.collect(), state.proxied.iter().copied().collect())
        };
        for port in proxied {
            let found = tables.services.get(&key(port), 0);
            if !matches!(&found, Ok(service) if service.mode == mode::L7) {
                self.lock()
                    .wrong
                    .push(format!("{port}: not the proxy's: {found:?}"));
            }
        }
        for port in rings {
            let Some(found) = ring(tables, port) else {
                continue;
            };
            let mut state = self.lock();
            let state = &mut *state;
            if let Some(ring) = state.rings.get_mut(&port) {
                state.wrong.extend(ring.judge(port, found));
            }
        }
        self.lock().looks += 1;
    }
}

impl Ring {
    /// Takes in what was found; says what is wrong with it.
    fn judge(&mut self, port: u16, found: Result<Pods, String>) -> Option<String> {
        let found = match found {
            // Before anything was wanted, there need not be anything.
            Err(_) if self.must.is_empty() && self.seen.is_empty() => return None,
            Err(why) => return Some(format!("{port}: {why}")),
            Ok(found) => found,
        };
        let right = self.must.is_subset(&found) && found.is_subset(&self.may) && !found.is_empty();
        self.seen.clone_from(&found);
        let wrong = (!right).then(|| {
            format!(
                "{port}: {found:?}; these must be there: {:?}, and these may: {:?}",
                self.must, self.may
            )
        });
        if let Some((pods, since)) = self.wanted.take_if(|(pods, _)| *pods == found) {
            self.took = since.elapsed();
            self.must.clone_from(&pods);
            self.may = pods;
        }
        wrong
    }
}

fn key(port: u16) -> ServiceKey {
    service_key(&ServiceAddr {
        transport: Transport::Tcp,
        address: (VIP, port).into(),
    })
}

/// The pods of a listener's ring, or why it has none. `None`: it was replaced while we looked.
fn ring(tables: &Tables, port: u16) -> Option<Result<Pods, String>> {
    let key = key(port);
    let Ok(service) = tables.services.get(&key, 0) else {
        return Some(Err("the kernel has no entry".to_owned()));
    };
    let found = pods(tables, &service);
    let again = tables.services.get(&key, 0);
    again.is_ok_and(|again| again == service).then_some(found)
}

fn pods(tables: &Tables, service: &Service) -> Result<Pods, String> {
    if service.mode != mode::NAT {
        return Err(format!("not steered by the kernel: {service:?}"));
    }
    let slots = service.ring_off..service.ring_off + service.ring_len;
    let ids: Result<BTreeSet<u32>, _> = slots.map(|slot| tables.rings.get(&slot, 0)).collect();
    let ids = ids.map_err(|error| error.to_string())?;
    ids.into_iter()
        .map(|id| {
            let backend = tables.backends.get(&id, 0).map_err(|e| e.to_string())?;
            if backend.state != state::ACTIVE {
                return Err(format!("a slot holds {id}: {backend:?}"));
            }
            Ok(SocketAddr::new(backend.addr.into(), backend.port.host()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(numbers: &[u8]) -> Pods {
        let address = |number: &u8| SocketAddr::from(([10, 0, 0, *number], 80));
        numbers.iter().map(address).collect()
    }

    /// A ring with two pods, one of which is to be replaced.
    fn changing() -> Ring {
        Ring {
            must: pods(&[1]),
            may: pods(&[1, 2, 3]),
            wanted: Some((pods(&[1, 3]), Instant::now())),
            seen: pods(&[1, 2]),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn until_a_change_is_seen_the_old_state_is_right_and_then_it_is_wrong() {
        let mut ring = changing();
        assert_eq!(ring.judge(80, Ok(pods(&[1, 2]))), None);
        assert_eq!(ring.judge(80, Ok(pods(&[1, 2, 3]))), None);
        assert!(ring.wanted.is_some());
        assert_eq!(ring.judge(80, Ok(pods(&[1, 3]))), None);
        assert!(ring.wanted.is_none());
        assert!(ring.judge(80, Ok(pods(&[1, 2]))).is_some());
    }

    #[test]
    fn a_pod_too_many_one_too_few_and_no_ring_are_wrong() {
        for found in [
            Ok(pods(&[1, 4])),
            Ok(pods(&[2, 3])),
            Ok(pods(&[])),
            Err("the kernel has no entry".to_owned()),
        ] {
            assert!(changing().judge(80, found).is_some());
        }
    }
}
