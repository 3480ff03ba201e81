//! What an epoch left behind, signed by the orchestrator.

use crate::object::ObjectRef;
use crate::signed::Signable;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};

/// The committed result of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The run's id.
    pub run: Digest,
    /// Number of the next epoch to open: 0 for the initial weights.
    pub epoch: u32,
    /// Digest of the manifest before this one; zero for the first.
    pub previous: Digest,
    /// One record a stage, head first.
    pub stages: Vec<StageRecord>,
    /// Mean training loss of the epoch in 2^-32 nats per token; `None` for the first.
    pub loss_q32: Option<i64>,
}

/// What a manifest says of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The weights shard.
    pub weights: ObjectRef,
    /// The outer momentum; none before the first merge, and without an outer optimizer.
    pub momentum: Option<ObjectRef>,
    /// Who merged into it and was there to the end, in key order: the receipt of its merge binds the state in which each of these
    /// begins the epoch. Empty for the initial weights.
    pub miners: Vec<NodeId>,
}

impl Manifest {
    /// Manifest 0: the initial weights, one shard a stage.
    pub fn first(run: Digest, weights: &[ObjectRef]) -> Self {
        let record = |&weights: &ObjectRef| StageRecord { weights, momentum: None, miners: vec![] };
        Self {
            run,
            epoch: 0,
            previous: Digest::default(),
            stages: weights.iter().map(record).collect(),
            loss_q32: None,
        }
    }
}

impl Signable for Manifest {
    const DOMAIN: &'static str = "iota manifest v1";
}
