//! HTTPS listeners: certificates from Secrets, TLS of clients, and TLS towards pods and in them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway,
    curl::curl,
    eventually,
    manifests::{self, Ingress},
    program,
    secrets::{Authority, Made},
    wire::Conn,
};
use serde_json::json;
use xtask::lab::topology;

/// Where pods end TLS.
const POD_PORT: u16 = 9443;
const LISTENERS: &str = "  - {port: 443, protocol: HTTPS, certificates: [{CertificateId: demo/site}]}
  - port: 8443
    protocol: HTTPS
    certificates: [{CertificateId: demo/site}]
    caEnabled: true
    caCertificates: [{CertificateId: demo/staff}]
    xForwardedForConfig: {XForwardedForClientCertSubjectDNEnabled: true, XForwardedForClientCertSubjectDNAlias: x-who}
";

/// Waits until clients that ask for a name, or for none, are shown this certificate.
fn shown(name: Option<&str>, wanted: &Made) -> Result<()> {
    eventually("this certificate is shown", || {
        let conn = Conn::encrypted(443, name)?;
        Ok((conn.shown() == Some(&wanted.der), name.map(str::to_owned)))
    })
}

#[test]
fn certificates_follow_their_secrets_and_open_connections_go_on() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let authority = Authority::new("Example Trust")?;
    let staff = Authority::new("Example Staff")?;
    let site = authority.server(&["www.example.com"])?;
    let shop = authority.server(&["shop.example.com"])?;
    let wild = authority.server(&["*.shop.example.com"])?;
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway_with(&[], LISTENERS),
    )?;
    let secrets = [site.secret("site"), staff.secret("staff")];
    gateway.write("fleet/secrets.yaml", &secrets.concat())?;
    gateway.write("fleet/shop-secret.yaml", &shop.secret("shop"))?;
    gateway.write("fleet/wild-secret.yaml", &wild.secret("wild"))?;
    let rules = [
        Ingress::encrypted("web", 443)
            .https(8443)
            .host("www.example.com"),
        Ingress::encrypted("shop", 443)
            .host("shop.example.com")
            .secret("shop"),
        Ingress::encrypted("wild", 443)
            .host("*.shop.example.com")
            .secret("wild"),
    ];
    let rules: String = rules.iter().map(Ingress::yaml).collect();
    gateway.write("fleet/web.yaml", &rules)?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    for (name, made) in [
        (Some("www.example.com"), &site),
        (Some("shop.example.com"), &shop),
        (Some("a.shop.example.com"), &wild),
        // One label alone, and no name at all.
        (Some("a.b.shop.example.com"), &site),
        (Some("example.org"), &site),
        (None, &site),
    ] {
        let conn = Conn::encrypted(443, name)?;
        assert!(conn.shown() == Some(&made.der), "{name:?}");
    }
    // Only hosts of the certificate that was shown, and the connection outlives what was refused.
    let mut conn = Conn::encrypted(443, Some("shop.example.com"))?;
    let good = (200, String::new());
    assert_eq!(conn.asked("shop.example.com")?, good);
    let misdirected = (421, "misdirected".to_owned());
    assert_eq!(conn.asked("www.example.com")?, misdirected);
    assert_eq!(conn.asked("a.shop.example.com")?, misdirected);
    assert_eq!(conn.asked("shop.example.com")?, good);
    let mut nameless = Conn::encrypted(443, None)?;
    assert_eq!(nameless.asked("shop.example.com")?, good);

    // Clients that verify: by each version, and who shares a connection between hosts opens another one.
    let trusted = authority.file().display().to_string();
    for option in ["--http1.1", "--http2"] {
        let got = curl(&[option, "--cacert", &trusted, "https://a.shop.example.com/"])?;
        assert_eq!((got.code, got.status), (0, 200), "{option}: {got:?}");
    }

    // The Secret is written again and again while connections live.
    let mut held = vec![conn, nameless];
    let mut now = shop;
    for _ in 0..3 {
        now = authority.server(&["shop.example.com"])?;
        gateway.write("fleet/shop-secret.yaml", &now.secret("shop"))?;
        shown(Some("shop.example.com"), &now)?;
        for conn in &mut held {
            assert_eq!(conn.asked("shop.example.com")?, good);
        }
        held.push(Conn::encrypted(443, Some("shop.example.com"))?);
    }
    // One that is none: told, and the last good one serves on.
    let broken = now
        .secret("shop")
        .replace("BEGIN CERTIFICATE", "BEGIN NOTHING");
    gateway.write("fleet/shop-secret.yaml", &broken)?;
    eventually("the problem is told", || {
        let problems = gateway.problems()?;
        let about = problems.iter().any(|(_, _, text)| text.contains("shop"));
        Ok((about, problems))
    })?;
    shown(Some("shop.example.com"), &now)?;
    // Its Ingress goes: no certificate of its own any more, nor a rule.
    gateway.write(
        "fleet/web.yaml",
        &Ingress::encrypted("web", 443).https(8443).yaml(),
    )?;
    shown(Some("shop.example.com"), &site)?;
    for conn in &mut held {
        conn.asked("www.example.com")?;
    }

    let folder = tempfile::tempdir()?;
    let alice = staff.client("alice")?.save(folder.path(), "alice")?;
    let stranger = authority.client("alice")?.save(folder.path(), "stranger")?;
    clients_show_certificates(&trusted, &alice, &stranger)
}

