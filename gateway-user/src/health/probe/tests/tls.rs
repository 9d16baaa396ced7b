//! HTTPS against servers that end TLS, or do not.

use tokio::io::AsyncWriteExt;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};

use super::*;

fn https(timeout: Duration) -> HealthCheck {
    HealthCheck {
        timeout,
        ..check(HealthProtocol::Https, "HEAD", &[2])
    }
}

/// A certificate that the pod made itself, for a name that nobody asks for.
fn acceptor(version: &'static SupportedProtocolVersion, asks_back: bool) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["pod".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version");
    let config = if asks_back {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        config.with_no_client_auth()
    };
    let config = config.with_single_cert(vec![certificate], key.into());
    TlsAcceptor::from(Arc::new(config.expect("key and certificate match")))
}

/// At a server that speaks TLS and answers with this after it read a head; what it had asked, and its SNI.
fn met(
    version: &'static SupportedProtocolVersion,
    answer: &'static [u8],
    check: HealthCheck,
) -> (Outcome, String, Option<String>) {
    let (mut asked, mut sni) = (Vec::new(), None);
    let outcome = met_by(check, async |stream| {
        let acceptor = acceptor(version, false);
        let mut stream = acceptor.accept(stream).await.expect("a handshake");
        sni = stream.get_ref().1.server_name().map(str::to_owned);
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.expect("a head"));
        }
        stream.write_all(answer).await.expect("an answer");
        stream.flush().await.expect("an answer");
        stream
    });
    (outcome, String::from_utf8(asked).expect("ASCII"), sni)
}

#[test]
fn a_pod_with_any_certificate_answers_over_tls_as_it_would_without() {
    for version in [&TLS12, &TLS13] {
        let (outcome, asked, sni) = met(version, b"HTTP/1.1 204 No Content\r\n\r\n", https(LONG));
        assert_eq!((outcome, sni), (GOOD, None));
        assert!(
            asked.starts_with("HEAD /up HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
            "{asked}"
        );
        let (outcome, ..) = met(version, b"HTTP/1.1 503 Busy\r\n\r\n", https(LONG));
        assert_eq!(outcome, bad(ProbeFailure::Status(503)));
        let (outcome, ..) = met(version, b"SSH-2.0-OpenSSH_9\r\n", https(LONG));
        assert_eq!(outcome, bad(ProbeFailure::NotHttp));
    }
}

#[test]
fn a_pod_that_asks_for_a_certificate_fails_tls() {
    for version in [&TLS12, &TLS13] {
        let outcome = met_by(https(LONG), async |stream| {
            let accepted = acceptor(version, true).accept(stream).await;
            assert!(accepted.is_err());
        });
        assert_eq!(outcome, bad(ProbeFailure::Tls), "{version:?}");
    }
}

#[test]
fn a_pod_that_speaks_no_tls_fails_it_and_one_that_closes_is_told_as_such() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9\r\n"] {
        let outcome = met_by(https(LONG), async |mut stream| {
            stream.write_all(answer.as_bytes()).await.expect("room");
            stream
        });
        assert_eq!(outcome, bad(ProbeFailure::Tls), "{answer}");
    }
    let closed = met_by(https(LONG), async |stream| drop(stream));
    assert_eq!(closed, bad(ProbeFailure::Closed));
    let closed = met_by(https(LONG), async |stream| {
        let stream = acceptor(&TLS13, false).accept(stream).await;
        drop(stream.expect("a handshake"));
    });
    assert_eq!(closed, bad(ProbeFailure::Closed));
}

#[test]
fn a_handshake_or_an_answer_that_does_not_end_is_a_timeout() {
    // Nothing; the head of a handshake record that never comes.
    for begun in [&b""[..], b"\x16\x03\x03\x00\x7a\x02\x00"] {
        let outcome = met_by(https(SHORT), async |mut stream| {
            stream.write_all(begun).await.expect("room");
            stream
        });
        assert_eq!(outcome, bad(ProbeFailure::Timeout), "{begun:?}");
    }
    // A second, so that the handshake is over by then.
    let (outcome, asked, _) = met(&TLS13, b"HTTP/1.1", https(SHORT * 5));
    assert_eq!(outcome, bad(ProbeFailure::Timeout));
    assert!(asked.ends_with("\r\n\r\n"), "{asked}");
}
