//! The end of an epoch: change of weights to integers, sums, outer step.

use crate::object::ObjectRef;
use crate::signed::Signable;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};

/// The order to merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// The epoch that ends.
    pub epoch: u32,
    /// The miners of the stage that take part, in key order.
    pub members: Vec<NodeId>,
    /// Seed by which shards are given to pairs.
    pub seed: [u8; 32],
}

/// A miner's word on the result. The weights are in the store by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The epoch that ended.
    pub epoch: u32,
    /// The new weights shard.
    pub weights: ObjectRef,
    /// Digest of the outer momentum.
    pub momentum: Digest,
}

impl Signable for Merged {
    const DOMAIN: &'static str = "iota merged v1";
}
