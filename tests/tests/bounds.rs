//! No object makes the gateway use more than 100 ms or 50 MB: the worst that can be thought of for each kind, from the
//! value that a source read to the compiled rules; and for files from their bytes to objects.
//!
//! An API server takes objects of at most 1.5 MiB. Times are of the processor, and of a release build; unoptimized code
//! is given more.

#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be written without"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use gateway_user::{
    ir::{Compiler, LastGood, Options, Remembered},
    manifest::{Changes, ClusterId, Edit, Key, Limits, Origin, Reach, Snapshot, object_of, parse},
};
use serde_json::{Value, json};

/// The bars of the issue.
const TIME: Duration = Duration::from_millis(100);
const MEMORY: usize = 50 << 20;
/// How much slower unoptimized code may be: reading YAML takes 9 times as long, expressions 4 to 19 times.
const SLOWER: u32 = if cfg!(debug_assertions) { 10 } else { 1 };
/// "An API server stores objects up to this many bytes."
const OBJECT_BYTES: usize = 3 << 19;

/// Counts what this thread holds. Memory that one thread takes and another gives back is counted wrong; nothing here
/// does that.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn took(bytes: usize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(bytes));
        let _ = PEAK.try_with(|peak| {
            if (held.get() as isize) > (peak.get() as isize) {
                peak.set(held.get());
            }
        });
    });
}

fn gave(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: `at` came from `System` with this layout, since `alloc` above is the only source.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Time that the processor spent on this thread: other work on the machine does not count.
fn spent() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).expect("nanoseconds"),
    )
}

/// Time and memory above what was held before.
fn cost<T>(work: impl FnOnce() -> T) -> (Duration, usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let started = spent();
    let result = work();
    let spent = spent() - started;
    (spent, PEAK.get().wrapping_sub(before), result)
}

fn within(what: &str, spent: Duration, memory: usize) {
    let line = format!("{what}: {spent:?}, {} KiB", memory >> 10);
    println!("{line}");
    assert!(spent <= TIME * SLOWER, "{line}");
    assert!(memory <= MEMORY, "{line}");
}

/// A gateway of 50 listeners with a class, and a Service of one cluster.
struct Gateway {
    snapshot: Snapshot,
    compiler: Compiler,
}

impl Gateway {
    fn new() -> Self {
        let mut gateway = Self {
            snapshot: Snapshot::default(),
            compiler: Compiler::new(
                Options::default(),
                LastGood::default(),
                Remembered::default(),
            ),
        };
        let listeners: Vec<Value> = PORTS.map(|port| json!({"port": port})).collect();
        let objects = [
            (
                "AlbConfig",
                json!({"metadata": {"name": "mcg"}, "spec": {"config": {}, "listeners": listeners}}),
            ),
            (
                "IngressClass",
                json!({"metadata": {"name": "alb"}, "spec": {
                    "controller": "ingress.k8s.alibabacloud/alb",
                    "parameters": {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": "mcg"},
                }}),
            ),
            (
                "Ingress",
                ingress(
                    &json!({}),
                    &json!([{"http": {"paths": [path("/", "svc")]}}]),
                ),
            ),
            (
                "Service",
                json!({"metadata": {"name": "svc", "namespace": "demo"}, "spec": {"ports": [{"port": 80}]}}),
            ),
        ];
        let mut changes = Changes::default();
        let cluster = Edit::Cluster(cluster(), Reach::Connected);
        gateway.snapshot.apply(cluster, &mut changes);
        gateway.compiler.update(&gateway.snapshot, &changes);
        for (kind, object) in objects {
            gateway.put(kind, object);
        }
        gateway
    }

    /// As the agent does with one object of a watch.
    fn put(&mut self, kind: &str, value: Value) {
        let of = matches!(kind, "Service" | "EndpointSlice").then(cluster);
        let Ok(object) = object_of(kind, of.as_ref(), value) else {
            return;
        };
        let key = Key::of(&object, of.as_ref()).expect("a key");
        self.edit(Edit::Put(key, object));
    }

    fn edit(&mut self, edit: Edit) {
        let mut changes = Changes::default();
        self.snapshot.apply(edit, &mut changes);
        self.compiler.update(&self.snapshot, &changes);
        std::hint::black_box(self.compiler.problems());
    }

    /// Puts an object within the bars.
    fn bears(&mut self, what: &str, kind: &str, object: Value) {
        let bytes = object.to_string().len();
        assert!(bytes <= OBJECT_BYTES, "{what}: {bytes} bytes");
        let (spent, memory, ()) = cost(|| self.put(kind, object));
        within(what, spent, memory);
    }
}

const PORTS: std::ops::Range<u16> = 9000..9050;

fn cluster() -> ClusterId {
    ClusterId("c1".into())
}

fn path(path: &str, service: &str) -> Value {
    json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}})
}

