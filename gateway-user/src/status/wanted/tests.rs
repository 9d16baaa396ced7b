use std::net::IpAddr;

use super::*;
use crate::status::view::{CertificateView, ListenerView};

fn listener(port: u16, protocol: &str, served: bool) -> ListenerView {
    ListenerView {
        port,
        protocol: protocol.into(),
        served,
        certificates: Vec::new(),
    }
}

fn gateway() -> GatewayView {
    GatewayView {
        name: "mcg".into(),
        clusters: vec!["c1".into(), "c2".into()],
        addresses: vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])],
        listeners: vec![listener(80, "HTTP", true)],
        ..GatewayView::default()
    }
}

fn ingress(name: &str, served: bool) -> IngressView {
    IngressView {
        namespace: "demo".into(),
        name: name.into(),
        gateway: "mcg".into(),
        served,
        ..IngressView::default()
    }
}

fn look(
    suffix: Option<&str>,
    gateways: &[GatewayView],
    ingresses: &[IngressView],
    problems: &[Problem],
) -> Wanted {
    wanted(&View {
        whole: true,
        instance: "fleetgate",
        dns_suffix: suffix,
        gateways,
        ingresses,
        problems,
    })
}

fn fields(wanted: &Wanted, kind: Kind, name: &str) -> Value {
    let (_, document) = wanted
        .documents
        .iter()
        .find(|(target, _)| target.kind == kind && target.name == name)
        .expect("there is a document");
    Value::Object(document.fields.clone())
}

#[test]
fn an_alb_config_shows_id_name_and_clusters() {
    let wanted = look(Some("gw.example.com"), &[gateway()], &[], &[]);
    assert_eq!(
        fields(&wanted, Kind::AlbConfig, "mcg"),
        json!({"id": "fleetgate-mcg", "dnsname": "mcg.gw.example.com", "listeners": [], "subClusters": ["c1", "c2"]})
    );
}

#[test]
fn without_a_dns_suffix_the_first_address_is_the_name() {
    for suffix in [None, Some(""), Some(".")] {
        let wanted = look(suffix, &[gateway()], &[ingress("web", true)], &[]);
        assert_eq!(
            fields(&wanted, Kind::AlbConfig, "mcg")["dnsname"],
            "10.0.0.1"
        );
        assert_eq!(
            fields(&wanted, Kind::Ingress, "web"),
            json!({"ingress": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]})
        );
    }
}

#[test]
fn a_gateway_without_an_address_shows_none() {
    let gateway = GatewayView {
        addresses: Vec::new(),
        ..gateway()
    };
    let wanted = look(None, &[gateway], &[ingress("web", true)], &[]);
    assert_eq!(fields(&wanted, Kind::AlbConfig, "mcg").get("dnsname"), None);
    assert_eq!(fields(&wanted, Kind::Ingress, "web"), json!({}));
}

#[test]
fn only_served_https_listeners_are_listed() {
    let certificates = vec![
        CertificateView {
            secret: "demo/tls".into(),
            is_default: true,
        },
        CertificateView {
            secret: "demo/more".into(),
            is_default: false,
        },
    ];
    let https = ListenerView {
        certificates,
        ..listener(443, "HTTPS", true)
    };
    let listeners = vec![
        listener(80, "HTTP", true),
        https,
        listener(8443, "HTTPS", false),
        listener(443, "QUIC", true),
    ];
    let gateway = GatewayView {
        listeners,
        ..gateway()
    };
    assert_eq!(
        fields(&look(None, &[gateway], &[], &[]), Kind::AlbConfig, "mcg")["listeners"],
        json!([{"portAndProtocol": "443/HTTPS", "certificates": [
            {"certificateId": "demo/tls", "isDefault": true},
            {"certificateId": "demo/more", "isDefault": false},
        ]}])
    );
}

#[test]
fn an_ingress_shows_the_name_of_its_gateway_and_nothing_when_it_is_not_served() {
    let mut lost = ingress("lost", true);
    lost.gateway = "nowhere".into();
    let ingresses = [ingress("web", true), ingress("bad", false), lost];
    let wanted = look(Some("example.com."), &[gateway()], &ingresses, &[]);
    assert_eq!(
        fields(&wanted, Kind::Ingress, "web"),
        json!({"ingress": [{"hostname": "mcg.example.com"}]})
    );
    assert_eq!(fields(&wanted, Kind::Ingress, "bad"), json!({}));
    assert_eq!(fields(&wanted, Kind::Ingress, "lost"), json!({}));
}

fn reasons(wanted: &Wanted) -> Vec<(String, &'static str)> {
    let keys = wanted.notices.keys();
    keys.map(|(object, reason)| (object.to_string(), reason.name()))
        .collect()
}

#[test]
fn errors_warnings_and_success_have_an_event_each_for_an_object() {
    let object = |name: &str| {
        Target::object(&Target {
            kind: Kind::Ingress,
            namespace: "demo".into(),
            name: name.into(),
        })
    };
    let problems = [
        Problem::error(&object("bad"), "b", "m", "r"),
        Problem::error(&object("bad"), "a", "m", "r"),
        Problem::error(&object("bad"), "a", "m", "r"),
        Problem::warning(&object("bad"), "c", "m", "r"),
        Problem::warning(&object("web"), "d", "m", "r"),
    ];
    let ingresses = [ingress("bad", true), ingress("web", true)];
    let wanted = look(None, &[gateway()], &ingresses, &problems);
    assert_eq!(
        reasons(&wanted),
        [
            ("AlbConfig mcg".to_owned(), "SuccessfullyReconciled"),
            ("Ingress demo/bad".to_owned(), "FailedBuildModel"),
            ("Ingress demo/bad".to_owned(), "IgnoredConfig"),
            ("Ingress demo/web".to_owned(), "IgnoredConfig"),
            ("Ingress demo/web".to_owned(), "SuccessfullyReconciled"),
        ]
    );
    let told = &wanted.notices[&(object("bad"), Reason::FailedBuildModel)];
    assert_eq!(told.note, "a: m; r\nb: m; r");
}

#[test]
fn members_objects_and_files_get_no_event() {
    let service = ObjectRef {
        cluster: Some("c1".into()),
        kind: "Service".into(),
        namespace: "demo".into(),
        name: "web".into(),
    };
    let file = ObjectRef {
        kind: "File".into(),
        name: "fleet/a.yaml".into(),
        ..ObjectRef::default()
    };
    let problems = [
        Problem::error(&service, "a", "m", "r"),
        Problem::error(&file, "a", "m", "r"),
    ];
    assert_eq!(look(None, &[], &[], &problems), look(None, &[], &[], &[]));
}

#[test]
fn the_order_of_problems_does_not_matter() {
    let object = gateway_object();
    let mut problems = [
        Problem::error(&object, "a", "m", "r"),
        Problem::error(&object, "b", "m", "r"),
    ];
    let first = look(None, &[gateway()], &[], &problems);
    problems.reverse();
    assert_eq!(first, look(None, &[gateway()], &[], &problems));
}

fn gateway_object() -> ObjectRef {
    ObjectRef {
        kind: "AlbConfig".into(),
        name: "mcg".into(),
        ..ObjectRef::default()
    }
}
