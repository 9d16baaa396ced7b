//! Who gets a request: clusters by header, weight and life of their pods, and pods by cookie. Over TLS, with a client that
//! keeps its connection.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{
    Gateway,
    curl::{Got, curl},
    eventually,
    manifests::{self, Ingress},
    secrets::Authority,
};
use xtask::lab::topology;

/// How many of the answers came from where this says: `cluster` or `pod`.
fn tally(got: &Got, key: &str) -> Result<BTreeMap<String, usize>> {
    let mut tally = BTreeMap::new();
    for body in got.all()? {
        let name = body[key]
            .as_str()
            .with_context(|| format!("no {key}: {body}"))?;
        *tally.entry(name.to_owned()).or_default() += 1;
    }
    Ok(tally)
}

#[test]
fn requests_of_one_connection_go_to_clusters_and_pods_as_rules_weights_and_cookies_say()
-> Result<()> {
    let mut gateway = Gateway::new()?;
    let authority = Authority::new("Example Trust")?;
    let site = authority.server(&["*.example.com"])?;
    let listeners =
        "  - {port: 443, protocol: HTTPS, certificates: [{CertificateId: demo/site}]}\n";
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway_with(&[], listeners),
    )?;
    gateway.write("fleet/site.yaml", &site.secret("site"))?;
    let gray = r#"[{"type": "Header", "headerConfig": {"key": "stage", "values": ["gray"]}}]"#;
    let rules = [
        Ingress::encrypted("gray", 443)
            .host("www.example.com")
            .note("alb.ingress.kubernetes.io/order", "1")
            .note("alb.ingress.kubernetes.io/conditions.web", gray)
            .weights(&[("c2", 100)]),
        Ingress::encrypted("plain", 443)
            .host("www.example.com")
            .weights(&[("c1", 80), ("c2", 20)]),
        Ingress::encrypted("sticky", 443)
            .host("cart.example.com")
            .note("alb.ingress.kubernetes.io/sticky-session", "true"),
    ];
    let rules: String = rules.iter().map(Ingress::yaml).collect();
    gateway.write("fleet/web.yaml", &rules)?;
    gateway.start()?;
    assert_eq!(gateway.problems()?, []);

    let trusted = authority.file().display().to_string();
    let ask = |host: &str, count: usize, more: &[&str]| {
        let url = format!("https://{host}/[1-{count}]");
        let got = curl(&[&["--cacert", &trusted, &*url], more].concat())?;
        ensure!(got.code == 0 && got.connects == 0, "{got:?}");
        ensure!(got.all()?.len() == count, "{got:?}");
        Ok(got)
    };
    for option in ["--http2", "--http1.1"] {
        let got = ask("www.example.com", 30, &[option, "--header", "stage: gray"])?;
        assert_eq!(tally(&got, "cluster")?, [("c2".to_owned(), 30)].into());
        let by = tally(&ask("www.example.com", 200, &[option])?, "cluster")?;
        let near = by.get("c1").copied().unwrap_or_default();
        // 160 of 200 are meant; 28 is five standard deviations, were each drawn for itself.
        assert!((132..=188).contains(&near), "{option}: {by:?}");
    }

    // With a cookie always the same pod, over connections of their own, too; without one all pods.
    let folder = tempfile::tempdir()?;
    let jar = folder.path().join("jar").display().to_string();
    let jar = ["--cookie", &*jar, "--cookie-jar", &jar];
    let mine = tally(&ask("cart.example.com", 10, &jar)?, "pod")?;
    assert_eq!(mine.len(), 1, "{mine:?}");
    for option in ["--http2", "--http1.1"] {
        let again = ask("cart.example.com", 10, &[&jar[..], &[option]].concat())?;
        assert_eq!(tally(&again, "pod")?, mine);
    }
    assert_eq!(tally(&ask("cart.example.com", 20, &[])?, "pod")?.len(), 5);

    // The pods of a cluster die: nobody has said so, and no client sees it.
    let near: Vec<_> = topology::pods()
        .into_iter()
        .filter(|pod| pod.cluster == "c1")
        .collect();
    for pod in &near {
        gateway.lab.kill_pod(pod)?;
    }
    let by = tally(&ask("www.example.com", 40, &["--http2"])?, "cluster")?;
    assert_eq!(by, [("c2".to_owned(), 40)].into());
    // Nor does a client with a cookie: one pod or another answers it.
    ask("cart.example.com", 10, &jar)?;
    for pod in &near {
        gateway.lab.start_pod(pod)?;
    }
    eventually("they serve again", || {
        let by = tally(&ask("www.example.com", 40, &["--http2"])?, "cluster")?;
        Ok((by.contains_key("c1"), by))
    })
}
