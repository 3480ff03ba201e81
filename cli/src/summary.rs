//! What is known of a running swarm, gathered from the orchestrator's notices.

use orchestrator::{Ending, Notice, Report};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Microbatches over which a loss is averaged.
const LOSS_WINDOW: usize = 24;
/// Steps over which the rate is taken.
const RATE_WINDOW: usize = 10;

/// Progress of a run.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Inner steps that every miner took.
    pub steps: u64,
    /// Inner steps of the whole run.
    pub steps_total: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens computed in vain, because somebody lost what it had done.
    pub tokens_lost: u64,
    /// Mean loss of the first microbatches, nats per token.
    pub first_nats: Option<f64>,
    /// Mean loss of the last microbatches, nats per token.
    pub last_nats: Option<f64>,
    /// Tokens a second from the first step to the last.
    pub tokens_per_second: f64,
    /// Manifests committed: epoch and digest.
    pub commits: Vec<(u32, String)>,
    /// Windows replayed and found equal.
    pub audits_equal: u32,
    /// What other audits found.
    pub audits_unequal: Vec<String>,
    /// Shards of merges that were added up again.
    pub sums_checked: u32,
    /// The miner that was told to lie.
    pub adversary: Option<String>,
    /// Who was convicted and banned: key, and why.
    pub convictions: Vec<(String, String)>,
    /// Epochs whose windows were all found equal.
    pub stable: u32,
    /// Payload frames that the relay passed on.
    pub wire_frames: u64,
    /// Bytes of their blocks, before lossless packing.
    pub wire_bytes_plain: u64,
    /// Bytes of their blocks, as they travelled.
    pub wire_bytes_sent: u64,
    /// How it ended.
    pub ending: Option<Ending>,
    /// What it is doing.
    #[serde(skip)]
    pub phase: String,
    /// Who holds which stage, and who validates.
    #[serde(skip)]
    pub seats: BTreeMap<String, String>,
    #[serde(skip)]
    first: Vec<f64>,
    #[serde(skip)]
    last: VecDeque<f64>,
    #[serde(skip)]
    opened_ms: Option<u64>,
    #[serde(skip)]
    recent: VecDeque<(u64, u64)>,
}

impl Summary {
    /// A run of so many inner steps.
    pub fn new(steps_total: u64) -> Self {
        Self { steps_total, phase: "waiting for nodes".into(), ..Self::default() }
    }

