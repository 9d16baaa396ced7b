//! Hostile clients that speak HTTP/1.1, or nothing at all.

use super::script::{BURST, FLOOD, Habit, Reads, SLOW, Script, drip};

const SMALL: &str = "GET /1k HTTP/1.1\r\nHost: demo\r\n\r\n";
const LARGE: &str = "GET /1m HTTP/1.1\r\nHost: demo\r\n\r\n";
const UNSERVED: &str = "GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(super) fn scripts() -> Vec<Script> {
    let burst = |text: &str| text.repeat(BURST as usize).into_bytes();
    let requests = burst(SMALL);
    let tiny = burst("1\r\nx\r\n");
    let extended = format!("1;{}\r\nx\r\n", "e=f;".repeat(100)).into_bytes();
    let lines = burst("\r\n");
    vec![
        Script::new("slow-head", "a request head, 1 byte/s", Vec::new())
            .beats(SLOW, drip(b"GET / HTTP/1.1\r\nHost: demo\r\nX: ")),
        Script::new(
            "slow-body",
            "POST of 100 kB, 1 byte/s",
            b"POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: 100000\r\n\r\n".to_vec(),
        )
        .beats(SLOW, drip(b"")),
        Script::new("empty-lines", "10 empty lines, 10/s", Vec::new())
            .beats(FLOOD, move |_| lines.clone()),
        Script::new("idle", "connects and is silent", Vec::new()),
        Script::new(
            "slow-reader",
            "asks for 1 MiB, reads 1 byte/s",
            LARGE.into(),
        )
        .reads(Reads::OneByte),
        Script::new(
            "half-closed",
            "asks for 1 MiB, closes its side, reads nothing",
            LARGE.into(),
        )
        .reads(Reads::Nothing)
        .habit(Habit::HalfCloses),
        Script::new(
            "header-flood",
            "a head of 60 kB that never ends, 1 byte/s more",
            large_head(),
        )
        .beats(SLOW, drip(b"X: ")),
        Script::new(
            "pipelining",
            "10 requests/s of 1 KiB, reads nothing",
            Vec::new(),
        )
        .beats(SLOW, move |_| requests.clone())
        .reads(Reads::Nothing),
        Script::new(
            "pipelining-404",
            "300 requests at once to a host that is not served, 10/s more, reads nothing",
            UNSERVED.repeat(300).into_bytes(),
        )
        .beats(SLOW, |_| UNSERVED.repeat(BURST as usize).into_bytes())
        .reads(Reads::Nothing),
        Script::new("churn", "connects and closes, 2/s", Vec::new())
            .beats(5 * FLOOD, |_| Vec::new())
            .habit(Habit::Churns),
        Script::new(
            "chunk-extensions",
            "chunks of 1 byte with 400 bytes of extensions, 10/s",
            CHUNKED.into(),
        )
        .beats(FLOOD, move |_| extended.clone()),
        Script::new("tiny-chunks", "10 chunks of 1 byte, 10/s", CHUNKED.into())
            .beats(FLOOD, move |_| tiny.clone()),
        Script::new(
            "garbage",
            "64 bytes of noise, 10/s",
            b"\x16\x03\x01\x02\0\x01\0".into(),
        )
        .beats(FLOOD, noise),
    ]
}

/// Fields up to the limits of the proxy, without the line that ends them.
fn large_head() -> Vec<u8> {
    let mut head = String::from("GET /1k HTTP/1.1\r\nHost: demo\r\n");
    for field in 0..90 {
        head.push_str(&format!("X-{field}: {}\r\n", "v".repeat(650)));
    }
    head.into_bytes()
}

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 (SplitMix64).
fn noise(beat: u64) -> Vec<u8> {
    let word = |index: u64| {
        let mut z = (beat * 8 + index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    };
    (0..8).flat_map(|index| word(index).to_be_bytes()).collect()
}
