//! The table of HTTP/2 violations against the proxy.

use std::{
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::{h2rows, h2run::run_row, support::*};

/// Rows that the proxy does not keep to, and what it does instead.
const LENIENT: &[(&str, &str)] = &[("a pseudo-header in trailers", "leaves it out")];

#[test]
fn every_must_of_http_2_that_a_client_can_break_is_kept() {
    let origin = Origin::fixed(ok("hello from a pod"));
    let mut gateway = Gateway::to(&origin);
    gateway.change(|listener| listener.settings.h2c = true);
    let address = gateway.proxy.local_addr();
    let rows = h2rows::rows();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream
    };
    let failures = Mutex::new(vec![]);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, SeqCst)) {
                    if let Err(what) = run_row(connect, row) {
                        failures.lock().unwrap().push((row, what));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let lenient = |name: &str| LENIENT.iter().any(|(it, _)| *it == name);
    for (row, what) in &failures {
        eprintln!("{} {}\n    {what}", row.section, row.name);
    }
    assert!(
        failures.iter().all(|(row, _)| lenient(row.name)),
        "{} of {} rows fail, see above",
        failures.len(),
        rows.len()
    );
    assert_eq!(
        failures.len(),
        LENIENT.len(),
        "it keeps to more than is listed"
    );
}
