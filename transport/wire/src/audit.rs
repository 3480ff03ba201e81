//! Replaying a window, and what comes of it.

use crate::manifest::Manifest;
use crate::object::ObjectRef;
use crate::receipt::Receipt;
use crate::signed::{Signable, Signed};
use crate::to_bytes;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Window};

/// The order to replay one window of one miner, or to look where one began its epoch ([`Window::beginning`]): there `state` is
/// the manifest's weights, `inputs` its outer momentum, and the only receipt that of the merge by which the miner came there, if it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditOrder {
    /// Whose work.
    pub miner: NodeId,
    /// Its stage.
    pub stage: u16,
    /// Which window.
    pub window: Window,
    /// The weights of its stage that the epoch began with, as the manifest has them.
    pub weights: Digest,
    /// The state before the window, as the miner uploaded it.
    pub state: ObjectRef,
    /// The receipt whose `state` is the digest of that upload: the window's own first where the window begins the epoch, else
    /// the one before.
    pub start: Signed<Receipt>,
    /// The receipts of the window, in the order of their sequence numbers.
    pub receipts: Vec<Signed<Receipt>>,
    /// Payloads that came in, as the miner uploaded them.
    pub inputs: Vec<ObjectRef>,
    /// What the operations of a merge read, where the window is one.
    pub merge: Option<MergeInputs>,
}

impl AuditOrder {
    /// All that a replay of it needs of the store.
    pub fn objects(&self) -> impl Iterator<Item = ObjectRef> {
        let anchor = self.merge.as_ref().map(|merge| merge.anchor);
        std::iter::once(self.state).chain(self.inputs.iter().copied()).chain(anchor)
    }
}

/// What the operations of one miner's merge read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeInputs {
    /// The weights that the epoch began with, from which the miner's change is measured.
    pub anchor: ObjectRef,
    /// Scales of all that merge, in the order in which the encoding names them; none where the miner merges alone.
    pub scales: Vec<Digest>,
    /// Sums of all shards, in order; none without an outer optimizer.
    pub sums: Vec<Digest>,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// Every digest is equal.
    Equal {
        /// Operations replayed; none where an epoch begins.
        operations: u32,
    },
    /// A digest differs.
    Unequal {
        /// Sequence number of the receipt.
        sequence: u64,
        /// Which digest: `output`, `state`, `loss` or `outcome`.
        what: String,
        /// What the replay gave.
        expected: String,
        /// What the receipt says.
        found: String,
    },
    /// What the receipts bind was not produced.
    Withheld {
        /// Which object.
        digest: Digest,
    },
    /// The receipts contradict themselves: a broken chain, a bad signature, a missing operation.
    Inconsistent {
        /// In one sentence.
        why: String,
    },
}

impl Finding {
    /// The finding as a person reads it.
    pub fn sentence(&self) -> String {
        match self {
            Self::Equal { operations: 0 } => "it began in a state in which it may".into(),
            Self::Equal { operations } => format!("{operations} operations replayed, every digest equal"),
            Self::Unequal { sequence, what, expected, found } => {
                format!("receipt {sequence}: {what} is {found}, the replay gives {expected}")
            }
            Self::Withheld { digest } => format!("object {digest} was not produced"),
            Self::Inconsistent { why } => format!("the receipts contradict themselves: {why}"),
        }
    }
}

/// A validator's signed word on a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The run's id.
    pub run: Digest,
    /// Whose work.
    pub miner: NodeId,
    /// Which inner step.
    pub window: Window,
    /// Digest of the receipt that binds the state before it: an epoch that is done again has another.
    pub start: Digest,
    /// What was found.
    pub finding: Finding,
}

impl Signable for Verdict {
    const DOMAIN: &'static str = "iota verdict v2";
}

/// What anyone needs to check a conviction alone: the run through the manifest, the order through
/// receipts, the verdict; payloads and state by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Canonical bytes of the run, which hash to its id.
    pub run: Vec<u8>,
    /// The manifest the epoch opened with.
    pub manifest: Signed<Manifest>,
    /// What was replayed.
    pub order: AuditOrder,
    /// What was found.
    pub verdict: Signed<Verdict>,
}

impl Evidence {
    /// The case of these canonical bytes; `None` if they are of none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok().filter(|case| to_bytes(case) == bytes)
    }
}
