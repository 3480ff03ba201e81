//! A miner's signed word on one operation.

use crate::signed::Signable;
use serde::{Deserialize, Serialize};
use spec::{Digest, Mode, Operation, Outcome};

/// What a miner says it did. Receipts of a miner form a chain: each names the digest of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The run's id.
    pub run: Digest,
    /// Numeric mode.
    pub mode: Mode,
    /// The epoch.
    pub epoch: u32,
    /// Counts this miner's receipts from 0, over the run.
    pub sequence: u64,
    /// Digest of this miner's previous receipt; zero for the first.
    pub previous: Digest,
    /// The stage.
    pub stage: u16,
    /// What was done.
    pub operation: Operation,
    /// Digest of the full state *after* the operation: of the last step of a window, of an apply, and of the epoch's first
    /// forward, which changes nothing.
    pub state: Option<Digest>,
    /// Digest of the receipt whose payload came in; `None` where nothing came in.
    pub input_receipt: Option<Digest>,
    /// Digest of the payload that came in.
    pub input: Option<Digest>,
    /// Digest of the payload that went out; of the new weights shard, from an apply.
    pub output: Option<Digest>,
    /// Mean loss of the microbatch in 2^-32 nats per token, from a tail's forward.
    pub loss_q32: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Receipt {
    /// The loss in nats per token.
    pub fn loss_nats(&self) -> Option<f64> {
        self.loss_q32.map(nats)
    }
}

/// Nats per token from the 2^-32 nats of receipts and manifests.
pub fn nats(loss_q32: i64) -> f64 {
    loss_q32 as f64 / 4_294_967_296.0
}

impl Signable for Receipt {
    const DOMAIN: &'static str = "iota receipt v1";
}
