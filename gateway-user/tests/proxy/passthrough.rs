//! TLS that ends in pods: a real handshake passes the proxy, chosen by the name that is asked for.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use gateway_user::{
    ir::{
        Certificate, Conditions, Group, HostPattern, Ir, Listener, ListenerName, ListenerProtocol,
        ListenerSettings, Policy, Rule, Steering, SteeringMode, Tls, Touched,
    },
    manifest::{NamespacedName, ObjectMeta, Sealed, Secret, SecretData, TLS_SECRET},
    proxy::{Proxy, ProxyConfig, Reason, Router},
    tls::Servers,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::support::{Origin, backend, closed_port, eventually, group, ok};

/// A certificate signed by itself.
#[derive(Debug)]
struct Made {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

fn made(name: &str) -> Made {
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Made {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        der: certificate.der().clone(),
    }
}

/// A pod that ends TLS itself, notes what came in front of it, and sends back what comes, then its name.
#[derive(Debug)]
struct Pod {
    address: SocketAddr,
    made: Made,
    /// PROXY header of each connection.
    headers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Pod {
    /// `header`: bytes in front of the handshake.
    fn start(name: &'static str, header: usize) -> Self {
        let made = made(name);
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.der.clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pod = Self {
            address: listener.local_addr().unwrap(),
            made,
            headers: Arc::default(),
        };
        let headers = Arc::clone(&pod.headers);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, config) = (stream.unwrap(), Arc::clone(&config));
                let headers = Arc::clone(&headers);
                thread::spawn(move || {
                    let mut before = vec![0; header];
                    stream.read_exact(&mut before)?;
                    headers.lock().unwrap().push(before);
                    let session = ServerConnection::new(config).unwrap();
                    let mut tls = StreamOwned::new(session, stream);
                    let mut all = Vec::new();
                    tls.read_to_end(&mut all)?;
                    all.extend_from_slice(name.as_bytes());
                    tls.write_all(&all)?;
                    tls.conn.send_close_notify();
                    tls.flush()?;
                    tls.sock.shutdown(Shutdown::Write)
                });
            }
        });
        pod
    }

    fn connections(&self) -> usize {
        self.headers.lock().unwrap().len()
    }
}

/// A proxy with one HTTPS listener.
struct Secured {
    proxy: Proxy,
    settings: ListenerSettings,
    secrets: gateway_user::tls::servers::Secrets,
}

impl Secured {
    fn start(config: ProxyConfig) -> Self {
        Self {
            proxy: Proxy::start(config).unwrap(),
            settings: ListenerSettings {
                tls: Some(Tls {
                    policy: "tls_cipher_policy_1_0".into(),
                    ..Tls::default()
                }),
                ..ListenerSettings::default()
            },
            secrets: Default::default(),
        }
    }

    /// With a certificate for requests that are read here.
    fn showing(mut self, made: &Made) -> Self {
        let name = NamespacedName::read("demo/site").unwrap();
        let secret = Secret {
            metadata: ObjectMeta {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                ..ObjectMeta::default()
            },
            secret_type: TLS_SECRET.to_owned(),
            data: SecretData {
                certificate: Sealed::from(made.certificate.as_bytes()),
                key: Sealed::from(made.key.as_bytes()),
                ..SecretData::default()
            },
        };
        self.secrets.insert(name, Arc::new(secret));
        let tls = self.settings.tls.as_mut().unwrap();
        tls.certificates.push(Certificate {
            id: "demo/site".into(),
            hosts: Vec::new(),
            default: true,
        });
        self
    }

