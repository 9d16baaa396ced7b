//! Who gets in, and what the server says it has.

use fleetgate_tests::apiserver::{Resource, Verb};
use kube::api::ListParams;

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