    /// Takes in a notice.
    pub fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Listening { .. } | Notice::Resumed { .. } => {}
            Notice::Report { ms, report } => self.take_report(*ms, report),
            Notice::Wire { frames, bytes_plain, bytes_sent } => {
                self.wire_frames = *frames;
                self.wire_bytes_plain = *bytes_plain;
                self.wire_bytes_sent = *bytes_sent;
            }
            Notice::Ended { ending } => {
                self.phase = "ended".into();
                self.ending = Some(ending.clone());
            }
        }
    }

    fn take_report(&mut self, ms: u64, report: &Report) {
        match report {
            Report::Joined { node, stage, .. } => {
                let seat = stage.map_or("validator".into(), |stage| format!("stage {stage}"));
                self.seats.insert(node.to_string(), seat);
            }
            Report::Gone { node, .. } => {
                self.seats.remove(&node.to_string());
            }
            Report::Opened { epoch } => {
                self.opened_ms.get_or_insert(ms);
                self.recent.clear();
                self.phase = format!("epoch {epoch}: working");
            }
            Report::Loss { nats, .. } => self.take_loss(*nats),
            Report::Stepped { epoch, tokens, .. } => {
                self.steps += 1;
                self.tokens += tokens;
                self.recent.push_back((ms, self.tokens));
                if self.recent.len() > RATE_WINDOW {
                    self.recent.pop_front();
                }
                let began = self.opened_ms.unwrap_or(ms);
                self.tokens_per_second = rate(self.tokens, ms.saturating_sub(began));
                if self.steps_total > 0 && self.steps * u64::from(epoch + 1) >= self.steps_total {
                    self.phase = format!("epoch {epoch}: merging");
                }
            }
            Report::Committed { epoch, manifest, .. } => {
                self.commits.push((*epoch, manifest.to_string()));
                self.phase = format!("epoch {epoch}: committed, audits running");
            }
            Report::Audited { finding: orchestrator::Finding::Equal { .. }, .. } => self.audits_equal += 1,
            Report::Audited { miner, stage, finding, .. } => {
                self.audits_unequal.push(format!(
                    "miner {} of stage {stage}: {}",
                    miner.short(),
                    finding.sentence()
                ));
            }
            Report::Rewound { epoch, steps, tokens, .. } => {
                self.undo(u64::from(*steps), *tokens);
                self.phase = format!("epoch {epoch}: beginning again");
            }
            Report::AddedUp { .. } => self.sums_checked += 1,
            Report::Convicted { node, why, .. } => self.convictions.push((node.to_string(), why.clone())),
            Report::RolledBack { epoch, steps, tokens, .. } => {
                self.undo(*steps, *tokens);
                self.commits.retain(|(of, _)| of < epoch);
                self.phase = format!("epoch {epoch}: beginning again");
            }
            Report::Stable { epoch } => self.stable = epoch + 1,
            Report::Reissued { tokens, .. } => self.tokens_lost += tokens,
            Report::Suspected { .. } | Report::Note { .. } => {}
        }
    }

    /// Steps that count no longer, and tokens whose loss was reported in vain.
    fn undo(&mut self, steps: u64, tokens: u64) {
        let per_step = self.tokens.checked_div(self.steps).unwrap_or_default();
        self.steps -= steps.min(self.steps);
        self.tokens -= (steps * per_step).min(self.tokens);
        self.tokens_lost += tokens;
        self.recent.clear();
    }

    fn take_loss(&mut self, nats: f64) {
        if self.first.len() < LOSS_WINDOW {
            self.first.push(nats);
            self.first_nats = Some(mean(self.first.iter()));
        }
        self.last.push_back(nats);
        if self.last.len() > LOSS_WINDOW {
            self.last.pop_front();
        }
        self.last_nats = Some(mean(self.last.iter()));
    }

    /// Tokens a second over the last few steps.
    pub fn rate_now(&self) -> f64 {
        match (self.recent.front(), self.recent.back()) {
            (Some(a), Some(b)) => rate(b.1 - a.1, b.0 - a.0),
            _ => 0.0,
        }
    }

    /// Seconds until the last step, at the present rate.
    pub fn seconds_left(&self) -> Option<f64> {
        let per_step = self.tokens.checked_div(self.steps)?;
        let left = self.steps_total.saturating_sub(self.steps) * per_step;
        let rate = self.rate_now();
        (rate > 0.0).then(|| left as f64 / rate)
    }
}

fn rate(tokens: u64, ms: u64) -> f64 {
    if ms == 0 { 0.0 } else { tokens as f64 * 1000.0 / ms as f64 }
}

fn mean<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_rate_come_from_the_notices() {
        let mut summary = Summary::new(4);
        let report = |ms, report| Notice::Report { ms, report };
        summary.take(&report(1000, Report::Opened { epoch: 0 }));
        for step in 0..2 {
            let ms = 1000 + 500 * (u64::from(step) + 1);
            for i in 0..40u64 {
                let nats = 5.0 - f64::from(step) - i as f64 / 100.0;
                summary.take(&report(ms, Report::Loss { epoch: 0, step, microbatch: i, nats }));
            }
            summary.take(&report(ms, Report::Stepped { epoch: 0, step, tokens: 100 }));
        }
        assert_eq!((summary.steps, summary.tokens), (2, 200));
        assert!((summary.tokens_per_second - 200.0).abs() < 1e-9);
        assert!((summary.first_nats.unwrap() - 4.885).abs() < 1e-9);
        assert!((summary.last_nats.unwrap() - 3.725).abs() < 1e-9);
        assert!((summary.seconds_left().unwrap() - 1.0).abs() < 1e-9);
    }
}
