//! What clients get, and who gets in.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, Error, ProtocolVersion, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::{
    super::{
        client::{self, Spoken},
        client_auth::ClientIdentity,
        servers::{Secrets, Servers},
        unverified::Unverified,
    },
    made::{self, Made},
};
use crate::{
    ir::{
        Certificate, Ir, Listener, ListenerName, ListenerProtocol, ListenerSettings, Steering,
        SteeringMode, Tls,
    },
    manifest::{NamespacedName, Sealed, Secret},
};

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

pub(crate) fn name() -> ListenerName {
    ListenerName {
        gateway: "mcg".into(),
        port: 443,
        protocol: ListenerProtocol::Https,
    }
}

pub(crate) fn tls(certificates: &[&str]) -> Tls {
    let named = |id: &&str| Certificate {
        id: format!("demo/{id}"),
        hosts: Vec::new(),
        default: false,
    };
    Tls {
        certificates: certificates.iter().map(named).collect(),
        policy: "tls_cipher_policy_1_0".into(),
        http2: true,
        client_ca: None,
    }
}

/// A model with one listener.
pub(crate) fn model(tls: Tls) -> Ir {
    let listener = Listener {
        name: name(),
        addresses: Vec::new(),
        settings: Arc::new(ListenerSettings {
            tls: Some(tls),
            ..ListenerSettings::default()
        }),
        refused: None,
        rules: Vec::new(),
        passthrough: Vec::new(),
        steering: Steering {
            mode: SteeringMode::Request,
            reason: String::new(),
        },
    };
    Ir {
        listeners: BTreeMap::from([(name(), Arc::new(listener))]),
        ..Ir::default()
    }
}

pub(crate) fn put(secrets: &mut Secrets, name: &str, made: &Made) {
    let secret = made::secret("demo", name, &made.certificate, &made.key);
    put_secret(secrets, secret);
}

pub(crate) fn put_secret(secrets: &mut Secrets, secret: Secret) {
    let key = NamespacedName {
        namespace: secret.metadata.namespace.clone(),
        name: secret.metadata.name.clone(),
    };
    secrets.insert(key, Arc::new(secret));
}

/// The configuration of a listener with these certificates, by name.
fn server(tls: Tls, made: &[(&str, &Made)]) -> Arc<ServerConfig> {
    let mut secrets = Secrets::new();
    for (name, made) in made {
        put(&mut secrets, name, made);
    }
    let mut ca = made::secret("demo", "ca", "", "");
    ca.data.ca = Sealed::from(made::authority().certificate.as_bytes());
    put_secret(&mut secrets, ca);
    let mut servers = Servers::default();
    servers.update(&model(tls), [&name()], &secrets);
    Arc::clone(servers.server(&name()).unwrap().config())
}

pub(crate) fn client(
    versions: &[&'static SupportedProtocolVersion],
    shows: Option<&Made>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(super::super::policy::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified));
    match shows {
        None => builder.with_no_client_auth(),
        Some(made) => {
            let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![made.der.clone()], key)
                .unwrap()
        }
    }
}

/// Carries bytes between both until neither has any.
pub(crate) fn carry(one: &mut ClientConnection, other: &mut ServerConnection) -> Result<(), Error> {
    for _ in 0..20 {
        if !one.wants_write() && !other.wants_write() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        while one.wants_write() {
            one.write_tls(&mut bytes).unwrap();
        }
        let mut read = bytes.as_slice();
        while !read.is_empty() {
            other.read_tls(&mut read).unwrap();
            other.process_new_packets()?;
        }
        bytes.clear();
        while other.wants_write() {
            other.write_tls(&mut bytes).unwrap();
        }
        let mut read = bytes.as_slice();
        while !read.is_empty() {
            one.read_tls(&mut read).unwrap();
            one.process_new_packets()?;
        }
    }
    panic!("the handshake does not end");
}

pub(crate) type Pair = (ClientConnection, ServerConnection);

pub(crate) fn shake(
    server: &Arc<ServerConfig>,
    client: ClientConfig,
    sni: &str,
) -> Result<Pair, Error> {
    shake_as(server, &Arc::new(client), sni)
}

pub(crate) fn shake_as(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    sni: &str,
) -> Result<Pair, Error> {
    let sni = ServerName::try_from(sni.to_owned()).unwrap();
    let mut one = ClientConnection::new(Arc::clone(client), sni).unwrap();
    let mut other = ServerConnection::new(Arc::clone(server)).unwrap();
    carry(&mut one, &mut other)?;
    assert!(!one.is_handshaking() && !other.is_handshaking());
    Ok((one, other))
}

pub(crate) fn shown(pair: &Pair) -> CertificateDer<'static> {
    pair.0.peer_certificates().unwrap()[0].clone()
}

#[test]
fn a_client_is_shown_the_exact_name_then_the_wildcard_then_the_default() {
    let first = made::certificate(&["first.example.net"]);
    let wildcard = made::certificate(&["*.example.com"]);
    let exact = made::certificate(&["a.example.com"]);
    let server = server(
        tls(&["first", "wildcard", "exact"]),
        &[
            ("first", &first),
            ("wildcard", &wildcard),
            ("exact", &exact),
        ],
    );
    for (sni, wanted) in [
        ("A.example.com", &exact),
        ("b.example.com", &wildcard),
        ("b.a.example.com", &first),
        ("example.com", &first),
        ("192.0.2.1", &first), // No SNI is sent for an address.
    ] {
        let pair = shake(&server, client(BOTH, None), sni).unwrap();
        assert_eq!(shown(&pair), wanted.der, "{sni}");
    }
}

