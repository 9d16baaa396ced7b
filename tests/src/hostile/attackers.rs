//! Many connections of one kind of attacker, on one thread.

use std::{
    cell::RefCell,
    future::pending,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream},
    runtime,
    sync::oneshot,
    task::{LocalSet, spawn_local},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{
    script::{Habit, Reads, Script},
    told::{Ear, Told},
};

/// They come over this long, not at once.
const RAMP: Duration = Duration::from_secs(1);
/// Who was thrown out comes back.
const COMES_BACK: Duration = Duration::from_secs(1);
/// Connects that take longer have failed.
const CONNECT: Duration = Duration::from_secs(5);
/// Bounds what the kernel holds for who does not read.
const SOCKET_BYTES: u32 = 8 * 1024;
/// The machine is shared with the proxy; attackers come last.
const NICE: i32 = 5;

/// An attack under way.
#[derive(Debug)]
pub struct Attack {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Told>>,
    connected: Arc<AtomicU64>,
}

impl Attack {
    /// Sends `clients` against `target`.
    pub fn start(script: Arc<Script>, target: SocketAddr, clients: u32) -> Self {
        let (stop, stopped) = oneshot::channel();
        let connected = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&connected);
        let thread = thread::spawn(move || run(&script, target, clients, counter, stopped));
        Self {
            stop,
            thread,
            connected,
        }
    }

    /// Connections made so far.
    pub fn connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    /// Ends it at once.
    pub fn stop(self) -> Result<Told> {
        // One that failed has stopped already, and says why below.
        let _ = self.stop.send(());
        let told = self.thread.join();
        told.map_err(|_| anyhow!("the attackers panicked"))?
    }
}

fn run(
    script: &Arc<Script>,
    target: SocketAddr,
    clients: u32,
    connected: Arc<AtomicU64>,
    stopped: oneshot::Receiver<()>,
) -> Result<Told> {
    // A machine that refuses measures attackers of the same rank.
    let _ = rustix::process::nice(NICE);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop of the attackers")?;
    let told = Rc::new(RefCell::new(Told::default()));
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        for index in 0..clients {
            let client = Client {
                script: Arc::clone(script),
                target,
                told: Rc::clone(&told),
                connected: Arc::clone(&connected),
            };
            spawn_local(client.go(RAMP * index / clients));
        }
        // An error is a sender that is gone: that ends it too.
        let _ = stopped.await;
    });
    drop(local);
    Ok(told.take())
}

struct Client {
    script: Arc<Script>,
    target: SocketAddr,
    told: Rc<RefCell<Told>>,
    connected: Arc<AtomicU64>,
}

/// How a connection ended.
enum End {
    Closed,
    Reset,
    /// By the attacker.
    Own,
}

impl Client {
    async fn go(self, wait: Duration) {
        sleep(wait).await;
        loop {
            let end = match self.connect().await {
                Ok(stream) => {
                    self.told.borrow_mut().opened += 1;
                    self.connected.fetch_add(1, Relaxed);
                    Some(self.misbehave(&stream).await)
                }
                Err(_) => None,
            };
            {
                let told = &mut *self.told.borrow_mut();
                match end {
                    None => told.unmade += 1,
                    Some(Ok(End::Own)) => {}
                    Some(Ok(End::Closed)) => told.closed += 1,
                    Some(Ok(End::Reset) | Err(_)) => {
                        told.closed += 1;
                        told.reset += 1;
                    }
                }
            }
            if !matches!(end, Some(Ok(End::Own))) {
                sleep(COMES_BACK).await;
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SOCKET_BYTES)?;
        // Ports of connections that ended would run out.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        socket.set_nodelay(true)?;
        timeout(CONNECT, socket.connect(self.target)).await?
    }

    /// Follows the script until the connection ends.
    async fn misbehave(&self, stream: &TcpStream) -> io::Result<End> {
        let script = &self.script;
        let mut ear = Ear::default();
        let mut out = script.opening.clone();
        let mut bytes = [0; 8 * 1024];
        let mut shut = script.habit == Habit::HalfCloses;
        let first = Instant::now() + script.every;
        let mut beats = interval_at(first, script.every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = 0;
        loop {
            while !out.is_empty() {
                match stream.try_write(&out) {
                    Ok(taken) => {
                        drop(out.drain(..taken));
                        self.told.borrow_mut().sent_bytes += taken as u64;
                    }
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return Ok(End::Reset),
                }
            }
            if shut && out.is_empty() {
                SockRef::from(stream).shutdown(std::net::Shutdown::Write)?;
                shut = false;
            }
            let reads = async {
                match script.reads {
                    Reads::All => stream.readable().await,
                    Reads::OneByte | Reads::Nothing => pending().await,
                }
            };
            let writes = async {
                match out.is_empty() {
                    true => pending().await,
                    false => stream.writable().await,
                }
            };
            let room = tokio::select! {
                _ = beats.tick() => {
                    if script.habit == Habit::Churns {
                        return Ok(End::Own);
                    }
                    if out.is_empty() {
                        out = (script.beat)(beat);
                        beat += 1;
                    } else {
                        self.told.borrow_mut().held_back += 1;
                    }
                    match script.reads {
                        Reads::OneByte => 1,
                        Reads::All => continue,
                        Reads::Nothing if is_over(stream).await => return Ok(End::Closed),
                        Reads::Nothing => continue,
                    }
                }
                ready = reads => { ready?; bytes.len() }
                ready = writes => { ready?; continue }
            };
            match stream.try_read(&mut bytes[..room]) {
                Ok(0) => return Ok(End::Closed),
                Ok(read) => ear.hear(&bytes[..read], &mut self.told.borrow_mut()),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(End::Reset),
            }
        }
    }
}

/// Whether the proxy has ended the connection, without reading from it.
async fn is_over(stream: &TcpStream) -> bool {
    let ready = stream.ready(Interest::READABLE);
    let ready = timeout(Duration::ZERO, ready).await;
    matches!(ready, Ok(Ok(ready)) if ready.is_read_closed())
}
