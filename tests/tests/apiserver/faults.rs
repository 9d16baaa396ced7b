//! Each fault does what it says, and nothing more.

use std::time::Instant;

use fleetgate_tests::apiserver::{Failure, History, Older, Resource, Verb, WatchFaults};
use kube::{api::ListParams, client::Body, runtime::watcher::Config};

use super::*;

/// A server with one service, and a watcher that has seen it and is watching.
async fn watched() -> (ApiServer, Client, Events) {
    let server = server();
    server.put(service("web", 0)).expect("a service");
    let client = client(&server).await;
    let mut events = watching(all(&client, Resource::Services), Config::default());
    take(&mut events, 3).await;
    server.put(service("web", 1)).expect("a service");
    assert_eq!(next(&mut events).await, "apply web 1");
    (server, client, events)
}

fn disturb(server: &ApiServer, with: WatchFaults) {
    server.disturb_watches(Some(Resource::Services), with);
}

#[test]
fn a_frozen_server_takes_connections_and_says_nothing_until_it_thaws() {
    run(async {
        let (server, _client, mut events) = watched().await;
        server.freeze();
        server.put(service("web", 2)).unwrap();
        quiet(&mut events).await;
        // A new connection is taken, and nothing comes on it.
        let fresh = client(&server).await;
        let services = all(&fresh, Resource::Services);
        let params = ListParams::default();
        assert!(
            tokio::time::timeout(QUIET, services.list(&params))
                .await
                .is_err()
        );
        server.thaw();
        assert_eq!(next(&mut events).await, "apply web 2");
        assert_eq!(server.count(Verb::Watch, Resource::Services), 1);
    });
}

#[test]
fn a_killed_server_refuses_and_a_restarted_one_goes_on_without_a_list() {
    run(async {
        let (server, client, mut events) = watched().await;
        let address = server.address();
        server.kill().unwrap();
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        server.put(service("web", 2)).unwrap();
        assert!(next(&mut events).await.starts_with("error"));
        server.restart(History::Kept).unwrap();
        let event = loop {
            match next(&mut events).await {
                error if error.starts_with("error") => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                event => break event,
            }
        };
        assert_eq!(event, "apply web 2");
        assert_eq!(server.count(Verb::List, Resource::Services), 1);
        all(&client, Resource::Services)
            .list(&ListParams::default())
            .await
            .unwrap();
    });
}

#[test]
fn a_server_that_lost_its_history_is_listed_once_more() {
    run(async {
        let (server, _client, mut events) = watched().await;
        server.kill().unwrap();
        server.restart(History::Lost).unwrap();
        while next(&mut events).await != "init" {}
        assert_eq!(take(&mut events, 2).await, ["init web 1", "done"]);
        assert_eq!(server.count(Verb::List, Resource::Services), 2);
    });
}

#[test]
fn watches_that_are_cut_or_ended_go_on_without_a_list() {
    run(async {
        let (server, _client, mut events) = watched().await;
        for (port, cut) in [(2, true), (3, false)] {
            if cut {
                server.cut_watches(None);
            } else {
                server.end_watches(Some(Resource::Services));
            }
            server.put(service("web", port)).unwrap();
            let mut event = next(&mut events).await;
            while event.starts_with("error") {
                event = next(&mut events).await;
            }
            assert_eq!(event, format!("apply web {port}"));
        }
        assert_eq!(server.count(Verb::List, Resource::Services), 1);
        assert_eq!(server.count(Verb::Watch, Resource::Services), 3);
    });
}

#[test]
fn an_expired_watch_is_told_so_and_lists_once_more() {
    run(async {
        let (server, _client, mut events) = watched().await;
        server.expire_watches(Some(Resource::Ingresses));
        quiet(&mut events).await;
        server.expire_watches(Some(Resource::Services));
        assert!(next(&mut events).await.starts_with("error"));
        assert_eq!(take(&mut events, 3).await, ["init", "init web 1", "done"]);
        assert_eq!(server.count(Verb::List, Resource::Services), 2);
    });
}