fn ingress(annotations: &Value, rules: &Value) -> Value {
    json!({
        "metadata": {"name": "a", "namespace": "demo", "annotations": annotations},
        "spec": {"ingressClassName": "alb", "rules": rules},
    })
}

/// An Ingress with this on all ports.
fn everywhere(mut annotations: Value, rules: &Value) -> Value {
    let ports: Vec<Value> = PORTS.map(|port| json!({"HTTP": port})).collect();
    annotations["alb.ingress.kubernetes.io/listen-ports"] = json!(json!(ports).to_string());
    ingress(&annotations, rules)
}

/// As many of them as one object may hold.
fn as_many(one: impl Fn(usize) -> Value, room: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut left = room;
    for index in 0.. {
        let value = one(index);
        match left.checked_sub(value.to_string().len() + 1) {
            Some(less) => left = less,
            None => break,
        }
        all.push(value);
    }
    all
}

/// As many as are read of one object, and as many as fit into it.
fn both(items: &[Value], read: usize) -> [&[Value]; 2] {
    [&items[..read.min(items.len())], items]
}

const ROOM: usize = OBJECT_BYTES - 8 * 1024;

#[test]
fn an_ingress_of_as_many_paths_as_fit_on_50_ports() {
    let paths = as_many(|index| path(&format!("/{index}"), "svc"), ROOM);
    for paths in both(&paths, 1_000) {
        let object = everywhere(json!({}), &json!([{"http": {"paths": paths}}]));
        Gateway::new().bears("many paths", "Ingress", object);
    }
}

#[test]
fn an_ingress_of_as_many_hosts_as_fit() {
    let host = |index| json!({"host": format!("h{index}.example.com"), "http": {"paths": [path("/", "svc")]}});
    for rules in both(&as_many(host, ROOM), 1_000) {
        let object = everywhere(json!({}), &json!(rules));
        Gateway::new().bears("many hosts", "Ingress", object);
    }
}

#[test]
fn an_ingress_of_as_many_services_as_fit() {
    let paths = as_many(|index| path("/", &format!("s{index}")), ROOM);
    for paths in both(&paths, 1_000) {
        let object = everywhere(json!({}), &json!([{"http": {"paths": paths}}]));
        Gateway::new().bears("many services", "Ingress", object);
    }
}

#[test]
fn an_ingress_of_as_many_expressions_as_fit() {
    for (what, text) in [
        ("cheap expressions", "/a"),
        ("hostile expressions", "/(((a{9}){9}|b){2}c*){2}.*[a-z]{60}"),
        ("large expressions", "/[a-z]{900}.{500}"),
        (
            "deep expressions",
            "/((((((((((((((((((((a*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*)*",
        ),
    ] {
        let paths = as_many(|index| path(&format!("{text}{index}"), "svc"), ROOM);
        for most in [100, 1_000, usize::MAX] {
            let annotations = json!({"alb.ingress.kubernetes.io/use-regex": "true"});
            let paths = &paths[..most.min(paths.len())];
            let object = everywhere(annotations, &json!([{"http": {"paths": paths}}]));
            Gateway::new().bears(what, "Ingress", object);
        }
    }
}

