//! Pods that speak HTTP/2 without TLS, as for gRPC.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use gateway_user::ir::{BackendProtocol, Policy};
use h2::{
    Reason, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};

use super::h2pod::{Pod, allowing, pod};
use crate::{
    http2::{receive, with},
    support::{Gateway, backend, eventually, rule, treated},
};

fn gateway(pod: &Pod) -> Gateway {
    gateway_to(&[pod])
}

fn gateway_to(pods: &[&Pod]) -> Gateway {
    let policy = Policy {
        protocol: BackendProtocol::Grpc,
        ..Policy::default()
    };
    let backends = pods.iter().map(|it| backend("c1", it.address, 1));
    let group = treated("grpc", backends.collect(), policy);
    let mut gateway = Gateway::start(vec![rule(group)]);
    gateway.change(|site| site.settings.h2c = true);
    gateway
}

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://a.example{path}")).header("te", "trailers");
    request
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// Says hello, whole.
async fn hello(send: &SendRequest<Bytes>, path: &str) -> Result<crate::http2::Got, h2::Error> {
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(call(path), false)?;
    stream.send_data(Bytes::from_static(b"hello"), true)?;
    receive(response).await
}

#[test]
fn a_call_is_answered_with_its_trailers_and_calls_share_a_connection() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        for _ in 0..10 {
            let got = hello(&send, "/echo").await.unwrap();
            assert_eq!(
                (got.head.status().as_u16(), got.body.as_slice()),
                (200, &b"hello"[..])
            );
            let trailers = got.trailers.unwrap();
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(
                (trailers["x-bytes"].as_bytes(), trailers["x-te"].as_bytes()),
                (&b"5"[..], &b"trailers"[..])
            );
        }
        let got = hello(&send, "/only-trailers").await.unwrap();
        assert_eq!(
            (got.head.headers()["grpc-status"].as_bytes(), got.body.len()),
            (&b"12"[..], 0)
        );
    });
    assert_eq!(pod.connections.load(SeqCst), 1);
}

/// What `fleetgate top` and the metrics show is made of this.
#[test]
fn calls_and_their_connection_are_counted_for_listener_cluster_and_pod() {
    let pod = pod();
    let gateway = gateway(&pod);
    let name = format!("demo:{}/HTTP", gateway.proxy.local_addr().port());
    let seen = || {
        let stats = gateway.stats();
        let listener = stats.latencies.listeners.get(&name).cloned();
        (listener.unwrap_or_default(), stats)
    };
    with(&gateway.proxy, async |send| {
        for _ in 0..10 {
            hello(&send, "/echo").await.unwrap();
        }
        while seen().0.durations[1].count() < 10 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let (listener, stats) = seen();
        assert_eq!(listener.durations[1].count(), 10);
        assert_eq!((listener.connections, listener.active_connections), (1, 1));
        assert_eq!(stats.latencies.upstreams["c1"].count(), 10);
        assert_eq!((stats.requests, stats.responses[1]), (10, 10));
        assert_eq!((stats.backends.len(), stats.backends[0].1), (1, 10));
    });
    eventually("the connection is over", || {
        seen().0.active_connections == 0
    });
    let (listener, stats) = seen();
    // Ten times "hello" and a head each way, behind a preface of 24 bytes.
    assert!(listener.received_bytes > 24 + 10 * (9 + 5 + 9));
    assert!(listener.sent_bytes > 10 * (9 + 5 + 9));
    assert_eq!(
        (listener.received_bytes, listener.sent_bytes),
        (stats.downstream_received_bytes, stats.downstream_sent_bytes)
    );
}

#[test]
fn messages_stream_both_ways_each_before_the_next_one_is_sent() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        let mut send = send.ready().await.unwrap();
        let (response, mut up) = send.send_request(call("/echo"), false).unwrap();
        up.send_data(Bytes::from_static(b"first"), false).unwrap();
        let mut down = response.await.unwrap().into_body();
        assert_eq!(down.data().await.unwrap().unwrap(), "first");
        for round in 0..20 {
            let message = Bytes::from(format!("message {round}"));
            up.send_data(message.clone(), false).unwrap();
            let piece = down.data().await.unwrap().unwrap();
            down.flow_control().release_capacity(piece.len()).unwrap();
            assert_eq!(piece, message);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-mine", "1".parse().unwrap());
        up.send_trailers(trailers).unwrap();
        assert!(down.data().await.is_none());
        let trailers = down.trailers().await.unwrap().unwrap();
        assert_eq!(
            (
                trailers["grpc-status"].as_bytes(),
                trailers["x-mine"].as_bytes()
            ),
            (&b"0"[..], &b"1"[..])
        );
    });
}

