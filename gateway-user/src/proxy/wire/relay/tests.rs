use std::{cell::Cell, io, net::Ipv4Addr, rc::Rc, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    runtime,
    task::{JoinHandle, LocalSet, spawn_local},
    time::timeout,
};

use super::{Ended, Outcome, Pipes, RelayOptions, RelayStream, Side, relay};

/// Long enough to mean never.
const NEVER: Duration = Duration::from_secs(600);
/// Nothing moved for this long: whoever writes is held back.
const STILL: Duration = Duration::from_millis(300);

/// Writes are held back until flushed, as a TLS stream may do.
impl RelayStream for BufStream<DuplexStream> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// Runs as a worker does: one thread, tasks that stay on it.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// Two ends of a connection over loopback.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (near, far) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (near.unwrap(), far.unwrap().0)
}

/// The same with small buffers in the kernel.
async fn narrow_connection(bytes: usize) -> (TcpStream, TcpStream) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(bytes).unwrap();
    listener
        .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(1).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener.into()).unwrap();
    let (near, far) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let (near, far) = (near.unwrap(), far.unwrap().0);
    SockRef::from(&near).set_send_buffer_size(bytes).unwrap();
    SockRef::from(&far).set_send_buffer_size(bytes).unwrap();
    (near, far)
}

/// A relay between a client and a server.
fn start<D: RelayStream + 'static, U: RelayStream + 'static>(
    mut down: D,
    mut up: U,
    early: [&'static [u8]; 2],
    idle: Duration,
    pipes: &Rc<Pipes>,
) -> JoinHandle<Outcome> {
    let pipes = Rc::clone(pipes);
    spawn_local(async move {
        let ending = Cell::new(false);
        let options = RelayOptions {
            idle,
            ending: &ending,
            pipes: &pipes,
        };
        relay(&mut down, &mut up, early[0], early[1], options).await
    })
}

#[test]
fn a_relay_that_is_to_end_waits_for_the_pods_answer_and_cuts_nothing_off() {
    run(async {
        let pipes = Rc::new(Pipes::new(2));
        let ((mut client, mut down), (mut up, mut server)) =
            (connection().await, connection().await);
        let relay = spawn_local(async move {
            let ending = Cell::new(true);
            let options = RelayOptions {
                idle: NEVER,
                ending: &ending,
                pipes: &pipes,
            };
            relay(&mut down, &mut up, b"early", b"", options).await
        });
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).await.unwrap();
        tokio::time::sleep(STILL).await;
        assert!(!relay.is_finished(), "the client waits for an answer");
        server.write_all(b"there").await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"there");
        let outcome = timeout(NEVER, relay).await.unwrap().unwrap();
        assert!(matches!(outcome.ended, Ended::Told), "{outcome:?}");
        assert_eq!((outcome.to_upstream, outcome.to_downstream), (5, 5));
    });
}

/// Client, server, relay.
async fn world(idle: Duration, pipes: &Rc<Pipes>) -> (TcpStream, TcpStream, JoinHandle<Outcome>) {
    let ((client, down), (up, server)) = (connection().await, connection().await);
    (client, server, start(down, up, [b"", b""], idle, pipes))
}

