//! The table of HTTP/2 violations against a server that is known to be good: the crate h2. What fails here is either a
//! mistake of the table or a leniency of that crate, which is listed.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "proxy/h2frames.rs"]
mod h2frames;
#[path = "proxy/h2rows.rs"]
mod h2rows;
#[path = "proxy/h2run.rs"]
mod h2run;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server};
use hyper::{Request, Response};
use tokio::{
    net::TcpListener,
    runtime,
    task::{LocalSet, spawn_local},
};

use self::h2run::run_row;

/// Rows that the crate h2 (0.4.20) does not keep to, and what it does instead.
const LENIENT: &[(&str, &str)] = &[
    ("PING before SETTINGS", "answers"),
    ("HEADERS before SETTINGS", "answers"),
    ("a pseudo-header in trailers", "leaves it out"),
    ("a space before a value", "hands it on"),
    ("a space after a value", "hands it on"),
    ("a tab after a value", "hands it on"),
    (":path of * for other methods than OPTIONS", "hands it on"),
    ("user information in :authority", "hands it on"),
    ("host that differs from :authority", "hands both on"),
    ("CONNECT without :authority", "hands it on"),
];

/// A server that answers each request when it has read it.
fn start() -> SocketAddr {
    let (told, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let mut builder = server::Builder::new();
                    let handshake = builder.max_concurrent_streams(10).handshake(socket);
                    let Ok(mut connection) = handshake.await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        spawn_local(answer(request, respond));
                    }
                });
            }
        });
    });
    address.recv().unwrap()
}

async fn answer(request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>) {
    let mut body = request.into_body();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return };
        let _ = body.flow_control().release_capacity(piece.len());
    }
    if body.trailers().await.is_err() {
        return;
    }
    if let Ok(mut sending) = respond.send_response(Response::new(()), false) {
        let _ = sending.send_data(Bytes::from_static(b"hello from h2"), true);
    }
}

#[test]
fn the_table_holds_for_the_crate_h2_but_for_what_is_listed() {
    let address = start();
    let rows = h2rows::rows();
    let names: HashSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "names are unique");
    assert!(rows.len() >= 60);
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
    let failed: HashSet<&str> = failures.iter().map(|(row, _)| row.name).collect();
    let lenient: HashSet<&str> = LENIENT.iter().map(|(name, _)| *name).collect();
    for (row, what) in &failures {
        if !lenient.contains(row.name) {
            eprintln!("{} {}\n    {what}", row.section, row.name);
        }
    }
    assert!(failed.is_subset(&lenient), "see above");
    let gone: Vec<_> = lenient.difference(&failed).collect();
    assert!(gone.is_empty(), "h2 keeps to these now: {gone:?}");
    eprintln!("{} of {} rows", rows.len() - failed.len(), rows.len());
}
