//! What can happen to a miner.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Outcome};
use wire::{Message, ObjectRef, PartHead, PayloadHead};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // events are moved, not stored by the thousand
pub enum Event {
    /// The connection to the orchestrator is up: say hello.
    Connected,
    /// The connection to the orchestrator is gone.
    Disconnected {
        /// What the transport says of it.
        why: String,
    },
    /// The orchestrator said something.
    Message(Message),
    /// A payload arrived; its block lies in the object table under the digest computed from its bytes.
    Payload {
        /// What came with it.
        head: PayloadHead,
        /// The block as it is, not as it was announced.
        block: ObjectRef,
    },
    /// A part of a merge arrived; it lies in the object table under the digest computed from its bytes.
    Part {
        /// What came with it.
        head: PartHead,
        /// The part as it is.
        block: ObjectRef,
    },
    /// A task is done.
    Done {
        /// The task's ticket.
        ticket: u64,
        /// What came of it.
        done: Done,
    },
    /// A task could not be done: a bug, bad data or a full machine, never a bad number.
    TaskFailed {
        /// The task's ticket.
        ticket: u64,
        /// Why.
        why: String,
    },
    /// An object was fetched, verified, and lies in the object table.
    Fetched {
        /// Its digest.
        digest: Digest,
    },
    /// An object is in the store.
    Uploaded {
        /// Its digest.
        digest: Digest,
    },
    /// A fetch or an upload failed, after its own retries.
    StoreFailed {
        /// Which object.
        digest: Digest,
        /// Why.
        why: String,
    },
    /// The time asked for by [`crate::Effect::WakeAt`] has come.
    Woke,
    /// The owner asks the miner to leave.
    Leave,
    /// The direct route to a neighbour is gone; what is sent to it from now on goes through the relay.
    RouteLost(NodeId),
}

/// What came of a task. Objects named here lie in the object table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What came out: a payload block (forward, backward), scales (scale), a sum (reduce), a piece (cut, open).
    pub output: Option<ObjectRef>,
    /// What the contribution commits to, from an encode; the contribution itself stays with the engine.
    pub root: Option<Digest>,
    /// Digest of the full state after the task, where it was asked for.
    pub state: Option<Digest>,
    /// The file of that state, where that was asked for.
    pub file: Option<ObjectRef>,
    /// The weights shard after the task, where it was asked for.
    pub weights: Option<ObjectRef>,
    /// The outer momentum after the task, where weights were asked for and there is one.
    pub momentum: Option<ObjectRef>,
    /// Mean loss of the microbatch in 2^-32 nats per token, from a tail's forward.
    pub loss_q32: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
}
