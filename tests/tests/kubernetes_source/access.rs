//! Tokens, certificates, and what happens when they change.

use super::*;

fn closed() -> Server {
    Server {
        tls: true,
        login: true,
        ..Server::default()
    }
}

#[test]
fn tokens_and_client_certificates_are_shown() {
    let mut world = World::with(&["c1"], &closed());
    world.fleet.accept_token("t-1", "agent");
    write(&world.file("fleet"), &world.fleet, Login::Token("t-1"));
    write(
        &world.file("c1"),
        world.member("c1"),
        Login::Certificate("agent"),
    );
    world.follow_as_written();
    world.until_followed();
    let users = |server: &ApiServer| {
        let requests = server.requests();
        assert!(!requests.is_empty());
        requests
            .iter()
            .all(|it| it.user == "agent" && it.code == 200)
    };
    assert!(users(&world.fleet) && users(world.member("c1")));
}

#[test]
fn a_kubeconfig_file_that_changes_is_noticed_when_the_old_one_is_refused() {
    let mut world = World::with(&["c1"], &closed());
    world.fleet.accept_token("t-1", "agent");
    world.member("c1").accept_token("t-1", "agent");
    write(&world.file("fleet"), &world.fleet, Login::Token("t-1"));
    write(&world.file("c1"), world.member("c1"), Login::Token("t-1"));
    world.follow_as_written();
    world.until_followed();
    world.clear();
    let server = world.member("c1");
    server.revoke_tokens();
    server.accept_token("t-2", "agent");
    server.cut_watches(None);
    world.until("the refusal is named", |snapshot| {
        troubles(snapshot, "c1")
            .iter()
            .any(|it| it.contains("renew the credentials"))
    });
    assert_eq!(port(&world.snapshot, "c1", "web"), Some(80));
    write(&world.file("c1"), world.member("c1"), Login::Token("t-2"));
    world.member("c1").put(service("web", 81)).unwrap();
    world.until("it is followed again", |snapshot| {
        port(snapshot, "c1", "web") == Some(81) && troubles(snapshot, "c1").is_empty()
    });
    assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2]);
}

#[test]
fn a_token_file_that_changes_is_read_again_when_the_old_one_is_refused() {
    let mut world = World::with(&["c1"], &closed());
    world.fleet.accept_token("t-1", "agent");
    world.member("c1").accept_token("t-1", "agent");
    let token = world.file("token");
    std::fs::write(&token, "t-1").unwrap();
    write(&world.file("fleet"), &world.fleet, Login::Token("t-1"));
    write(
        &world.file("c1"),
        world.member("c1"),
        Login::TokenFile(&token),
    );
    world.follow_as_written();
    world.until_followed();
    let server = world.member("c1");
    server.revoke_tokens();
    server.accept_token("t-2", "agent");
    std::fs::write(&token, "t-2").unwrap();
    server.cut_watches(None);
    server.put(service("web", 81)).unwrap();
    world.until("it is followed again", |snapshot| {
        port(snapshot, "c1", "web") == Some(81)
    });
}

#[test]
fn a_server_with_another_certificate_is_not_trusted() {
    let mut world = World::with(&["c1"], &closed());
    let other = ApiServer::start(closed()).unwrap();
    let theirs = world.member("c1").address().to_string();
    let text = other
        .kubeconfig(Login::Nobody)
        .unwrap()
        .replace(&other.address().to_string(), &theirs);
    std::fs::write(world.file("c1"), text).unwrap();
    world.fleet.accept_token("t-1", "agent");
    write(&world.file("fleet"), &world.fleet, Login::Token("t-1"));
    world.follow_as_written();
    world.until("the rest is published", |snapshot| snapshot.whole);
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Unknown));
    let told = troubles(&world.snapshot, "c1");
    assert!(told[0].contains("certificate"), "{told:?}");
    assert_eq!(world.member("c1").counts(), BTreeMap::new());
}
