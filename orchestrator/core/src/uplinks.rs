//! How long the slowest uplink takes for what a drawn window binds.
//!
//! The bytes are the orchestrator's own account, of the run's shapes and the receipts: what a miner says of itself stretches
//! nothing. A miner reveals its windows one after another, so each of them may have to wait for the longest.

use crate::audit::{Pending, Standing};
use crate::machine::Orchestrator;
use spec::{NodeId, Outer, Run};

/// What stands before the values of a file, in bytes; more than any has.
const HEAD_BYTES: u64 = 64 << 10;
/// Bytes of a value of a merge's sums, and values that share an exponent.
const SUM_BYTES_MAX: u64 = 8;
const SCALE_VALUES: u64 = 128;

impl Pending {
    /// Bytes of the state and the inputs that it binds, at most.
    pub(crate) fn bytes_max(&self, run: &Run) -> u64 {
        let parameters = run.model.stage_parameters(usize::from(self.stage));
        let arrays = if run.outer == Outer::None { 3 } else { 5 };
        let state = HEAD_BYTES.saturating_add(parameters.saturating_mul(4 * arrays));
        let inputs = match &self.merge {
            Some(merge) => {
                let scales = parameters.div_ceil(SCALE_VALUES).saturating_mul(merge.scales.len() as u64 + 1);
                scales.saturating_add(parameters.saturating_mul(SUM_BYTES_MAX))
            }
            None => {
                let inputs = self.receipts.iter().filter(|receipt| receipt.body.input.is_some()).count();
                plan::boundary_bytes(run).saturating_mul(inputs as u64)
            }
        };
        state.saturating_add(inputs)
    }
}

impl Orchestrator {
    /// Milliseconds that transfers add to what a window may otherwise wait for, where it stands: for all that its miner has to
    /// reveal one by one, the longest of it; for what a validator fetches.
    pub(crate) fn transfer_ms(&self, miner: NodeId, pending: &Pending) -> u64 {
        self.uplink_ms(|| match pending.standing {
            Standing::Drawn => {
                let drawn = self.pending_of(miner).filter(|of| of.standing == Standing::Drawn);
                drawn.map(|of| of.bytes_max(&self.config.run)).max().unwrap_or_default()
            }
            Standing::Ordered { .. } => pending.bytes_max(&self.config.run),
            Standing::Revealed { .. } | Standing::Accused { .. } => 0,
        })
    }

    /// The longest that transfers add to any window that waits now.
    pub(crate) fn longest_transfer_ms(&self) -> u64 {
        let waiting = self.state.audits.values().flat_map(|epoch| epoch.pending.values());
        // Whoever owes the longest window waits for that one, so each is counted once.
        let moving = waiting.filter(|of| matches!(of.standing, Standing::Drawn | Standing::Ordered { .. }));
        self.uplink_ms(|| moving.map(|of| of.bytes_max(&self.config.run)).max().unwrap_or_default())
    }

    /// Milliseconds of the slowest uplink for so many bytes, which are counted only if transfers have a time of their own.
    fn uplink_ms(&self, bytes: impl FnOnce() -> u64) -> u64 {
        match self.config.timeouts.uplink_bytes_per_s {
            0 => 0,
            rate => (u128::from(bytes()) * 1000 / u128::from(rate)).min(u64::MAX.into()) as u64,
        }
    }
}
