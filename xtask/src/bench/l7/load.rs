//! The load tools: wrk for HTTP/1.1, h2load for HTTP/2.

use anyhow::{Context, Result, bail};

use super::{
    cases::{Case, Front, Load},
    contender::Contender,
    network,
};
use crate::{netns, process};

/// What one run of a load tool saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// Answers.
    pub(super) requests: u64,
    /// In a second.
    pub(super) per_second: f64,
    /// Answers that were no success, and connections that failed.
    pub(super) bad: u64,
}

/// Asks a contender for this many seconds.
pub(super) fn run(case: &Case, who: Contender, seconds: u8) -> Result<Seen> {
    let scheme = if case.front == Front::Tls {
        "https"
    } else {
        "http"
    };
    let url = format!(
        "{scheme}://{}:{}{}",
        network::VIP,
        who.port(case.front),
        case.path()
    );
    let seconds = seconds.to_string();
    let seen = if case.load == Load::H2 {
        let mut command = netns::command(network::CLIENT, "h2load");
        command.args(["-t", "1", "-c", "8", "-m", "16", "-D", &seconds, &url]);
        let said = process::output(&mut command)?;
        h2load(&said).with_context(|| format!("h2load says: {said}"))?
    } else {
        let mut command = netns::command(network::CLIENT, "wrk");
        command.args(["-t", "1", "-c", "64", "-d", &seconds]);
        if case.load == Load::Close {
            command.args(["-H", "Connection: close"]);
        }
        let said = process::output(command.arg(&url))?;
        wrk(&said).with_context(|| format!("wrk says: {said}"))?
    };
    if seen.requests == 0 || seen.bad > seen.requests / 1000 {
        bail!("{} of {} requests failed", seen.bad, seen.requests);
    }
    Ok(seen)
}

/// `123 requests in 2.00s, ...`, `Socket errors: connect 0, read 0, ...`, `Non-2xx or 3xx responses: 5`, `Requests/sec: 61.5`.
fn wrk(said: &str) -> Option<Seen> {
    let lines = || said.lines().map(str::trim);
    let requests = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok())?;
    let per_second =
        lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())?;
    let socket = lines().find_map(|line| line.strip_prefix("Socket errors:"));
    let numbers = socket
        .into_iter()
        .flat_map(|line| line.split(|c: char| !c.is_ascii_digit()));
    let failed: u64 = numbers.filter_map(|text| text.parse::<u64>().ok()).sum();
    let refused: u64 = lines()
        .find_map(|line| {
            line.strip_prefix("Non-2xx or 3xx responses:")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0);
    Some(Seen {
        requests,
        per_second,
        bad: failed + refused,
    })
}

/// `finished in 2.00s, 270.50 req/s, ...`, `requests: 9 total, 9 started, 9 done, 8 succeeded, 1 failed, ...`.
fn h2load(said: &str) -> Option<Seen> {
    let line = said.lines().find(|line| line.starts_with("finished in "))?;
    let per_second = line
        .split(", ")
        .nth(1)?
        .strip_suffix(" req/s")?
        .parse()
        .ok()?;
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("requests: "))?;
    let count = |what: &str| -> Option<u64> {
        line.split(", ")
            .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    let requests = count(" succeeded")?;
    Some(Seen {
        requests,
        per_second,
        bad: count(" failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_failures_of_wrk_are_read() {
        let said = "Running 2s test\n  1 threads and 64 connections\n  120 requests in 2.00s, 3.00MB read\n  \
                    Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 4\nRequests/sec:     60.25\n";
        let seen = wrk(said).expect("complete");
        assert_eq!(
            seen,
            Seen {
                requests: 120,
                per_second: 60.25,
                bad: 10
            }
        );
        assert_eq!(wrk("unable to connect"), None);
    }

    #[test]
    fn requests_and_failures_of_h2load_are_read() {
        let said = "finished in 2.00s, 27000.50 req/s, 3.57MB/s\n\
                    requests: 54001 total, 54129 started, 54001 done, 54000 succeeded, 1 failed, 0 errored, 0 timeout\n";
        let seen = h2load(said).expect("complete");
        assert_eq!(
            seen,
            Seen {
                requests: 54000,
                per_second: 27000.5,
                bad: 1
            }
        );
    }
}
