//! Watches: what comes, where they go on, how they end.

use std::time::Instant;

use fleetgate_tests::apiserver::{Resource, Verb};
use futures_util::TryStreamExt as _;
use kube::{
    api::{WatchEvent, WatchParams},
    runtime::watcher::Config,
};

use super::*;

type Raw = Pin<Box<dyn Stream<Item = Result<WatchEvent<DynamicObject>, Error>> + Send>>;

async fn raw(api: &Api<DynamicObject>, params: &WatchParams, version: u64) -> Raw {
    api.watch(params, &version.to_string())
        .await
        .expect("a watch")
        .boxed()
}

async fn next_raw(events: &mut Raw) -> Option<WatchEvent<DynamicObject>> {
    let event = tokio::time::timeout(SOON, events.try_next()).await;
    event.expect("an event comes soon").expect("no error")
}

#[test]
fn a_watcher_sees_what_is_there_and_then_every_change() {
    run(async {
        let server = server();
        server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let mut events = watching(all(&client, Resource::Services), Config::default());
        assert_eq!(take(&mut events, 3).await, ["init", "init web 80", "done"]);
        // The watch itself is only opened by the next poll.
        server.put(service("web", 81)).unwrap();
        server.put(service("api", 90)).unwrap();
        server.delete(Resource::Services, Some("shop"), "web");
        assert_eq!(
            take(&mut events, 3).await,
            ["apply web 81", "apply api 90", "delete web 81"]
        );
        quiet(&mut events).await;
        assert_eq!(server.count(Verb::List, Resource::Services), 1);
        assert_eq!(server.count(Verb::Watch, Resource::Services), 1);
    });
}

#[test]
fn a_streaming_list_ends_its_beginning_with_a_bookmark() {
    run(async {
        let server = server();
        server.put(service("a", 1)).unwrap();
        server.put(service("b", 2)).unwrap();
        let client = client(&server).await;
        let mut events = watching(
            all(&client, Resource::Services),
            Config::default().streaming_lists(),
        );
        assert_eq!(
            take(&mut events, 4).await,
            ["init", "init a 1", "init b 2", "done"]
        );
        server.put(service("b", 3)).unwrap();
        assert_eq!(next(&mut events).await, "apply b 3");
        assert_eq!(server.count(Verb::List, Resource::Services), 0);
    });
}

#[test]
fn a_watch_goes_on_behind_its_version_and_misses_nothing() {
    run(async {
        let server = server();
        let seen = server.put(service("web", 80)).unwrap();
        server.put(service("web", 81)).unwrap();
        server.put(service("api", 90)).unwrap();
        let client = client(&server).await;
        let mut events = raw(
            &all(&client, Resource::Services),
            &WatchParams::default(),
            seen,
        )
        .await;
        let Some(WatchEvent::Modified(web)) = next_raw(&mut events).await else {
            panic!("the change of web comes first");
        };
        assert_eq!(told(&web), "web 81");
        let Some(WatchEvent::Added(api)) = next_raw(&mut events).await else {
            panic!("then comes the new service");
        };
        assert_eq!(told(&api), "api 90");
    });
}

#[test]
fn a_deleted_object_comes_with_its_last_state_and_the_revision_of_its_end() {
    run(async {
        let server = server();
        let born = server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let mut events = raw(
            &all(&client, Resource::Services),
            &WatchParams::default(),
            born,
        )
        .await;
        server.delete(Resource::Services, Some("shop"), "web");
        let Some(WatchEvent::Deleted(web)) = next_raw(&mut events).await else {
            panic!("a deletion is told");
        };
        assert_eq!(told(&web), "web 80");
        assert_eq!(
            web.metadata.resource_version,
            Some(server.revision().to_string())
        );
    });
}

