//! Sessions that stay with a pod, and clients that stay with a group.

use std::{io::Write, sync::Arc, time::Duration};

use gateway_user::ir::{Forward, Group, Policy, Sticky, Target, WeightedGroup};

use super::{hits, numbered, pods};
use crate::support::{Gateway, Origin, Reply, Routed, backend, group, rule};

fn sticky(sticky: Sticky) -> Policy {
    Policy {
        sticky: Some(sticky),
        ..Policy::default()
    }
}

fn inserting() -> Policy {
    sticky(Sticky::Insert(Duration::from_secs(1000)))
}

/// `name=value` of the only cookie that is set.
fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie");
    assert_eq!(set.len(), 1, "{}", reply.head);
    set[0].split(';').next().unwrap().to_owned()
}

/// Asks over connections of their own, so that all workers are asked.
fn ask(gateway: &Gateway, cookies: &str) -> Reply {
    let reply = gateway
        .client()
        .get_with("/", &format!("Cookie: {cookies}\r\n"));
    assert_eq!(reply.status, 200);
    reply
}

#[test]
fn an_inserted_cookie_is_set_once_and_keeps_its_client_at_the_pod() {
    let origins = numbered(4);
    let gateway = Gateway::start(vec![rule(pods(&origins, inserting()))]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let first = gateway.client().get("/");
        let (pod, cookie) = (first.text(), cookie(&first));
        assert!(cookie.starts_with("SERVERID="), "{cookie}");
        assert!(first.header("set-cookie")[0].contains("Max-Age=1000"));
        for _ in 0..16 {
            let reply = ask(&gateway, &format!("a=1; {cookie}; b=2"));
            assert_eq!(reply.text(), pod);
            assert!(reply.header("set-cookie").is_empty());
        }
        seen.insert(pod);
    }
    assert!(seen.len() > 1, "new clients are spread");
    let lines = origins.iter().flat_map(Origin::seen);
    for seen in lines.filter(|it| !it.header("cookie").is_empty()) {
        assert_eq!(
            seen.header("cookie"),
            ["a=1; b=2"],
            "a pod sees only its own"
        );
    }
}

#[test]
fn a_session_whose_pod_is_gone_gets_another_pod_and_another_cookie() {
    let origins = numbered(3);
    let mut gateway = Gateway::start(vec![rule(pods(&origins, inserting()))]);
    let first = gateway.client().get("/");
    let gone: usize = first.text().parse().unwrap();
    let rest = |group: &Group| Group {
        backends: group
            .backends
            .iter()
            .filter(|it| it.address != origins[gone].address)
            .cloned()
            .collect(),
        ..group.clone()
    };
    gateway.change(|site| site.rules[0].group = Arc::new(rest(&site.rules[0].group)));
    let old = cookie(&first);
    let second = ask(&gateway, &old);
    assert_ne!(second.text(), first.text());
    let new = cookie(&second);
    assert_ne!(new, old);
    for _ in 0..12 {
        let reply = ask(&gateway, &new);
        assert_eq!(reply.text(), second.text());
        assert!(reply.header("set-cookie").is_empty());
    }
}

#[test]
fn a_cookie_that_a_client_made_up_names_nobody() {
    let origins = numbered(3);
    let gateway = Gateway::start(vec![rule(pods(&origins, inserting()))]);
    for made_up in [
        "SERVERID=0123456789abcdef",
        "SERVERID=127.0.0.1:80",
        "SERVERID=",
        "SERVERID",
    ] {
        for _ in 0..9 {
            cookie(&ask(&gateway, made_up));
        }
    }
    assert!(
        hits(&origins).iter().all(|count| *count > 0),
        "{:?}",
        hits(&origins)
    );
}

