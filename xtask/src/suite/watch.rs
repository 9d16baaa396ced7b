//! A program run under a deadline, its output passed on line by line.

use std::{
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::process::{self, Known};

/// How long output may still come once the program has ended: what it started may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs a program, giving each line of its stdout and stderr to `line` in the order they were written; whether it
/// succeeded.
///
/// At the deadline the program and its children are ended, and that is an error. Grandchildren are not: the guard of a
/// lab must live to remove it.
pub fn run(mut command: Command, deadline: Instant, mut line: impl FnMut(&str)) -> Result<bool> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // It holds our copies of the writing end, and the pipe ends with the last of them.
    drop(command);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for bytes in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(bytes).is_err() {
                break;
            }
        }
    });

    let mut overdue = false;
    let mut ended = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(bytes) => line(&String::from_utf8_lossy(&bytes)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(now);
        }
        if ended.is_some_and(|at| now > at + LAST_WORDS) {
            break;
        }
        if ended.is_none() && now > deadline && !overdue {
            overdue = true;
            stop(child.id());
        }
    }
    if overdue {
        child.wait()?;
        bail!("it was ended because its time was up");
    }
    Ok(child.wait()?.success())
}

fn stop(pid: u32) {
    let all: Vec<Known> = Known::of(pid, "deadline")
        .into_iter()
        .chain(process::children(pid))
        .collect();
    process::end(&all);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_of_both_streams_come_in_the_order_they_were_written() {
        let mut seen = Vec::new();
        let script = "for n in 1 2 3; do echo err$n >&2; echo out$n; done; exit 1";
        let deadline = Instant::now() + Duration::from_secs(30);
        let good = run(shell(script), deadline, |line| seen.push(line.to_owned())).expect("it ran");
        assert!(!good);
        assert_eq!(seen, ["err1", "out1", "err2", "out2", "err3", "out3"]);
    }

    #[test]
    fn a_program_that_is_late_is_ended_with_its_children() {
        let started = Instant::now();
        let mut child = None;
        let error = run(
            shell("sleep 60 & echo $!; wait"),
            started + Duration::from_millis(500),
            |line| child = line.parse().ok().and_then(|pid| Known::of(pid, "sleep")),
        )
        .expect_err("it was late");
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(error.to_string().contains("time was up"), "{error}");
        assert!(!child.expect("its child was running").alive());
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_us_up() {
        let started = Instant::now();
        let mut left = None;
        let good = run(
            shell("sleep 60 & echo $!"),
            started + Duration::from_secs(40),
            |line| left = line.parse().ok().and_then(|pid| Known::of(pid, "sleep")),
        );
        process::end(&[left.expect("it was running")]);
        assert!(good.expect("it ran"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
