use std::{net::SocketAddr, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::ir::{ClusterId, WeightedGroup};

const INSERT: Sticky = Sticky::Insert(Duration::from_secs(1000));

fn name(service: &str) -> GroupName {
    GroupName {
        namespace: "demo".into(),
        ingress: "web".into(),
        service: service.into(),
        port: "80".into(),
    }
}

fn backends(pods: &[u8]) -> Vec<Backend> {
    let backend = |pod: &u8| Backend {
        cluster: ClusterId("c1".into()),
        address: SocketAddr::from(([10, 0, 0, *pod], 8080)),
        pod: Arc::from("pod"),
        weight: 1,
    };
    pods.iter().map(backend).collect()
}

fn tokens(service: &str, pods: &[u8]) -> Tokens {
    Tokens::new(
        Key::of(b"secret", "sticky"),
        &name(service),
        &backends(pods),
    )
}

/// What a browser sends back.
fn cookie(set: &[u8]) -> Vec<u8> {
    set.split(|byte| *byte == b';')
        .next()
        .expect("a cookie")
        .to_vec()
}

fn insert(tokens: &Tokens, chosen: usize, line: &[u8]) -> Option<Vec<u8>> {
    let set = tokens.insert(chosen, [line].into_iter(), Duration::from_secs(1000), false);
    set.map(|(line, cross_site)| {
        assert_eq!(cross_site, None, "in plain no browser takes it");
        line
    })
}

#[test]
fn the_first_answer_names_the_pod_and_later_requests_ask_for_it() {
    let tokens = tokens("web", &[1, 2, 3]);
    let set = insert(&tokens, 1, b"theme=dark").expect("a cookie");
    let text = String::from_utf8(set.clone()).expect("text");
    let value = text.strip_prefix("SERVERID=").expect("the name");
    assert_eq!(
        value.get(DIGITS..),
        Some("; Path=/; Max-Age=1000; HttpOnly")
    );
    let sent = [b"theme=dark; ".as_slice(), &cookie(&set)].concat();
    assert_eq!(tokens.asked(&INSERT, [&sent[..]].into_iter()), Some(1));
    assert_eq!(insert(&tokens, 1, &sent), None, "once");
    assert_eq!(
        insert(&tokens, 2, &sent).map(|it| it.len()),
        Some(set.len()),
        "moved"
    );
    let secure = tokens.insert(0, [].into_iter(), Duration::from_secs(1), true);
    let (line, cross_site) = secure.expect("a cookie");
    assert!(line.ends_with(b"Max-Age=1; HttpOnly; Secure"));
    let cross_site = cross_site.expect("one for other sites");
    assert!(cross_site.ends_with(b"; Secure; SameSite=None"));
    let sent = cookie(&cross_site);
    assert!(sent.starts_with(b"SERVERCORSID="));
    assert_eq!(tokens.asked(&INSERT, [&sent[..]].into_iter()), Some(0));
    assert_eq!(upstream(&sent, Some(&INSERT), None), None);
    let sent = [b"theme=dark; ".as_slice(), &cookie(&set)].concat();
    assert_eq!(
        upstream(&sent, Some(&INSERT), None).as_deref(),
        Some(&b"theme=dark"[..])
    );
    assert_eq!(upstream(&cookie(&set), Some(&INSERT), None), None);
    assert_eq!(upstream(&sent, None, None).as_deref(), Some(&sent[..]));
}

#[test]
fn a_token_means_the_same_pod_on_every_node_and_nothing_once_that_is_gone() {
    let (before, after) = (tokens("web", &[1, 2, 3]), tokens("web", &[0, 1, 3]));
    for (pod, now) in [(0, Some(1)), (1, None), (2, Some(2))] {
        let sent = cookie(&insert(&before, pod, b"").expect("a cookie"));
        assert_eq!(after.asked(&INSERT, [&sent[..]].into_iter()), now);
    }
    let sent = cookie(&insert(&before, 0, b"").expect("a cookie"));
    let other = Tokens::new(
        Key::of(b"other", "sticky"),
        &name("web"),
        &backends(&[1, 2, 3]),
    );
    assert_eq!(other.asked(&INSERT, [&sent[..]].into_iter()), None);
    let elsewhere = tokens("api", &[1, 2, 3]);
    assert_eq!(elsewhere.asked(&INSERT, [&sent[..]].into_iter()), None);
}

#[test]
fn groups_on_one_host_keep_each_others_sessions_and_the_cookie_stays_short() {
    let groups: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .map(|it| tokens(it, &[1, 2]))
        .into();
    let mut sent = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        if let Some(set) = insert(group, number % 2, &sent) {
            sent = cookie(&set);
        }
    }
    assert_eq!(sent.len(), "SERVERID=".len() + 4 * DIGITS + 3);
    for (number, group) in groups.iter().enumerate() {
        let expected = (number >= 2).then_some(number % 2);
        assert_eq!(group.asked(&INSERT, [&sent[..]].into_iter()), expected);
    }
}

