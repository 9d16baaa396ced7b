use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::proxy::trace::{SpanId, TraceId};

fn entry() -> Entry<'static> {
    Entry {
        time_ms: 1_796_047_238_123,
        client: Some("192.0.2.7:40000".parse().unwrap()),
        peer: Some("10.9.0.1:51000".parse().unwrap()),
        listener: "demo:443/HTTPS",
        protocol: "HTTP/2",
        method: b"GET",
        scheme: "https",
        host: b"shop.example.com",
        path: b"/cart?item=7",
        status: 504,
        reason: Some("timeout"),
        rule: Some(("shop/web", 3)),
        service: "shop/web:80",
        cluster: "c1",
        backend: Some("10.1.0.1:8080".parse().unwrap()),
        attempts: 2,
        request_body_bytes: 0,
        received_bytes: 321,
        response_body_bytes: 20,
        sent_bytes: 220,
        timers: Timers {
            head: Some(Duration::from_micros(12)),
            pick: Some(Duration::from_micros(3)),
            connect: None,
            first_byte: Some(Duration::from_millis(5)),
            total: Duration::from_secs(60),
        },
        tls: "TLSv1.3",
        sni: b"shop.example.com",
        trace_id: Some(TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736)),
        span_id: Some(SpanId(0x00f0_67aa_0ba9_02b7)),
        user_agent: b"curl/8.5.0",
        referer: b"",
    }
}

#[test]
fn a_line_reads_as_documented() {
    let mut line = Vec::new();
    entry().write(Stamp::default().at(entry().time_ms), &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"time\":\"2026-11-30T14:00:38.123Z\",\"client\":\"192.0.2.7:40000\",\"peer\":\"10.9.0.1:51000\",\"listener\":\"demo:443/HTTPS\",\
         \"protocol\":\"HTTP/2\",\"method\":\"GET\",\"scheme\":\"https\",\"host\":\"shop.example.com\",\
         \"path\":\"/cart?item=7\",\"status\":504,\"reason\":\"timeout\",\"rule\":\"shop/web\",\"rule_number\":3,\
         \"service\":\"shop/web:80\",\"cluster\":\"c1\",\"backend\":\"10.1.0.1:8080\",\"attempts\":2,\
         \"request_body_bytes\":0,\"received_bytes\":321,\"response_body_bytes\":20,\"sent_bytes\":220,\
         \"head_us\":12,\"pick_us\":3,\"first_byte_us\":5000,\"total_us\":60000000,\"tls\":\"TLSv1.3\",\
         \"sni\":\"shop.example.com\",\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"span_id\":\"00f067aa0ba902b7\",\
         \"user_agent\":\"curl/8.5.0\"}\n"
    );
}

#[test]
fn an_entry_of_which_nothing_is_known_is_a_line_too() {
    let mut line = Vec::new();
    Entry::default().write(Stamp::default().at(0), &mut line);
    let read: BTreeMap<String, Value> = serde_json::from_slice(&line).unwrap();
    assert_eq!(
        (&read["status"], &read["reason"]),
        (&0.into(), &Value::Null)
    );
    assert!(!read.contains_key("backend") && !read.contains_key("sni"));
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(any::<u8>(), 1000..1100),
        ".{0,80}".prop_map(String::into_bytes),
    ]
}

/// What a reader must see of a text.
fn shown(bytes: &[u8], most: usize, read: &str) -> bool {
    if bytes.len() <= most {
        return String::from_utf8_lossy(bytes) == read;
    }
    // Where a character was cut in two, none of it is shown.
    let kept = read.strip_suffix('…').unwrap_or("\0not cut");
    (most.saturating_sub(3)..=most).any(|end| String::from_utf8_lossy(&bytes[..end]) == kept)
}

proptest! {
    #[test]
    fn every_line_is_one_json_object_whatever_the_client_sent(
        (path, host, agent) in (hostile(), hostile(), hostile()),
        (method, sni, referer) in (hostile(), hostile(), hostile()),
        (time_ms, status, sent_bytes) in any::<(u64, u16, u64)>(),
        (client, total) in any::<(SocketAddr, Duration)>(),
    ) {
        let entry = Entry {
            time_ms, status, sent_bytes, client: Some(client),
            path: &path, host: &host, user_agent: &agent, method: &method, sni: &sni, referer: &referer,
            timers: Timers { total, ..Timers::default() },
            ..entry()
        };
        let mut line = Vec::new();
        entry.write(Stamp::default().at(time_ms), &mut line);
        prop_assert!(line.len() <= MAX_LINE_BYTES);
        prop_assert_eq!(line.iter().position(|it| *it == b'\n'), Some(line.len() - 1));
        let read: BTreeMap<String, Value> = serde_json::from_slice(&line).unwrap();
        let text = |name: &str| read.get(name).map_or("", |it| it.as_str().unwrap());
        prop_assert!(shown(&path, 1024, text("path")));
        for (bytes, name) in [(&host, "host"), (&agent, "user_agent"), (&method, "method"), (&sni, "sni"), (&referer, "referer")] {
            prop_assert!(shown(bytes, 256, text(name)), "{}", name);
        }
        prop_assert_eq!(read["status"].as_u64(), Some(status.into()));
        prop_assert_eq!(read["sent_bytes"].as_u64(), Some(sent_bytes));
        prop_assert_eq!(u128::from(read["total_us"].as_u64().unwrap()), total.as_micros().min(u64::MAX.into()));
    }
}