#[test]
fn an_ingress_with_conditions_of_hostile_expressions_for_every_service() {
    let hostile = r"~*^/(((a{9}){9}|b){2}c*){2}.*[a-z]{60}$";
    let conditions =
        json!([{"type": "Path", "pathConfig": {"values": vec![hostile; 10]}}]).to_string();
    let mut annotations = json!({});
    let mut paths = Vec::new();
    // "Annotations of one object: 256 KiB."
    for index in 0..(256 * 1024 / (conditions.len() + 60)) {
        let service = format!("s{index}");
        annotations[format!("alb.ingress.kubernetes.io/conditions.{service}")] = json!(conditions);
        paths.push(path("/", &service));
    }
    let object = everywhere(annotations, &json!([{"http": {"paths": paths}}]));
    Gateway::new().bears("conditions for every service", "Ingress", object);
}

#[test]
fn an_ingress_with_annotations_at_their_limits() {
    let full = "x".repeat(60 * 1024);
    let nested = "[".repeat(60 * 1024);
    let numbers = format!("[{}1]", "1,".repeat(30 * 1024));
    for text in [&full, &nested, &numbers] {
        let annotations = json!({
            "alb.ingress.kubernetes.io/conditions.svc": text,
            "alb.ingress.kubernetes.io/actions.svc": text,
            "alb.ingress.kubernetes.io/cors-allow-origin": text,
            "alb.ingress.kubernetes.io/enable-cors": "true",
            "alb.ingress.kubernetes.io/rewrite-target": text,
        });
        let object = ingress(
            &annotations,
            &json!([{"http": {"paths": [path("/", "svc")]}}]),
        );
        Gateway::new().bears("long annotations", "Ingress", object);
        let ports = json!({"alb.ingress.kubernetes.io/listen-ports": text});
        let object = ingress(&ports, &json!([{"http": {"paths": [path("/", "svc")]}}]));
        Gateway::new().bears("long listen-ports", "Ingress", object);
    }
}

#[test]
fn an_ingress_of_very_many_annotations() {
    for key in [
        "unknown-",
        "cluster-weight.c",
        "conditions.s",
        "canary-by-header",
        "healthcheck-pat",
    ] {
        let mut annotations = json!({});
        for index in 0..5_000 {
            annotations[format!("alb.ingress.kubernetes.io/{key}{index}")] = json!("1");
        }
        let object = ingress(
            &annotations,
            &json!([{"http": {"paths": [path("/", "svc")]}}]),
        );
        Gateway::new().bears(&format!("annotations {key}"), "Ingress", object);
    }
}

#[test]
fn an_ingress_of_as_many_certificates_as_fit() {
    let tls = as_many(
        |index| json!({"hosts": [format!("h{index}.example.com")], "secretName": format!("s{index}")}),
        ROOM,
    );
    let mut object = everywhere(
        json!({}),
        &json!([{"host": "a.example.com", "http": {"paths": [path("/", "svc")]}}]),
    );
    for tls in both(&tls, 1_000) {
        object["spec"]["tls"] = json!(tls);
        Gateway::new().bears("many certificates", "Ingress", object.clone());
    }
}

#[test]
fn an_albconfig_of_as_many_listeners_as_fit() {
    let listeners = as_many(|index| json!({"port": 1 + index % 65_535}), ROOM);
    for listeners in both(&listeners, 10_000) {
        let object =
            json!({"metadata": {"name": "mcg"}, "spec": {"config": {}, "listeners": listeners}});
        Gateway::new().bears("many listeners", "AlbConfig", object);
    }
}