/// Pods that set a cookie of their own where the client has none, and say their number.
fn applications(count: usize) -> Vec<Origin> {
    let pods = (0..count).map(|index| {
        Origin::answering(move |seen, stream| {
            let set = match seen
                .header("cookie")
                .iter()
                .any(|it| it.contains("SESSION="))
            {
                true => "",
                false => "Set-Cookie: SESSION=s1; Path=/; Secure\r\n",
            };
            let other = "Set-Cookie: other=1\r\n";
            write!(
                stream,
                "HTTP/1.1 200 OK\r\n{set}{other}Content-Length: 1\r\n\r\n{index}"
            )
        })
    });
    pods.collect()
}

#[test]
fn the_applications_cookie_keeps_its_client_at_the_pod_and_reaches_it_as_it_was_set() {
    let origins = applications(4);
    let policy = sticky(Sticky::Server("SESSION".to_owned()));
    let gateway = Gateway::start(vec![rule(pods(&origins, policy))]);
    let first = gateway.client().get("/");
    let set = first.header("set-cookie");
    assert_eq!(set[1], "other=1");
    assert!(
        set[0].starts_with("SESSION=") && set[0].ends_with("s1; Path=/; Secure"),
        "{set:?}"
    );
    let cookie = set[0].split(';').next().unwrap().to_owned();
    for _ in 0..20 {
        let reply = ask(&gateway, &format!("x=1; {cookie}"));
        assert_eq!(reply.text(), first.text());
        assert_eq!(reply.header("set-cookie"), ["other=1"]);
    }
    let pod: usize = first.text().parse().unwrap();
    let seen = origins[pod].seen();
    assert!(
        seen[1..]
            .iter()
            .all(|it| it.header("cookie") == ["x=1; SESSION=s1"])
    );
}

#[test]
fn a_session_of_an_application_moves_when_its_pod_is_gone() {
    let origins = applications(2);
    let policy = sticky(Sticky::Server("SESSION".to_owned()));
    let mut gateway = Gateway::start(vec![rule(pods(&origins, policy.clone()))]);
    let first = gateway.client().get("/");
    let old = first.header("set-cookie")[0]
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let gone: usize = first.text().parse().unwrap();
    let left = &origins[1 - gone..2 - gone];
    gateway.change(|site| site.rules[0].group = pods(left, policy));
    assert_ne!(ask(&gateway, &old).text(), first.text());
    assert_eq!(
        left[0].seen()[0].header("cookie"),
        ["SESSION=s1"],
        "the token goes all the same"
    );
}

#[test]
fn a_client_stays_with_its_group_while_the_pods_of_the_group_take_turns() {
    let origins = numbered(4);
    let each = |name: &str, pods: &[Origin]| {
        let backends = pods.iter().map(|it| backend("c1", it.address, 1));
        group(name, backends.collect())
    };
    let (a, b) = (each("a", &origins[..2]), each("b", &origins[2..]));
    let weighted = |group: &Group| WeightedGroup {
        group: group.name.clone(),
        weight: 50,
    };
    let forward = Forward {
        groups: vec![weighted(&a), weighted(&b)],
        sticky: Some(Duration::from_secs(60)),
    };
    let gateway = Gateway::start(vec![Routed {
        target: Some(Target::Forward(forward)),
        others: vec![b],
        ..rule(a)
    }]);
    let group_of = |reply: &Reply| reply.text().parse::<usize>().unwrap() / 2;
    let mut groups = [0; 2];
    for _ in 0..20 {
        let first = gateway.client().get("/");
        let cookie = cookie(&first);
        groups[group_of(&first)] += 1;
        for _ in 0..4 {
            let reply = ask(&gateway, &format!("{cookie}; own=1"));
            assert_eq!(group_of(&reply), group_of(&first));
            assert!(reply.header("set-cookie").is_empty());
        }
    }
    assert!(groups.iter().all(|count| *count > 0), "{groups:?}");
    assert!(
        hits(&origins).iter().all(|count| *count > 0),
        "{:?}",
        hits(&origins)
    );
    let seen = origins.iter().flat_map(Origin::seen);
    for cookies in seen
        .map(|it| it.header("cookie"))
        .filter(|it| !it.is_empty())
    {
        assert_eq!(cookies, ["own=1"]);
    }
}
