//! What a miner wants done.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Operation, Run};
use std::ops::Range;
use wire::guest::GuestError;
use wire::{AuditOrder, Message, Neighbour, ObjectRef, PartHead, PayloadHead, Presigned};

/// One thing to do. Effects are performed in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // effects are moved, not stored by the thousand
pub enum Effect {
    /// Send a message to the orchestrator.
    Send(Message),
    /// Send a payload to a miner.
    SendPayload {
        /// To whom.
        to: NodeId,
        /// What goes before the block.
        head: PayloadHead,
        /// The block, in the object table.
        block: Digest,
    },
    /// Send a part of a merge to a miner of this stage.
    SendPart {
        /// To whom.
        to: NodeId,
        /// What goes before the part.
        head: PartHead,
        /// The part, in the object table.
        block: Digest,
    },
    /// Fetch an object into the object table; answered by `Fetched` or `StoreFailed`.
    Fetch {
        /// Which.
        object: ObjectRef,
        /// How.
        request: Presigned,
    },
    /// Upload an object from the object table; answered by `Uploaded` or `StoreFailed`.
    Upload {
        /// Which.
        object: ObjectRef,
        /// How.
        request: Presigned,
    },
    /// Do a task on the engine's thread, after those before it; answered by `Done` or `TaskFailed`.
    Compute {
        /// Comes back with the answer.
        ticket: u64,
        /// What to do.
        task: Task,
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
    /// Send payloads and parts to these miners directly where that can be, and have no direct route to any other; one
    /// that ends is told as `RouteLost`.
    Neighbours(Vec<Neighbour>),
    /// The miner ends; nothing follows. `Err` carries what went wrong and what to do.
    Exit(Result<String, GuestError>),
}

/// A task for the engine. Tasks are done one after another, in the order they were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // one Adopt a run
pub enum Task {
    /// Stand where an epoch begins: in the state that was kept when this manifest opened it, if there is one; else in the fresh
    /// one, these weights and this momentum with moments, residual and step count of zero.
    Adopt {
        /// The run.
        run: Run,
        /// The stage.
        stage: u16,
        /// The epoch.
        epoch: u32,
        /// The manifest that opens it, by its digest.
        manifest: Digest,
        /// The weights shard, in the object table.
        weights: Digest,
        /// The outer momentum that goes with them, in the object table.
        momentum: Option<Digest>,
    },
    /// Keep the state as it is, as the one in which an epoch begins, so that it outlives the process.
    Keep {
        /// The epoch.
        epoch: u32,
        /// The manifest that opens it, by its digest.
        manifest: Digest,
    },
    /// Do one unit of work: `engine::work`.
    Perform {
        /// The epoch.
        epoch: u32,
        /// What to do.
        operation: Operation,
        /// Payloads or contributions that go in, in the object table.
        inputs: Vec<Digest>,
        /// What is wanted of the full state after it.
        state: StateAfter,
        /// Put the weights shard after it into the object table.
        keep_weights: bool,
    },
    /// Cut a piece from the contribution that was encoded last.
    Cut {
        /// The piece's blocks of 1024 parameters.
        blocks: Range<u64>,
    },
    /// Look whether a piece opens; it does if the answer names it as output.
    Open {
        /// The piece, in the object table.
        piece: Digest,
        /// Whose it must be.
        from: NodeId,
        /// What it must open against.
        root: Digest,
        /// Which blocks it must hold.
        blocks: Range<u64>,
    },
    /// Perform a window again, up to a receipt, from its objects in the table: the digests of all outputs of its ops one after
    /// another, or one of the outputs, are what comes out.
    Explain {
        /// The run.
        run: Run,
        /// The window. The token shard is in the table too, where its stage reads it.
        order: AuditOrder,
        /// The receipt, by its digest.
        receipt: Digest,
        /// The output that is wanted, by its number.
        show: Option<u32>,
    },
}

/// What is wanted of the state after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateAfter {
    /// Nothing.
    Untold,
    /// Its digest, which the receipt binds.
    Digest,
    /// Its digest, and the file of it in the object table: an audit may start there.
    File,
}