#[test]
fn a_stream_that_the_pod_breaks_off_is_broken_off_for_the_client_and_no_other_one_is() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        // Opens the connection.
        hello(&send, "/echo").await.unwrap();
        let mut other = send.clone().ready().await.unwrap();
        let (response, mut up) = other.send_request(call("/echo"), false).unwrap();
        let broken = hello(&send, "/break").await;
        assert!(
            broken.is_err_and(|err| err.is_reset()),
            "what came is not whole"
        );
        let got = hello(&send, "/fail").await.unwrap();
        assert_eq!(
            (
                got.head.status().as_u16(),
                got.head.headers()["x-fleetgate-reason"].as_bytes()
            ),
            (502, &b"bad-response"[..])
        );
        up.send_data(Bytes::from_static(b"still here"), true)
            .unwrap();
        assert_eq!(receive(response).await.unwrap().body, b"still here");
    });
    assert_eq!(pod.connections.load(SeqCst), 1);
}

#[test]
fn a_stream_that_the_client_breaks_off_ends_at_the_pod() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        let mut ready = send.clone().ready().await.unwrap();
        let (response, mut up) = ready.send_request(call("/echo"), false).unwrap();
        up.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut down = response.await.unwrap().into_body();
        assert!(down.data().await.unwrap().is_ok());
        up.send_reset(Reason::CANCEL);
        drop(down);
        assert_eq!(
            hello(&send, "/echo").await.unwrap().body,
            b"hello",
            "others go on"
        );
    });
    eventually("the pod is told", || pod.resets.load(SeqCst) == 1);
}

#[test]
fn calls_beyond_what_a_pod_allows_on_a_connection_go_over_further_ones() {
    let pod = allowing(3);
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        hello(&send, "/echo").await.unwrap();
        // All at once, and each is answered while all the others stay open.
        let begun = (0..20).map(async |_| {
            let mut send = send.clone().ready().await.unwrap();
            let (response, mut up) = send.send_request(call("/echo"), false).unwrap();
            up.send_data(Bytes::from_static(b"a"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            (response.into_body(), up)
        });
        let all = futures_util::future::join_all(begun).await;
        for (mut down, mut up) in all {
            up.send_data(Bytes::from_static(b"b"), true).unwrap();
            let mut echoed = Vec::new();
            while let Some(piece) = down.data().await {
                echoed.extend(piece.unwrap());
            }
            assert_eq!(echoed, b"ab");
            let trailers = down.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
        // There is room again.
        let before = pod.connections.load(SeqCst);
        assert_eq!(hello(&send, "/echo").await.unwrap().body, b"hello");
        assert_eq!(pod.connections.load(SeqCst), before);
    });
    assert!(pod.connections.load(SeqCst) >= 7);
}

#[test]
fn after_a_goaway_calls_go_on_over_a_new_connection() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        for round in 1..=5 {
            let mut long = send.clone().ready().await.unwrap();
            let (response, mut up) = long.send_request(call("/echo"), false).unwrap();
            up.send_data(Bytes::from_static(b"a"), false).unwrap();
            let response = response.await.unwrap();
            let last = hello(&send, "/goaway").await.unwrap();
            assert_eq!(last.trailers.unwrap()["grpc-status"], "0");
            // What began before it is finished on the old connection, what begins later is not disturbed.
            let next = hello(&send, "/echo").await.unwrap();
            assert_eq!(
                (next.head.status().as_u16(), next.body.as_slice()),
                (200, &b"hello"[..]),
                "{round}"
            );
            up.send_data(Bytes::from_static(b"b"), true).unwrap();
            let mut down = response.into_body();
            let mut all = Vec::new();
            while let Some(piece) = down.data().await {
                all.extend(piece.unwrap());
            }
            assert_eq!(all, b"ab");
        }
    });
    assert_eq!(pod.connections.load(SeqCst), 6);
}

