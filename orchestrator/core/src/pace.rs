//! Lanes that come along more slowly than the others: an epoch does not wait for them without end.
//!
//! Once half of the lanes are through, the others have as much more as the patience says, a share of the time that the half took.
//! (The median deviation of the lanes says nothing at that moment: half of them have none.) A lane that is not through by then ends
//! with the window it is in: it merges with the steps it took, weighted by what it folded, so nothing that was handed out is lost.

use crate::effect::Report;
use crate::epoch::Epoch;
use crate::machine::{Orchestrator, Phase};
use serde::{Deserialize, Serialize};
use spec::Run;

/// Lanes have at least so long, in milliseconds: steps may be so short that any hiccup is many of them.
const SLACK_MS_MIN: u64 = 5_000;

/// How the lanes of an epoch come along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pace {
    opened_ms: u64,
    /// Inner steps that each lane takes: the run's, or fewer once it was too slow.
    pub limits: Vec<u32>,
    /// Once half of the lanes are through: how long the others have, and since when.
    grace: Option<Grace>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Grace {
    since_ms: u64,
    slack_ms: u64,
    /// What was to be said is said.
    over: bool,
}

impl Pace {
    pub fn new(opened_ms: u64, lanes: usize, steps: u32) -> Self {
        Self { opened_ms, limits: vec![steps; lanes], grace: None }
    }

    /// Nobody could work for a while: whatever time the slow had begins again.
    pub fn held_up(&mut self, now_ms: u64) {
        if let Some(grace) = &mut self.grace {
            grace.since_ms = now_ms;
        }
    }

    fn due_ms(&self) -> Option<u64> {
        let grace = self.grace.filter(|grace| !grace.over)?;
        Some(grace.since_ms.saturating_add(grace.slack_ms))
    }
}

impl Epoch {
    /// Inner steps that a miner's own lane takes.
    pub fn limit_of(&self, lane: usize) -> u32 {
        self.pace.limits.get(lane).copied().unwrap_or_default()
    }

    /// Whether every miner of a lane, of which there is one at least, has taken so many inner steps.
    pub fn is_through(&self, lane: usize, steps: u32) -> bool {
        let mut miners = self.routes[lane].iter().filter_map(|miner| self.miners.get(miner)).peekable();
        miners.peek().is_some() && miners.all(|progress| progress.steps >= steps)
    }

    /// How long the lanes that are not through still have, once half of them are.
    fn slack_ms(&self, now_ms: u64, run: &Run, patience_percent: u64) -> Option<u64> {
        let lanes = self.routes.len();
        let through = (0..lanes).filter(|&lane| self.is_through(lane, run.epoch.steps)).count();
        let elapsed_ms = now_ms.saturating_sub(self.pace.opened_ms).max(1);
        slack_ms(through, lanes, elapsed_ms, patience_percent)
    }
}

/// The same where so many of the lanes are through, so long after the epoch opened.
fn slack_ms(through: usize, lanes: usize, elapsed_ms: u64, patience_percent: u64) -> Option<u64> {
    if through == lanes || through * 2 < lanes {
        return None;
    }
    let share_ms = elapsed_ms.saturating_mul(patience_percent) / 100;
    Some(share_ms.max(SLACK_MS_MIN))
}

impl Orchestrator {
    /// Looks whether half of the lanes are through, from when on the others are not waited for without end.
    pub(crate) fn watch_pace(&mut self) {
        let (now_ms, patience) = (self.now_ms, self.config.timeouts.lane_patience_percent);
        let Some(epoch) = self.state.epoch.as_mut().filter(|epoch| epoch.pace.grace.is_none()) else {
            return;
        };
        if patience == 0 {
            return;
        }
        if let Some(slack_ms) = epoch.slack_ms(now_ms, &self.config.run, u64::from(patience)) {
            epoch.pace.grace = Some(Grace { since_ms: now_ms, slack_ms, over: false });
        }
    }

    /// When the lanes that are too slow end.
    pub(crate) fn pace_due_ms(&self) -> Option<u64> {
        let working = self.state.phase == Phase::Working && self.state.inquiry.is_none();
        self.state.epoch.as_ref().filter(|_| working)?.pace.due_ms()
    }

    /// Ends the lanes that are too slow with the window they are in.
    pub(crate) fn end_slow_lanes(&mut self) {
        if self.pace_due_ms().is_none_or(|due_ms| self.now_ms < due_ms) {
            return;
        }
        let run = &self.config.run;
        let Some(epoch) = &mut self.state.epoch else { return };
        if let Some(grace) = &mut epoch.pace.grace {
            grace.over = true;
        }
        // Where somebody stands in for a lost miner its lanes have one end.
        if epoch.amended {
            return;
        }
        let mut ended = Vec::new();
        for (lane, limit) in epoch.pace.limits.iter_mut().enumerate() {
            let boundary = (epoch.handed_out[lane]..*limit).find(|&step| run.window_start(step) == step);
            if let Some(boundary) = boundary {
                *limit = boundary;
                ended.push((lane, boundary));
            }
        }
        let number = epoch.number;
        for (lane, limit) in ended {
            let miners = self.state.epoch.as_ref().map(|epoch| epoch.routes[lane].clone());
            let names: Vec<String> = miners.iter().flatten().map(|miner| miner.short().to_string()).collect();
            let text = format!(
                "lane {lane} ({}) is far behind the others in epoch {number}: it merges after {limit} of {} steps",
                names.join(", "),
                self.config.run.epoch.steps
            );
            self.report(Report::Note { text });
        }
        self.hand_out();
        self.report_steps();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_have_a_share_of_what_the_half_took() {
        // Half of the lanes must be through, and not all.
        for (through, lanes, are_timed) in
            [(1, 4, false), (2, 4, true), (2, 3, true), (2, 2, false), (1, 3, false)]
        {
            assert_eq!(slack_ms(through, lanes, 10_000, 50).is_some(), are_timed, "{through} of {lanes}");
        }
        // A share of what the half took, at least five seconds.
        assert_eq!(slack_ms(3, 4, 10_000, 50), Some(5_000));
        assert_eq!(slack_ms(3, 4, 10_000, 80), Some(8_000));
        assert_eq!(slack_ms(3, 4, 1_000, 50), Some(5_000));
    }

    #[test]
    fn whoever_was_held_up_has_its_time_again_until_all_is_said() {
        let mut pace = Pace::new(0, 2, 8);
        pace.held_up(500);
        assert_eq!(pace.due_ms(), None);
        pace.grace = Some(Grace { since_ms: 1_000, slack_ms: 5_000, over: false });
        assert_eq!(pace.due_ms(), Some(6_000));
        pace.held_up(3_000);
        assert_eq!(pace.due_ms(), Some(8_000));
        pace.grace = Some(Grace { since_ms: 1_000, slack_ms: 5_000, over: true });
        assert_eq!(pace.due_ms(), None);
    }
}
