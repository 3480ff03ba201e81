//! Handing out work and passing tensors along a route.

use crate::receipt::Receipt;
use crate::signed::Signed;
use serde::{Deserialize, Serialize};
use spec::{Member, NodeId};

/// One stage's share of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Who does it.
    pub miner: NodeId,
    /// Inner step of that miner.
    pub step: u32,
    /// Place within the step.
    pub position: u16,
    /// Microbatches of that step: it is taken once so many are folded.
    pub members: u16,
    /// Counts the miners that had this share before; 0 for the first.
    pub attempt: u16,
    /// What this miner sent in its inner steps before this one is used, and will not be asked for again.
    pub settled: u32,
}

/// A microbatch and its way through the stages and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The orchestrator's number for it, unique within the run.
    pub id: u64,
    /// The epoch.
    pub epoch: u32,
    /// Microbatch within the epoch.
    pub microbatch: u64,
    /// One slot a stage, head first. Backward takes the same way.
    pub route: Vec<Slot>,
}

impl Assignment {
    /// The assignment as stage `stage` sees it; `None` past the tail.
    pub fn member(&self, stage: usize) -> Option<Member> {
        let slot = self.route.get(stage)?;
        Some(Member {
            assignment: self.id,
            attempt: slot.attempt,
            step: slot.step,
            position: slot.position,
            microbatch: self.microbatch,
        })
    }
}

/// Which way a payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PayloadKind {
    /// Towards the tail.
    Activation,
    /// Towards the head.
    Gradient,
}

/// What goes before a payload block. The block itself is the frame's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadHead {
    /// Which way it goes.
    pub kind: PayloadKind,
    /// The assignment it belongs to.
    pub assignment: u64,
    /// The attempt of the sender's share.
    pub attempt: u16,
    /// The sender's receipt, whose `output` is the digest of the block.
    pub receipt: Signed<Receipt>,
}
