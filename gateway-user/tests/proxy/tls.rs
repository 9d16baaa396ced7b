//! HTTPS: certificates from Secrets, handshakes, and what requests through TLS mean.

#[path = "tls/bodies.rs"]
mod bodies;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/clients.rs"]
mod clients;
#[path = "tls/handshakes.rs"]
mod handshakes;
#[path = "tls/made.rs"]
mod made;
#[path = "tls/requests.rs"]
mod requests;
#[path = "tls/swaps.rs"]
mod swaps;

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use gateway_user::{
    ir::{Certificate, ListenerProtocol, Tls},
    manifest::{NamespacedName, ObjectMeta, Secret, SecretData},
};
use h2::client::SendRequest;
use http::Request;
use rustls::{
    ClientConfig, ClientConnection, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::TlsConnector;

use self::made::Made;
use crate::{
    http2::{Got, receive},
    support::*,
};

/// A connection through TLS.
type Through = StreamOwned<ClientConnection, TcpStream>;

/// A gateway whose HTTPS listener has these certificates, by the names of their Secrets; the first is the default one.
fn gateway(origin: &Origin, certificates: &[(&str, &Made)]) -> Gateway {
    let mut gateway = Gateway::to(origin);
    serve(&mut gateway, certificates);
    gateway
}

/// Makes a gateway's listener one of HTTPS.
fn serve(gateway: &mut Gateway, certificates: &[(&str, &Made)]) {
    for (name, made) in certificates {
        put(gateway, name, made.secret());
    }
    let named = certificates.iter().map(|(name, _)| Certificate {
        id: format!("demo/{name}"),
        hosts: Vec::new(),
        default: false,
    });
    let tls = Tls {
        certificates: named.collect(),
        policy: "tls_cipher_policy_1_2".into(),
        http2: true,
        client_ca: None,
    };
    gateway.change(|site| {
        site.protocol = ListenerProtocol::Https;
        site.settings.tls = Some(tls);
    });
}

/// Puts a Secret where the next table finds it.
fn put(gateway: &mut Gateway, name: &str, (secret_type, data): (&str, SecretData)) {
    let metadata = ObjectMeta {
        namespace: "demo".into(),
        name: name.into(),
        ..ObjectMeta::default()
    };
    let secret = Secret {
        metadata,
        secret_type: secret_type.into(),
        data,
    };
    let name = NamespacedName {
        namespace: "demo".into(),
        name: name.into(),
    };
    gateway.secrets.insert(name, Arc::new(secret));
}

fn change_tls(gateway: &mut Gateway, change: impl FnOnce(&mut Tls)) {
    gateway.change(|site| change(site.settings.tls.as_mut().unwrap()));
}

/// A handshake with whoever listens there. An address in place of a name asks for none.
fn connect_to(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Client<Through>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(session, dial(address));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Client::over(stream))
}

fn connect(gateway: &Gateway, config: &Arc<ClientConfig>, name: &str) -> Client<Through> {
    connect_to(gateway.proxy.local_addr(), config, name).unwrap()
}

/// What one request gets that a client makes after its handshake.
fn ask(gateway: &Gateway, config: &Arc<ClientConfig>, host: &str) -> io::Result<Reply> {
    let mut client = connect_to(gateway.proxy.local_addr(), config, host)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    io::Write::write_all(client.stream(), request.as_bytes())?;
    client.reply()
}

/// The certificate that a client was shown.
fn shown(client: &mut Client<Through>) -> CertificateDer<'static> {
    let chain = client.stream().conn.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

/// Runs an HTTP/2 client through TLS, on a runtime of its own.
fn over_h2<T, F: Future<Output = T>>(
    address: SocketAddr,
    name: &str,
    run: impl FnOnce(SendRequest<Bytes>) -> F,
) -> T {
    let config = made::client().alpn(&["h2"]).config();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        // A stream that is not read must not use up what the others need.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1024 * 1024);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let limit = Duration::from_secs(60);
        let outcome = tokio::time::timeout(limit, run(send)).await.unwrap();
        driver.abort();
        outcome
    })
}

/// One request without a body over HTTP/2.
async fn ask_h2(send: &SendRequest<Bytes>, url: &str) -> Result<Got, h2::Error> {
    ask_with(send, Request::get(url).body(()).unwrap()).await
}

async fn ask_with(send: &SendRequest<Bytes>, request: Request<()>) -> Result<Got, h2::Error> {
    let mut send = send.clone().ready().await?;
    let (response, _) = send.send_request(request, true)?;
    receive(response).await
}
