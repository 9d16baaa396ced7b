//! What splice saves; run by hand in release builds, on an idle machine:
//! `cargo test --release -p gateway-user --lib -- --ignored --nocapture splice_against_copying`.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime;

use super::{Pipes, RelayOptions, relay};

const BYTES: usize = 4 << 30;
const PIECE: usize = 256 * 1024;

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// CPU time of the calling thread, softirqs on its back included.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
#[ignore = "measures; wants an idle machine and a release build"]
fn splice_against_copying() {
    for round in 0..3 {
        for (name, most) in [("copy", 0), ("splice", 8)] {
            let ((mut client, down), (up, mut server)) = (connection(), connection());
            let sender = thread::spawn(move || {
                let piece = vec![7; PIECE];
                for _ in 0..BYTES / PIECE {
                    client.write_all(&piece).unwrap();
                }
            });
            let sink = thread::spawn(move || {
                let mut piece = vec![0; PIECE];
                while server.read(&mut piece).unwrap() > 0 {}
            });
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let began = (Instant::now(), cpu());
            let outcome = runtime.block_on(async {
                down.set_nonblocking(true).unwrap();
                up.set_nonblocking(true).unwrap();
                let mut down = tokio::net::TcpStream::from_std(down).unwrap();
                let mut up = tokio::net::TcpStream::from_std(up).unwrap();
                let options = RelayOptions {
                    idle: Duration::from_secs(60),
                    pipes: &Pipes::new(most),
                };
                relay(&mut down, &mut up, b"", b"", options).await
            });
            let (took, busy) = (began.0.elapsed(), cpu() - began.1);
            sender.join().unwrap();
            sink.join().unwrap();
            let gib = outcome.to_upstream as f64 / (1 << 30) as f64;
            eprintln!(
                "round {round}, {name}: {:.0} MB/s, {:.0} ms CPU of the relay per GiB",
                outcome.to_upstream as f64 / 1e6 / took.as_secs_f64(),
                busy.as_secs_f64() * 1e3 / gib,
            );
        }
    }
}
