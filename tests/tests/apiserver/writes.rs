//! Create, update, patch, delete; versions, generations, the status subresource; Events and Leases.

use fleetgate_tests::apiserver::Resource;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};

use super::*;

fn lease(holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": "kube-system", "name": "fleetgate"},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0,
            "acquireTime": "2026-01-02T03:04:05.000000Z", "renewTime": "2026-01-02T03:04:05.000000Z",
        },
    })
}

fn event(name: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"namespace": "default", "name": name},
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "reportingController": "fleetgate.io/gateway", "reportingInstance": "node-1",
        "action": "Reconcile", "reason": "FailedBuildModel", "type": "Warning", "note": "no listener",
        "regarding": {"apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig", "name": "edge"},
    })
}

fn version(object: &DynamicObject) -> u64 {
    object
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default()
        .parse()
        .unwrap_or_default()
}

#[test]
fn a_new_object_gets_an_identity_and_a_name_can_be_had_only_once() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let made = api
            .create(&PostParams::default(), &object(ingress("web")))
            .await
            .unwrap();
        assert_eq!(version(&made), server.revision());
        assert_eq!(made.metadata.generation, Some(1));
        assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
        let status = refused(
            api.create(&PostParams::default(), &object(ingress("web")))
                .await,
        );
        assert_eq!(
            (status.code, status.reason.as_str()),
            (409, "AlreadyExists")
        );
    });
}

#[test]
fn the_server_makes_up_the_rest_of_a_generated_name() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let mut wanted = object(ingress(""));
        wanted.metadata.name = None;
        wanted.metadata.generate_name = Some("web-".to_owned());
        let mut names = Vec::new();
        for _ in 0..20 {
            let made = api.create(&PostParams::default(), &wanted).await.unwrap();
            names.push(made.metadata.name.unwrap());
        }
        assert!(
            names
                .iter()
                .all(|name| name.starts_with("web-") && name.len() == 9),
            "{names:?}"
        );
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 20);
    });
}

#[test]
fn of_two_who_saw_the_same_lease_only_one_can_take_it() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Leases, "kube-system");
        let seen = api
            .create(&PostParams::default(), &object(lease("a")))
            .await
            .unwrap();
        let mut mine = seen.clone();
        mine.data["spec"]["holderIdentity"] = json!("b");
        let mut theirs = seen;
        theirs.data["spec"]["holderIdentity"] = json!("c");
        api.replace("fleetgate", &PostParams::default(), &mine)
            .await
            .unwrap();
        let status = refused(
            api.replace("fleetgate", &PostParams::default(), &theirs)
                .await,
        );
        assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
        let now = api.get("fleetgate").await.unwrap();
        assert_eq!(now.data["spec"]["holderIdentity"], "b");
        // A patch that names its version is held to it as well.
        let patch = json!({
            "metadata": {"resourceVersion": theirs.metadata.resource_version},
            "spec": {"holderIdentity": "c"},
        });
        let status = refused(
            api.patch("fleetgate", &PatchParams::default(), &Patch::Merge(&patch))
                .await,
        );
        assert_eq!(status.code, 409);
    });
}

#[test]
fn a_lease_is_never_replaced_blindly_and_an_ingress_may_be() {
    run(async {
        let server = server();
        server.put(lease("a")).unwrap();
        server.put(ingress("web")).unwrap();
        let client = client(&server).await;
        let leases = inside(&client, Resource::Leases, "kube-system");
        let status = refused(
            leases
                .replace("fleetgate", &PostParams::default(), &object(lease("b")))
                .await,
        );
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        let ingresses = inside(&client, Resource::Ingresses, "shop");
        ingresses
            .replace("web", &PostParams::default(), &object(ingress("web")))
            .await
            .unwrap();
    });
}

#[test]
fn a_write_that_changes_nothing_makes_no_revision() {
    run(async {
        let server = server();
        let before = server.put(ingress("web")).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let params = PatchParams::default();
        let patch = json!({"spec": {"ingressClassName": "fleetgate"}});
        let same = api
            .patch("web", &params, &Patch::Merge(&patch))
            .await
            .unwrap();
        assert_eq!((version(&same), server.revision()), (before, before));
        let live = api.get("web").await.unwrap();
        api.replace("web", &PostParams::default(), &live)
            .await
            .unwrap();
        assert_eq!(server.put(ingress("web")).unwrap(), before);
    });
}

#[test]
fn status_and_wishes_are_written_apart_and_only_wishes_count_generations() {
    run(async {
        let server = server();
        server.put(ingress("web")).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let both = json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {"ingressClassName": "other"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        });
        let params = PatchParams::default();
        let written = api
            .patch_status("web", &params, &Patch::Merge(&both))
            .await
            .unwrap();
        assert_eq!(written.data["spec"]["ingressClassName"], "fleetgate");
        assert_eq!(
            written.data["status"]["loadBalancer"]["ingress"][0]["ip"],
            "192.0.2.1"
        );
        assert_eq!(
            (written.metadata.generation, written.metadata.labels),
            (Some(1), None)
        );

        let mut other = both.clone();
        other["status"] = json!({"loadBalancer": {"ingress": []}});
        let written = api
            .patch("web", &params, &Patch::Merge(&other))
            .await
            .unwrap();
        assert_eq!(written.data["spec"]["ingressClassName"], "other");
        assert_eq!(
            written.data["status"]["loadBalancer"]["ingress"][0]["ip"],
            "192.0.2.1"
        );
        assert_eq!(written.metadata.generation, Some(2));
    });
}

