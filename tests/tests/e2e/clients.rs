//! Clients that people use, through the proxy to pods that they know to talk to.

use std::path::PathBuf;

use anyhow::Result;
use fleetgate_tests::e2e::{
    Gateway, eventually, manifests,
    secrets::{Authority, Made},
    wire::Conn,
};

mod curl;
mod grpc;
mod websockets;

/// A gateway with an HTTP listener on 80, which takes HTTP/2 as well, and an HTTPS listener on 443 with a certificate for
/// this host. Beside it, who signed that, and the file of its own certificate.
fn gateway(host: &str) -> Result<(Gateway, Authority, PathBuf)> {
    let gateway = Gateway::new()?;
    let authority = Authority::new("Example Trust")?;
    gateway.remove("fleet/web.yaml")?;
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway_with(
            &[],
            "  - {port: 80, protocol: HTTP, http2Enabled: true}
  - {port: 443, protocol: HTTPS, certificates: [{CertificateId: demo/site}]}
",
        ),
    )?;
    let site = authority.server(&[host])?;
    gateway.write("fleet/site.yaml", &site.secret("site"))?;
    let file = authority.file();
    Ok((gateway, authority, file))
}

/// Waits until clients that ask for a name are shown this certificate.
fn shown(port: u16, name: &str, wanted: &Made) -> Result<()> {
    eventually("another certificate is shown", || {
        let conn = Conn::encrypted(port, Some(name))?;
        Ok((conn.shown() == Some(&wanted.der), ()))
    })
}
