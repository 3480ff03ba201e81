//! One unit of work, named so that whoever holds the same inputs can do it again.

use crate::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A microbatch's place in a stage's inner step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The orchestrator's number for this piece of work, unique within the run.
    pub assignment: u64,
    /// Counts reissues of the same microbatch; 0 for the first.
    pub attempt: u16,
    /// Inner step within the epoch, on the miner that does it.
    pub step: u32,
    /// Place within the step: gradients are folded in this order.
    pub position: u16,
    /// Microbatch within the epoch: fixes its tokens, by the pure function of (seed, epoch, index).
    pub microbatch: u64,
}

/// What a miner did, and a validator does again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Stage input to stage output (or to the loss, in a tail).
    Forward(Member),
    /// Gradient of the stage's output to gradient of its input; parameter gradients are folded.
    Backward(Member),
    /// One AdamW step on the folded gradient, scaled by 1/members.
    Step {
        /// Inner step within the epoch.
        step: u32,
        /// Those whose gradients were folded, in fold order.
        members: Vec<Member>,
    },
    /// This epoch's change of the weights (plus the residual) to integer codes, on the scales of all that merge.
    Encode,
    /// Integer codes of several miners to their weighted exact sum.
    Reduce {
        /// Shard of the stage's parameters.
        shard: u32,
        /// Whose codes were added, in canonical (key) order.
        contributors: Vec<NodeId>,
    },
    /// The outer step on the merged change.
    Apply,
    /// The scales on which this epoch's change of the weights could be told, one exponent a block.
    Scale,
}

impl Operation {
    /// The word a person reads.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Backward(_) => "backward",
            Self::Step { .. } => "step",
            Self::Encode => "encode",
            Self::Reduce { .. } => "reduce",
            Self::Apply => "apply",
            Self::Scale => "scale",
        }
    }
}

impl Operation {
    /// Whether a validator does it again to judge a window. What is added up changes no state, and is judged on its own.
    pub fn is_replayed(&self) -> bool {
        !matches!(self, Self::Reduce { .. })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Forward(member) | Self::Backward(member) => {
                let Member { assignment, step, position, .. } = member;
                write!(f, " of assignment {assignment}, step {step} position {position}")
            }
            Self::Step { step, members } => write!(f, " {step} of {} members", members.len()),
            Self::Reduce { shard, contributors } => {
                write!(f, " of shard {shard} from {} miners", contributors.len())
            }
            Self::Encode | Self::Apply | Self::Scale => Ok(()),
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every value is finite.
    Ok,
    /// A NaN or Inf appeared: legal and replayable. The operation changed nothing.
    NonFinite,
    /// The payload that came in is none of this run: its sender signed it. The operation changed nothing.
    Unusable,
}

impl Outcome {
    /// What a person reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "finite",
            Self::NonFinite => "NaN or infinity",
            Self::Unusable => "no payload of this run",
        }
    }
}

/// A stretch of one miner's epoch that an audit replays: from one bound state to the next. Or where the epoch begins: the state
/// alone, with no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The epoch.
    pub epoch: u32,
    /// Its first inner step; the state before it is bound by a receipt. [`Window::BEGINNING`] where the epoch begins.
    pub step: u32,
}

impl Window {
    /// In place of an inner step: where the epoch begins.
    pub const BEGINNING: u32 = u32::MAX;

    /// Where an epoch begins.
    pub fn beginning(epoch: u32) -> Self {
        Self { epoch, step: Self::BEGINNING }
    }

    /// Whether it is where its epoch begins.
    pub fn is_beginning(self) -> bool {
        self.step == Self::BEGINNING
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_beginning() {
            return write!(f, "the beginning of epoch {}", self.epoch);
        }
        write!(f, "epoch {} step {}", self.epoch, self.step)
    }
}
