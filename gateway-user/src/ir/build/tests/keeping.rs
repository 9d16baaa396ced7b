//! What outlives a later mistake, and what must not.

use super::*;
use crate::problem::Severity;

fn remedies(built: &Built) -> Vec<&str> {
    let errors = built.problems.iter();
    errors
        .filter(|it| it.severity == Severity::Error)
        .map(|it| it.remedy.as_str())
        .collect()
}

fn serving() -> Built {
    let built = compile(
        format!("{FLEET}{}", ingress("a", "", "/")),
        &LastGood::default(),
    );
    assert_eq!(listener(&built).rules.len(), 1);
    built
}

#[test]
fn a_listener_keeps_its_access_list_whatever_is_mistaken_later() {
    let acl = "aclConfig: {aclType: White, aclEntries: [10.0.0.0/8]}";
    let fleet = FLEET.replace("protocol: HTTP}", &format!("protocol: HTTP, {acl}}}"));
    let good = compile(FLEET.to_owned(), &LastGood::default());
    let list = |built: &Built| {
        let served: Vec<_> = built.ir.served().collect();
        served.first().map(|it| it.settings.access.clone())
    };
    assert_eq!(list(&good), Some(None));
    let filtered = compile(fleet.clone(), &good.last_good);
    let Some(Some(office)) = list(&filtered) else {
        panic!("a list: {:?}", filtered.problems);
    };
    assert!(office.allow && filtered.problems.is_empty());
    // Not lost by a mistake made later, nor by the same port listed again.
    let mistaken = fleet.replace(
        "aclEntries: [10.0.0.0/8]}",
        "aclEntries: [10.0.0.0/8]}, idleTimeout: 61",
    );
    assert_ne!(mistaken, fleet);
    let mistaken = compile(mistaken, &filtered.last_good);
    assert_eq!(list(&mistaken), Some(Some(office)));
    let twice = fleet.replace("listeners: [", "listeners: [{port: 8001, protocol: HTTP, aclConfig: {aclType: Black, aclEntries: [10.0.0.0/8]}}, ");
    let twice = twice.replace(&format!("protocol: HTTP, {acl}}}"), "protocol: HTTP}");
    let twice = compile(twice, &good.last_good);
    assert!(list(&twice).flatten().is_some_and(|list| !list.allow));
}

#[test]
fn limits_of_new_flows_are_read_by_port_and_outlive_a_mistake() {
    let limits = |built: &Built| listener(built).settings.limits;
    let with = |value: &str| {
        let key = "fleetgate.io/new-flows-per-second";
        FLEET.replace(
            "\"c1,c2\"}",
            &format!("\"c1,c2\", {key}: \"{value}\", {key}-per-source: \"7\"}}"),
        )
    };
    let good = compile(with("9, 8001=1000"), &LastGood::default());
    assert!(good.problems.is_empty(), "{:?}", good.problems);
    let wanted = crate::ir::Limits {
        flows: 1000,
        flows_per_source: 7,
    };
    assert_eq!(limits(&good), wanted);
    assert_eq!(limits(&compile(with("9"), &good.last_good)).flows, 9);
    for bad in [
        "0",
        "-1",
        "many",
        "1, 2",
        "8001=5, 8001=6",
        "0=5",
        "70000=5",
        "8001=",
        "",
    ] {
        let built = compile(with(bad), &good.last_good);
        assert_eq!(remedies(&built).len(), 1, "{bad}");
        assert_eq!(limits(&built), wanted, "{bad}");
        assert_eq!(
            limits(&compile(with(bad), &LastGood::default())).flows,
            0,
            "{bad}"
        );
    }
    let other = compile(with("81=5"), &LastGood::default());
    assert_eq!((limits(&other).flows, other.problems.len()), (0, 1));
}

#[test]
fn an_ingress_that_gets_a_restriction_never_serves_more_than_it_says() {
    let good = serving();
    // Only the proxy carries these out, so the kernel does not steer past them.
    for restriction in [
        r#", alb.ingress.kubernetes.io/traffic-limit-qps: "5""#,
        r#", alb.ingress.kubernetes.io/sticky-session: "true""#,
        r#", alb.ingress.kubernetes.io/enable-cors: "true""#,
        r#", alb.ingress.kubernetes.io/backend-protocol: "https""#,
        r#", alb.ingress.kubernetes.io/backend-scheduler: "wlc""#,
        r#", alb.ingress.kubernetes.io/slow-start-enabled: "true""#,
    ] {
        let fleet = format!("{FLEET}{}", ingress("a", restriction, "/"));
        let built = compile(fleet, &good.last_good);
        let listener = listener(&built);
        assert_eq!(listener.rules.len(), 1, "{restriction}");
        assert_eq!(
            listener.steering.mode,
            crate::ir::SteeringMode::Request,
            "{restriction}"
        );
        assert!(
            built.problems.is_empty(),
            "{restriction}: {:?}",
            built.problems
        );
    }
    // Understood, with a mistake beside it: the version before did not have it.
    for restriction in [
        r#"conditions.svc: '[{"type": "SourceIp", "sourceIpConfig": {"values": ["10.0.0.0/8"]}}]'"#,
        r#"traffic-limit-qps: "5""#,
        r#"ssl-redirect: "true""#,
        r#"canary: "true", alb.ingress.kubernetes.io/canary-weight: "10""#,
    ] {
        let mistaken = format!(", alb.ingress.kubernetes.io/{restriction}{BAD}");
        let fleet = format!("{FLEET}{}", ingress("a", &mistaken, "/"));
        let built = compile(fleet, &good.last_good);
        assert_eq!(listener(&built).rules, [], "{restriction}");
    }
}

