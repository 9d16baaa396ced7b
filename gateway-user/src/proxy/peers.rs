//! What all workers know of one pod: how busy it is, and whether it fails.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::outlier::Outlier;

/// A pod, by its address; the groups that it belongs to share it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    active: AtomicU32,
    pub(super) outlier: Outlier,
}

impl Peer {
    /// Requests that are under way to it, of all workers.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Counts a request for as long as the answer is kept.
    pub(super) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }
}

/// A request under way; dropping it ends that.
#[derive(Debug)]
pub(super) struct Active(Arc<Peer>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Every pod that a worker uses. Asked when groups change, never for a request.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: Mutex<Known>,
    /// Held by whoever puts a pod out, so that no two workers do at once.
    pub(super) ejecting: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    peers: HashMap<SocketAddr, Weak<Peer>>,
    /// When to look for those that are gone.
    full: usize,
}

/// Pods below which nobody looks for those that are gone.
const FEW: usize = 1024;

impl Peers {
    /// The pod at this address, the same one as long as anybody holds it.
    pub(super) fn peer(&self, address: SocketAddr) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.peers.get(&address).and_then(Weak::upgrade) {
            return peer;
        }
        if known.peers.len() >= known.full {
            known.peers.retain(|_, it| it.strong_count() > 0);
            known.full = FEW.max(2 * known.peers.len());
        }
        let peer = Arc::new(Peer {
            address,
            active: AtomicU32::new(0),
            outlier: Outlier::default(),
        });
        known.peers.insert(address, Arc::downgrade(&peer));
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_on_the_same_pod_until_nobody_uses_it() {
        let peers = Peers::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let one = peers.peer(address);
        let request = peers.peer(address).begin();
        assert_eq!(one.active(), 1);
        drop(request);
        assert_eq!(one.active(), 0);
        drop(one);
        for port in 0..3000 {
            drop(peers.peer(SocketAddr::from(([10, 0, 0, 2], port))));
        }
        let known = peers.known.lock().expect("no panic").peers.len();
        assert!(known <= FEW, "{known}");
    }
}