#[test]
fn the_longest_line_stays_within_the_bound() {
    let text = "\u{1}".repeat(2000);
    let bytes = text.as_bytes();
    let v6 = Some(
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
            .parse()
            .unwrap(),
    );
    let most = Some(Duration::MAX);
    let longest = Entry {
        time_ms: u64::MAX,
        client: v6,
        peer: v6,
        listener: &text,
        protocol: &text,
        method: bytes,
        scheme: &text,
        host: bytes,
        path: bytes,
        status: u16::MAX,
        reason: Some(&text),
        rule: Some((&text, u32::MAX)),
        service: &text,
        cluster: &text,
        backend: v6,
        attempts: u32::MAX,
        request_body_bytes: u64::MAX,
        received_bytes: u64::MAX,
        response_body_bytes: u64::MAX,
        sent_bytes: u64::MAX,
        timers: Timers {
            head: most,
            pick: most,
            connect: most,
            first_byte: most,
            total: Duration::MAX,
        },
        tls: &text,
        sni: bytes,
        trace_id: Some(TraceId(u128::MAX)),
        span_id: Some(SpanId(u64::MAX)),
        user_agent: bytes,
        referer: bytes,
    };
    let mut line = Vec::new();
    longest.write(Stamp::default().at(u64::MAX), &mut line);
    assert!(line.len() <= MAX_LINE_BYTES, "{}", line.len());
    serde_json::from_slice::<Value>(&line).unwrap();
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_workers_write_is_in_the_file_when_the_log_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = AccessLog::start(&Target::File(path.clone())).unwrap();
    let counters = log.counters();
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut worker = log.worker();
            scope.spawn(move || {
                for at in 0..500 {
                    let path = format!("/{at}");
                    worker.write(&Entry {
                        path: path.as_bytes(),
                        ..entry()
                    });
                }
            });
        }
    });
    log.finish();
    let lines = lines(&path);
    assert_eq!((lines.len(), counters.written()), (1000, 1000));
    assert_eq!(counters.lost(), 0);
    for line in lines {
        serde_json::from_str::<Value>(&line).unwrap();
    }
}

#[test]
fn lines_are_handed_over_every_200_ms_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let log = AccessLog::start(&Target::File(dir.path().join("log"))).unwrap();
    let mut worker = log.worker();
    let start = Instant::now();
    let mut waits = |after: u64| {
        worker.write(&entry());
        worker.flush_if_due(start + Duration::from_millis(after));
        worker.on.as_ref().unwrap().lines
    };
    assert_eq!([0, 100, 199, 200, 399].map(&mut waits), [0, 1, 2, 0, 1]);
}

#[test]
fn a_log_that_nobody_takes_in_loses_lines_and_holds_no_worker() {
    let (batches, waiting) = sync_channel(1);
    let counters = Arc::new(Counters::default());
    let log = AccessLog {
        running: Some(Running {
            batches,
            reopen: Arc::default(),
            ended: sync_channel(0).1,
        }),
        counters: Arc::clone(&counters),
    };
    let mut worker = log.worker();
    for _ in 0..3 {
        worker.write(&entry());
        worker.write(&entry());
        worker.flush();
    }
    assert_eq!(counters.lost(), 4);
    drop(waiting);
    worker.write(&entry());
    worker.flush();
    assert_eq!(counters.lost(), 5);
}

#[test]
fn a_log_that_is_off_formats_nothing() {
    let log = AccessLog::start(&Target::Off).unwrap();
    let mut worker = log.worker();
    assert!(!worker.is_on());
    worker.write(&entry());
    worker.flush_if_due(Instant::now());
    log.finish();
}

#[test]
fn a_file_that_cannot_be_opened_is_told_by_name() {
    let target = Target::File("/nonexistent/folder/log".into());
    let error = AccessLog::start(&target).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/folder/log"), "{error}");
}
