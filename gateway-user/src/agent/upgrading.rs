//! From maps of another layout to ours, before anything new is taken in. `dataplane::upgrade` tells the states.

use std::collections::BTreeSet;

use tokio::task::yield_now;
use tracing::{info, warn};

use super::{
    Error,
    gateway::{Gateway, now},
};
use crate::{
    dataplane::{self, apply, attach, record::Part, upgrade::Upgrade},
    ir::Touched,
    plan::{self, Plan, Step},
};

impl Gateway {
    /// Takes over maps of another layout, if there are any. Stopped at any moment, it leaves a gateway that works; started
    /// again, of either version, it goes on.
    pub(super) async fn take_over(&mut self) -> Result<(), Error> {
        let Some(mut upgrade) = self.upgrade.take() else {
            return Ok(());
        };
        info!(
            layout = %upgrade.told.layout,
            version = %upgrade.told.version,
            "taking over maps of another layout"
        );
        self.route(&Touched::all(&self.record.ir));
        self.find_paths().await;
        // Nobody looks at a half of the plan: its services come last.
        let steps = plan::diff(&Plan::default(), &self.record.plan);
        let steps = steps.into_iter().map(keeping_counters);
        let (services, rest): (Vec<Step>, Vec<Step>) =
            steps.partition(|step| matches!(step, Step::Service { .. }));
        self.carry_out(&rest)?;
        upgrade.count(&self.record, &mut self.tables)?;
        upgrade.copy(&self.pins, &mut self.tables, false)?;
        // A pass over a large table takes a while: the admin server answers in between.
        yield_now().await;
        let interfaces = self.wanted_interfaces();
        let (xdp, tc) = (self.options.xdp, self.options.tc);
        attach::in_front(&mut self.ebpf, &self.pins, &interfaces, xdp, tc)?;
        // Right before flows are opened here: what the old programs open from now on is theirs until the next pass.
        upgrade.copy(&self.pins, &mut self.tables, false)?;

        self.record.term = upgrade.term;
        self.record.beside = upgrade.beside.take();
        self.save_head()?;
        self.carry_out(&services)?;
        apply::remove_unknown_services(&mut self.tables, &self.record.plan);
        apply::remove_unknown_lists(&mut self.tables, &self.record.plan);
        upgrade.copy(&self.pins, &mut self.tables, false)?;

        self.record.beside = None;
        self.save_head()?;
        attach::take_the_place(&self.pins, &interfaces)?;
        self.attach_interfaces()?;
        yield_now().await;
        upgrade.copy(&self.pins, &mut self.tables, true)?;
        upgrade.count(&self.record, &mut self.tables)?;
        self.tell(upgrade)
    }

    fn carry_out(&mut self, steps: &[Step]) -> Result<(), dataplane::Error> {
        let context = apply::Context {
            want: &self.record.plan,
            ticks_per_second: self.ticks_per_second,
            ring_seed: plan::ring_seed(&self.options.ring_secret),
            hops: self.hops.by_backend(),
        };
        apply::apply(&mut self.tables, steps, context)
    }

    fn save_head(&mut self) -> Result<(), dataplane::Error> {
        let parts = BTreeSet::from([Part::Head]);
        self.recorder.save(&mut self.tables, &self.record, &parts)
    }

    /// Writes down what became of it, and removes the old maps.
    fn tell(&mut self, upgrade: Upgrade) -> Result<(), Error> {
        let mut told = upgrade.told;
        told.at = now();
        told.milliseconds = upgrade.began.elapsed().as_millis() as u64;
        info!(
            flows = told.flows,
            clients = told.clients,
            milliseconds = told.milliseconds,
            "took over the maps of layout {}",
            told.layout
        );
        for left in &told.left {
            warn!("not taken over: {left}");
        }
        self.record.upgrade = Some(told);
        self.save_head()?;
        self.show();
        for other in &upgrade.others {
            if let Err(error) = other.remove_maps() {
                warn!(%error, "these maps are of no use any more");
            }
        }
        Ok(())
    }
}

/// Ids are those of the record, and so are their counters.
fn keeping_counters(step: Step) -> Step {
    match step {
        Step::Backend { id, backend, .. } => Step::Backend {
            id,
            backend,
            fresh: false,
        },
        Step::Service {
            address, service, ..
        } => Step::Service {
            address,
            service,
            fresh: false,
        },
        other => other,
    }
}
