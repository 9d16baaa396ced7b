//! Random runs that can be repeated, and go on for as long as they are told.

use std::{
    env,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseResult, TestRunner},
};

/// Seconds that each property runs for, instead of its usual number of cases.
const SECONDS: &str = "FLEETGATE_FUZZ_SECONDS";
/// Seed of the first round, to repeat one.
const SEED: &str = "FLEETGATE_FUZZ_SEED";

/// Runs a property on this many random inputs, or round after round until the time is over. A failure tells its input,
/// made as small as possible, and the seed of its round.
pub(crate) fn fuzz<S: Strategy>(
    name: &str,
    cases: u32,
    inputs: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let lasts = number(SECONDS).map(Duration::from_secs);
    let began = Instant::now();
    let mut seed = number(SEED).unwrap_or_else(clock);
    let mut rounds = 0_u64;
    loop {
        let mut runner = TestRunner::new(Config {
            cases,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(seed),
            ..Config::default()
        });
        if let Err(error) = runner.run(inputs, &property) {
            panic!("{name}: {error}\nonce more, from the same input: {SEED}={seed}");
        }
        rounds += 1;
        seed = seed.wrapping_add(1);
        if lasts.is_none_or(|lasts| began.elapsed() >= lasts) {
            break;
        }
    }
    eprintln!(
        "{name}: {} inputs in {:.1} s, last seed {}",
        rounds * u64::from(cases),
        began.elapsed().as_secs_f64(),
        seed.wrapping_sub(1)
    );
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is `{text}`, which is not a whole number"),
    }
}

/// A seed that no other run has.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_nanos() as u64)
}
