//! A view's numbers, as programs read them.

use super::View;
use orchestrator_core::Ending;
use serde::Serialize;

/// What `summary.json` says of a run; each is the [`View`]'s field of that name.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)] // said there
pub struct Numbers<'a> {
    pub steps: u64,
    pub steps_total: u64,
    pub tokens: u64,
    pub tokens_lost: u64,
    pub rewinds: u32,
    pub first_nats: Option<f64>,
    pub last_nats: Option<f64>,
    pub tokens_per_second: f64,
    pub commits: &'a [(u32, String)],
    pub audits_equal: u32,
    pub audits_unequal: &'a [String],
    pub sums_checked: u32,
    pub convictions: &'a [(String, String)],
    pub stable: u32,
    pub wire_frames: u64,
    pub wire_bytes_plain: u64,
    pub wire_bytes_sent: u64,
    pub ending: Option<&'a Ending>,
}

impl View {
    /// Its numbers.
    pub fn numbers(&self) -> Numbers<'_> {
        Numbers {
            steps: self.steps,
            steps_total: self.steps_total,
            tokens: self.tokens,
            tokens_lost: self.tokens_lost,
            rewinds: self.rewinds,
            first_nats: self.first_nats,
            last_nats: self.last_nats,
            tokens_per_second: self.tokens_per_second,
            commits: &self.commits,
            audits_equal: self.audits_equal,
            audits_unequal: &self.audits_unequal,
            sums_checked: self.sums_checked,
            convictions: &self.convictions,
            stable: self.stable,
            wire_frames: self.wire_frames,
            wire_bytes_plain: self.wire_bytes_plain,
            wire_bytes_sent: self.wire_bytes_sent,
            ending: self.ending.as_ref(),
        }
    }
}
