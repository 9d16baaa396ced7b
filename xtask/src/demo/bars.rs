//! What must hold, and what did not.

/// Collects the bars that failed, each as a sentence with its figures.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// How many held.
    pub held: u32,
    /// The others.
    pub failed: Vec<String>,
}

impl Bars {
    /// Notes one bar.
    pub fn hold(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if holds {
            self.held += 1;
        } else {
            self.failed.push(otherwise());
        }
    }
}