#[test]
fn hosts_of_an_ingress_come_before_names_of_certificates() {
    let one = made::certificate(&["a.example.com", "b.example.com"]);
    let other = made::certificate(&["other"]);
    let mut tls = tls(&["one", "other"]);
    tls.certificates[1].hosts = vec!["b.example.com".into()];
    let server = server(tls, &[("one", &one), ("other", &other)]);
    let pair = shake(&server, client(BOTH, None), "b.example.com").unwrap();
    assert_eq!(shown(&pair), other.der);
}

#[test]
fn http2_is_agreed_on_where_the_listener_offers_it() {
    let made = made::certificate(&["a.example.com"]);
    for (http2, agreed) in [(true, "h2"), (false, "http/1.1")] {
        let server = server(
            Tls {
                http2,
                ..tls(&["a"])
            },
            &[("a", &made)],
        );
        let mut client = client(BOTH, None);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (_, end) = shake(&server, client, "a.example.com").unwrap();
        assert_eq!(end.alpn_protocol(), Some(agreed.as_bytes()));
        assert_eq!(server.max_early_data_size, 0);
    }
}

#[test]
fn a_policy_decides_on_versions() {
    let made = made::certificate(&["a.example.com"]);
    let speak = |policy: &str, version: &'static SupportedProtocolVersion| {
        let tls = Tls {
            policy: policy.into(),
            ..tls(&["a"])
        };
        let server = server(tls, &[("a", &made)]);
        let pair = shake(&server, client(&[version], None), "a.example.com");
        pair.map(|(_, end)| end.protocol_version().unwrap())
    };
    for policy in crate::ir::TLS_POLICIES {
        assert_eq!(
            speak(policy, &TLS12),
            Ok(ProtocolVersion::TLSv1_2),
            "{policy}"
        );
        let newer = speak(policy, &TLS13);
        assert_eq!(
            newer.is_ok(),
            policy != "tls_cipher_policy_1_2_strict",
            "{policy}"
        );
    }
}

#[test]
fn clients_need_a_certificate_that_the_authority_signed() {
    let made = made::certificate(&["a.example.com"]);
    let stranger = made::certificate(&["alice"]);
    let alice = made::client(&[("CN", "alice")]);
    for versions in [[&TLS12], [&TLS13]] {
        let tls = Tls {
            client_ca: Some("demo/ca".into()),
            ..tls(&["a"])
        };
        let server = server(tls, &[("a", &made)]);
        let enter = |shows| shake(&server, client(&versions, shows), "a.example.com");
        assert!(matches!(enter(None), Err(Error::NoCertificatesPresented)));
        assert!(matches!(
            enter(Some(&stranger)),
            Err(Error::InvalidCertificate(_))
        ));
        let (_, end) = enter(Some(&alice)).unwrap();
        let identity = ClientIdentity::of(&end.peer_certificates().unwrap()[0]).unwrap();
        assert_eq!(
            (identity.subject.as_str(), identity.issuer.as_str()),
            ("CN=alice", "CN=ca")
        );
    }
}

#[test]
fn a_client_of_a_listener_that_asks_for_certificates_gets_no_ticket() {
    let made = made::certificate(&["a.example.com"]);
    let alice = made::client(&[("CN", "alice")]);
    for versions in [[&TLS12], [&TLS13]] {
        for asks in [false, true] {
            let tls = Tls {
                client_ca: asks.then(|| "demo/ca".into()),
                ..tls(&["a"])
            };
            let server = server(tls, &[("a", &made)]);
            let client = Arc::new(client(&versions, Some(&alice)));
            shake_as(&server, &client, "a.example.com").unwrap();
            let (again, _) = shake_as(&server, &client, "a.example.com").unwrap();
            let resumed = again.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(resumed, !asks, "{versions:?}");
        }
    }
}

#[test]
fn a_pod_may_show_any_certificate() {
    let made = made::expired("pod");
    let server = server(tls(&["a"]), &[("a", &made)]);
    let pod: IpAddr = "10.1.0.1".parse().unwrap();
    for (spoken, agreed) in [(Spoken::Http1, "http/1.1"), (Spoken::Http2, "h2")] {
        let name = client::server_name(Some("web.example.com"), pod);
        let mut one = ClientConnection::new(client::backends(spoken), name).unwrap();
        let mut other = ServerConnection::new(Arc::clone(&server)).unwrap();
        carry(&mut one, &mut other).unwrap();
        assert_eq!(one.alpn_protocol(), Some(agreed.as_bytes()));
        assert_eq!(other.server_name(), Some("web.example.com"));
    }
    for host in [None, Some("[::1]"), Some("10.1.0.1"), Some("a_b c")] {
        assert!(
            matches!(client::server_name(host, pod), ServerName::IpAddress(_)),
            "{host:?}"
        );
    }
}
