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
    /// A third party added up a disputed shard.
    Settled {
        /// Which shard.
        shard: u32,
        /// Digest of the true sum.
        sum: Digest,
    },
}

/// A member that takes part, as the draw knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who.
    pub node: NodeId,
    /// What it committed to.
    pub root: Digest,
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

/// The order to add up a shard again, for whoever owns none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOrder {
    /// The stage that merges.
    pub stage: u16,
    /// The epoch that ends.
    pub epoch: u32,
    /// Which shard.
    pub shard: u32,
    /// The secret by which shards were drawn; the claims bind it.
    pub secret: [u8; 32],
    /// Who took part in the draw, in key order.
    pub seats: Vec<Seat>,
    /// The receipt of each contributor's encoding, whose output is the root of its contribution; in key order.
    pub roots: Vec<Signed<Receipt>>,
    /// The receipts of the owners' reductions.
    pub claims: Vec<Signed<Receipt>>,
    /// The contributors' pieces of the shard, in the order of `roots`.
    pub pieces: Vec<ObjectRef>,
}

/// A third party's signed word on a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumVerdict {
    /// The run's id.
    pub run: Digest,
    /// The stage that merges.
    pub stage: u16,
    /// The epoch that ends.
    pub epoch: u32,
    /// Which shard.
    pub shard: u32,
    /// Digest of the sum; `None` if a piece does not open against its root.
    pub sum: Option<Digest>,
}

impl Signable for SumVerdict {
    const DOMAIN: &'static str = "iota sum verdict v1";
}

/// What anyone needs to check alone that an owner signed a wrong sum; the pieces by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeEvidence {
    /// Canonical bytes of the run, which hash to its id.
    pub run: Vec<u8>,
    /// The owner that lied.
    pub accused: NodeId,
    /// What was added up.
    pub order: MergeOrder,
    /// What was found.
    pub verdict: Signed<SumVerdict>,
}

/// What the receipt of a reduction in company names as its input: the roots, and the secret that gave the shards to
/// their owners and said which blocks they hold.
pub fn reduce_digest(roots: &[Digest], commitment: Digest) -> Digest {
    inputs_digest(&[roots, &[commitment]].concat())
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
