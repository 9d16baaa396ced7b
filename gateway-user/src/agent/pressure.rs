//! A flow table that is nearly full: what was never answered makes room sooner.

use tracing::{info, warn};

use super::gateway::Gateway;
use crate::{
    dataplane::apply::{self, PRESSED, TIMEOUTS},
    plan,
};

/// Whether the table is under pressure: from three quarters on, until it is half empty again.
const fn pressed(entries: u64, size: u64, was: bool) -> bool {
    let most = if was { size / 2 } else { size / 4 * 3 };
    entries > most
}

impl Gateway {
    /// Takes in how full the table is, and shortens or restores the timeouts of flows that are not open.
    pub(super) fn ease(&mut self, entries: u64) {
        let size = u64::from(self.tables.flow_table_size);
        let pressed = pressed(entries, size, self.pressed);
        if pressed == self.pressed {
            return;
        }
        if let Err(error) = self.set_timeouts(if pressed { &PRESSED } else { &TIMEOUTS }) {
            warn!(%error, "timeouts of flows stay as they are; trying again after the next sweep");
            return;
        }
        self.pressed = pressed;
        if pressed {
            warn!(
                entries,
                size, "the flow table is filling up: flows that nobody answers are given up sooner"
            );
        } else {
            info!(entries, size, "the flow table has room again");
        }
    }

    fn set_timeouts(
        &mut self,
        seconds: &[u32; TIMEOUTS.len()],
    ) -> Result<(), crate::dataplane::Error> {
        let seed = plan::ring_seed(&self.options.ring_secret) as u32;
        let rate = self.ticks_per_second;
        apply::configure(
            &mut self.tables,
            seed,
            rate,
            self.options.sample_every,
            seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_at_three_quarters_and_ends_at_half() {
        let mut was = false;
        let fills = [0, 75, 76, 100, 60, 51, 50, 60, 75, 76];
        let states = fills.map(|entries| {
            was = pressed(entries, 100, was);
            was
        });
        let wanted = [
            false, false, true, true, true, true, false, false, false, true,
        ];
        assert_eq!(states, wanted);
    }

    #[test]
    fn under_pressure_no_flow_lives_longer_and_open_ones_as_long_as_ever() {
        use gateway_common::flow::state;
        for (at, (easy, pressed)) in TIMEOUTS.iter().zip(PRESSED).enumerate() {
            let open = at == usize::from(state::TCP_ESTABLISHED)
                || at == usize::from(state::UDP_ESTABLISHED);
            assert!(
                if open {
                    pressed == *easy
                } else {
                    pressed <= *easy
                },
                "{at}"
            );
        }
    }
}
