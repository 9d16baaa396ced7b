//! Server-side apply: who owns what.

use fleetgate_tests::apiserver::Resource;
use kube::api::{Patch, PatchParams};

use super::*;

fn labelled(labels: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "labels": labels},
    })
}

async fn apply(
    api: &Api<DynamicObject>,
    manager: &str,
    config: Value,
) -> Result<DynamicObject, Error> {
    api.patch("web", &PatchParams::apply(manager), &Patch::Apply(&config))
        .await
}

fn labels(object: &DynamicObject) -> Vec<(&str, &str)> {
    let labels = object.metadata.labels.iter().flatten();
    labels
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn managers(object: &DynamicObject) -> Vec<(String, String)> {
    let entries = object.metadata.managed_fields.iter().flatten();
    entries
        .map(|entry| {
            (
                entry.manager.clone().unwrap_or_default(),
                entry.operation.clone().unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn applying_the_same_again_makes_no_revision() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let first = apply(&api, "one", labelled(json!({"a": "1"})))
            .await
            .unwrap();
        let revision = server.revision();
        let second = apply(&api, "one", labelled(json!({"a": "1"})))
            .await
            .unwrap();
        assert_eq!(server.revision(), revision);
        assert_eq!(first.metadata, second.metadata);
        assert_eq!(managers(&first), [("one".to_owned(), "Apply".to_owned())]);
    });
}

#[test]
fn a_field_that_another_owns_is_a_conflict_unless_it_is_taken_by_force() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        apply(&api, "one", labelled(json!({"a": "1", "b": "1"})))
            .await
            .unwrap();
        let status = refused(apply(&api, "two", labelled(json!({"a": "2"}))).await);
        assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
        let cause = &status.details.as_ref().unwrap().causes[0];
        assert_eq!(cause.field, ".metadata.labels.a");
        assert!(
            status.message.contains("conflict with \"one\""),
            "{}",
            status.message
        );

        let params = PatchParams::apply("two").force();
        let config = labelled(json!({"a": "2"}));
        let taken = api
            .patch("web", &params, &Patch::Apply(&config))
            .await
            .unwrap();
        assert_eq!(labels(&taken), [("a", "2"), ("b", "1")]);
        // Who lost the field is in conflict now.
        let status = refused(apply(&api, "one", labelled(json!({"a": "1", "b": "1"}))).await);
        assert_eq!(status.code, 409);
    });
}

#[test]
fn a_field_with_the_same_value_is_owned_by_both_and_goes_with_the_last() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        apply(&api, "one", labelled(json!({"a": "1", "b": "1"})))
            .await
            .unwrap();
        apply(&api, "two", labelled(json!({"a": "1"})))
            .await
            .unwrap();
        let left = apply(&api, "one", labelled(json!({"c": "1"})))
            .await
            .unwrap();
        assert_eq!(labels(&left), [("a", "1"), ("c", "1")]);
        let left = apply(&api, "two", labelled(json!({}))).await.unwrap();
        assert_eq!(labels(&left), [("c", "1")]);
    });
}

#[test]
fn an_update_owns_what_it_changed() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        apply(&api, "one", labelled(json!({"a": "1"})))
            .await
            .unwrap();
        let params = PatchParams {
            field_manager: Some("kubectl".to_owned()),
            ..PatchParams::default()
        };
        let patch = json!({"metadata": {"labels": {"a": "edited"}}});
        api.patch("web", &params, &Patch::Merge(&patch))
            .await
            .unwrap();
        let status = refused(apply(&api, "one", labelled(json!({"a": "1"}))).await);
        assert!(status.message.contains("kubectl"), "{}", status.message);
        assert_eq!(
            apply(&api, "one", labelled(json!({"a": "edited"})))
                .await
                .unwrap()
                .metadata
                .labels
                .unwrap()["a"],
            "edited"
        );
    });
}