#[test]
fn an_ingress_that_gets_a_restriction_which_is_not_understood_stops_serving() {
    let good = serving();
    for restriction in [
        r#", alb.ingress.kubernetes.io/conditions.svc: '[{"type": "Moon"}]'"#,
        // Beside a mistake, too.
        r#", alb.ingress.kubernetes.io/conditions.svc: '[{"type": "Moon"}]', alb.ingress.kubernetes.io/order: "x""#,
    ] {
        let fleet = format!("{FLEET}{}", ingress("a", restriction, "/"));
        let built = compile(fleet, &good.last_good);
        assert_eq!(listener(&built).rules, [], "{restriction}");
        for remedy in remedies(&built) {
            assert!(
                remedy.ends_with("until then nothing of this Ingress is served"),
                "{remedy}"
            );
        }
        // A mistake afterwards does not bring the unrestricted rules back.
        let mistaken = compile(
            format!("{FLEET}{}", ingress("a", BAD, "/")),
            &built.last_good,
        );
        assert_eq!(listener(&mistaken).rules, [], "{restriction}");
    }
    let secured = ingress("a", "", "/").replace(r#"[{"HTTP": 8001}]"#, r#"[{"HTTPS": 8001}]"#);
    let built = compile(format!("{FLEET}{secured}"), &good.last_good);
    assert_eq!(listener(&built).rules, []);
    let moon = r#", alb.ingress.kubernetes.io/conditions.svc: '[{"type": "Moon"}]'"#;
    let text = ingress("a", moon, "/").replace("number: 80", "number: 0");
    let built = compile(format!("{FLEET}{text}"), &good.last_good);
    assert_eq!(listener(&built).rules, []);
}

#[test]
fn an_ingress_with_an_invalid_value_keeps_serving_and_says_so() {
    let good = serving();
    for mistake in [
        BAD,
        r#", alb.ingress.kubernetes.io/conditions.svc: "[""#,
        r#", alb.ingress.kubernetes.io/order: "x""#,
        ", alb.ingress.kubernetes.io/albconfig.name: nowhere",
    ] {
        let fleet = format!("{FLEET}{}", ingress("a", mistake, "/"));
        let built = compile(fleet, &good.last_good);
        assert_eq!(built.ir, good.ir, "{mistake}");
        for remedy in remedies(&built) {
            assert!(
                remedy.ends_with("until then what this Ingress said before keeps serving"),
                "{remedy}"
            );
        }
        assert_eq!(remedies(&built).len(), 1, "{mistake}");
    }
}

#[test]
fn an_ingress_whose_albconfig_is_deleted_is_told_that_nothing_serves_it() {
    let good = serving();
    let fleet = FLEET.replace("metadata: {name: mcg,", "metadata: {name: other,");
    let built = compile(format!("{fleet}{}", ingress("a", "", "/")), &good.last_good);
    assert_eq!(listener(&built).rules, []);
    assert_eq!(
        remedies(&built),
        ["create the AlbConfig, or correct its name; until then nothing of this Ingress is served"]
    );
}

/// An AlbConfig for port 8001 on every VIP.
fn rival(name: &str) -> String {
    format!(
        "\n---\napiVersion: alibabacloud.com/v1\nkind: AlbConfig\nmetadata: {{name: {name}}}\nspec: {{config: {{}}, listeners: [{{port: 8001}}]}}\n"
    )
}

fn owner(built: &Built) -> &str {
    assert_eq!(built.ir.listeners.len(), 1);
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    let owner = &listener(built).name.gateway;
    assert_ne!(built.problems[0].object.name, *owner);
    owner
}

#[test]
fn a_new_albconfig_never_takes_a_port_that_another_holds() {
    let good = compile(FLEET.to_owned(), &LastGood::default());
    let both = compile(format!("{FLEET}{}", rival("aaa")), &good.last_good);
    assert_eq!(owner(&both), "mcg");
    let again = compile(format!("{FLEET}{}", rival("aaa")), &both.last_good);
    assert_eq!(owner(&again), "mcg");
    // Gone, the port is free.
    let alone = compile(rival("aaa"), &again.last_good);
    assert_eq!(listener(&alone).name.gateway, "aaa");
}

#[test]
fn on_a_first_start_the_albconfig_with_rules_has_the_port_then_the_first_by_name() {
    let first = LastGood::default();
    let none = compile(format!("{FLEET}{}", rival("aaa")), &first);
    assert_eq!(owner(&none), "aaa");
    let ruled = format!("{FLEET}{}{}", rival("aaa"), ingress("a", "", "/"));
    assert_eq!(owner(&compile(ruled, &first)), "mcg");
}

#[test]
fn an_albconfig_without_its_port_is_told_the_same_owner_however_the_owners_came_to_it() {
    let at = |text: String, address: &str| {
        text.replace(
            "metadata: {name",
            &format!("metadata: {{annotations: {{fleetgate.io/addresses: {address}}}, name"),
        )
    };
    let first = at(rival("zzz"), "192.0.2.1");
    let held = compile(first.clone(), &LastGood::default());
    // One that comes later by what it held, and first by name; the third wants the addresses of both.
    let all = format!("{first}{}{}", at(rival("aaa"), "192.0.2.2"), rival("mmm"));
    let built = compile(all.clone(), &held.last_good);
    assert_eq!(built.ir.listeners.len(), 2);
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    assert_eq!(built, compile(all, &built.last_good));
}
