//! A client beside a hundred hostile ones is served as always: the short form of `cargo xtask hostile`.

use std::{path::Path, sync::Arc, time::Duration};

use fleetgate_tests::hostile::{
    round::{self, Options, Outcome},
    script,
};

/// How a hundred of this kind end.
fn beside(kind: &str) -> Outcome {
    beside_for(kind, Duration::from_secs(1))
}

fn beside_for(kind: &str, lasting: Duration) -> Outcome {
    let script = script::all().into_iter().find(|it| it.name == kind);
    let script = Arc::new(script.expect("a kind that exists"));
    let options = Options {
        clients: 100,
        lasting,
        turns: 1,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_hostile"));
    let outcome = round::run(program, &script, options).expect("proxy and backend run");
    assert!(outcome.succeeded(), "{outcome:#?}");
    assert!(outcome.told.opened >= 100, "all attack: {outcome:#?}");
    assert_eq!(outcome.left_over, 0, "who left is gone: {outcome:#?}");
    outcome
}

#[test]
fn nobody_notices_slow_heads() {
    beside("slow-head");
}

#[test]
fn nobody_notices_clients_that_do_not_read() {
    beside("slow-reader");
}

#[test]
fn nobody_notices_rapid_resets() {
    let outcome = beside("h2-rapid-reset");
    // What was taken back in the same breath did not reach a pod.
    assert!(outcome.counts.upstream_opened < 100, "{outcome:#?}");
    assert!(outcome.told.sent_bytes > 100_000, "{outcome:#?}");
}

#[test]
fn nobody_notices_blocks_of_fields_without_end_which_are_cut() {
    beside("h2-continuation");
}

#[test]
fn nobody_notices_what_a_small_table_expands_to() {
    beside("h2-hpack-bomb");
}

#[test]

fn streams_whose_answer_of_the_proxy_is_never_taken_end_like_those_of_a_backend() {
    let outcome = beside_for("h2-stalled-404", Duration::from_secs(10));
    let told = &outcome.told;
    assert!(told.closed > 0 || told.stream_resets > 0, "{outcome:#?}");
}
