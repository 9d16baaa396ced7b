use serde_json::json;

use super::*;
use crate::status::wanted::Document;

fn target(name: &str) -> Target {
    Target {
        kind: Kind::Ingress,
        namespace: "demo".into(),
        name: name.into(),
    }
}

fn fields(host: &str) -> Fields {
    let mut fields = Fields::new();
    fields.insert("ingress".into(), json!([{ "hostname": host }]));
    fields
}

fn wanted(documents: &[(&str, Fields, Option<&str>)]) -> Arc<Wanted> {
    let documents = documents.iter().map(|(name, fields, uid)| {
        let document = Document {
            uid: uid.map(str::to_owned),
            fields: fields.clone(),
        };
        (target(name), document)
    });
    Arc::new(Wanted {
        whole: true,
        documents: documents.collect(),
        ..Wanted::default()
    })
}

fn live(uid: &str, ours: Fields) -> Live {
    Live {
        uid: uid.into(),
        ours,
        ..Live::default()
    }
}

fn found(objects: &[(&str, Live)]) -> BTreeMap<Target, Live> {
    let objects = objects.iter();
    objects
        .map(|(name, live)| (target(name), live.clone()))
        .collect()
}

/// Writes all that is due; what was written, in order.
fn settle(ledger: &mut Ledger) -> Vec<(String, Fields)> {
    let mut writes = Vec::new();
    while let Some(write) = ledger.next() {
        writes.push((write.target.name.clone(), write.fields.clone()));
        ledger.written(write, live("u", Fields::new()));
        assert!(writes.len() < 100, "writes without end");
    }
    writes
}

#[test]
fn what_the_server_says_already_is_not_written() {
    let mut ledger = Ledger::default();
    ledger.listed(
        Kind::Ingress,
        found(&[("a", live("1", fields("x"))), ("b", live("2", fields("y")))]),
    );
    ledger.want(wanted(&[
        ("a", fields("x"), None),
        ("b", fields("z"), None),
    ]));
    assert_eq!(settle(&mut ledger), [("b".to_owned(), fields("z"))]);
    // A resync, and a new look at the server.
    ledger.want(wanted(&[
        ("a", fields("x"), None),
        ("b", fields("z"), None),
    ]));
    assert_eq!(ledger.next(), None);
    ledger.listed(
        Kind::Ingress,
        found(&[("a", live("1", fields("x"))), ("b", live("2", fields("z")))]),
    );
    assert_eq!(ledger.next(), None);
}

#[test]
fn an_ingress_that_is_no_longer_ours_is_released_once() {
    let mut ledger = Ledger::default();
    ledger.listed(
        Kind::Ingress,
        found(&[
            ("gone", live("1", fields("x"))),
            ("unserved", live("2", fields("x"))),
            ("foreign", live("3", Fields::new())),
        ]),
    );
    ledger.want(wanted(&[("unserved", Fields::new(), None)]));
    assert_eq!(
        settle(&mut ledger),
        [
            ("gone".to_owned(), Fields::new()),
            ("unserved".to_owned(), Fields::new())
        ]
    );
}

#[test]
fn nothing_is_released_before_the_fleet_was_read_whole() {
    let mut ledger = Ledger::default();
    ledger.listed(Kind::Ingress, found(&[("a", live("1", fields("x")))]));
    assert_eq!(ledger.next(), None);
    let mut some = (*wanted(&[("b", fields("x"), None)])).clone();
    some.whole = false;
    ledger.want(Arc::new(some));
    assert_eq!(settle(&mut ledger), [("b".to_owned(), fields("x"))]);
}

#[test]
fn the_newest_content_wins() {
    let mut ledger = Ledger::default();
    ledger.want(wanted(&[("a", fields("old"), None)]));
    ledger.want(wanted(&[("a", fields("new"), None)]));
    assert_eq!(settle(&mut ledger), [("a".to_owned(), fields("new"))]);
}

#[test]
fn an_object_that_was_made_anew_is_written_again() {
    let mut ledger = Ledger::default();
    ledger.listed(Kind::Ingress, found(&[("a", live("1", fields("x")))]));
    ledger.want(wanted(&[("a", fields("x"), Some("1"))]));
    assert_eq!(ledger.next(), None);
    ledger.want(wanted(&[("a", fields("x"), Some("2"))]));
    assert_eq!(settle(&mut ledger), [("a".to_owned(), fields("x"))]);
}