/// On the listener that demands one.
fn clients_show_certificates(trusted: &str, alice: &Path, stranger: &Path) -> Result<()> {
    let url = "https://www.example.com:8443/headers";
    let made_up = ["--header", "X-Who: CN=root", "--cacert", trusted];
    for option in ["--http1.1", "--http2", "--tls-max=1.2"] {
        let option: Vec<&str> = option.split('=').collect();
        let ask = |more: &[&str]| curl(&[&option[..], &made_up, more, &[url]].concat());
        let got = ask(&["--cert", &alice.display().to_string()])?;
        assert_eq!((got.code, got.status), (0, 200), "{got:?}");
        assert_eq!(got.field("x-who")?.as_deref(), Some("CN=alice"), "{got:?}");
        let got = ask(&["--cert", &stranger.display().to_string()])?;
        assert_eq!((got.code != 0, got.status), (true, 0), "{got:?}");
        let got = ask(&[])?;
        assert_eq!((got.code != 0, got.status), (true, 0), "{got:?}");
    }
    Ok(())
}

/// HAProxy in every pod: ends TLS, and says who it is, what it was asked for, and by whom.
fn pods(gateway: &mut Gateway, folder: &Path, certificate: &Path) -> Result<()> {
    for pod in topology::pods() {
        let file = folder.join(&pod.name).with_extension("cfg");
        let address = pod.address;
        let text = format!(
            "global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 15s
  timeout server 5s
frontend pod
  bind {address}:{POD_PORT} ssl crt {} alpn h2,http/1.1
  http-request return status 200 content-type application/json lf-string \
             '{{\"pod\":\"{}\",\"cluster\":\"{}\",\"sni\":\"%[ssl_fc_sni]\",\"version\":\"%[ssl_fc_alpn]\",\"peer\":\"%[src]\"}}'
",
            certificate.display(),
            pod.name,
            pod.cluster
        );
        fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        program::serve(gateway, &pod, POD_PORT, &command)?;
    }
    Ok(())
}

#[test]
fn tls_ends_in_pods_where_an_ingress_says_so_and_goes_on_to_pods_where_another_does() -> Result<()>
{
    let mut gateway = Gateway::new()?;
    let authority = Authority::new("Example Trust")?;
    let inner = Authority::new("Example Pods")?;
    let site = authority.server(&["www.example.com", "bank.example.com"])?;
    let folder = tempfile::tempdir()?;
    let certificate = inner.server(&["bank.example.com", "*.vault.example.com"])?;
    let certificate = certificate.save(folder.path(), "pod")?;
    pods(&mut gateway, folder.path(), &certificate)?;
    for (path, text) in manifests::clusters("inner", POD_PORT, "None", |_| true) {
        gateway.write(&path, &text)?;
    }
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway_with(
            &[],
            "  - {port: 443, protocol: HTTPS, certificates: [{CertificateId: demo/site}]}\n",
        ),
    )?;
    gateway.write("fleet/site.yaml", &site.secret("site"))?;
    let inner_rule =
        |name: &str, host: &str| Ingress::encrypted(name, 443).host(host).service("inner");
    let passed = |name: &str, host: &str| {
        inner_rule(name, host).note("fleetgate.io/tls-passthrough", "true")
    };
    let rules = [
        passed("bank", "bank.example.com"),
        passed("vault", "*.vault.example.com"),
        inner_rule("again", "www.example.com")
            .note("alb.ingress.kubernetes.io/backend-protocol", "https"),
    ];
    let rules: String = rules.iter().map(Ingress::yaml).collect();
    gateway.write("fleet/web.yaml", &rules)?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    let outside = authority.file().display().to_string();
    let inside = inner.file().display().to_string();
    let ask = |trusted: &str, host: &str, option: &str| {
        curl(&[option, "--cacert", trusted, &format!("https://{host}/")])
    };
    for (option, version) in [("--http2", "h2"), ("--http1.1", "http/1.1")] {
        for host in ["bank.example.com", "a.vault.example.com"] {
            let got = ask(&inside, host, option)?;
            assert_eq!((got.code, got.status), (0, 200), "{host}: {got:?}");
            let said = got.json()?;
            assert_eq!(
                (&said["sni"], &said["version"]),
                (&json!(host), &json!(version))
            );
            // The gateway's own certificate for that name is not shown.
            assert_eq!(ask(&outside, host, option)?.code, 60, "{host}");
        }
        // Ended here, and begun again towards the pod, whatever the pod shows. Connections to pods are shared by hosts, so
        // none is asked for.
        let got = ask(&outside, "www.example.com", option)?;
        assert_eq!((got.code, got.status), (0, 200), "{got:?}");
        let said = got.json()?;
        let wanted = (json!(""), json!("http/1.1"));
        assert_eq!((&said["sni"], &said["version"]), (&wanted.0, &wanted.1));
    }
    // Each connection is shared out for itself.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..15 {
        let got = ask(&inside, "bank.example.com", "--http2")?;
        seen.insert(got.json()?["pod"].as_str().context("pod")?.to_owned());
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    Ok(())
}
