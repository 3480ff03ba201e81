//! What a validator wants done.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Operation, Run};
use std::ops::Range;
use wire::guest::GuestError;
use wire::{Message, ObjectRef, Presigned};

/// One operation to replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// What was done.
    pub operation: Operation,
    /// What came in, in the object table.
    pub inputs: Vec<Digest>,
    /// Digest the full state after it.
    pub digest_state: bool,
}

/// One thing to do. Effects are performed in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // effects are moved, not stored by the thousand
pub enum Effect {
    /// Send a message to the orchestrator.
    Send(Message),
    /// Fetch an object into the object table; answered by `Fetched` or `StoreFailed`.
    Fetch {
        /// Which.
        object: ObjectRef,
        /// How.
        request: Presigned,
    },
    /// Replay a window through `engine::work`; answered by `Replayed`.
    Replay {
        /// The run.
        run: Run,
        /// The stage.
        stage: u16,
        /// The epoch.
        epoch: u32,
        /// The state before the window, in the object table.
        state: Digest,
        /// The weights that it must have, where it is the one that an epoch begins with.
        weights: Option<Digest>,
        /// Whose work.
        miner: NodeId,
        /// The weights from which its change is measured, in the object table, where the window is a merge.
        anchor: Option<Digest>,
        /// What to do, in order.
        operations: Vec<Replay>,
    },
    /// Build the state in which a stage begins an epoch afresh; answered by `Built`.
    Build {
        /// The run.
        run: Run,
        /// The stage.
        stage: u16,
        /// Its weights, in the object table.
        weights: Digest,
        /// The outer momentum, in the object table, where there is one.
        momentum: Option<Digest>,
    },
    /// Add up pieces of the same shard that open against their roots; answered by `AddedUp`.
    AddUp {
        /// The run.
        run: Run,
        /// The stage.
        stage: u16,
        /// The shard's blocks of 1024 parameters.
        blocks: Range<u64>,
        /// Whose pieces, and what each must open against.
        roots: Vec<(NodeId, Digest)>,
        /// The pieces, in the object table, in the same order.
        pieces: Vec<Digest>,
    },
    /// Drop an object from the object table.
    Forget(Digest),
    /// Call the orchestrator again after this time; answered by `Connected` or `Disconnected`.
    CallAgain {
        /// Milliseconds.
        after_ms: u64,
    },
    /// Deliver `Woke` at this time (milliseconds, same clock as `now_ms`); a later one replaces it.
    WakeAt(u64),
    /// Tell the owner, in one sentence.
    Note(String),
    /// The validator ends; nothing follows. `Err` carries what went wrong and what to do.
    Exit(Result<String, GuestError>),
}
