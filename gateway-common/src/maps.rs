//! Names and sizes of the maps; kernel programs, agent and CLI agree on them here.

/// (name, entries) pairs: the name is also the name of the pin.
macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident = $entries:expr;)*) => {
        $( $(#[$doc])* pub const $name: (&str, u32) = (stringify!($name), $entries); )*
        /// Every map that is pinned.
        pub const ALL: &[(&str, u32)] = &[$($name),*];
    };
}

maps! {
    /// `FlowKey -> Flow`, preallocated hash; the agent may load it with another size.
    FLOWS = 1 << 20;
    /// `ServiceKey -> Service`, hash.
    SERVICES = 1 << 14;
    /// `VipKey -> 1`, hash: addresses of listeners.
    VIPS = 1 << 14;
    /// `Budget` by kind of answer, per CPU.
    ANSWERS = 3;
    /// Slab of all rings, `BackendId` each.
    RINGS = 1 << 22;
    /// `BackendId -> Backend`.
    BACKENDS = 1 << 17;
    /// `HopId -> NextHop`.
    HOPS = 1 << 12;
    /// `NeighbourKey -> HopId`, hash.
    NEIGHBOURS = 1 << 12;
    /// Source addresses.
    SNATS = 1 << 12;
    /// Notes about full port ranges, `Mark` each; written by the kernel programs.
    PORT_MARKS = 1 << 16;
    /// Memory of the search for a free port, per CPU.
    SEARCH = 1;
    /// Live flows by service id; of id 0, all of them. Written by the kernel programs.
    LIVE = 1 << 14;
    /// One `Admission`.
    ADMISSION = 1;
    /// One `Config`.
    CONFIG = 1;
    /// One `Clock`.
    CLOCK = 1;
    /// `Traffic` by service id, per CPU.
    SERVICE_STATS = 1 << 14;
    /// `Traffic` by backend id, per CPU.
    BACKEND_STATS = 1 << 17;
    /// `Count` by reason, per CPU.
    REASON_STATS = crate::verdict::REASONS;
    /// `AclKey -> u32`, trie: the networks of all access lists.
    ACLS = 1 << 18;
    /// `Bucket` by service id.
    BUDGETS = 1 << 14;
    /// `SourceKey -> Bucket`, hash that forgets the longest unused.
    SOURCES = 1 << 16;
    /// One `monitor::Switch`.
    MONITOR = 1;
    /// One `monitor::Scratch`, per CPU.
    MONITOR_SCRATCH = 1;
    /// Ring of `monitor::Event`; its size in bytes.
    EVENTS = 1 << 20;
    /// Listening sockets of the proxy; any one of a reuseport group stands for all.
    SOCKETS = 8;
    /// `AffinityKey -> Affinity`, LRU hash: a client that is forgotten goes where the ring says.
    AFFINITY = 1 << 17;
    /// Chunks of the agent's metadata (names, routes, problems), so that the pins tell all. The one map that every version
    /// reads as it is, also that of another layout: its name, its keys (`u32`) and its values ([`METADATA_CHUNK`] bytes)
    /// never change.
    METADATA = 1 << 16;
}

/// Bytes of one chunk of [`METADATA`].
pub const METADATA_CHUNK: usize = 4096;

/// Names the pin folder: programs of one layout never meet maps of another. Computed from what every map is, so it changes
/// whenever one of them does.
pub const LAYOUT: u64 = crate::layout::hash(crate::layout::ALL, crate::layout::SEMANTICS);