#[test]
fn what_was_refused_waits_for_a_change() {
    let mut ledger = Ledger::default();
    ledger.want(wanted(&[("a", fields("x"), None)]));
    let write = ledger.next().expect("a is due");
    ledger.refused(write);
    ledger.want(wanted(&[("a", fields("x"), None)]));
    assert_eq!(ledger.next(), None);
    ledger.want(wanted(&[("a", fields("y"), None)]));
    let write = ledger.next().expect("its content changed");
    ledger.gone(write);
    assert_eq!(ledger.next(), None);
    ledger.listed(Kind::Ingress, found(&[("a", live("1", Fields::new()))]));
    assert_eq!(settle(&mut ledger), [("a".to_owned(), fields("y"))]);
}

#[test]
fn an_object_that_cannot_be_written_holds_back_no_other() {
    let mut ledger = Ledger::default();
    let all = ["a", "b", "c"].map(|name| (name, fields("x"), None));
    ledger.want(wanted(&all));
    let mut order = String::new();
    for _ in 0..6 {
        let write = ledger.next().expect("something is due");
        order.push_str(&write.target.name);
        match write.target.name.as_str() {
            "b" => ledger.postpone(write),
            _ => ledger.written(write, live("u", Fields::new())),
        }
    }
    assert_eq!(order, "abcbbb");
}

#[test]
fn fields_that_somebody_else_writes_are_left_alone_and_the_others_written() {
    let mut both = fields("x");
    both.insert("id".into(), json!("fleetgate-mcg"));
    let mut ledger = Ledger::default();
    ledger.want(wanted(&[("a", both.clone(), None)]));
    let write = ledger.next().expect("a is due");
    ledger.conflicted(&write, vec![("ingress".into(), "other".into())]);
    let mut rest = both.clone();
    rest.remove("ingress");
    assert_eq!(settle(&mut ledger), [("a".to_owned(), rest.clone())]);
    let held: Vec<_> = ledger.held().collect();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].1["ingress"], "other");
    // Theirs again at the next look: still left alone. Let go: ours.
    let mut seen = live("1", rest);
    seen.theirs.insert("ingress".into());
    ledger.listed(Kind::Ingress, found(&[("a", seen.clone())]));
    assert_eq!(ledger.next(), None);
    seen.theirs.clear();
    ledger.listed(Kind::Ingress, found(&[("a", seen)]));
    assert_eq!(ledger.held().count(), 0);
    assert_eq!(settle(&mut ledger), [("a".to_owned(), both)]);
}

#[test]
fn a_conflict_that_names_no_field_of_ours_is_about_all_of_them() {
    let mut ledger = Ledger::default();
    ledger.want(wanted(&[("a", fields("x"), None)]));
    let write = ledger.next().expect("a is due");
    ledger.conflicted(&write, Vec::new());
    assert_eq!(ledger.next(), None);
}

#[test]
fn managed_fields_tell_ours_from_theirs() {
    let status = json!({"loadBalancer": {"id": "i", "dnsname": "n", "listeners": []}});
    let ours =
        json!({"f:status": {"f:loadBalancer": {"f:id": {}, "f:listeners": {}, "f:lost": {}}}});
    let theirs = json!({"f:status": {"f:loadBalancer": {"f:dnsname": {}}}});
    let updated = json!({"f:status": {"f:loadBalancer": {"f:id": {}}}});
    let junk = json!({"f:status": [1]});
    let manager = |name, applied, fields| Manager {
        name,
        applied,
        fields,
    };
    let live = Live::read(
        "1".into(),
        Some(&status),
        &[
            manager(MANAGER, true, &ours),
            manager("kubectl", true, &theirs),
            manager(MANAGER, false, &updated),
            manager("x", true, &junk),
        ],
    );
    assert_eq!(
        Value::Object(live.ours),
        json!({"id": "i", "listeners": [], "lost": null})
    );
    assert_eq!(
        live.theirs.into_iter().collect::<Vec<_>>(),
        ["dnsname", "id"]
    );
}
