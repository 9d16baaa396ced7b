//! One agent after the other, without a moment in which no proxy takes connections. `dataplane::succession` tells how the
//! two know of each other.

use std::{future::Future, path::Path, pin::pin, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::info;

use super::{Error, gateway::Gateway};
use crate::{
    dataplane::{
        self,
        pins::Pins,
        succession::{Claim, Succession},
    },
    proxy::{Proxy, access_log::AccessLog, trace::export::Traces},
};

/// Pause between two looks for a successor.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// The same when one is known.
const LOOK_CLOSELY: Duration = Duration::from_millis(20);
/// The same when it serves.
const LOOK_RARELY: Duration = Duration::from_secs(1);
/// An agent that does not let go of its pins within this has never heard of it, or hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has the agent that runs on these pins let go of them; `None` if there is none. The claim is to be kept until the new
/// agent serves.
pub async fn claim(pin_dir: &Path) -> Result<Option<Claim>, Error> {
    let pins = Pins::new(pin_dir);
    if !pins.is_held() {
        return Ok(None);
    }
    let claim = pins.claim()?;
    let give_up = Instant::now() + PATIENCE;
    while pins.is_held() {
        if Instant::now() > give_up {
            return Err(dataplane::Error::Busy(pin_dir.to_owned()).into());
        }
        sleep(LOOK_CLOSELY).await;
    }
    info!(
        "the agent that ran on these pins has let go of them, and serves requests until this one does"
    );
    Ok(Some(claim))
}

/// What is left of an agent that has let go of its pins.
pub(super) struct Leaving {
    pins: Pins,
    proxy: Proxy,
    access_log: AccessLog,
    traces: Traces,
    drain: Duration,
}

impl Gateway {
    /// Leaves everything to the successor but the proxy, which goes on with the routes that it has.
    pub(super) fn let_go(self) -> Leaving {
        info!("another agent takes over; requests are served until it does");
        let Self {
            options,
            publishing,
            pins,
            proxy,
            access_log,
            traces,
            ..
        } = self;
        if let Some(publishing) = publishing {
            publishing.stop();
        }
        // With all the rest goes the lock on the pins.
        Leaving {
            pins,
            proxy,
            access_log,
            traces,
            drain: options.drain_timeout,
        }
    }
}

impl Leaving {
    /// Serves until the successor does, then ends what is open in order: until SIGTERM as it comes, then within the same
    /// time as ever. Does not end by itself, for whoever started it might start it again, and it would take over.
    pub(super) async fn see_off(
        mut self,
        asked_to_end: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let mut asked_to_end = pin!(asked_to_end);
        let mut serves = false;
        let outcome = loop {
            let pause = if serves { LOOK_RARELY } else { LOOK_CLOSELY };
            tokio::select! {
                () = &mut asked_to_end => {
                    info!("stopping");
                    break Ok(());
                }
                () = sleep(pause) => match self.pins.succession() {
                    Succession::Claimed => {}
                    // Of a successor that served already, too: whoever started this agent may start it again.
                    Succession::Lost => break Err(Error::Deserted),
                    Succession::Taken if serves => {}
                    Succession::Taken => {
                        info!("the other agent serves; what is open ends in order, and so does this agent on SIGTERM");
                        serves = true;
                        self.proxy.retire();
                    }
                }
            }
        };
        self.proxy.shutdown(self.drain);
        self.access_log.finish();
        self.traces.finish();
        outcome
    }
}