#[test]
fn a_slow_watch_takes_its_time_over_every_event() {
    run(async {
        let (server, _client, mut events) = watched().await;
        disturb(
            &server,
            WatchFaults {
                delay: Duration::from_millis(100),
                ..WatchFaults::default()
            },
        );
        let began = Instant::now();
        for port in 2..5 {
            server.put(service("web", port)).unwrap();
        }
        assert_eq!(
            take(&mut events, 3).await,
            ["apply web 2", "apply web 3", "apply web 4"]
        );
        assert!(began.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn duplicated_events_come_twice() {
    run(async {
        let (server, _client, mut events) = watched().await;
        disturb(
            &server,
            WatchFaults {
                duplicate: true,
                ..WatchFaults::default()
            },
        );
        server.put(service("web", 2)).unwrap();
        assert_eq!(take(&mut events, 2).await, ["apply web 2", "apply web 2"]);
        disturb(&server, WatchFaults::default());
        server.put(service("web", 3)).unwrap();
        assert_eq!(next(&mut events).await, "apply web 3");
        quiet(&mut events).await;
    });
}

#[test]
fn neighbouring_events_of_two_objects_change_places_and_those_of_one_do_not() {
    run(async {
        let (server, _client, mut events) = watched().await;
        disturb(
            &server,
            WatchFaults {
                swap: true,
                ..WatchFaults::default()
            },
        );
        server.put(service("a", 1)).unwrap();
        server.put(service("b", 1)).unwrap();
        assert_eq!(take(&mut events, 2).await, ["apply b 1", "apply a 1"]);
        server.put(service("a", 2)).unwrap();
        server.put(service("a", 3)).unwrap();
        assert_eq!(take(&mut events, 2).await, ["apply a 2", "apply a 3"]);
    });
}

#[test]
fn an_older_state_comes_again_behind_the_newer_one() {
    run(async {
        let (server, _client, mut events) = watched().await;
        disturb(
            &server,
            WatchFaults {
                older: Some(Older::Last),
                ..WatchFaults::default()
            },
        );
        server.put(service("web", 2)).unwrap();
        assert_eq!(take(&mut events, 2).await, ["apply web 2", "apply web 1"]);
        disturb(
            &server,
            WatchFaults {
                older: Some(Older::ThenNewer),
                ..WatchFaults::default()
            },
        );
        server.put(service("web", 3)).unwrap();
        assert_eq!(
            take(&mut events, 3).await,
            ["apply web 3", "apply web 2", "apply web 3"]
        );
    });
}

#[test]
fn a_torn_event_breaks_the_connection_and_comes_whole_on_the_next() {
    run(async {
        let (server, _client, mut events) = watched().await;
        server.tear_events(Some(Resource::Services), 1);
        server.put(service("web", 2)).unwrap();
        let mut event = next(&mut events).await;
        while event.starts_with("error") {
            event = next(&mut events).await;
        }
        assert_eq!(event, "apply web 2");
        assert_eq!(server.count(Verb::Watch, Resource::Services), 2);
        assert_eq!(server.count(Verb::List, Resource::Services), 1);
    });
}

#[test]
fn so_many_requests_fail_as_were_ordered_and_say_when_to_come_again() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let list = || {
            let request = http_request("GET", "/api/v1/services", "", "");
            client.send(request.map(Body::from))
        };
        server.fail_requests(Failure {
            retry_after: Some(7),
            ..Failure::all(429, 1)
        });
        server.fail_requests(Failure {
            verb: Some(Verb::List),
            ..Failure::all(503, 2)
        });
        server.fail_requests(Failure {
            resource: Some(Resource::Ingresses),
            ..Failure::all(500, 1)
        });
        let answer = list().await.unwrap();
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "7");
        assert_eq!(list().await.unwrap().status(), 503);
        assert_eq!(list().await.unwrap().status(), 503);
        assert_eq!(list().await.unwrap().status(), 200);
        let status = refused(
            all(&client, Resource::Ingresses)
                .list(&ListParams::default())
                .await,
        );
        assert_eq!(
            (status.code, status.reason.as_str()),
            (500, "InternalError")
        );
        let codes: Vec<u16> = server
            .requests()
            .iter()
            .map(|request| request.code)
            .collect();
        assert_eq!(codes, [429, 503, 503, 200, 500]);
    });
}

#[test]
fn a_lagging_replica_lists_the_past_to_who_accepts_it() {
    run(async {
        let server = server();
        let old = server.put(service("web", 80)).unwrap();
        server.put(service("web", 81)).unwrap();
        server.lag(Some(old));
        let client = client(&server).await;
        let api = all(&client, Resource::Services);
        let any = api.list(&ListParams::default().match_any()).await.unwrap();
        assert_eq!(
            (told(&any.items[0]), any.metadata.resource_version),
            ("web 80".to_owned(), Some(old.to_string()))
        );
        let latest = api.list(&ListParams::default()).await.unwrap();
        assert_eq!(told(&latest.items[0]), "web 81");
    });
}

#[test]
fn a_dropped_server_stops_at_once() {
    run(async {
        let (server, _client, mut events) = watched().await;
        let (address, began) = (server.address(), Instant::now());
        drop(server);
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        assert!(next(&mut events).await.starts_with("error"));
    });
}