#[test]
fn a_deletion_keeps_to_its_preconditions() {
    run(async {
        let server = server();
        server.put(ingress("web")).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let wrong = Preconditions {
            uid: Some("other".to_owned()),
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(wrong),
            ..DeleteParams::default()
        };
        assert_eq!(
            refused(api.delete("web", &params).await.map(drop)).code,
            409
        );
        api.delete("web", &DeleteParams::default()).await.unwrap();
        assert_eq!(
            refused(api.delete("web", &DeleteParams::default()).await.map(drop)).code,
            404
        );
    });
}

#[test]
fn finalizers_hold_an_object_until_they_are_gone() {
    run(async {
        let server = server();
        let mut held = ingress("web");
        held["metadata"]["finalizers"] = json!(["fleetgate.io/hold"]);
        server.put(held).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        api.delete("web", &DeleteParams::default()).await.unwrap();
        assert!(
            api.get("web")
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_some()
        );
        let patch = json!({"metadata": {"finalizers": null}});
        api.patch("web", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
        assert!(api.get_opt("web").await.unwrap().is_none());
    });
}

#[test]
fn an_event_without_what_the_server_demands_is_refused() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Events, "default");
        let post = PostParams::default();
        api.create(&post, &object(event("good"))).await.unwrap();
        for field in [
            "eventTime",
            "reportingController",
            "reportingInstance",
            "action",
            "reason",
            "type",
            "regarding",
        ] {
            let mut bad = event("bad");
            bad.as_object_mut().unwrap().remove(field);
            let status = refused(api.create(&post, &object(bad)).await);
            assert_eq!(
                (status.code, status.reason.as_str()),
                (422, "Invalid"),
                "{field}"
            );
            assert!(
                status.message.contains(field),
                "{field}: {}",
                status.message
            );
        }
        let mut long = event("bad");
        long["note"] = json!("x".repeat(1025));
        assert_eq!(refused(api.create(&post, &object(long)).await).code, 422);
        // About an object of the whole cluster, in some namespace.
        let mut elsewhere = event("bad");
        elsewhere["metadata"]["namespace"] = json!("shop");
        let shop = inside(&client, Resource::Events, "shop");
        assert_eq!(
            refused(shop.create(&post, &object(elsewhere)).await).code,
            422
        );
        // Seconds alone are not a time with microseconds.
        let mut coarse = event("bad");
        coarse["eventTime"] = json!("2026-01-02T03:04:05Z");
        assert_eq!(refused(api.create(&post, &object(coarse)).await).code, 400);
    });
}

#[test]
fn of_an_event_only_the_series_changes() {
    run(async {
        let server = server();
        server.put(event("good")).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Events, "default");
        let params = PatchParams::default();
        let series =
            json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}});
        api.patch("good", &params, &Patch::Merge(&series))
            .await
            .unwrap();
        let once =
            json!({"series": {"count": 1, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}});
        assert_eq!(
            refused(api.patch("good", &params, &Patch::Merge(&once)).await).code,
            422
        );
        let note = json!({"note": "another"});
        assert_eq!(
            refused(api.patch("good", &params, &Patch::Merge(&note)).await).code,
            422
        );
    });
}

#[test]
fn a_lease_lasts_some_time_and_its_times_have_microseconds() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Leases, "kube-system");
        let mut bad = lease("a");
        bad["spec"]["leaseDurationSeconds"] = json!(0);
        assert_eq!(
            refused(api.create(&PostParams::default(), &object(bad)).await).code,
            422
        );
        let mut coarse = lease("a");
        coarse["spec"]["renewTime"] = json!("2026-01-02T03:04:05.123Z");
        assert_eq!(
            refused(api.create(&PostParams::default(), &object(coarse)).await).code,
            400
        );
    });
}

#[test]
fn a_json_patch_is_carried_out_or_refused() {
    run(async {
        let server = server();
        server.put(ingress("web")).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let path = format!(
            "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/{}",
            "web"
        );
        let request = |body: &str| {
            let request = http_request("PATCH", &path, "application/json-patch+json", body);
            client.request::<DynamicObject>(request)
        };
        request(r#"[{"op": "replace", "path": "/spec/ingressClassName", "value": "other"}]"#)
            .await
            .unwrap();
        assert_eq!(
            api.get("web").await.unwrap().data["spec"]["ingressClassName"],
            "other"
        );
        let status = refused(
            request(r#"[{"op": "test", "path": "/spec/ingressClassName", "value": "x"}]"#).await,
        );
        assert_eq!(status.code, 422);
    });
}
