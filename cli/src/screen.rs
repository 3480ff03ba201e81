//! The live screen of `iota up` and `iota train`: a few lines in a terminal, one line now and then elsewhere.

use crate::summary::Summary;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const QUIET: Duration = Duration::from_secs(5);

/// Draws a summary again and again.
pub struct Screen {
    bar: ProgressBar,
    terminal: bool,
    drawn: Option<Instant>,
}

impl Screen {
    /// A screen on standard error.
    pub fn new(steps_total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps_total), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} steps\n{msg}") {
            bar.set_style(style);
        }
        Self { bar, terminal, drawn: None }
    }

    /// Draws a swarm's summary.
    pub fn draw(&mut self, summary: &Summary) {
        self.show(summary.steps, || lines(summary));
    }

    /// Draws how many steps are done and `lines` below.
    pub fn show(&mut self, steps: u64, lines: impl FnOnce() -> Vec<String>) {
        if self.terminal {
            self.bar.set_position(steps);
            self.bar.set_message(lines().join("\n"));
        } else if self.drawn.is_none_or(|at| at.elapsed() >= QUIET) {
            self.drawn = Some(Instant::now());
            let total = self.bar.length().unwrap_or_default();
            self.say(&format!("{steps}/{total} steps; {}", lines().join("; ")));
        }
    }

    /// A sentence that stays on the screen.
    pub fn say(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Ends the drawing, leaving what stands.
    pub fn end(&self) {
        self.bar.abandon();
    }
}

fn lines(summary: &Summary) -> Vec<String> {
    let loss = match (summary.first_nats, summary.last_nats) {
        (Some(first), Some(last)) => format!("loss {last:.3} nats (began at {first:.3})"),
        _ => "no loss yet".into(),
    };
    let left = summary.seconds_left().map_or("-".into(), |s| format!("{s:.0} s"));
    let mut seats: Vec<&str> = summary.seats.values().map(String::as_str).collect();
    seats.sort_unstable();
    vec![
        format!("{loss}, {:.0} tokens/s, {left} left", summary.rate_now()),
        format!("{} | {}", summary.phase, seats.join(", ")),
        format!(
            "{} windows audited equal, {} not | {:.1} MB of activations and gradients on the wire",
            summary.audits_equal,
            summary.audits_unequal.len(),
            summary.wire_bytes_sent as f64 / 1e6,
        ),
    ]
}
