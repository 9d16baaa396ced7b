//! A load balancer in front that says who the client is, and pods that want to be told: HAProxy at both ends.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use anyhow::Result;
use fleetgate_tests::e2e::{
    Gateway, VIP,
    curl::{Got, curl},
    ip,
    manifests::{self, Ingress},
    program,
    secrets::Authority,
};
use serde_json::json;
use xtask::lab::{
    self,
    topology::{self, CLIENT, CLIENT_ADDRESS},
};

/// Where pods expect a header of the PROXY protocol: plain, and before TLS.
const PLAIN: u16 = 9080;
const INNER: u16 = 9443;
/// The load balancer's address towards the gateway, and where clients find it.
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 7);
const FRONT: u16 = 7000;

/// Starts HAProxy in every pod.
fn pods(gateway: &mut Gateway, folder: &Path, certificate: &Path) -> Result<()> {
    for pod in topology::pods() {
        let file = folder.join(&pod.name).with_extension("cfg");
        let (address, certificate) = (pod.address, certificate.display());
        let text = format!(
            "global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 15s
  timeout server 5s
frontend pod
  bind {address}:{PLAIN} accept-proxy
  bind {address}:{INNER} accept-proxy ssl crt {certificate}
  http-request return status 200 content-type application/json lf-string \
             '{{\"client\":\"%[src]\",\"asked\":\"%[dst]:%[dst_port]\",\"told\":\"%[req.hdr(x-forwarded-for)]\"}}'
"
        );
        fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        program::serve(gateway, &pod, INNER, &command)?;
    }
    Ok(())
}

/// Starts HAProxy beside the client: connections to [`FRONT`] and on go to the gateway behind a header.
fn balancer(gateway: &mut Gateway, folder: &Path) -> Result<()> {
    let mut text = "global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 15s
  timeout server 15s
"
    .to_owned();
    let mut front = FRONT;
    for port in [80, 443] {
        for header in ["send-proxy", "send-proxy-v2"] {
            text += &format!(
                "listen l{front}
  bind {CLIENT_ADDRESS}:{front}
  server gateway {VIP}:{port} source {BALANCER} {header}
"
            );
            front += 1;
        }
    }
    let file = folder.join("balancer.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    gateway.lab.spawn(CLIENT, "balancer", &command)?;
    lab::wait_listening(CLIENT, front - 1)
}

#[test]
fn the_client_that_a_load_balancer_names_is_the_one_that_pods_are_told() -> Result<()> {
    let mut gateway = Gateway::new()?;
    ip(CLIENT, &[&format!("addr add {BALANCER}/24 dev eth0")])?;
    let authority = Authority::new("Example Trust")?;
    let inner = Authority::new("Example Pods")?;
    let site = authority.server(&["www.example.com"])?;
    let folder = tempfile::tempdir()?;
    let certificate = inner.server(&["bank.example.com"])?;
    let certificate = certificate.save(folder.path(), "pod")?;
    pods(&mut gateway, folder.path(), &certificate)?;
    balancer(&mut gateway, folder.path())?;
    for (name, port) in [("told", PLAIN), ("inner", INNER)] {
        for (path, text) in manifests::clusters(name, port, "None", |_| true) {
            gateway.write(&path, &text)?;
        }
    }
    let trusts = ("fleetgate.io/proxy-protocol-from", "10.210.0.7/32");
    let listeners = "  - {port: 80, protocol: HTTP}
  - {port: 443, protocol: HTTPS, certificates: [{CertificateId: demo/site}]}
";
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway_with(&[trusts], listeners),
    )?;
    gateway.write("fleet/site.yaml", &site.secret("site"))?;
    let tells = ("fleetgate.io/backend-proxy-protocol", "v2");
    let rules = [
        Ingress::new("told", 80)
            .https(443)
            .host("www.example.com")
            .service("told")
            .note(tells.0, tells.1),
        Ingress::encrypted("bank", 443)
            .host("bank.example.com")
            .service("inner")
            .note(tells.0, tells.1)
            .note("fleetgate.io/tls-passthrough", "true"),
    ];
    let rules: String = rules.iter().map(Ingress::yaml).collect();
    gateway.write("fleet/web.yaml", &rules)?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    let outside = authority.file().display().to_string();
    let inside = inner.file().display().to_string();
    let plain = ("http://www.example.com/", &*outside, 80);
    let ended = ("https://www.example.com/", &*outside, 443);
    let passed = ("https://bank.example.com/", &*inside, 443);
    let says = |got: &Got, client: Ipv4Addr, port: u16, through: bool| {
        let body = got.json()?;
        let told = if through {
            String::new()
        } else {
            client.to_string()
        };
        let wanted = json!({"client": client, "asked": format!("{VIP}:{port}"), "told": told});
        assert_eq!(body, wanted, "{got:?}");
        Ok::<_, anyhow::Error>(())
    };
    for (url, trusted, port) in [plain, ended, passed] {
        let through = trusted == inside;
        let ask = |more: &[&str]| curl(&[&["--cacert", trusted, url], more].concat());
        // Through the load balancer, in either version of the header.
        for version in 0..2 {
            let front = FRONT + version + if port == 443 { 2 } else { 0 };
            let way = format!("::{CLIENT_ADDRESS}:{front}");
            let got = ask(&["--connect-to", &way])?;
            assert_eq!((got.code, got.status), (0, 200), "{got:?}");
            assert_eq!(got.json()?["client"], json!(CLIENT_ADDRESS), "{got:?}");
        }
        // curl says by itself who it is.
        let got = ask(&["--interface", &BALANCER.to_string(), "--haproxy-protocol"])?;
        assert_eq!((got.code, got.status), (0, 200), "{got:?}");
        says(&got, BALANCER, port, through)?;
        // Nobody else is asked for a header, nor may write one; and of the balancer one must come.
        says(&ask(&[])?, CLIENT_ADDRESS, port, through)?;
        let got = ask(&["--haproxy-protocol"])?;
        assert!(got.status != 200, "{got:?}");
        let got = ask(&["--interface", &BALANCER.to_string()])?;
        assert_eq!((got.code != 0, got.status), (true, 0), "{got:?}");
    }
    // Requests of one connection are told each for itself.
    let got = curl(&["http://www.example.com/[1-5]"])?;
    assert_eq!((got.all()?.len(), got.connects), (5, 0), "{got:?}");
    Ok(())
}
