//! One object, lists, pages, selectors, versions.

use fleetgate_tests::apiserver::{Resource, Verb};
use kube::api::{ListParams, VersionMatch};

use super::*;

#[test]
fn a_list_has_every_object_of_its_namespace_and_the_revision_of_now() {
    run(async {
        let server = server();
        server.put(service("web", 80)).unwrap();
        server.put(service("api", 81)).unwrap();
        let mut other = service("web", 82);
        other["metadata"]["namespace"] = json!("bank");
        let last = server.put(other).unwrap();

        let client = client(&server).await;
        let list = all(&client, Resource::Services)
            .list(&ListParams::default())
            .await
            .unwrap();
        assert_eq!(names(&list.items), ["web", "api", "web"]);
        assert_eq!(list.metadata.resource_version, Some(last.to_string()));
        let list = inside(&client, Resource::Services, "shop")
            .list(&ListParams::default())
            .await
            .unwrap();
        assert_eq!(names(&list.items), ["api", "web"]);
        assert_eq!(server.count(Verb::List, Resource::Services), 2);
    });
}

#[test]
fn items_of_a_list_have_a_kind_only_if_it_is_a_custom_one() {
    run(async {
        let server = server();
        server.put(service("web", 80)).unwrap();
        server
            .put(json!({"apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig", "metadata": {"name": "edge"}}))
            .unwrap();
        let client = client(&server).await;
        let services = all(&client, Resource::Services)
            .list(&ListParams::default())
            .await
            .unwrap();
        assert!(services.items[0].types.is_none());
        let configs = all(&client, Resource::AlbConfigs)
            .list(&ListParams::default())
            .await
            .unwrap();
        assert_eq!(configs.items[0].types.as_ref().unwrap().kind, "AlbConfig");
    });
}

#[test]
fn pages_are_of_one_snapshot_whatever_is_written_between_them() {
    run(async {
        let server = server();
        for name in ["a", "b", "c", "d", "e"] {
            server.put(service(name, 80)).unwrap();
        }
        let snapshot = server.revision();
        let client = client(&server).await;
        let api = all(&client, Resource::Services);
        let mut params = ListParams::default().limit(2);
        let first = api.list(&params).await.unwrap();
        assert_eq!(names(&first.items), ["a", "b"]);
        assert_eq!(first.metadata.remaining_item_count, Some(3));

        server.delete(Resource::Services, Some("shop"), "c");
        server.put(service("d", 99)).unwrap();
        server.put(service("bb", 80)).unwrap();

        params.continue_token = first.metadata.continue_;
        let second = api.list(&params).await.unwrap();
        assert_eq!(
            second.items.iter().map(told).collect::<Vec<_>>(),
            ["c 80", "d 80"]
        );
        assert_eq!(second.metadata.resource_version, Some(snapshot.to_string()));
        params.continue_token = second.metadata.continue_;
        let third = api.list(&params).await.unwrap();
        assert_eq!(names(&third.items), ["e"]);
        assert_eq!(third.metadata.continue_, None);
    });
}

#[test]
fn a_page_token_is_410_when_its_snapshot_is_gone() {
    run(async {
        let server = server();
        for name in ["a", "b", "c"] {
            server.put(service(name, 80)).unwrap();
        }
        let client = client(&server).await;
        let api = all(&client, Resource::Services);
        let mut params = ListParams::default().limit(2);
        params.continue_token = api.list(&params).await.unwrap().metadata.continue_;
        server.compact();
        let status = refused(api.list(&params).await);
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    });
}

#[test]
fn selectors_pick_by_labels_and_by_fields() {
    run(async {
        let server = server();
        for name in ["a", "b", "c"] {
            server.put(service(name, 80)).unwrap();
        }
        for (name, kind) in [("tls", "kubernetes.io/tls"), ("plain", "Opaque")] {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "type": kind,
                "metadata": {"namespace": "shop", "name": name},
                "stringData": {"key": "value"},
            });
            server.put(secret).unwrap();
        }
        let client = client(&server).await;
        let services = all(&client, Resource::Services);
        for (labels, want) in [
            ("app=a", vec!["a"]),
            ("app!=a", vec!["b", "c"]),
            ("app in (a, c)", vec!["a", "c"]),
            ("app notin (a,c),app", vec!["b"]),
            ("!app", vec![]),
        ] {
            let list = services
                .list(&ListParams::default().labels(labels))
                .await
                .unwrap();
            assert_eq!(names(&list.items), want, "{labels}");
        }
        let list = services
            .list(&ListParams::default().fields("metadata.name=b"))
            .await
            .unwrap();
        assert_eq!(names(&list.items), ["b"]);
        let secrets = all(&client, Resource::Secrets);
        let list = secrets
            .list(&ListParams::default().fields("type=kubernetes.io/tls"))
            .await
            .unwrap();
        assert_eq!(names(&list.items), ["tls"]);
        assert_eq!(list.items[0].data["data"]["key"], "dmFsdWU=");
        let status = refused(
            services
                .list(&ListParams::default().fields("spec.ports=1"))
                .await,
        );
        assert_eq!(status.code, 400);
    });
}

#[test]
fn a_list_of_a_version_is_that_version_or_none() {
    run(async {
        let server = server();
        let old = server.put(service("web", 80)).unwrap();
        server.put(service("web", 81)).unwrap();
        let client = client(&server).await;
        let api = all(&client, Resource::Services);
        let at = |version: u64, rule| {
            let mut params = ListParams::default().at(&version.to_string());
            params.version_match = Some(rule);
            params
        };
        let exact = api.list(&at(old, VersionMatch::Exact)).await.unwrap();
        assert_eq!(told(&exact.items[0]), "web 80");
        let newer = api
            .list(&at(old, VersionMatch::NotOlderThan))
            .await
            .unwrap();
        assert_eq!(told(&newer.items[0]), "web 81");
        let status = refused(api.list(&at(old + 100, VersionMatch::NotOlderThan)).await);
        assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
        server.compact();
        let status = refused(api.list(&at(old, VersionMatch::Exact)).await);
        assert_eq!(status.code, 410);
    });
}

#[test]
fn a_client_may_ask_for_metadata_alone() {
    run(async {
        let server = server();
        server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let api = all(&client, Resource::Services);
        let list = api.list_metadata(&ListParams::default()).await.unwrap();
        assert_eq!(list.items[0].metadata.name.as_deref(), Some("web"));
        assert_eq!(list.types.kind, "PartialObjectMetadataList");
    });
}

#[test]
fn what_is_not_there_is_not_found_by_name() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let status = refused(api.get("web").await);
        assert_eq!(status.code, 404);
        assert_eq!(
            status.message,
            "ingresses.networking.k8s.io \"web\" not found"
        );
        assert!(api.get_opt("web").await.unwrap().is_none());
    });
}