    /// Passes hosts on to groups, and routes requests for all others to one.
    fn publish(&self, passed: &[(&str, &Arc<Group>)], others: Option<&Arc<Group>>) {
        let rule = |group: &Arc<Group>| Rule::forwarding(group.name.clone(), "spec.rules[0]");
        let pass = |(host, group): &(&str, &Arc<Group>)| {
            let host = match host.strip_prefix('*') {
                Some(suffix) => HostPattern::OneLabel(suffix.to_owned()),
                None => HostPattern::Exact((*host).to_owned()),
            };
            Arc::new(Rule {
                conditions: Conditions {
                    hosts: vec![host],
                    ..Conditions::default()
                },
                ..rule(group)
            })
        };
        let name = ListenerName {
            gateway: "demo".into(),
            port: self.proxy.local_addr().port(),
            protocol: ListenerProtocol::Https,
        };
        let listener = Listener {
            name: name.clone(),
            addresses: Vec::new(),
            settings: Arc::new(self.settings.clone()),
            refused: None,
            rules: others.map(|it| Arc::new(rule(it))).into_iter().collect(),
            passthrough: passed.iter().map(pass).collect(),
            steering: Steering {
                mode: SteeringMode::Request,
                reason: "test".into(),
            },
        };
        let groups = passed.iter().map(|it| it.1).chain(others);
        let ir = Ir {
            listeners: [(name, Arc::new(listener))].into(),
            groups: groups.map(|it| (it.name.clone(), Arc::clone(it))).collect(),
        };
        let touched = Touched::all(&ir);
        let mut servers = Servers::default();
        servers.update(&ir, &touched.listeners, &self.secrets);
        let vips = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let table = Router::default().update(&ir, &touched, &vips, &servers);
        self.proxy.update(table);
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.local_addr()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// What a client gets that asks for `sni`, believes this certificate alone, and sends these bytes.
    fn talk(&self, sni: &str, believed: &Made, send: &[u8]) -> std::io::Result<Vec<u8>> {
        talk(self.connect(), sni, believed, send, true)
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.proxy.stats().snapshot().reason(reason)
    }
}

/// `ends`: nothing follows what is sent, and that is said.
fn talk(
    stream: TcpStream,
    sni: &str,
    believed: &Made,
    send: &[u8],
    ends: bool,
) -> std::io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(believed.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = StreamOwned::new(session, stream);
    tls.write_all(send)?;
    if ends {
        tls.conn.send_close_notify();
    }
    tls.flush()?;
    let mut all = Vec::new();
    tls.read_to_end(&mut all)?;
    Ok(all)
}

fn to(name: &str, pods: &[SocketAddr]) -> Arc<Group> {
    let pods = pods.iter().map(|it| backend("c1", *it, 1));
    group(name, pods.collect())
}

#[test]
fn the_name_that_is_asked_for_finds_the_pods_and_they_end_tls_themselves() {
    let (exact, wild) = (
        Pod::start("a.example.com", 0),
        Pod::start("b.example.com", 0),
    );
    let secured = Secured::start(ProxyConfig::default());
    let (one, two) = (to("a", &[exact.address]), to("b", &[wild.address]));
    secured.publish(&[("*.example.com", &two), ("a.example.com", &one)], None);
    // More than a relay holds, so that it goes on inside of the kernel.
    let much = vec![7; 1 << 20];
    for (pod, sni) in [(&exact, "a.example.com"), (&wild, "b.example.com")] {
        for send in [&b"hello"[..], &much] {
            let echoed = secured.talk(sni, &pod.made, send).unwrap();
            assert!(echoed == [send, sni.as_bytes()].concat(), "{sni}");
        }
        assert_eq!(pod.connections(), 2);
    }
    eventually("bytes of both ways are counted", || {
        let stats = secured.proxy.stats().snapshot();
        stats.downstream_received_bytes > 2 << 20 && stats.downstream_sent_bytes > 2 << 20
    });
    // Nobody else has a certificate here.
    for sni in ["example.com", "c.b.example.com", "a.example.org"] {
        assert!(secured.talk(sni, &exact.made, b"x").is_err(), "{sni}");
    }
    assert_eq!((exact.connections(), wild.connections()), (2, 2));
    assert_eq!(secured.reason(Reason::HandshakeFailed), 3);
    eventually("no connection stays", || {
        secured.proxy.stats().snapshot().active_connections == 0
    });
}

#[test]
fn tls_of_other_names_ends_on_the_same_listener() {
    let pod = Pod::start("a.example.com", 0);
    let site = made("www.example.com");
    let origin = Origin::fixed(ok("read"));
    let secured = Secured::start(ProxyConfig::default()).showing(&site);
    let web = to("web", &[origin.address]);
    secured.publish(&[("a.example.com", &to("a", &[pod.address]))], Some(&web));
    let get = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n";
    let answer = talk(secured.connect(), "www.example.com", &site, get, false).unwrap();
    assert!(answer.ends_with(b"read"));
    assert!(secured.talk("a.example.com", &pod.made, b"x").is_ok());
    assert_eq!((origin.connections(), pod.connections()), (1, 1));
    // Plain HTTP is told so, as without passthrough.
    let mut plain = secured.connect();
    plain.write_all(get).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    // An alert may come first.
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
}

#[test]
fn how_a_client_hello_is_cut_makes_no_difference() {
    let pod = Pod::start("a.example.com", 0);
    let secured = Secured::start(ProxyConfig::default());
    secured.publish(&[("a.example.com", &to("a", &[pod.address]))], None);
    // A client whose bytes go through a pipe that cuts them.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let proxy = secured.connect();
    let (mut from, mut to) = (far.try_clone().unwrap(), proxy.try_clone().unwrap());
    thread::spawn(move || {
        let mut byte = [0];
        while matches!(from.read(&mut byte), Ok(1)) && to.write_all(&byte).is_ok() {}
        to.shutdown(Shutdown::Write)
    });
    let (mut from, mut to) = (proxy, far);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let echoed = talk(near, "a.example.com", &pod.made, b"hello", true).unwrap();
    assert_eq!(echoed, b"helloa.example.com");
}

#[test]
fn connections_are_shared_among_pods_and_go_past_one_that_refuses() {
    let (one, two) = (
        Pod::start("a.example.com", 0),
        Pod::start("a.example.com", 0),
    );
    let secured = Secured::start(ProxyConfig {
        workers: 1,
        ..ProxyConfig::default()
    });
    let pods = to("a", &[one.address, two.address]);
    secured.publish(&[("a.example.com", &pods)], None);
    for _ in 0..8 {
        // Whichever takes it: the other one's certificate is not believed.
        for believed in [&one.made, &two.made] {
            let _ = secured.talk("a.example.com", believed, b"x");
        }
    }
    eventually("each has half of them", || {
        (one.connections(), two.connections()) == (8, 8)
    });
    let pods = to("a", &[closed_port(), one.address]);
    secured.publish(&[("a.example.com", &pods)], None);
    for _ in 0..4 {
        secured.talk("a.example.com", &one.made, b"x").unwrap();
    }
    secured.publish(&[("a.example.com", &to("a", &[closed_port()]))], None);
    assert!(secured.talk("a.example.com", &one.made, b"x").is_err());
    assert_eq!(secured.reason(Reason::ConnectRefused), 1);
    secured.publish(&[("a.example.com", &to("a", &[]))], None);
    assert!(secured.talk("a.example.com", &one.made, b"x").is_err());
    assert_eq!(secured.reason(Reason::NoServer), 1);
}

#[test]
fn a_client_that_does_not_finish_its_hello_is_closed() {
    let pod = Pod::start("a.example.com", 0);
    let secured = Secured::start(ProxyConfig {
        head_timeout: Duration::from_millis(200),
        ..ProxyConfig::default()
    });
    secured.publish(&[("a.example.com", &to("a", &[pod.address]))], None);
    let begin = [22, 3, 1, 2, 0, 1];
    let mut slow = secured.connect();
    slow.write_all(&begin).unwrap();
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(secured.reason(Reason::RequestTimeout), 1);
    let mut gone = secured.connect();
    gone.write_all(&begin).unwrap();
    gone.shutdown(Shutdown::Write).unwrap();
    assert_eq!(gone.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(secured.reason(Reason::HandshakeFailed), 1);
    assert_eq!(pod.connections(), 0);
}

#[test]
fn a_load_balancer_in_front_and_pods_that_want_to_know_the_client_meet() {
    // 16 and 12 bytes: TCP over IPv4.
    let pod = Pod::start("a.example.com", 28);
    let mut secured = Secured::start(ProxyConfig::default());
    secured.settings.proxy_protocol = Some(vec!["127.0.0.1".parse().unwrap()]);
    let mut named = Group::clone(&to("a", &[pod.address]));
    named.policy = Arc::new(Policy {
        proxy_header: true,
        ..Policy::default()
    });
    secured.publish(&[("a.example.com", &Arc::new(named))], None);
    let mut stream = secured.connect();
    stream
        .write_all(b"PROXY TCP4 203.0.113.9 198.51.100.2 12345 443\r\n")
        .unwrap();
    let echoed = talk(stream, "a.example.com", &pod.made, b"hello", true).unwrap();
    assert_eq!(echoed, b"helloa.example.com");
    let headers = pod.headers.lock().unwrap().clone();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([203, 0, 113, 9, 127, 0, 0, 1]);
    header.extend(12345_u16.to_be_bytes());
    header.extend(secured.proxy.local_addr().port().to_be_bytes());
    assert_eq!(headers, [header]);
}
