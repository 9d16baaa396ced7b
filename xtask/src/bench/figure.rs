//! Figures of alternating rounds.

use serde::Serialize;

/// One figure over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Middle value.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Figure {
    /// Of all rounds; zeros without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| round(all.get(index).copied().unwrap_or(0.0));
        let (low, high) = (all.len().saturating_sub(1) / 2, all.len() / 2);
        Self {
            median: round(f64::midpoint(
                at(low),
                at(high.min(all.len().saturating_sub(1))),
            )),
            min: at(0),
            max: at(all.len().saturating_sub(1)),
        }
    }

    /// Round by round, `one` by `other`.
    pub fn ratio(one: &[f64], other: &[f64]) -> Self {
        Self::of(one.iter().zip(other).map(|(one, other)| one / other))
    }
}

/// Three digits behind the point.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