#[test]
fn bookmarks_tell_how_far_a_quiet_watch_is() {
    run(async {
        let server = server();
        let seen = server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let params = WatchParams::default();
        let mut events = raw(&all(&client, Resource::Services), &params, seen).await;
        // Another kind of object moves the one revision on.
        let now = server.put(ingress("web")).unwrap();
        let Some(WatchEvent::Bookmark(mark)) = next_raw(&mut events).await else {
            panic!("a bookmark comes");
        };
        assert_eq!(mark.types.kind, "Service");
        assert_eq!(mark.metadata.resource_version, now.to_string());
    });
}

#[test]
fn a_watch_ends_after_the_time_it_asked_for() {
    run(async {
        let server = server();
        let seen = server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let params = WatchParams {
            bookmarks: false,
            ..WatchParams::default()
        }
        .timeout(1);
        let began = Instant::now();
        let mut events = raw(&all(&client, Resource::Services), &params, seen).await;
        assert!(next_raw(&mut events).await.is_none());
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(900) && took < Duration::from_secs(3),
            "{took:?}"
        );
    });
}

#[test]
fn an_object_that_comes_to_match_is_added_and_one_that_no_longer_does_is_deleted() {
    run(async {
        let server = server();
        let seen = server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let params = WatchParams::default().labels("app=other");
        let mut events = raw(&all(&client, Resource::Services), &params, seen).await;
        let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
        let patch = |value: &str| {
            server
                .patch(Resource::Services, Some("shop"), "web", label(value))
                .unwrap()
        };
        patch("other");
        assert!(matches!(
            next_raw(&mut events).await,
            Some(WatchEvent::Added(_))
        ));
        patch("web");
        assert!(matches!(
            next_raw(&mut events).await,
            Some(WatchEvent::Deleted(_))
        ));
    });
}

#[test]
fn a_version_older_than_the_history_is_410_in_an_event() {
    run(async {
        let server = server();
        let seen = server.put(service("web", 80)).unwrap();
        server.compact();
        let client = client(&server).await;
        let mut events = raw(
            &all(&client, Resource::Services),
            &WatchParams::default(),
            seen,
        )
        .await;
        let Some(WatchEvent::Error(status)) = next_raw(&mut events).await else {
            panic!("an error comes");
        };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    });
}

#[test]
fn a_version_older_than_the_history_is_410_as_an_answer_if_so_ordered() {
    run(async {
        let server = server();
        let seen = server.put(service("web", 80)).unwrap();
        server.compact();
        server.gone_as_status(true);
        let client = client(&server).await;
        let api = all(&client, Resource::Services);
        let outcome = api
            .watch(&WatchParams::default(), &seen.to_string())
            .await
            .map(drop);
        assert_eq!(refused(outcome).code, 410);
    });
}

#[test]
fn a_running_watch_survives_compaction() {
    run(async {
        let server = server();
        server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let mut events = watching(all(&client, Resource::Services), Config::default());
        take(&mut events, 3).await;
        server.put(service("web", 81)).unwrap();
        next(&mut events).await;
        server.compact();
        server.put(service("web", 82)).unwrap();
        assert_eq!(next(&mut events).await, "apply web 82");
        assert_eq!(server.count(Verb::List, Resource::Services), 1);
    });
}

#[test]
fn a_watcher_that_fell_out_of_the_history_lists_once_more() {
    run(async {
        let server = server();
        server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let mut events = watching(all(&client, Resource::Services), Config::default());
        take(&mut events, 3).await;
        server.compact();
        assert!(next(&mut events).await.starts_with("error"));
        assert_eq!(take(&mut events, 3).await, ["init", "init web 80", "done"]);
        assert_eq!(server.count(Verb::List, Resource::Services), 2);
    });
}

#[test]
fn a_thousand_changes_reach_a_watcher_in_order() {
    run(async {
        let server = server();
        server.put(service("web", 0)).unwrap();
        let client = client(&server).await;
        let mut events = watching(all(&client, Resource::Services), Config::default());
        take(&mut events, 3).await;
        for port in 1..=1000 {
            server.put(service("web", port)).unwrap();
        }
        for port in 1..=1000 {
            assert_eq!(next(&mut events).await, format!("apply web {port}"));
        }
    });
}
