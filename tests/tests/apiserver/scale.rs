//! Cost grows with the objects, not with their square.

use std::time::Instant;

use fleetgate_tests::apiserver::Resource;
use kube::runtime::watcher::Config;

use super::*;

/// An EndpointSlice with ten endpoints.
fn slice(number: u32) -> Value {
    let endpoint = |pod: u32| json!({"addresses": [format!("10.{}.{}.{pod}", number / 250, number % 250)], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": format!("s-{number}"), "labels": {"kubernetes.io/service-name": format!("s-{number}")}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": (1..=10).map(endpoint).collect::<Vec<_>>(),
    })
}

#[test]
fn a_thousand_slices_are_stored_listed_and_changed_in_seconds() {
    run(async {
        let server = server();
        let began = Instant::now();
        for number in 0..1000 {
            server.put(slice(number)).unwrap();
        }
        let stored = began.elapsed();
        let client = client(&server).await;
        let mut events = watching(all(&client, Resource::EndpointSlices), Config::default());
        let began = Instant::now();
        take(&mut events, 1002).await;
        let listed = began.elapsed();
        let began = Instant::now();
        for number in 0..1000 {
            let mut changed = slice(number);
            changed["endpoints"] = json!([]);
            server.put(changed).unwrap();
        }
        take(&mut events, 1000).await;
        let changed = began.elapsed();
        // A fraction of a second each on an idle machine; the square of a thousand would be far beyond.
        for took in [stored, listed, changed] {
            assert!(
                took < Duration::from_secs(10),
                "{stored:?} {listed:?} {changed:?}"
            );
        }
    });
}
