//! Other people's mistakes.

use std::{fs, thread, time::Duration};

use anyhow::Result;
use fleetgate_tests::e2e::{
    Gateway, eventually,
    manifests::{self, Ingress, WEB},
    wire,
};

#[test]
fn a_bad_ingress_beside_a_good_one_harms_nothing_and_serves_once_mended() -> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB, 8002], ""))?;
    gateway.start()?;
    let bad = Ingress::new("bad", 8002).weights(&[("c1", 60), ("c2", 60)]);
    let tally = wire::under_load(WEB, || {
        gateway.write("fleet/bad.yaml", &bad.yaml())?;
        eventually("the problem is shown", || {
            let problems = gateway.problems()?;
            let found = problems.iter().any(|(object, field, _)| {
                object == "Ingress bad" && field.contains("cluster-weight")
            });
            Ok((found, problems))
        })?;
        assert_eq!(gateway.cli(&["status"])?.code, 1, "an object is in error");
        assert_eq!(
            wire::get(8002, "/", "")?.status,
            404,
            "nothing else was said for 8002"
        );
        let mended = Ingress::new("bad", 8002).weights(&[("c1", 60), ("c2", 40)]);
        gateway.write("fleet/bad.yaml", &mended.yaml())?;
        eventually("the mended Ingress serves", || {
            let said = wire::outcome(8002);
            Ok((said.starts_with('c'), said))
        })?;
        eventually("the problem is gone", || {
            let problems = gateway.problems()?;
            Ok((problems.is_empty(), problems))
        })?;
        // Broken again, it keeps what it said before.
        gateway.write("fleet/bad.yaml", &bad.yaml())?;
        eventually("the problem is back", || {
            let problems = gateway.problems()?;
            Ok((!problems.is_empty(), problems))
        })?;
        assert_eq!(wire::burst(8002, 20)?.failed(), 0);
        Ok(())
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    assert!(tally.requests > 50, "{tally:?}");
    Ok(())
}

#[test]
fn broken_yaml_and_a_manifest_directory_that_is_gone_for_a_moment_harm_nothing() -> Result<()> {
    let gateway = Gateway::running()?;
    let tally = wire::under_load(WEB, || {
        gateway.write("fleet/web.yaml", "kind: Ingress\n  spec: [\n")?;
        eventually("the broken file is shown", || {
            let problems = gateway.problems()?;
            let found = problems
                .iter()
                .any(|(object, ..)| object == "File fleet/web.yaml");
            Ok((found, problems))
        })?;
        assert_eq!(gateway.steering(WEB)?.0, "connection");
        let only = Ingress::new("web", WEB).weights(&[("c2", 100)]);
        gateway.write("fleet/web.yaml", &only.yaml())?;
        eventually("the mended file is in force", || {
            let tally = wire::burst(WEB, 20)?;
            Ok((tally.by_pod.keys().all(|pod| pod.starts_with("c2/")), tally))
        })?;
        eventually("nothing is wrong any more", || {
            let problems = gateway.problems()?;
            Ok((problems.is_empty(), problems))
        })?;

        let aside = gateway.manifests().with_extension("aside");
        fs::rename(gateway.manifests(), &aside)?;
        // Longer than the settling time and two looks of the source.
        thread::sleep(Duration::from_millis(1500));
        let meanwhile = wire::burst(WEB, 20);
        fs::rename(&aside, gateway.manifests())?;
        let meanwhile = meanwhile?;
        assert_eq!(
            (meanwhile.requests, meanwhile.failed()),
            (20, 0),
            "{meanwhile:?}"
        );
        // It is followed again.
        let only = Ingress::new("web", WEB).weights(&[("c1", 100)]);
        gateway.write("fleet/web.yaml", &only.yaml())?;
        eventually("the directory is followed again", || {
            let tally = wire::burst(WEB, 20)?;
            Ok((tally.by_pod.keys().all(|pod| pod.starts_with("c1/")), tally))
        })
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    Ok(())
}

#[test]
fn an_agent_that_starts_without_manifests_keeps_what_the_last_one_served() -> Result<()> {
    let mut gateway = Gateway::running()?;
    gateway.kill()?;
    let aside = gateway.manifests().with_extension("aside");
    fs::rename(gateway.manifests(), &aside)?;
    let started = gateway.start();
    let missing = wire::burst(WEB, 20);
    let status = gateway.json(&["status"]);
    fs::create_dir(gateway.manifests())?;
    thread::sleep(Duration::from_millis(2500));
    let empty = wire::burst(WEB, 20);
    fs::remove_dir(gateway.manifests())?;
    fs::rename(&aside, gateway.manifests())?;
    started?;
    assert_eq!((missing?.failed(), empty?.failed()), (0, 0));
    let warnings = status?["warnings"].to_string();
    assert!(warnings.contains("of the last agent go on"), "{warnings}");
    // And it is taken in when it is back.
    let only = Ingress::new("web", WEB).weights(&[("c1", 100)]);
    gateway.write("fleet/web.yaml", &only.yaml())?;
    eventually("the directory is followed", || {
        let tally = wire::burst(WEB, 20)?;
        Ok((tally.by_pod.keys().all(|pod| pod.starts_with("c1/")), tally))
    })
}
