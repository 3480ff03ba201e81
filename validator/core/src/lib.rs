//! The validator as a value: check what the receipts bind, have it replayed, compare, say what was found.

use serde::{Deserialize, Serialize};
use spec::{Digest, Operation, Outcome, Run};
use wire::{Message, ObjectRef, Presigned};

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
    /// An object was fetched, verified, and lies in the object table.
    Fetched {
        /// Its digest.
        digest: Digest,
    },
    /// A fetch failed, after its own retries.
    StoreFailed {
        /// Which object.
        digest: Digest,
        /// Why.
        why: String,
    },
    /// A replay is done: one result for each operation, in order.
    Replayed {
        /// The results, up to the first operation that could not be done.
        results: Vec<Replayed>,
        /// Why the replay stopped early, if it did.
        stopped: Option<String>,
    },
    /// The time asked for by [`Effect::WakeAt`] has come.
    Woke,
    /// The owner asks the validator to leave.
    Leave,
}

/// What the replay of one operation gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Digest of the output.
    pub output: Option<Digest>,
    /// Digest of the full state after it, where the receipt has one.
    pub state: Option<Digest>,
    /// The loss.
    pub loss_q32: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// One operation to replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// What was done.
    pub operation: Operation,
    /// The payload that came in, in the object table.
    pub input: Option<Digest>,
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
        /// What to do, in order.
        operations: Vec<Replay>,
    },
    /// Drop every object from the object table.
    ForgetAll,
    /// Deliver `Woke` at this time (milliseconds, same clock as `now_ms`); a later one replaces it.
    WakeAt(u64),
    /// Tell the owner, in one sentence.
    Note(String),
    /// The validator ends; nothing follows. `Err` carries what went wrong and what to do.
    Exit(Result<String, String>),
}
