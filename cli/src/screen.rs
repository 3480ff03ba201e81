//! The live screen of `iota up` and `iota train`: a few lines in a terminal, one line now and then elsewhere.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use orchestrator::{Node, Phase, Presence, View};
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

    /// Draws a swarm.
    pub fn draw(&mut self, view: &View) {
        self.show(view.steps, || lines(view));
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

fn lines(view: &View) -> Vec<String> {
    let loss = match (view.first_nats, view.last_nats) {
        (Some(first), Some(last)) => format!("loss {last:.3} nats (began at {first:.3})"),
        _ => "no loss yet".into(),
    };
    let left = view.seconds_left().map_or("-".into(), |s| format!("{s:.0} s"));
    // A merge makes no tokens: the last rate stands, marked as such.
    let rate = match (&view.phase, view.rate_now()) {
        (_, 0.0) => "no rate yet".into(),
        (Phase::Working(_), rate) => format!("{rate:.0} tokens/s"),
        (_, rate) => format!("{rate:.0} tokens/s at the last step"),
    };
    vec![
        format!("{loss}, {rate}, {left} left"),
        format!("{} of {} | {}", view.phase, view.facts.epochs, seats(view)),
        format!(
            "{} windows audited equal, {} not | wire {} as {} blocks, {} packed{}",
            view.audits_equal,
            view.audits_unequal.len(),
            HumanBytes(view.wire_bytes_plain),
            view.facts.boundary,
            HumanBytes(view.wire_bytes_sent),
            lost(view),
        ),
    ]
}

/// Miners of each stage, head first.
fn seats(view: &View) -> String {
    let stage = |stage: usize| {
        let here =
            |node: &&Node| node.stage.map(usize::from) == Some(stage) && node.presence == Presence::Here;
        let here = view.nodes.values().filter(here).count();
        format!("{here}/{}", view.facts.miners_per_stage)
    };
    let stages: Vec<String> = (0..view.facts.stages).map(stage).collect();
    format!("miners {}, {} validators", stages.join(" > "), view.present(None))
}

fn lost(view: &View) -> String {
    match view.rewinds {
        0 => String::new(),
        rewinds => format!(" | {rewinds} epochs began again, {} tokens lost", view.tokens_lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator::{Notice, Report};

    #[test]
    fn a_merge_shows_the_last_rate_and_says_so() {
        let mut view = View::default();
        view.facts.steps_per_epoch = 2;
        assert!(lines(&view)[0].contains("no rate yet"), "{:?}", lines(&view));
        let mut tell = |ms, report| view.take(&Notice::Report { ms, report });
        tell(0, Report::Opened { epoch: 0 });
        for step in 0..2 {
            tell(1000 * (1 + u64::from(step)), Report::Stepped { epoch: 0, step, tokens: 500 });
        }
        assert!(lines(&view)[0].contains("500 tokens/s at the last step"), "{:?}", lines(&view));
        assert!(lines(&view)[1].contains("epoch 0: merging"), "{:?}", lines(&view));
        view.take(&Notice::Report { ms: 9000, report: Report::Opened { epoch: 1 } });
        assert!(lines(&view)[0].contains("500 tokens/s,") && !lines(&view)[0].contains(" 0 tokens/s"));
    }
}
