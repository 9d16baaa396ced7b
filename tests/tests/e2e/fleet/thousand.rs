//! One bad Ingress among a thousand good ones.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::{
    apiserver::Verb,
    e2e::{
        VIP, eventually,
        fleet::{AT_ONCE, FLEET_LISTS, Fleet, SHOP, WEB, addresses},
        manifests::Ingress,
        wire::{self, Conn},
    },
};

use super::{ALL, observe, reached, under_load};

/// Good Ingresses, each for a host of its own, beside the two of [`Fleet::new`]: a thousand with them.
const GOOD: usize = 998;

fn name(nth: usize) -> String {
    format!("good-{nth:03}")
}

fn good(nth: usize) -> Ingress {
    Ingress::new(&name(nth), SHOP).host(&host(nth))
}

fn host(nth: usize) -> String {
    format!("h{nth:03}.example.com")
}

/// An Ingress that says something that cannot be meant.
fn bad() -> Ingress {
    mended().note("alb.ingress.kubernetes.io/cluster-weight.c1", "most of it")
}

fn mended() -> Ingress {
    Ingress::new("bad", SHOP).host("bad.example.com")
}

/// Status of the answer for a host, and the pod that gave it.
fn ask(host: &str) -> Result<(u16, String)> {
    let mut conn = Conn::open((VIP, SHOP))?;
    let answer = conn.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
    Ok((answer.status, answer.pod().unwrap_or_default()))
}

/// Asks until the answer is right; how long that took.
fn until(host: &str, right: impl Fn(&(u16, String)) -> bool) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let answer = ask(host)?;
        if right(&answer) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < AT_ONCE, "{host} still says {answer:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_bad_ingress_among_a_thousand_is_named_and_holds_nobody_back() -> Result<()> {
    let mut fleet = Fleet::new()?;
    for nth in 0..GOOD {
        fleet.apply(&good(nth).yaml())?;
    }
    fleet.apply(&bad().yaml())?;
    fleet.gateway.start()?;
    eventually("the fleet was read", || {
        let said = wire::outcome(WEB);
        Ok((said.contains("-p"), said))
    })?;
    let observer = observe(&fleet)?;
    eventually("an Event names it", || {
        let told = fleet.events("bad");
        Ok((told.len() == 1 && told[0].0 == "FailedBuildModel", told))
    })?;
    let (_, note) = fleet.events("bad").remove(0);
    ensure!(note.contains("cluster-weight.c1"), "{note}");
    let named = || -> Result<Vec<_>> {
        let problems = fleet.gateway.problems()?;
        Ok(problems.into_iter().map(|(object, ..)| object).collect())
    };
    assert_eq!(named()?, ["Ingress bad"]);

    under_load(|| {
        for nth in (0..GOOD).step_by(100) {
            let (status, pod) = ask(&host(nth))?;
            assert_eq!(status, 200, "{}", host(nth));
            ensure!(ALL.contains(&pod.as_str()), "{pod}");
        }
        for round in 0..3 {
            fleet.fleet.clear_journal();
            fleet.fleet.compact();
            fleet.fleet.expire_watches(None);
            eventually("the fleet is read again", || {
                let lists = FLEET_LISTS.map(|it| fleet.fleet.count(Verb::List, it));
                let watches = FLEET_LISTS.map(|it| fleet.fleet.count(Verb::Watch, it));
                Ok((watches.iter().all(|count| *count > 0), (lists, watches)))
            })?;
            // A thousand and one Ingresses are three pages of five hundred.
            let lists = FLEET_LISTS.map(|it| fleet.fleet.count(Verb::List, it));
            assert_eq!(lists, [1, 1, 3, 1]);

            // A change of a good one, and of a Service, beside the bad one.
            let moved = Ingress::new(&name(500), SHOP).host(&format!("moved-{round}.example.com"));
            fleet.apply(&moved.yaml())?;
            let took = until(&format!("moved-{round}.example.com"), |answer| {
                answer.0 == 200
            })?;
            eprintln!("a good Ingress changed: {took:?}");
            let pods = match round {
                1 => &ALL[..],
                _ => &ALL[..4],
            };
            let took = observer.change(WEB, &addresses(pods), AT_ONCE, || {
                fleet.endpoints("c2", &pods[2..])
            })?;
            eprintln!("a Service changed: {took:?}");
        }
        Ok(())
    })?;
    assert_eq!(
        ask("bad.example.com")?.0,
        200,
        "the rule for any host serves it"
    );
    assert_eq!(named()?, ["Ingress bad"]);
    assert_eq!(fleet.events("bad").len(), 1, "{:?}", fleet.events("bad"));
    let log = fleet.gateway.log()?;
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("demo/bad"))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");

    fleet.apply(&mended().yaml())?;
    eventually("it is told that it was mended", || {
        let told = fleet.events("bad");
        let reasons: Vec<&str> = told.iter().map(|it| it.0.as_str()).collect();
        let mended = reasons.contains(&"SuccessfullyReconciled");
        Ok((mended, told))
    })?;
    assert_eq!(named()?, Vec::<String>::new());
    let routes = fleet.gateway.json(&["routes"])?;
    let rules: usize = routes
        .as_array()
        .context("an array")?
        .iter()
        .filter_map(|route| route["rules"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(rules, GOOD + 3);
    assert_eq!(reached(SHOP)?.len(), 4);
    observer.all_right()?;
    Ok(())
}
