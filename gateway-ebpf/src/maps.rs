//! The maps, and the pipeline's tables on them.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_ns, bpf_loop},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockMap, lpm_trie::Key},
};
use gateway_common::{
    addr::Addr,
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::{Admission, Clock, Config},
    datapath::{Answers, Claim, Search, Step, Tables},
    flow::{Flow, FlowKey},
    hash::scale,
    limits::{self, AclKey, AclNet, Bucket, SourceKey},
    maps as spec,
    monitor::{Scratch, Switch},
    pod::Shared,
    ports::Mark,
    service::{Service, ServiceKey},
    stats::{Count, Traffic},
    vip::{ANSWERS_PER_TICK, Budget, VipKey},
};

#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(spec::FLOWS.1, 0);
// Not preallocated: only listeners that exist take memory. Memory of a replaced entry may be reused at
// once, so `opening` looks twice.
#[map]
pub static SERVICES: HashMap<ServiceKey, Service> =
    HashMap::with_max_entries(spec::SERVICES.1, BPF_F_NO_PREALLOC);
/// Addresses of listeners.
#[map]
static VIPS: HashMap<VipKey, u32> = HashMap::with_max_entries(spec::VIPS.1, BPF_F_NO_PREALLOC);
/// What this CPU has answered lately, by kind.
#[map]
static ANSWERS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(spec::ANSWERS.1, 0);
#[map]
static RINGS: Array<u32> = Array::with_max_entries(spec::RINGS.1, 0);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(spec::BACKENDS.1, 0);
#[map]
static HOPS: Array<NextHop> = Array::with_max_entries(spec::HOPS.1, 0);
#[map]
static NEIGHBOURS: HashMap<NeighbourKey, u32> =
    HashMap::with_max_entries(spec::NEIGHBOURS.1, BPF_F_NO_PREALLOC);
#[map]
static SNATS: Array<Snat> = Array::with_max_entries(spec::SNATS.1, 0);
#[map]
static PORT_MARKS: Array<Mark> = Array::with_max_entries(spec::PORT_MARKS.1, 0);
#[map]
static LIVE: Array<u64> = Array::with_max_entries(spec::LIVE.1, 0);
#[map]
static ADMISSION: Array<Admission> = Array::with_max_entries(spec::ADMISSION.1, 0);
#[map]
static SEARCH: PerCpuArray<Search> = PerCpuArray::with_max_entries(spec::SEARCH.1, 0);
#[map]
static AFFINITY: LruHashMap<AffinityKey, Affinity> =
    LruHashMap::with_max_entries(spec::AFFINITY.1, 0);
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(spec::CONFIG.1, 0);
#[map]
pub static CLOCK: Array<Clock> = Array::with_max_entries(spec::CLOCK.1, 0);
#[map]
static SERVICE_STATS: PerCpuArray<Traffic> =
    PerCpuArray::with_max_entries(spec::SERVICE_STATS.1, 0);
#[map]
static BACKEND_STATS: PerCpuArray<Traffic> =
    PerCpuArray::with_max_entries(spec::BACKEND_STATS.1, 0);
