//! The requests of a leader, and what their answers mean.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Lead;
use crate::status::{
    api::Failure,
    ledger::Write,
    notice::Notice,
    wanted::{Kind, Target},
};

impl Lead<'_> {
    /// Reads what the fleet says of us. The first time this is where the last leader stopped.
    pub(super) async fn look(&mut self, first: bool, longest: Duration) -> Result<(), Failure> {
        self.forbidden = false;
        for kind in Kind::ALL {
            match self.fleet.list(kind, longest).await {
                Ok(found) => self.ledger.listed(kind, found),
                // A fleet without AlbConfigs has no such kind; its Ingresses can still be released.
                Err(Failure::Gone) => self.ledger.listed(kind, Default::default()),
                Err(Failure::Forbidden(_)) => self.forbidden = true,
                Err(failure) => return Err(failure),
            }
        }
        if first {
            let shown: Vec<_> = self.ledger.shown().map(Target::object).collect();
            self.told.known_good(shown);
        }
        Ok(())
    }

    pub(super) async fn write(&mut self, write: Write, until: Instant) -> Result<(), Failure> {
        match self.fleet.apply(&write, until).await {
            Ok(live) => self.ledger.written(write, live),
            Err(Failure::Taken(fields)) => {
                info!(object = %write.target, "somebody else writes its status; left alone");
                self.ledger.conflicted(&write, fields);
                let wanted = self.ledger.wanted().clone();
                self.want_told(&wanted);
            }
            Err(Failure::Gone) => self.ledger.gone(write),
            Err(failure @ (Failure::Refused(_) | Failure::Forbidden(_))) => {
                match failure {
                    Failure::Forbidden(_) => self.forbidden = true,
                    _ => {
                        warn!(object = %write.target, error = %failure, "the API server does not take its status")
                    }
                }
                self.ledger.refused(write);
            }
            Err(failure) => {
                self.ledger.postpone(write);
                return Err(failure);
            }
        }
        Ok(())
    }

    pub(super) async fn tell(
        &mut self,
        notice: &Notice,
        times: i32,
        until: Instant,
    ) -> Result<(), Failure> {
        let target = Target::of(&notice.object);
        let known = target.and_then(|target| self.ledger.uid(&target).map(str::to_owned));
        let uid = match known {
            Some(uid) => Some(uid),
            None => match self.fleet.uid(&notice.object, until).await {
                Ok(uid) => uid,
                // Nobody would find an Event about it.
                Err(Failure::Gone) => {
                    self.told.done(notice);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            },
        };
        match self.fleet.tell(notice, times, uid.as_deref(), until).await {
            Err(failure @ (Failure::Unavailable(_) | Failure::TimedOut)) => return Err(failure),
            Err(failure @ (Failure::Refused(_) | Failure::Changed)) => {
                warn!(object = %notice.object, error = %failure, "the API server does not take an Event");
            }
            // Its namespace is gone or going, or the right is missing, which has been said.
            Ok(()) | Err(_) => {}
        }
        self.told.done(notice);
        Ok(())
    }
}
