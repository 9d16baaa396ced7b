//! The fleet's API servers, and what is written back to them.

use std::{fmt, sync::Arc, time::SystemTime};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Kind, family};
use crate::{
    manifest::Reach,
    source::kubernetes::ServerHealth,
    status::{Counters, Outcome, Written},
};

/// What a scrape shows of a fleet; nothing where a directory is the source.
#[derive(Clone, Debug, Default)]
pub struct FleetCounters {
    /// The API servers.
    pub servers: Vec<ServerHealth>,
    /// What was written; `None` where nothing is.
    pub status: Option<Arc<Counters>>,
}

/// Reads one count of an API server.
type Count = fn(&ServerHealth) -> u64;

impl FleetCounters {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use Kind::{Counter, Gauge};
        if !self.servers.is_empty() {
            let of = |value: Count| {
                let servers = self.servers.iter();
                servers.map(move |it| ([("server", it.name.as_str())], value(it)))
            };
            family(
                encoder,
                Gauge,
                ("source_connected", "1 while the API server is followed"),
                of(|it| u64::from(it.reach == Reach::Connected)),
            )?;
            family(
                encoder,
                Gauge,
                (
                    "source_state_seconds",
                    "Seconds since the API server was found, or lost",
                ),
                of(|it| {
                    let since = SystemTime::now().duration_since(it.since);
                    since.map_or(0, |since| since.as_secs())
                }),
            )?;
            let counts: [(&str, &str, Count); 4] = [
                ("source_lists", "Lists read whole", |it| it.lists),
                ("source_watches", "Watches opened", |it| it.watches),
                ("source_events", "Changes that watches told of", |it| {
                    it.events
                }),
                (
                    "source_probes",
                    "Questions whether the server lives",
                    |it| it.probes,
                ),
            ];
            for (name, help, value) in counts {
                family(encoder, Counter, (name, help), of(value))?;
            }
        }
        let Some(status) = &self.status else {
            return Ok(());
        };
        family(
            encoder,
            Gauge,
            ("status_leader", "1 while this node writes status"),
            [([], u64::from(status.is_leader()))],
        )?;
        let waiting = [
            ([("what", "status")], status.statuses_waiting()),
            ([("what", "event")], status.events_waiting()),
        ];
        family(
            encoder,
            Gauge,
            ("status_waiting", "Writes to the fleet that wait"),
            waiting,
        )?;
        let counts = [
            (
                "status_terms",
                "Times this node became the writer of status",
                status.terms(),
            ),
            (
                "status_events_dropped",
                "Events over the budget",
                status.events_dropped(),
            ),
            (
                "status_conflicts",
                "Objects whose status somebody else writes",
                status.conflicts(),
            ),
        ];
        for (name, help, value) in counts {
            family(encoder, Counter, (name, help), [([], value)])?;
        }
        let all = Written::ALL.into_iter().flat_map(|what| {
            let outcomes = Outcome::ALL.into_iter();
            outcomes.map(move |outcome| {
                let labels = [("what", what.name()), ("outcome", outcome.name())];
                (labels, status.writes(what, outcome))
            })
        });
        family(
            encoder,
            Counter,
            ("status_writes", "Requests that wrote to the fleet"),
            all.filter(|(_, count)| *count > 0),
        )
    }
}
