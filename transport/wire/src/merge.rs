//! The end of an epoch: change of weights to integers, sums, outer step.

use crate::object::ObjectRef;
use crate::receipt::Receipt;
use crate::signed::{Signable, Signed};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};

/// The order to merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// The epoch that ends.
    pub epoch: u32,
    /// The miners of the stage that take part, in key order.
    pub members: Vec<NodeId>,
    /// [`commitment`] to the secret by which shards are given to pairs.
    pub commitment: Digest,
}

/// What the orchestrator says to the members of a merge on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Everyone who is not lost holds these members' scales: encode on the largest of them.
    Scaled {
        /// In key order.
        members: Vec<NodeId>,
    },
    /// All roots are in, or their senders lost: the pairs follow from secret and roots.
    Drawn {
        /// The secret, told only now.
        secret: [u8; 32],
        /// Who takes part, in key order.
        seats: Vec<Seat>,
    },
    /// Every owner holds what the living sent: these pieces are added up.
    Closed {
        /// Whose, in key order.
        contributors: Vec<NodeId>,
    },
    /// An owner's receipt says what its sum of a shard is.
    Announced {
        /// Who.
        from: NodeId,
        /// Which shard.
        shard: u32,
        /// Digest of the sum.
        sum: Digest,
    },
    /// A member is gone for this merge.
    Lost(NodeId),
    /// Nobody is left: the merge is off.
    Abandoned,
}

/// A member that takes part, as the draw knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who.
    pub node: NodeId,
    /// What it committed to.
    pub root: Digest,
    /// The lesser of its upload and download rate; only ratios count.
    pub bandwidth_bytes_per_s: u64,
}

/// What a member says it holds of everybody who is not lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Round {
    /// Their scales.
    Scales,
    /// Their pieces of its shards.
    Pieces,
}

/// What members of a merge send one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// The sender's scales.
    Scales,
    /// The sender's piece of a shard.
    Piece {
        /// Which.
        shard: u32,
    },
    /// The sum of a shard.
    Sum {
        /// Which.
        shard: u32,
    },
}

/// What goes before a part of a merge. The part itself is the frame's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHead {
    /// What it is.
    pub part: Part,
    /// The sender's receipt: its output is the digest of scales or sum, or what the piece opens against.
    pub receipt: Signed<Receipt>,
}

/// A miner's word on the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The epoch that ended.
    pub epoch: u32,
    /// The new weights shard.
    pub weights: ObjectRef,
    /// The outer momentum, where there is one.
    pub momentum: Option<ObjectRef>,
}

impl Signable for Merged {
    const DOMAIN: &'static str = "iota merged v1";
}

/// What the orchestrator says of a merge's secret before any root is known.
pub fn commitment(secret: &[u8; 32]) -> Digest {
    Digest(blake3::derive_key("iota merge commitment v1", secret))
}

/// What a receipt of the merge names as its input: scales, roots of contributions or sums, in the operation's order.
pub fn inputs_digest(inputs: &[Digest]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("iota merge inputs v1");
    for input in inputs {
        hasher.update(input.as_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}