#[test]
fn an_albconfig_of_long_lists_in_every_listener() {
    let entries: Vec<String> = (0..500)
        .map(|index| format!("10.{}.{}.0/24", index / 256, index % 256))
        .collect();
    let certificates: Vec<Value> = (0..300)
        .map(|index| json!({"CertificateId": format!("demo/s{index}")}))
        .collect();
    let one = |index: usize| {
        json!({
            "port": 1000 + index,
            "protocol": "HTTPS",
            "aclConfig": {"aclType": "White", "aclEntries": entries},
            "certificates": certificates,
            "xForwardedForConfig": {"XForwardedForClientSourceIpsEnabled": true, "XForwardedForClientSourceIpsTrusted": entries.join(",")},
        })
    };
    for listeners in both(&as_many(one, ROOM), 50) {
        let object =
            json!({"metadata": {"name": "mcg"}, "spec": {"config": {}, "listeners": listeners}});
        Gateway::new().bears("long lists in listeners", "AlbConfig", object);
    }
    let mut fields = json!({});
    for index in 0..20_000 {
        fields[format!("field{index}")] = json!(1);
    }
    fields["port"] = json!(80);
    let object =
        json!({"metadata": {"name": "mcg"}, "spec": {"config": fields, "listeners": [fields]}});
    Gateway::new().bears("unknown fields", "AlbConfig", object);
}

#[test]
fn an_albconfig_of_very_many_clusters_and_addresses() {
    let clusters: Vec<String> = (0..20_000).map(|index| format!("c{index}")).collect();
    let addresses: Vec<String> = (0..20_000)
        .map(|index| format!("10.0.{}.{}", index / 256 % 256, index % 256))
        .collect();
    let object = json!({
        "metadata": {"name": "mcg", "annotations": {
            "alb.ingress.kubernetes.io/remote-clusters": clusters.join(","),
            "fleetgate.io/addresses": addresses.join(","),
        }},
        "spec": {"config": {}, "listeners": PORTS.map(|port| json!({"port": port})).collect::<Vec<_>>()},
    });
    Gateway::new().bears("many clusters", "AlbConfig", object);
}