#[test]
fn a_status_is_applied_beside_the_fields_of_others_and_changes_nothing_else() {
    run(async {
        let server = server();
        server.put(json!({
            "apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig", "metadata": {"name": "edge"},
            "spec": {"config": {"name": "edge"}},
            "status": {"loadBalancer": {"id": "alb-1"}},
        })).unwrap();
        let client = client(&server).await;
        let api = all(&client, Resource::AlbConfigs);
        let config = |dnsname: &str| {
            json!({
                "apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig",
                "metadata": {"labels": {"ignored": "yes"}},
                "status": {"loadBalancer": {"dnsname": dnsname, "subClusters": [{"clusterId": "c1"}]}},
            })
        };
        let params = PatchParams::apply("fleetgate");
        let written = api
            .patch_status("edge", &params, &Patch::Apply(&config("edge.example")))
            .await
            .unwrap();
        let balancer = &written.data["status"]["loadBalancer"];
        assert_eq!(
            (&balancer["id"], &balancer["dnsname"]),
            (&json!("alb-1"), &json!("edge.example"))
        );
        assert_eq!(
            (written.metadata.generation, &written.metadata.labels),
            (Some(1), &None)
        );
        let revision = server.revision();
        api.patch_status("edge", &params, &Patch::Apply(&config("edge.example")))
            .await
            .unwrap();
        assert_eq!(server.revision(), revision);

        // What is no longer applied goes; what others wrote stays.
        let less = json!({
            "apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig",
            "status": {"loadBalancer": {"dnsname": "edge.example"}},
        });
        let written = api
            .patch_status("edge", &params, &Patch::Apply(&less))
            .await
            .unwrap();
        let left = json!({"loadBalancer": {"id": "alb-1", "dnsname": "edge.example"}});
        assert_eq!(written.data["status"], left);
    });
}

#[test]
fn the_addresses_of_an_ingress_are_one_value() {
    run(async {
        let server = server();
        server.put(ingress("web")).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let config = |addresses: Value| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "status": {"loadBalancer": {"ingress": addresses}},
            })
        };
        let put = |manager: &'static str, addresses: Value| {
            let (api, config) = (api.clone(), config(addresses));
            async move {
                api.patch_status("web", &PatchParams::apply(manager), &Patch::Apply(&config))
                    .await
            }
        };
        put("one", json!([{"ip": "192.0.2.1"}])).await.unwrap();
        let status = refused(put("two", json!([{"ip": "192.0.2.2"}])).await);
        assert_eq!(
            status.details.unwrap().causes[0].field,
            ".status.loadBalancer.ingress"
        );
        let written = put("one", json!([{"ip": "192.0.2.3"}])).await.unwrap();
        assert_eq!(
            written.data["status"]["loadBalancer"]["ingress"],
            json!([{"ip": "192.0.2.3"}])
        );
    });
}

#[test]
fn an_apply_needs_a_manager_and_a_status_needs_an_object() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let config = labelled(json!({"a": "1"}));
        let status = refused(
            api.patch_status("web", &PatchParams::apply("one"), &Patch::Apply(&config))
                .await,
        );
        assert_eq!(status.code, 404);
        let path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web";
        let request = http_request(
            "PATCH",
            path,
            "application/apply-patch+yaml",
            &config.to_string(),
        );
        let status = refused(client.request::<DynamicObject>(request).await);
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    });
}

#[test]
fn an_empty_map_that_is_applied_takes_nothing_from_others() {
    run(async {
        let server = server();
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        apply(&api, "one", labelled(json!({}))).await.unwrap();
        apply(&api, "two", labelled(json!({"a": "1"})))
            .await
            .unwrap();
        let left = apply(&api, "one", labelled(json!({}))).await.unwrap();
        assert_eq!(labels(&left), [("a", "1")]);
        let left = apply(&api, "two", labelled(json!({}))).await.unwrap();
        assert_eq!(labels(&left), []);
    });
}
