//! Composes the rooms into the running gateway.
//!
//! Invariant: the only room that knows all others. One task owns the maps and carries every change
//! through; whatever ends that task leaves the kernel steering as it is.

mod applying;
mod configuring;
mod gateway;
mod judging;
mod options;
mod pressure;
mod publishing;
mod succession;
mod surroundings;
mod sweeper;
mod upgrading;

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{info, warn};

pub use options::{Fleet, Options, Source};
pub use succession::claim;

use crate::{
    dataplane::{self, succession::Claim},
    health,
    network::{self, Change, Network},
    proxy::{ProxyError, access_log},
    source::{Bounds, DirectorySource, feed, kubernetes},
};
use gateway::Gateway;

/// The gateway could not start.
#[derive(Debug)]
pub enum Error {
    /// The kernel side.
    Dataplane(dataplane::Error),
    /// Links, routes or neighbours.
    Network(network::Error),
    /// The L7 proxy.
    Proxy(ProxyError),
    /// The access log.
    AccessLog(access_log::Error),
    /// A socket, thread or signal.
    Io(&'static str, io::Error),
    /// `--interface` names none of the node's.
    NoInterface {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No `--vip`, and the first interface has no address.
    NoVip(String),
    /// The source of a fleet.
    Source(kubernetes::Error),
    /// The thread that writes status.
    Status(String),
    /// The agent that took over, or was to, has ended.
    Deserted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dataplane(error) => error.fmt(f),
            Self::Network(error) => error.fmt(f),
            Self::Proxy(error) => error.fmt(f),
            Self::AccessLog(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::NoInterface { wanted, known } => write!(
                f,
                "there is no interface {wanted}; --interface takes one of: {}",
                known.join(", ")
            ),
            Self::Source(error) => error.fmt(f),
            Self::Status(error) => f.write_str(error),
            Self::Deserted => f.write_str(
                "the agent that took over has ended, and this one has let go of the pins; start one of them again",
            ),
            Self::NoVip(interface) => write!(
                f,
                "interface {interface} has no IPv4 address to serve; give it one, or name addresses with --vip"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<kubernetes::Error> for Error {
    fn from(error: kubernetes::Error) -> Self {
        Self::Source(error)
    }
}

impl From<dataplane::Error> for Error {
    fn from(error: dataplane::Error) -> Self {
        Self::Dataplane(error)
    }
}

impl From<network::Error> for Error {
    fn from(error: network::Error) -> Self {
        Self::Network(error)
    }
}

impl From<access_log::Error> for Error {
    fn from(error: access_log::Error) -> Self {
        Self::AccessLog(error)
    }
}

impl From<ProxyError> for Error {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

/// Messages of a changing network are taken together for this long.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two looks at a network that never settles, this many times what a look took is left for
/// everything else.
const REST: u32 = 4;
/// The network is looked at this often even if nothing was heard.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A source that has said nothing after this long is not waited for.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// The same where another agent serves until this one does.
const FIRST_WORD_OF_SUCCESSOR: Duration = Duration::from_secs(30);

/// Runs the gateway until SIGTERM or SIGINT. `claim` is given up once it serves. `admin` makes the admin server's task
/// from what it shows; it runs beside the gateway and ends with it.
pub async fn run<F, S>(options: Options, claim: Option<Claim>, admin: F) -> Result<(), Error>
where
    F: FnOnce(Arc<Shared>) -> S,
    S: Future<Output = ()> + 'static,
{
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Error::Io("signals", e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Error::Io("signals", e))?;
    // Log rotation tells by it that files were moved; unheard it would end the agent.
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| Error::Io("signals", e))?;
    let (network, mut changes) = Network::connect()?;
    let (writer, mut edits) = feed();
    let following = match &options.source {
        Source::Manifests(directory) => {
            DirectorySource::new(directory, Bounds::default())
                .follow(writer)
                .map_err(|e| Error::Io("the thread that watches manifests", e))?;
            None
        }
        Source::Kubernetes(fleet) => Some(kubernetes::follow(fleet.servers.clone(), writer)?),
    };
    let (prober, mut verdicts) =
        health::start().map_err(|e| Error::Io("the thread that probes pods", e))?;
    let drain_timeout = options.drain_timeout;
    let mut gateway = Gateway::start(options, network, prober).await?;
    if let Some(following) = &following {
        // Set once: by this agent.
        let _ = gateway.shared().servers.set(following.board());
    }
    let admin = tokio::task::spawn_local(admin(gateway.shared()));
    gateway.take_over().await?;
    let mut sweeps = gateway.sweeps()?;
    // Where another agent still serves, nobody waits.
    let patience = claim
        .as_ref()
        .map_or(FIRST_WORD, |_| FIRST_WORD_OF_SUCCESSOR);
    match timeout(patience, edits.take()).await {
        Ok(edits) => gateway.configure(edits).await,
        // An API server may take long, or be down: what the kernel has goes on meanwhile.
        Err(_) => gateway.carry_on().await,
    }
    gateway.attach()?;
    drop(claim);

    let mut look = interval(LOOK_AGAIN);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refresh = interval(applying::SHOW);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut succession = interval(succession::LOOK);
    succession.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut claimed = false;
    let mut heard: Option<Change> = None;
    let mut settled = Instant::now();
    let mut pause = SETTLE;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => gateway.access_log.reopen(),
            edits = edits.take() => gateway.configure(edits).await,
            verdicts = verdicts.take() => gateway.judge(verdicts).await,
            change = changes.next() => {
                if heard.is_none() {
                    settled = Instant::now() + pause;
                }
                heard = heard.max(Some(change));
            }
            () = sleep_until(settled), if heard.is_some() => {
                if let Some(change) = heard.take() {
                    let begun = Instant::now();
                    gateway.look_around(change).await;
                    pause = SETTLE.max(REST * begun.elapsed());
                }
            }
            _ = look.tick() => {
                gateway.look_again().await;
                gateway.try_again();
                gateway.look_at_certificates();
            }
            _ = refresh.tick() => gateway.show_again(),
            Some(sweep) = sweeps.recv() => gateway.swept(sweep),
            _ = succession.tick() => {
                claimed = gateway.pins.is_claimed();
                if claimed {
                    break;
                }
            }
        }
    }
    drop(following);
    admin.abort();
    if let Err(error) = admin.await
        && error.is_panic()
    {
        warn!("the admin server had panicked");
    }
    if claimed {
        drop((sweeps, edits, verdicts));
        let asked_to_end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        return gateway.let_go().see_off(asked_to_end).await;
    }
    info!("stopping; the kernel goes on steering, `fleetgate unload` ends that");
    gateway.stop(drain_timeout);
    Ok(())
}

pub use gateway::Shared;