fn slice(endpoints: &[Value], ports: &Value) -> Value {
    json!({
        "metadata": {"name": "svc-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    })
}

#[test]
fn a_slice_of_a_thousand_endpoints_of_as_many_addresses_as_fit() {
    let endpoint = |index: usize| {
        let addresses: Vec<String> = (0..80)
            .map(|low| format!("10.{}.{}.{low}", index / 256, index % 256))
            .collect();
        json!({"addresses": addresses, "targetRef": {"kind": "Pod", "name": format!("p{index}")}})
    };
    let endpoints: Vec<Value> = as_many(endpoint, ROOM).into_iter().take(1_000).collect();
    Gateway::new().bears(
        "many addresses",
        "EndpointSlice",
        slice(&endpoints, &json!([{"port": 8080}])),
    );
    let plain = |index: usize| json!({"addresses": [format!("10.{}.{}.{}", index >> 16, index >> 8 & 255, index & 255)]});
    let endpoints = as_many(plain, ROOM);
    for endpoints in both(&endpoints, 15_000) {
        let slice = slice(endpoints, &json!([{"port": 8080}]));
        Gateway::new().bears("many endpoints", "EndpointSlice", slice);
    }
    let bad = |index: usize| json!({"addresses": [format!("pod{index}")]});
    let endpoints = as_many(bad, ROOM);
    for endpoints in both(&endpoints, 15_000) {
        let slice = slice(endpoints, &json!([{"port": 8080}]));
        Gateway::new().bears("many bad addresses", "EndpointSlice", slice);
    }
}

#[test]
fn a_service_and_a_slice_of_as_many_ports_as_fit() {
    let ports = as_many(
        |index| json!({"name": format!("p{index}"), "port": 1 + index % 65_535}),
        ROOM,
    );
    let endpoints: Vec<Value> = (0..100)
        .map(|low| json!({"addresses": [format!("10.0.0.{low}")]}))
        .collect();
    for ports in both(&ports, 15_000) {
        let service =
            json!({"metadata": {"name": "svc", "namespace": "demo"}, "spec": {"ports": ports}});
        let mut gateway = Gateway::new();
        gateway.bears("service ports", "Service", service);
        let ports = &ports[..ports.len().min(20_000)];
        let slice = slice(&endpoints, &json!(ports));
        gateway.bears("slice ports", "EndpointSlice", slice);
    }
}

#[test]
fn a_secret_and_a_class_of_the_largest_size() {
    let data = "QUJD".repeat(ROOM / 4);
    let secret = json!({"metadata": {"name": "s", "namespace": "demo"}, "type": "kubernetes.io/tls", "data": {"tls.crt": data, "tls.key": "QQ=="}});
    Gateway::new().bears("large secret", "Secret", secret);
    let class = json!({"metadata": {"name": "alb", "annotations": {"x": "y".repeat(ROOM)}}, "spec": {"controller": "x"}});
    Gateway::new().bears("large class", "IngressClass", class);
}

#[test]
fn an_object_of_nothing_but_brackets() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let object = json!({"metadata": {"name": "mcg"}, "spec": {"config": vec![deep; 5_000], "listeners": []}});
    Gateway::new().bears("brackets", "AlbConfig", object);
    let object =
        json!({"metadata": {"name": "mcg"}, "spec": {"config": vec![json!({"a": 1}); 150_000]}});
    Gateway::new().bears("small maps", "AlbConfig", object);
    let actions =
        json!({"defaultActions": vec![json!({"a": 1}); 20_000], "more": vec![json!([1]); 9_000]});
    let object = json!({"metadata": {"name": "mcg"}, "spec": {"listeners": [actions]}});
    Gateway::new().bears("small maps in a listener", "AlbConfig", object);
    let object = json!({"metadata": {"name": "mcg"}, "spec": {"config": vec![json!([]); 500_000]}});
    Gateway::new().bears("empty lists", "AlbConfig", object);
}

#[test]
fn a_file_that_is_a_bomb() {
    let laughs: String = (1..20)
        .map(|level| {
            let below = vec![format!("*l{}", level - 1); 9];
            format!("l{level}: &l{level} [{}]\n", below.join(", "))
        })
        .collect();
    let laughs = format!("l0: &l0 [x, x, x, x, x, x, x, x, x]\n{laughs}");
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(10_000),
        ["*a"; 900].join(", ")
    );
    let wide = format!(
        "a: &a [{}]\nb: [{}]\n",
        ["1"; 1_000].join(","),
        ["*a"; 60].join(", ")
    );
    let merges = format!(
        "a: &a {{{}}}\nb:\n{}",
        (0..500)
            .map(|it| format!("k{it}: 1"))
            .collect::<Vec<_>>()
            .join(","),
        "  - {<<: *a}\n".repeat(60)
    );
    let flat = format!("[{}]", "1,".repeat(240_000));
    let quoted = format!("a: \"{}\"", "\\n".repeat(500_000));
    let deep = "[".repeat(900_000);
    let documents = "---\na: b\n".repeat(2_000);
    let colons = "? ".repeat(400_000);
    for (what, text) in [
        ("laughs", &laughs),
        ("long anchor", &long),
        ("wide anchor", &wide),
        ("merge keys", &merges),
        ("flat list", &flat),
        ("escapes", &quoted),
        ("deep list", &deep),
        ("documents", &documents),
        ("question marks", &colons),
    ] {
        let origin = Origin {
            file: "fleet/a.yaml".into(),
            cluster: None,
        };
        assert!(text.len() <= Limits::default().file_bytes, "{what}");
        let (spent, memory, parsed) = cost(|| parse(&origin, text.as_bytes(), Limits::default()));
        within(what, spent, memory);
        assert!(parsed.objects.is_empty(), "{what}");
    }
}
