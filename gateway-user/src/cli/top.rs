//! `fleetgate top`: what the proxy does right now, asked of the agent's admin server.

mod rates;
mod reading;
mod text;

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

use self::rates::rates;
use super::{
    args::TopArgs,
    output::{Failure, Outcome, View, paint, print},
};

pub use rates::{
    BackendRates, ClusterRates, ListenerRates, Rates, ReasonRate, ServiceRates, TopView,
};

/// Prints a picture of every interval until told to end, or until nobody reads.
pub fn run(args: &TopArgs) -> Result<Outcome, Failure> {
    let interval = Duration::from_secs(args.interval);
    let redraw = !args.json && !args.once && io::stdout().is_terminal();
    let (mut asked, mut before) = (Instant::now(), reading::ask(args.admin)?);
    loop {
        thread::sleep(interval.saturating_sub(asked.elapsed()));
        let (now, after) = (Instant::now(), reading::ask(args.admin)?);
        let view = rates(&before, &after, (now - asked).as_secs_f64());
        let shown = if args.json {
            let line = serde_json::to_string(&view);
            line.map_err(|e| Failure::Output(io::Error::other(e)))? + "\n"
        } else if redraw {
            frame(&view.text(paint()))
        } else {
            view.text(paint()) + if args.once { "" } else { "\n" }
        };
        if !print(&shown)? || args.once {
            return Ok(Outcome::Fine);
        }
        (asked, before) = (now, after);
    }
}

/// Text over what the terminal shows (ECMA-48, and DEC's mode 7): lines are cut at its edge, not wrapped, and nothing of the
/// frame before is left.
fn frame(text: &str) -> String {
    let lines: String = text.lines().map(|it| format!("{it}\x1b[K\r\n")).collect();
    format!("\x1b[?7l\x1b[H{lines}\x1b[J\x1b[?7h")
}
