//! Who gets in, and what the server says it has.

use fleetgate_tests::apiserver::{Resource, Verb};
use kube::api::{ListParams, Patch, PatchParams, PostParams};

use super::*;

fn locked() -> ApiServer {
    let options = Options {
        tls: true,
        login: true,
        ..Options::default()
    };
    ApiServer::start(options).expect("a server")
}

async fn list(client: &Client) -> Result<(), Error> {
    all(client, Resource::Services)
        .list(&ListParams::default())
        .await
        .map(drop)
}

async fn client_by(server: &ApiServer, login: Login<'_>) -> Client {
    client_with(&server.kubeconfig(login).expect("a kubeconfig")).await
}

#[test]
fn nobody_gets_in_without_a_login() {
    run(async {
        let server = locked();
        let status = refused(list(&client_by(&server, Login::Nobody).await).await);
        assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"));
        let status = refused(list(&client_by(&server, Login::Token("guess")).await).await);
        assert_eq!(status.code, 401);
    });
}

#[test]
fn a_token_opens_until_it_is_revoked() {
    run(async {
        let server = locked();
        server.accept_token("first", "fleetgate");
        let client = client_by(&server, Login::Token("first")).await;
        list(&client).await.unwrap();
        assert_eq!(server.requests()[0].user, "fleetgate");
        server.revoke_tokens();
        server.accept_token("second", "fleetgate");
        assert_eq!(refused(list(&client).await).code, 401);
        list(&client_by(&server, Login::Token("second")).await)
            .await
            .unwrap();
    });
}

#[test]
fn a_token_may_stand_in_a_file() {
    run(async {
        let server = locked();
        server.accept_token("filed", "fleetgate");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "filed").unwrap();
        list(&client_by(&server, Login::TokenFile(file.path())).await)
            .await
            .unwrap();
    });
}

#[test]
fn a_client_certificate_opens_until_it_is_revoked() {
    run(async {
        let server = locked();
        let client = client_by(&server, Login::Certificate("gateway-1")).await;
        list(&client).await.unwrap();
        assert_eq!(server.requests()[0].user, "gateway-1");
        server.revoke_certificates();
        assert_eq!(refused(list(&client).await).code, 401);
    });
}

#[test]
fn a_client_that_trusts_another_authority_does_not_connect() {
    run(async {
        let (server, other) = (locked(), locked());
        let foreign = other
            .kubeconfig(Login::Nobody)
            .unwrap()
            .replace(&other.url(), &server.url());
        let outcome = list(&client_with(&foreign).await).await;
        assert!(matches!(outcome, Err(cause) if !matches!(cause, Error::Api(_))));
    });
}

#[test]
fn what_rbac_does_not_allow_is_403_and_says_who_may_not_do_what() {
    run(async {
        let server = server();
        server.forbid(Verb::List, Resource::Services);
        let client = client(&server).await;
        let status = refused(list(&client).await);
        assert_eq!(status.code, 403);
        assert_eq!(
            status.message,
            "services is forbidden: User \"system:anonymous\" cannot list resource \"services\" in API group \"\" at the cluster scope"
        );
        all(&client, Resource::Ingresses)
            .list(&ListParams::default())
            .await
            .unwrap();
        server.allow(Verb::List, Resource::Services);
        list(&client).await.unwrap();
    });
}

#[test]
fn discovery_names_every_resource() {
    run(async {
        let server = server();
        let client = client(&server).await;
        assert_eq!(client.apiserver_version().await.unwrap().major, "1");
        let mut found = Vec::new();
        let core = client.list_core_api_resources("v1").await.unwrap();
        found.extend(core.resources.into_iter().map(|resource| resource.name));
        for group in client.list_api_groups().await.unwrap().groups {
            let version = group.versions[0].group_version.clone();
            let list = client.list_api_group_resources(&version).await.unwrap();
            found.extend(list.resources.into_iter().map(|resource| resource.name));
        }
        for resource in Resource::ALL {
            assert!(
                found.iter().any(|name| name == resource.plural()),
                "{resource:?}"
            );
        }
        assert!(found.iter().any(|name| name == "albconfigs/status"));
    });
}

/// The roles that the chart gives the agent, as it is rendered.
fn deployed_roles() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden_chart/defaults.yaml");
    let text = std::fs::read_to_string(path).expect("the roles");
    let documents = text.split("\n---\n");
    documents
        .map(|text| serde_saphyr::from_str(text).expect("YAML"))
        .filter(|it: &Value| {
            let kind = it["kind"].as_str();
            kind.is_some_and(|kind| matches!(kind, "Role" | "ClusterRole"))
        })
        .collect()
}

#[test]
fn the_deployed_roles_allow_to_read_ingresses_and_to_write_their_status_alone() {
    run(async {
        let server = server();
        server.put(ingress("web")).unwrap();
        server.allow_only(&deployed_roles());
        let client = client(&server).await;
        let api = inside(&client, Resource::Ingresses, "shop");
        let (params, mut config) = (PatchParams::apply("fleetgate"), ingress("web"));
        config["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        api.get("web").await.unwrap();
        api.patch_status("web", &params, &Patch::Apply(&config))
            .await
            .unwrap();
        assert_eq!(
            refused(api.patch("web", &params, &Patch::Apply(&config)).await).code,
            403
        );
        assert_eq!(
            refused(inside(&client, Resource::Secrets, "shop").get("tls").await).code,
            403
        );
    });
}

#[test]
fn a_role_holds_in_its_namespace_and_for_the_names_it_says() {
    run(async {
        let server = server();
        server.allow_only(&[json!({
            "kind": "Role", "metadata": {"namespace": "shop"},
            "rules": [
                {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "get"], "resourceNames": ["web"]},
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]},
            ],
        })]);
        server.put(service("web", 80)).unwrap();
        let client = client(&server).await;
        let api = inside(&client, Resource::Services, "shop");
        api.get("web").await.unwrap();
        assert_eq!(refused(api.get("api").await).code, 403);
        api.list(&ListParams::default().fields("metadata.name=web"))
            .await
            .unwrap();
        assert_eq!(refused(api.list(&ListParams::default()).await).code, 403);
        assert_eq!(
            refused(inside(&client, Resource::Services, "bank").get("web").await).code,
            403
        );
        // Whoever may patch may not for that create.
        let secrets = inside(&client, Resource::Secrets, "shop");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new"}});
        let outcome = secrets
            .patch("new", &PatchParams::apply("me"), &Patch::Apply(&secret))
            .await;
        assert_eq!(refused(outcome).code, 403);
        assert_eq!(
            refused(
                secrets
                    .create(&PostParams::default(), &object(secret))
                    .await
            )
            .code,
            403
        );
    });
}
