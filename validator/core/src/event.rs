//! What can happen to a validator.

use serde::{Deserialize, Serialize};
use spec::{Digest, Outcome};
use wire::Message;

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
        /// The store answered, and has no such object: a miner may have withheld it. Anything else is the
        /// store's or this machine's trouble, and convicts nobody.
        missing: bool,
        /// Why.
        why: String,
    },
    /// A replay is done: one result for each operation, in order.
    Replayed {
        /// The results, up to the first operation that could not be done.
        results: Vec<Replayed>,
        /// Why the replay stopped early, if it did: state or payload are no state or payload of this run.
        /// Trouble of this machine is not to be told here, it ends the validator.
        stopped: Option<String>,
    },
    /// The state in which a stage begins an epoch afresh is built.
    Built {
        /// Its digest.
        state: Digest,
    },
    /// A shard is added up.
    AddedUp {
        /// Digest of the sum; `None` if a piece is none, or does not open against its root.
        sum: Option<Digest>,
    },
    /// The time asked for by [`crate::Effect::WakeAt`] has come.
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