#[map]
static REASON_STATS: PerCpuArray<Count> = PerCpuArray::with_max_entries(spec::REASON_STATS.1, 0);
// Networks of all lists in one trie: the list is the first 32 bits.
#[map]
static ACLS: LpmTrie<AclNet, u32> = LpmTrie::with_max_entries(spec::ACLS.1, 0);
#[map]
static BUDGETS: Array<Bucket> = Array::with_max_entries(spec::BUDGETS.1, 0);
// LRU: whoever is forgotten begins with a full bucket; the budget of the service still holds.
#[map]
static SOURCES: LruHashMap<SourceKey, Bucket> = LruHashMap::with_max_entries(spec::SOURCES.1, 0);
#[map]
pub static MONITOR: Array<Switch> = Array::with_max_entries(spec::MONITOR.1, 0);
#[map]
pub static MONITOR_SCRATCH: PerCpuArray<Scratch> =
    PerCpuArray::with_max_entries(spec::MONITOR_SCRATCH.1, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(spec::EVENTS.1, 0);
#[map]
pub static SOCKETS: SockMap = SockMap::with_max_entries(spec::SOCKETS.1, 0);
/// Written and read by user space only.
#[map]
static METADATA: HashMap<u32, [u8; spec::METADATA_CHUNK]> =
    HashMap::with_max_entries(spec::METADATA.1, BPF_F_NO_PREALLOC);

/// The kernel's answer to a key that exists.
const EEXIST: i32 = -17;

/// The tables of the pipeline. `XDP`: a packet without a resolved next hop is left to TC.
pub struct Kernel<const XDP: bool>;

impl<const XDP: bool> Tables for Kernel<XDP> {
    const NEEDS_HOP: bool = XDP;

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: takes no arguments; the verifier turns it into a load.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&Shared<Flow>> {
        let flow = FLOWS.get_ptr(key)?;
        // SAFETY: map values live until the program ends; `Shared` is transparent and only accesses
        // them volatile, so that another CPU may write them, or give the element to another flow.
        Some(unsafe { &*flow.cast::<Shared<Flow>>() })
    }

    #[inline(always)]
    fn claim(&self, key: &FlowKey, flow: &Flow) -> Claim {
        match FLOWS.insert(key, flow, BPF_NOEXIST as u64) {
            Ok(()) => Claim::Done,
            Err(EEXIST) => Claim::Taken,
            Err(_) => Claim::Full,
        }
    }

    #[inline(always)]
    fn forget(&self, key: &FlowKey) -> bool {
        FLOWS.remove(key).is_ok()
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        // SAFETY: plain integers in map memory; the caller checks that they still stand.
        unsafe { SERVICES.get(key) }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        RINGS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn hop(&self, id: u32) -> Option<&NextHop> {
        HOPS.get(id)
    }

    #[inline(always)]
    fn neighbour(&self, key: &NeighbourKey) -> u32 {
        // SAFETY: one aligned word of map memory.
        unsafe { NEIGHBOURS.get(key) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn snat(&self, index: u32) -> Option<&Snat> {
        SNATS.get(index)
    }

    #[inline(always)]
    fn mark(&self, slot: u32) -> Option<&Shared<Mark>> {
        let mark = PORT_MARKS.get_ptr(slot)?;
        // SAFETY: as in `flow`.
        Some(unsafe { &*mark.cast::<Shared<Mark>>() })
    }

    #[inline(always)]
    fn freed(&self, slot: u32) {
        if let Some(mark) = PORT_MARKS.get_ptr_mut(slot) {
            // SAFETY: the field is a live word, aligned to 8.
            unsafe { add(&raw mut (*mark).freed, 1) };
        }
    }

    #[inline(always)]
    fn search<R>(&self, go: impl FnOnce(&mut Search) -> R) -> Option<R> {
        let search = SEARCH.get_ptr_mut(0)?;
        // SAFETY: this CPU's own value, and programs of one CPU do not interrupt each other.
        Some(go(unsafe { &mut *search }))
    }

    /// By `bpf_loop`, since Linux 5.17: the verifier looks at one round and not at all of them.
    #[inline(always)]
    fn repeat<S: Step>(&self, times: u32, state: &mut S) {
        let round: unsafe extern "C" fn(u64, *mut c_void) -> i64 = round::<S>;
        // SAFETY: the kernel calls `round` with the pointer given here, on this stack, and keeps neither.
        unsafe { bpf_loop(times, round as *mut c_void, (&raw mut *state).cast(), 0) };
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<&Shared<Affinity>> {
        let entry = AFFINITY.get_ptr(key)?;
        // SAFETY: as in `flow`.
        Some(unsafe { &*entry.cast::<Shared<Affinity>>() })
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        // A client that finds no room goes where the ring says.
        let _ = AFFINITY.insert(key, affinity, 0);
    }

    #[inline(always)]
    fn vip(&self, addr: &Addr) -> bool {
        VIPS.get_ptr(VipKey { addr: *addr }).is_some()
    }

    #[inline(always)]
    fn may_answer(&self, kind: Answers) -> bool {
        let Some(budget) = ANSWERS.get_ptr_mut(kind as u32) else {
            return false;
        };
        // SAFETY: this CPU's own value, and programs of one CPU do not interrupt each other.
        let budget = unsafe { &mut *budget };
        let now = self.now();
        if budget.tick != now {
            *budget = Budget {
                tick: now,
                count: 0,
            };
        }
        budget.count += 1;
        budget.count <= ANSWERS_PER_TICK
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: takes no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn allowed(&self, acl: u16, client: &Addr) -> bool {
        lets_in(acl, client)
    }

    #[inline(always)]
    fn budget(&self, service: u32) -> Option<&Shared<Bucket>> {
        let bucket = BUDGETS.get_ptr(service)?;
        // SAFETY: as in `flow`.
        Some(unsafe { &*bucket.cast::<Shared<Bucket>>() })
    }

    #[inline(always)]
    fn source(&self, key: &SourceKey) -> Option<&Shared<Bucket>> {
        let bucket = SOURCES.get_ptr(key)?;
        // SAFETY: as in `flow`.
        Some(unsafe { &*bucket.cast::<Shared<Bucket>>() })
    }

    #[inline(always)]
    fn add_source(&self, key: &SourceKey, bucket: &Bucket) {
        let _ = SOURCES.insert(key, bucket, 0);
    }

    #[inline(always)]
    fn spend(&self, bucket: &Shared<Bucket>, nanoseconds: u64) {
        // SAFETY: a live word of map memory.
        unsafe { add(bucket.as_ptr().cast(), nanoseconds) };
    }

    #[inline(always)]
    fn count_traffic(&self, service: u32, backend: u32, reply: bool, bytes: u32) {
        for stats in [
            SERVICE_STATS.get_ptr_mut(service),
            BACKEND_STATS.get_ptr_mut(backend),
        ] {
            let Some(stats) = stats else { continue };
            // SAFETY: this CPU's own value, and programs of one CPU do not interrupt each other.
            let stats = unsafe { &mut *stats };
            if reply {
                stats.out_packets += 1;
                stats.out_bytes += bytes as u64;
            } else {
                stats.in_packets += 1;
                stats.in_bytes += bytes as u64;
            }
        }
    }

    #[inline(always)]
    fn count_refused(&self, service: u32) {
        if let Some(stats) = SERVICE_STATS.get_ptr_mut(service) {
            // SAFETY: as in `count_traffic`.
            unsafe { (*stats).refused += 1 };
        }
    }

    #[inline(always)]
    fn count_opened(&self, service: u32, backend: u32) {
        for stats in [
            SERVICE_STATS.get_ptr_mut(service),
            BACKEND_STATS.get_ptr_mut(backend),
        ] {
            let Some(stats) = stats else { continue };
            // SAFETY: as in `count_traffic`.
            unsafe { (*stats).flows += 1 };
        }
        self.count_live(service);
    }

    #[inline(always)]
    fn count_live(&self, service: u32) {
        for live in [LIVE.get_ptr_mut(0), LIVE.get_ptr_mut(service)] {
            let Some(live) = live else { continue };
            // SAFETY: a live word of map memory.
            unsafe { add(live, 1) };
        }
    }

    #[inline(always)]
    fn count_closed(&self, service: u32) {
        for live in [LIVE.get_ptr_mut(0), LIVE.get_ptr_mut(service)] {
            let Some(live) = live else { continue };
            // SAFETY: as in `count_opened`.
            unsafe { add(live, u64::MAX) };
        }
    }

    #[inline(always)]
    fn live(&self, service: u32) -> u64 {
        match LIVE.get_ptr(service) {
            // SAFETY: one aligned word of map memory that other CPUs may write meanwhile.
            Some(live) => unsafe { live.read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn admission(&self) -> Option<&Admission> {
        ADMISSION.get(0)
    }
}

/// Adds to a word that other CPUs add to as well; `core` has no atomic add for this target.
///
/// # Safety
/// The pointer must be to a live word of map memory, aligned to 8.
#[inline(always)]
unsafe fn add(at: *mut u64, number: u64) {
    // SAFETY: as promised by the caller.
    unsafe {
        asm!("lock *(u64 *)({at} + 0) += {number}", at = in(reg) at, number = in(reg) number)
    };
}

/// One round of `repeat`; anything but 0 ends it.
#[inline(never)]
unsafe extern "C" fn round<S: Step>(_round: u64, state: *mut c_void) -> i64 {
    // SAFETY: `repeat` hands the pointer to a live `S` that nobody else uses meanwhile.
    let state = unsafe { &mut *state.cast::<S>() };
    i64::from(!state.step())
}

/// Whether an access list lets a client in.
#[inline(always)]
pub fn lets_in(acl: u16, client: &Addr) -> bool {
    let key = AclKey::of(acl, client);
    // SAFETY: both are a word and then an `AclNet`; ours is aligned better.
    let key = unsafe { &*(&raw const key).cast::<Key<AclNet>>() };
    ACLS.get(key) == Some(&limits::ALLOW)
}

/// Counts a packet under a reason number; 0 counts nothing.
#[inline(always)]
pub fn count_reason(reason: u32, bytes: u32) {
    if reason == 0 {
        return;
    }
    if let Some(count) = REASON_STATS.get_ptr_mut(reason) {
        // SAFETY: as in `count_traffic`.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += bytes as u64;
    }
}

/// Whether this packet is one of the sampled.
#[inline(always)]
pub fn sampled() -> bool {
    match CONFIG.get(0) {
        Some(Config {
            sample_every: every @ 1..,
            ..
        }) => {
            // SAFETY: takes no arguments.
            unsafe { scale(bpf_get_prandom_u32(), *every) == 0 }
        }
        _ => false,
    }
}
