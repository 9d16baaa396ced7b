//! Pods that speak TLS.

use std::{
    io::{BufReader, Read, Write},
    sync::Arc,
};

use gateway_user::ir::{BackendProtocol, Policy};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned, crypto::ring::default_provider,
    pki_types::PrivateKeyDer,
};

use super::pods;
use crate::support::{Gateway, Origin, Seen, ok, read_head, rule};

/// A pod with a certificate that it signed itself, for another name.
fn origin(answer: impl Into<Vec<u8>>) -> Origin {
    let made = rcgen::generate_simple_self_signed(["pod.invalid".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (config, answer) = (Arc::new(config), answer.into());
    Origin::raw(move |seen, stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).map_err(std::io::Error::other)?;
        let mut reader = BufReader::new(StreamOwned::new(tls, stream.try_clone()?));
        loop {
            let head = read_head(&mut reader)?;
            let mut request = Seen {
                head,
                complete: true,
                ..Seen::default()
            };
            let length = request
                .header("content-length")
                .first()
                .map_or(0, |it| it.parse().unwrap());
            (&mut reader).take(length).read_to_end(&mut request.body)?;
            seen.lock().unwrap().push(request);
            reader.get_mut().write_all(&answer)?;
            reader.get_mut().flush()?;
        }
    })
}

fn gateway(origin: Origin) -> (Gateway, [Origin; 1]) {
    let origins = [origin];
    let policy = Policy {
        protocol: BackendProtocol::Https,
        ..Policy::default()
    };
    (Gateway::start(vec![rule(pods(&origins, policy))]), origins)
}

#[test]
fn requests_reach_a_pod_through_tls_whatever_its_certificate_says() {
    let (gateway, [origin]) = gateway(origin(ok("secret")));
    let mut client = gateway.client();
    for _ in 0..10 {
        let reply = client.get("/a?b");
        assert_eq!((reply.status, reply.text().as_str()), (200, "secret"));
    }
    let seen = origin.seen();
    assert_eq!(
        (seen[0].line(), seen[0].header("host")),
        ("GET /a?b HTTP/1.1", vec!["demo".into()])
    );
    assert_eq!(origin.connections(), 1, "kept for the next request");
}

#[test]
fn long_bodies_pass_both_ways_byte_by_byte() {
    let long: String = (0..200_000)
        .map(|at| char::from(b'a' + (at % 23) as u8))
        .collect();
    let (gateway, [origin]) = gateway(origin(ok(&long)));
    let mut client = gateway.client();
    for _ in 0..3 {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}",
            long.len()
        ));
        assert_eq!(client.reply().unwrap().text(), long);
    }
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.body == long.as_bytes())
    );
}

#[test]
fn a_pod_that_does_not_speak_tls_is_no_answer() {
    let (gateway, _origins) = gateway(Origin::raw(|_, stream| {
        let _ = stream.read(&mut [0; 100])?;
        stream.write_all(&ok("plain"))
    }));
    let reply = gateway.client().get("/");
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert!(!reply.reason().is_empty());
}