#[test]
fn a_call_that_the_pod_refuses_unprocessed_is_told_as_a_reason() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        let got = hello(&send, "/refuse").await.unwrap();
        assert_eq!(got.head.status(), 502);
        assert!(got.head.headers().contains_key("x-fleetgate-reason"));
        assert_eq!(hello(&send, "/echo").await.unwrap().body, b"hello");
    });
}

/// So many calls that are open at once.
async fn open(send: &SendRequest<Bytes>, calls: usize) -> Vec<(ResponseFuture, SendStream<Bytes>)> {
    let mut open = Vec::new();
    for _ in 0..calls {
        let mut send = send.clone().ready().await.unwrap();
        open.push(send.send_request(call("/echo"), false).unwrap());
    }
    open
}

/// Ends calls, each of which is answered.
async fn end(calls: Vec<(ResponseFuture, SendStream<Bytes>)>) {
    for (response, mut up) in calls {
        up.send_data(Bytes::from_static(b"hello"), true).unwrap();
        assert_eq!(receive(response).await.unwrap().body, b"hello");
    }
}

#[test]
fn calls_that_begin_together_wait_for_one_connection() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        let calls = open(&send, 50).await;
        end(calls).await;
    });
    assert_eq!(pod.connections.load(SeqCst), 1);
}

#[test]
fn calls_beyond_what_a_pod_allows_on_a_connection_get_another_one() {
    let pod = allowing(4);
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        // Tells the limit.
        hello(&send, "/echo").await.unwrap();
        let mut calls = open(&send, 4).await;
        for (_, up) in &mut calls {
            up.send_data(Bytes::from_static(b"a"), false).unwrap();
        }
        let mut downs = Vec::new();
        for (response, up) in calls {
            let mut down = response.await.unwrap().into_body();
            assert!(down.data().await.is_some(), "it is open at the pod");
            downs.push((down, up));
        }
        let more = open(&send, 20).await;
        end(more).await;
        drop(downs);
    });
    let connections = pod.connections.load(SeqCst);
    assert!((2..=8).contains(&connections), "{connections} connections");
}

/// Says this, whole, in pieces of 1 KiB.
async fn say(send: &SendRequest<Bytes>, bytes: usize) -> crate::http2::Got {
    let mut send = send.clone().ready().await.unwrap();
    let (response, mut stream) = send.send_request(call("/busy"), false).unwrap();
    for piece in vec![b'x'; bytes].chunks(1024) {
        stream
            .send_data(Bytes::copy_from_slice(piece), false)
            .unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    receive(response).await.unwrap()
}

#[test]
fn a_call_that_a_pod_has_not_looked_at_is_sent_again_with_its_body() {
    let pod = pod();
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        for bytes in [5, 50 * 1024] {
            pod.refuses.store(1, SeqCst);
            let got = say(&send, bytes).await;
            assert_eq!((got.head.status().as_u16(), got.body.len()), (200, bytes));
            assert!(got.trailers.is_some());
        }
        // What is too long to be held is told to be refused.
        pod.refuses.store(1, SeqCst);
        let got = say(&send, 100 * 1024).await;
        assert_eq!(got.head.headers()["x-fleetgate-reason"], "backend-closed");
    });
    assert_eq!((pod.whole.load(SeqCst), gateway.stats().retries), (2, 2));
}

#[test]
fn a_call_that_one_pod_refuses_twice_goes_to_another_one() {
    let (busy, free) = (pod(), pod());
    busy.refuses.store(1000, SeqCst);
    let gateway = gateway_to(&[&busy, &free]);
    with(&gateway.proxy, async |send| {
        for _ in 0..4 {
            let got = say(&send, 5).await;
            assert_eq!((got.head.status().as_u16(), got.body.len()), (200, 5));
        }
    });
    assert_eq!((busy.whole.load(SeqCst), free.whole.load(SeqCst)), (0, 4));
    assert!(busy.refuses.load(SeqCst) < 1000, "it was asked");
}

#[test]
fn a_call_above_the_last_stream_of_a_goaway_is_sent_again_over_a_new_connection() {
    let pod = pod();
    pod.leaves.store(1, SeqCst);
    let gateway = gateway(&pod);
    with(&gateway.proxy, async |send| {
        let got = hello(&send, "/echo").await.unwrap();
        assert_eq!(
            (got.head.status().as_u16(), got.body),
            (200, b"hello".into())
        );
    });
    assert_eq!(
        (pod.connections.load(SeqCst), gateway.stats().retries),
        (2, 1)
    );
}
