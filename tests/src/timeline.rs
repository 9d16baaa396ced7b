//! What was wanted when: a gateway that is changed may be a moment behind.

use std::time::{Duration, Instant};

/// After this long a saved change must be in force.
pub const SETTLED: Duration = Duration::from_secs(3);

/// What was wanted, and since when.
#[derive(Debug)]
pub struct Timeline<T>(Vec<(Instant, T)>);

impl<T> Timeline<T> {
    /// This is wanted from the start.
    pub fn new(first: T) -> Self {
        Self(vec![(Instant::now(), first)])
    }

    /// From now on, once it is in force, this is wanted.
    pub fn wanted(&mut self, next: T) {
        self.0.push((Instant::now(), next));
    }

    /// Whether anything says yes that may have been in force at some moment from `begun` until now.
    pub fn any(&self, begun: Instant, mut says: impl FnMut(&T) -> bool) -> bool {
        let now = Instant::now();
        let from = begun.checked_sub(SETTLED).unwrap_or(begun);
        let ends = self.0.iter().skip(1).map(|(since, _)| *since).chain([now]);
        self.0
            .iter()
            .zip(ends)
            .filter(|((since, _), until)| *since <= now && *until >= from)
            .any(|((_, wanted), _)| says(wanted))
    }
}