#[test]
fn the_applications_cookie_names_the_pod_and_the_pod_gets_it_as_it_was() {
    let tokens = tokens("web", &[1, 2, 3]);
    let sticky = Sticky::Server("JSESSIONID".into());
    let set = tokens.rewrite("JSESSIONID", 2, b"JSESSIONID=\"a=b\"; Path=/app; HttpOnly");
    let set = set.expect("ours");
    assert!(set.ends_with(b"~\"a=b\"; Path=/app; HttpOnly"));
    let sent = [b"x=~1; ".as_slice(), &cookie(&set), b"; y=2"].concat();
    assert_eq!(tokens.asked(&sticky, [&sent[..]].into_iter()), Some(2));
    let pod = upstream(&sent, Some(&sticky), None);
    assert_eq!(pod.as_deref(), Some(&b"x=~1; JSESSIONID=\"a=b\"; y=2"[..]));
    for other in [
        "jsessionid=1",
        "a=JSESSIONID=1",
        "JSESSIONID",
        "JSESSIONID=; Max-Age=0",
        "",
        "=1",
    ] {
        assert_eq!(
            tokens.rewrite("JSESSIONID", 0, other.as_bytes()),
            None,
            "{other}"
        );
    }
    // Nobody's any more, but never the application's.
    let stale = b"JSESSIONID=~0123456789abcdef~v";
    assert_eq!(tokens.asked(&sticky, [&stale[..]].into_iter()), None);
    assert_eq!(
        upstream(stale, Some(&sticky), None).as_deref(),
        Some(&b"JSESSIONID=v"[..])
    );
}

fn forward(groups: &[(&str, u32)]) -> Forward {
    let weighted = |(group, weight): &(&str, u32)| WeightedGroup {
        group: name(group),
        weight: *weight,
    };
    Forward {
        groups: groups.iter().map(weighted).collect(),
        sticky: Some(Duration::from_secs(60)),
    }
}

#[test]
fn a_client_stays_with_its_group_until_that_gets_nothing_any_more() {
    let key = Key::of(b"secret", "sticky");
    let before = GroupTokens::new(key, &forward(&[("old", 80), ("new", 20)])).expect("sticky");
    let set = before.insert(1, None, false).expect("a cookie");
    assert!(set.ends_with(b"; Path=/; Max-Age=60; HttpOnly"));
    let sent = cookie(&set);
    let asked = |it: &GroupTokens| it.asked([&sent[..]].into_iter());
    assert_eq!(asked(&before), Some(1));
    assert_eq!(before.insert(1, Some(1), false), None);
    assert!(before.insert(0, Some(1), false).is_some());
    let swapped = GroupTokens::new(key, &forward(&[("new", 50), ("old", 50)])).expect("sticky");
    assert_eq!(asked(&swapped), Some(0));
    let none = GroupTokens::new(key, &forward(&[("old", 100), ("new", 0)])).expect("sticky");
    assert_eq!(asked(&none), None);
    assert_eq!(none.insert(1, None, false), None);
    let other = GroupTokens::new(key, &forward(&[("old", 80), ("third", 20)])).expect("sticky");
    assert_ne!(other.cookie, before.cookie);
    assert_eq!(upstream(&sent, None, Some(&before)), None);
    assert!(upstream(&sent, None, Some(&other)).is_some());
    let unstuck = Forward {
        sticky: None,
        ..forward(&[("old", 1)])
    };
    assert!(GroupTokens::new(key, &unstuck).is_none());
}

proptest! {
    #[test]
    fn what_a_client_makes_up_names_nobody_and_breaks_nothing(
        line in prop_oneof![
            "(SERVERID|S)= ?\"?[0-9a-f.~;]{0,80}",
            "(S|SERVERID=;){0,5}S=~[0-9a-f]{15,17}~?.{0,5}",
            prop::collection::vec(any::<u8>(), 0..120).prop_map(|it| String::from_utf8_lossy(&it).into_owned()),
        ],
    ) {
        let tokens = tokens("web", &[1, 2, 3]);
        let server = Sticky::Server("S".into());
        for sticky in [&INSERT, &server] {
            prop_assert_eq!(tokens.asked(sticky, [line.as_bytes()].into_iter()), None);
            let pod = upstream(line.as_bytes(), Some(sticky), None);
            prop_assert!(pod.is_none_or(|it| it.len() <= line.len()));
        }
        // It still gets a cookie that works, without line breaks or separators of its making.
        let set = insert(&tokens, 0, line.as_bytes()).expect("a cookie");
        let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        prop_assert!(set.iter().all(plain) && set.len() < 150);
        prop_assert_eq!(tokens.asked(&INSERT, [&cookie(&set)[..]].into_iter()), Some(0));
    }

    #[test]
    fn what_the_application_set_comes_back_to_it_unchanged(value in "[!-:<-~]{1,40}", others in "([a-z]=[0-9]; ){0,3}") {
        let tokens = tokens("web", &[1, 2, 3]);
        let sticky = Sticky::Server("S".into());
        let set = tokens.rewrite("S", 1, format!("S={value}; Secure").as_bytes()).expect("ours");
        let sent = [others.as_bytes(), &cookie(&set)].concat();
        prop_assert_eq!(tokens.asked(&sticky, [&sent[..]].into_iter()), Some(1));
        let pod = upstream(&sent, Some(&sticky), None).expect("not empty");
        let expected = format!("{others}S={value}");
        prop_assert_eq!(&pod[..], expected.as_bytes());
    }
}
