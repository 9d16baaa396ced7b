//! curl, in each version of HTTP that it speaks.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    curl::{Got, curl},
    manifests::{self, Ingress},
    pod_named, program,
};
use serde_json::Value;
use xtask::{
    lab::topology::{CLIENT_ADDRESS, HTTP_PORT},
    setup::clients::WEBSOCKETS,
};

const HOST: &str = "www.example.com";
/// Where pods say what they got.
const UPLOAD_PORT: u16 = 9000;

/// What pods send for `/bytes/N`.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..=255).cycle().take(bytes).collect()
}

#[test]
fn curl_is_served_alike_in_every_version_of_http() -> Result<()> {
    let (mut gateway, _authority, trusted) = super::gateway(HOST)?;
    let web = Ingress::new("web", 80).https(443).host(HOST);
    let upload = Ingress::new("upload", 80).https(443).host(HOST);
    let upload = upload.path("/up").service("upload");
    let moved = Ingress::encrypted("moved", 443).host(HOST).path("/moved");
    let moved = moved.service("upload");
    let moved = moved.note("alb.ingress.kubernetes.io/ssl-redirect", "true");
    let first = "alb.ingress.kubernetes.io/order";
    let rules = [upload.note(first, "1"), moved.note(first, "2"), web];
    let rules: String = rules.iter().map(Ingress::yaml).collect();
    gateway.write("fleet/rules.yaml", &rules)?;
    for (path, text) in manifests::clusters("upload", UPLOAD_PORT, "None", |pod| pod == "c1-p2") {
        gateway.write(&path, &text)?;
    }
    for (path, text) in manifests::clusters("web", HTTP_PORT, "None", |_| true) {
        gateway.write(&path, &text)?;
    }
    let pod = pod_named("c1-p2")?;
    let mut command = Command::new(WEBSOCKETS.python()?);
    command.args(["-I", "-c", include_str!("upload_pod.py")]);
    command.args([pod.address.to_string(), UPLOAD_PORT.to_string()]);
    program::serve(&mut gateway, &pod, UPLOAD_PORT, &command)?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("upload");
    fs::write(&file, pattern(3_000_001))?;
    let file = file.display().to_string();
    let digest = xtask::process::output(Command::new("sha256sum").arg(&file))?;
    let digest = digest.split(' ').next().context("a digest")?;
    let trusted = trusted.display().to_string();

    for (scheme, option, version) in [
        ("http", "--http1.1", "1.1"),
        ("http", "--http2-prior-knowledge", "2"),
        // Asks to change to HTTP/2 (RFC 7540 section 3.2), which RFC 9113 has taken back.
        ("http", "--http2", "1.1"),
        ("https", "--http1.1", "1.1"),
        ("https", "--http2", "2"),
    ] {
        let ask = |path: &str, more: &[&str]| {
            let url = format!("{scheme}://{HOST}{path}");
            let way = [&url, option, "--cacert", &trusted];
            let got = curl(&[&way, more].concat())?;
            let context = format!(
                "{scheme} {option} {path} {more:?}: {} {:?}",
                got.words, got.headers
            );
            assert_eq!((got.code, &*got.version), (0, version), "{context}");
            Ok::<_, anyhow::Error>((got, context))
        };

        let (got, context) = ask("/headers", &["--header", "X-Word: a, b"])?;
        assert_eq!(got.status, 200, "{context}");
        assert_eq!(got.field("x-word")?.as_deref(), Some("a, b"), "{context}");
        let client = Some(CLIENT_ADDRESS.to_string());
        assert_eq!(got.field("x-forwarded-for")?, client, "{context}");
        assert_eq!(got.field("host")?.as_deref(), Some(HOST), "{context}");

        let (got, context) = ask("/bytes/10000000", &[])?;
        assert!(got.body == pattern(10_000_000), "{context}");
        let (got, context) = ask("/bytes/100000", &["--compressed"])?;
        assert_eq!(got.headers["content-encoding"], "gzip", "{context}");
        assert!(got.body == pattern(100_000), "{context}");
        let (got, context) = ask("/bytes/100000", &["--head"])?;
        assert_eq!(got.headers["content-length"], "100000", "{context}");
        // One connection for all of them, in turns. By prior knowledge, curl 7.88 fails at the second one, whoever serves.
        if option != "--http2-prior-knowledge" {
            let (got, context) = ask("/[1-20]", &[])?;
            assert_eq!((got.all()?.len(), got.connects), (20, 0), "{context}");
        }

        let told = |got: &Got| {
            let body: Value = got.json()?;
            let sum = body["sha256"].as_str().map(str::to_owned);
            Ok::<_, anyhow::Error>((body["bytes"].as_u64(), sum))
        };
        let whole = (Some(3_000_001), Some(digest.to_owned()));
        // With `Expect: 100-continue` in HTTP/1.1: curl sends it with every body of 1 MiB and more.
        let (got, context) = ask("/up/file", &["--upload-file", &file])?;
        assert_eq!(told(&got)?, whole, "{context}");
        // In chunks, where there are any.
        let chunked = ["--header", "Transfer-Encoding: chunked"];
        let chunked = if version == "2" { &[][..] } else { &chunked };
        let (got, context) = ask("/up/file", &[&["--upload-file", &*file], chunked].concat())?;
        assert_eq!(told(&got)?, whole, "{context}");
        // The pod's no comes instead of its 100, and the body stays where it is. Over HTTP/2 curl 7.88 does not wait for
        // either, and takes no answer before it has sent all, whoever serves.
        if version == "1.1" {
            let refused = ["--upload-file", &file, "--header", "Expect: 100-continue"];
            let (got, context) = ask("/up/no", &refused)?;
            assert_eq!(got.status, 413, "{context}");
        }
    }

    // To the listener of HTTPS, with method and body.
    let url = format!("http://{HOST}/moved/there?a=%20b");
    let form = ["--data", "x=1", "--location", "--cacert", &trusted, &*url];
    let got = curl(&form)?;
    assert_eq!(
        (got.code, got.status, got.redirects),
        (0, 200, 1),
        "{got:?}"
    );
    assert_eq!(got.url, url.replace("http:", "https:"));
    assert_eq!(got.json()?["bytes"], 3, "{got:?}");
    let got = curl(&[&url])?;
    assert_eq!(got.status, 308, "{got:?}");
    // Who does not know who signed the certificate does not ask.
    let got = curl(&[&format!("https://{HOST}/")])?;
    assert_eq!((got.code, got.status), (60, 0), "{got:?}");
    Ok(())
}
