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
    /// When the agent last freed ports of the same areas, as a number that only grows; written by the agent.
    PORTS_SWEPT = 1 << 16;
    /// Memory of the search for a free port, per CPU.
    SEARCH = 1;
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
    /// Listening sockets of the proxy; any one of a reuseport group stands for all.
    SOCKETS = 8;
    /// `AffinityKey -> Affinity`, LRU hash: a client that is forgotten goes where the ring says.
    AFFINITY = 1 << 17;
    /// Chunks of the agent's metadata (names, routes, problems), so that the pins tell all.
    METADATA = 1 << 16;
}

/// Bytes of one chunk of [`METADATA`].
pub const METADATA_CHUNK: usize = 4096;

/// Changes whenever a key or value above changes shape, and so names the pin folder: programs of
/// one layout never meet maps of another.
pub const LAYOUT: u32 = 3;