/// Bytes that tell when one is lost, doubled or moved.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Sends in pieces, then ends.
async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], piece: usize) {
    for bytes in bytes.chunks(piece) {
        to.write_all(bytes).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = vec![];
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Both sides send at once; all arrives as it was sent.
async fn exchange<C, S>(client: C, server: S, relay: JoinHandle<Outcome>, sent: [(&[u8], usize); 2])
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    let [(up, up_piece), (down, down_piece)] = sent;
    let (.., at_server, at_client) = tokio::join!(
        send(&mut client_write, up, up_piece),
        send(&mut server_write, down, down_piece),
        receive(&mut server_read),
        receive(&mut client_read),
    );
    assert!(at_server == up, "{} of {}", at_server.len(), up.len());
    assert!(at_client == down, "{} of {}", at_client.len(), down.len());
    let outcome = relay.await.unwrap();
    assert!(matches!(outcome.ended, Ended::Closed), "{outcome:?}");
    assert_eq!(outcome.to_upstream, up.len() as u64);
    assert_eq!(outcome.to_downstream, down.len() as u64);
}

#[test]
fn all_bytes_arrive_both_ways_as_they_were_sent() {
    let sizes = || prop_oneof![0..200_usize, 60_000..70_000_usize, 0..3_000_000_usize];
    let inputs = (
        (sizes(), sizes()),
        (1000..200_000_usize, 1000..200_000_usize),
        0..3_usize,
        any::<u64>(),
    );
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    runner
        .run(&inputs, |((up, down), pieces, most, seed)| {
            let (up, down) = (noise(seed, up), noise(!seed, down));
            run(async {
                let pipes = Rc::new(Pipes::new(most));
                let (client, server, relay) = world(NEVER, &pipes).await;
                exchange(client, server, relay, [(&up, pieces.0), (&down, pieces.1)]).await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn streams_that_are_no_sockets_are_copied_and_flushed() {
    run(async {
        let ((client, down), (up, server)) = (duplex(10_000), connection().await);
        let relay = start(
            BufStream::new(down),
            up,
            [b"", b""],
            NEVER,
            &Rc::new(Pipes::new(8)),
        );
        let (mut client, mut server) = (client, server);
        // Less than any buffer, and no end behind it: only a flush brings it here.
        server.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        client.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        let up = noise(1, 500_000);
        let (at_server, ()) = tokio::join!(receive(&mut server), send(&mut client, &up, 9_000));
        assert!(at_server == up);
        drop(server);
        assert_eq!(receive(&mut client).await, b"");
        assert!(matches!(relay.await.unwrap().ended, Ended::Closed));
    });
}

#[test]
fn a_side_that_is_done_may_still_be_answered() {
    for client_first in [true, false] {
        run(async {
            let (client, server, relay) = world(NEVER, &Rc::new(Pipes::new(8))).await;
            let (mut first, mut second) = if client_first {
                (client, server)
            } else {
                (server, client)
            };
            send(&mut first, b"that is all", 100).await;
            assert_eq!(receive(&mut second).await, b"that is all");
            // The relay knows of one end, and goes on for the other direction.
            let answer = noise(7, 1_000_000);
            let ((), received) =
                tokio::join!(send(&mut second, &answer, 5_000), receive(&mut first));
            assert!(received == answer);
            assert!(matches!(relay.await.unwrap().ended, Ended::Closed));
        });
    }
}

#[test]
fn early_bytes_come_first() {
    for idle_sides in [false, true] {
        run(async {
            let ((mut client, down), (up, mut server)) = (connection().await, connection().await);
            if !idle_sides {
                client.write_all(b" and then").await.unwrap();
                server.write_all(b" and so on").await.unwrap();
            }
            let relay = start(
                down,
                up,
                [b"first up", b"first down"],
                NEVER,
                &Rc::new(Pipes::new(8)),
            );
            client.shutdown().await.unwrap();
            server.shutdown().await.unwrap();
            let (at_server, at_client) = (receive(&mut server).await, receive(&mut client).await);
            let behind = |text: &'static [u8]| if idle_sides { &b""[..] } else { text };
            assert_eq!(at_server, [b"first up", behind(b" and then")].concat());
            assert_eq!(at_client, [b"first down", behind(b" and so on")].concat());
            let outcome = relay.await.unwrap();
            assert_eq!(outcome.to_upstream, at_server.len() as u64);
            assert_eq!(outcome.to_downstream, at_client.len() as u64);
        });
    }
}

#[test]
fn a_reader_that_stands_still_holds_back_the_writer() {
    const KERNEL: usize = 64 * 1024;
    for most in [0, 1] {
        run(async {
            let (client, down) = narrow_connection(KERNEL).await;
            let (up, server) = narrow_connection(KERNEL).await;
            let relay = start(down, up, [b"", b""], NEVER, &Rc::new(Pipes::new(most)));
            let (mut client, mut server) = (client, server);
            let mut sent = 0;
            let piece = noise(3, 10_000);
            while let Ok(written) = timeout(STILL, client.write(&piece[sent % 10_000..])).await {
                sent += written.unwrap();
            }
            // Four buffers in the kernel, each twice what was asked for, and one in the relay.
            assert!(
                sent <= 4 * 2 * KERNEL + 256 * 1024,
                "{sent} bytes are on their way"
            );
            client.shutdown().await.unwrap();
            let received = receive(&mut server).await;
            assert!(received.len() == sent && received.iter().eq(piece.iter().cycle().take(sent)));
            drop(server);
            assert!(matches!(relay.await.unwrap().ended, Ended::Closed));
        });
    }
}

#[test]
fn a_pipe_that_somebody_holds_is_not_waited_for() {
    run(async {
        let pipes = Rc::new(Pipes::new(1));
        let (mut held, _silent, _relay) = world(NEVER, &pipes).await;
        let piece = noise(5, 60_000);
        while timeout(STILL, held.write(&piece)).await.is_ok() {}
        assert!(pipes.lease().is_none(), "the pipe is full");
        let (client, server, relay) = world(NEVER, &pipes).await;
        let bytes = noise(9, 1_000_000);
        exchange(client, server, relay, [(&bytes, 50_000), (&bytes, 50_000)]).await;
    });
}

#[test]
fn a_pipe_with_bytes_inside_is_not_used_again() {
    run(async {
        let pipes = Rc::new(Pipes::new(1));
        let (mut held, _silent, relay) = world(NEVER, &pipes).await;
        let piece = noise(5, 60_000);
        while timeout(STILL, held.write(&piece)).await.is_ok() {}
        relay.abort();
        assert!(relay.await.unwrap_err().is_cancelled());
        assert_eq!(pipes.lease().map(|lease| lease.held()), Some(0));
        let (client, server, relay) = world(NEVER, &pipes).await;
        let bytes = noise(9, 1_000_000);
        exchange(client, server, relay, [(&bytes, 50_000), (b"", 1)]).await;
    });
}

#[test]
fn silence_ends_a_relay_and_bytes_put_that_off() {
    run(async {
        let idle = Duration::from_millis(200);
        let (mut client, mut server, relay) = world(idle, &Rc::new(Pipes::new(8))).await;
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            tokio::time::sleep(idle / 4).await;
            // On a slow machine the relay may be over before.
            if client.write_all(b"x").await.is_err() {
                break;
            }
        }
        let sent = began.elapsed();
        let outcome = relay.await.unwrap();
        assert!(matches!(outcome.ended, Ended::Idle), "{outcome:?}");
        assert!(began.elapsed() >= idle);
        assert!(outcome.to_upstream > 1, "{sent:?}: {outcome:?}");
        assert_eq!(receive(&mut server).await.len() as u64, outcome.to_upstream);
    });
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

#[test]
fn a_reset_tells_whose_it_was() {
    for (client_resets, side) in [(true, Side::Downstream), (false, Side::Upstream)] {
        run(async {
            let (client, server, relay) = world(NEVER, &Rc::new(Pipes::new(8))).await;
            let (mut first, mut second) = if client_resets {
                (client, server)
            } else {
                (server, client)
            };
            first.write_all(b"hello").await.unwrap();
            let mut hello = [0; 5];
            second.read_exact(&mut hello).await.unwrap();
            reset(first);
            let outcome = relay.await.unwrap();
            let Ended::Error(whose, cause) = outcome.ended else {
                panic!("{outcome:?}");
            };
            assert_eq!(whose, side);
            assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
        });
    }
}

#[test]
fn an_early_answer_arrives_though_the_rest_of_the_request_is_refused() {
    run(async {
        let (client, mut server, relay) = world(NEVER, &Rc::new(Pipes::new(8))).await;
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let sending = spawn_local(async move {
            let piece = noise(11, 50_000);
            while client_write.write_all(&piece).await.is_ok() {}
        });
        let mut some = [0; 1000];
        server.read_exact(&mut some).await.unwrap();
        server.write_all(b"413 too large").await.unwrap();
        // Closing with bytes unread is a reset.
        drop(server);
        let mut answer = [0; 13];
        client_read.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"413 too large");
        let outcome = relay.await.unwrap();
        assert!(
            matches!(outcome.ended, Ended::Error(Side::Upstream, _)),
            "{outcome:?}"
        );
        drop(client_read);
        sending.await.unwrap();
    });
}
