//! Hostile clients that speak HTTP/2 with prior knowledge.

use super::{
    frames::{
        Frame, PREFACE, block, code, continuation, data, flag, goaway, headers, ping, priority,
        rst_stream, setting, settings, window_update,
    },
    script::{BURST, FLOOD, Reads, SLOW, Script, drip},
};

/// Streams of one connection that the proxy lets be open at once.
const STREAMS: u32 = 128;

pub(super) fn scripts() -> Vec<Script> {
    let bomb = bomb(1024);
    let stalled: Vec<Frame> = (0..2).map(|n| get(1 + 2 * n, "/1m")).collect();
    let held: Vec<Frame> = (0..STREAMS).map(|n| post(1 + 2 * n)).collect();
    let unserved = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "nowhere"),
        (":path", "/"),
    ]);
    let unserved = |n| headers(1 + 2 * n, unserved.clone(), true);
    let unserved: Vec<Frame> = (0..STREAMS).map(unserved).collect();
    let no_window = [(setting::INITIAL_WINDOW_SIZE, 0)];
    vec![
        flood(
            "h2-rapid-reset",
            "10 requests, each reset at once, 10/s",
            &[],
            |n| [get(stream(n), "/1k"), rst_stream(stream(n), code::CANCEL)].into(),
        ),
        flood(
            "h2-made-you-reset",
            "10 requests, each with WINDOW_UPDATE of 0, 10/s",
            &[],
            |n| [get(stream(n), "/1k"), window_update(stream(n), 0)].into(),
        ),
        flood(
            "h2-continuation",
            "10 CONTINUATION of 16 bytes without end, 10/s",
            &[headers(1, fields("GET", "/1k"), true).flagged(flag::END_STREAM)],
            |n| {
                vec![continuation(
                    1,
                    block(&[(format!("x-{n:05}"), "value")]),
                    false,
                )]
            },
        ),
        flood("h2-settings", "10 SETTINGS, 10/s", &[], |n| {
            let table = 4096 - u32::from(n % 2 == 0);
            vec![settings(&[(setting::HEADER_TABLE_SIZE, table)])]
        }),
        flood("h2-ping", "10 PING, 10/s", &[], |n| {
            vec![ping(n.to_be_bytes())]
        }),
        flood("h2-priority", "10 PRIORITY, 10/s", &[], |n| {
            vec![priority(stream(n), 0)]
        }),
        flood(
            "h2-window-update",
            "10 WINDOW_UPDATE of 1, 10/s",
            &[],
            |_| vec![window_update(0, 1)],
        ),
        flood(
            "h2-empty-data",
            "10 empty DATA of a POST, 10/s",
            &[post(1)],
            |_| vec![data(1, [], false)],
        ),
        flood(
            "h2-tiny-data",
            "10 DATA of 1 byte, 10/s",
            &[post(1)],
            |_| vec![data(1, [b'x'], false)],
        ),
        Script::new(
            "h2-hpack-bomb",
            "fields of 4 kB from the table, 1024 in each request, 10/s",
            begin(&[], &[headers(1, large_entry(), true)]),
        )
        .beats(FLOOD, move |n| {
            let id = u32::try_from(n).unwrap_or(u32::MAX) * 2 + 3;
            headers(id, bomb.clone(), true).bytes()
        }),
        Script::new(
            "h2-window-stall",
            "asks for 1 MiB twice, never opens the window",
            begin(&no_window, &stalled),
        ),
        Script::new(
            "h2-stalled-404",
            "asks 128 times for a host that is not served, never opens the window",
            begin(&no_window, &unserved),
        ),
        Script::new(
            "h2-window-drip",
            "asks for 1 MiB twice, opens the window by 1 byte/s",
            begin(&no_window, &stalled),
        )
        .beats(SLOW, |_| window_update(1, 1).bytes()),
        Script::new(
            "h2-no-reader",
            "10 PING, 10/s, reads nothing",
            begin(&[], &[]),
        )
        .beats(FLOOD, |_| ping([0; 8]).bytes().repeat(BURST as usize))
        .reads(Reads::Nothing),
        Script::new(
            "h2-idle-streams",
            "128 POST without a body, then silence",
            begin(&[], &held),
        ),
        Script::new(
            "h2-idle-one-stream",
            "1 POST without a body, then silence",
            begin(&[], &[post(1)]),
        ),
        Script::new(
            "h2-goaway",
            "GOAWAY, then silence",
            begin(&[], &[goaway(0, code::NO_ERROR)]),
        ),
        Script::new("h2-slow-preface", "the preface, 1 byte/s", Vec::new())
            .beats(SLOW, drip(PREFACE)),
    ]
}

/// A flood of small frames: `frames` tells those of its nth part.
fn flood(
    name: &'static str,
    does: &'static str,
    first: &[Frame],
    frames: impl Fn(u64) -> Vec<Frame> + Send + Sync + 'static,
) -> Script {
    Script::new(name, does, begin(&[], first)).beats(FLOOD, move |beat| {
        (0..BURST)
            .flat_map(|part| frames(beat * BURST + part))
            .flat_map(|frame| frame.bytes())
            .collect()
    })
}

/// Preface, SETTINGS, the acknowledgement of the server's, and these. The window of the connection is not what stalls.
fn begin(parameters: &[(u16, u32)], frames: &[Frame]) -> Vec<u8> {
    let first = [
        settings(parameters),
        settings(&[]).flagged(flag::ACK),
        window_update(0, 1 << 24),
    ];
    let bytes = first.iter().chain(frames).flat_map(Frame::bytes);
    PREFACE.iter().copied().chain(bytes).collect()
}

/// The client's nth stream.
fn stream(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX / 4) * 2 + 1
}

fn fields(method: &str, path: &str) -> Vec<u8> {
    block(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "demo"),
        (":path", path),
    ])
}

fn get(stream: u32, path: &str) -> Frame {
    headers(stream, fields("GET", path), true)
}

fn post(stream: u32) -> Frame {
    headers(stream, fields("POST", "/"), false)
}

/// A request whose last field fills the dynamic table: a literal with incremental indexing (RFC 7541 section 6.2.1).
fn large_entry() -> Vec<u8> {
    const VALUE_BYTES: usize = 4000;
    let mut block = fields("GET", "/1k");
    block.extend([0x40, 1, b'x', 127]);
    let rest = VALUE_BYTES - 127;
    block.extend([(rest % 128) as u8 | 0x80, (rest / 128) as u8]);
    block.extend([b'v'; VALUE_BYTES]);
    block
}

/// A request with so many references to that field: index 62 is the newest entry (RFC 7541 section 2.3.3).
fn bomb(references: usize) -> Vec<u8> {
    let mut block = fields("GET", "/1k");
    block.extend(vec![0x80 | 62; references]);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::frames::kind;

    #[test]
    fn a_flood_opens_every_stream_once_and_in_order() {
        let script = &scripts()[0];
        let ids: Vec<u32> = (0..3)
            .flat_map(|beat| {
                let bytes = (script.beat)(beat);
                let mut rest = &bytes[..];
                let mut ids = Vec::new();
                while let [a, b, c, frame, _, tail @ ..] = rest {
                    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                    if *frame == kind::HEADERS {
                        ids.push(u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]));
                    }
                    rest = &tail[4 + length..];
                }
                ids
            })
            .collect();
        let odd: Vec<u32> = (0..30).map(|n| 2 * n + 1).collect();
        assert_eq!(ids, odd);
    }
}
