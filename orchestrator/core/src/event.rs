//! What can happen to an orchestrator.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use wire::{Hello, Message, ObjectRef};

/// One thing that happened. Events are what the journal holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // events are moved, not stored by the thousand
pub enum Event {
    /// The shell is up: the store answers and peers may come.
    Started,
    /// The shell is up again, after the events so far were replayed: no connection is there any more, and
    /// what was under way at the store may not be done.
    Resumed,
    /// A connected node, whose key the transport has proved, said something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Nothing was heard of a node for a while.
    Suspected(NodeId),
    /// A suspected node is heard again.
    Recovered(NodeId),
    /// A node's connection is gone.
    Lost {
        /// Who.
        peer: NodeId,
        /// What the transport says of it.
        why: String,
    },
    /// An object that the core asked to put is durable.
    Stored {
        /// Its digest.
        digest: Digest,
    },
    /// The pointer names this manifest now.
    PointerMoved {
        /// Digest of the manifest's object.
        manifest: Digest,
    },
    /// The store did not do what was asked, after its own retries.
    StoreFailed {
        /// What was asked.
        what: String,
        /// Why not.
        why: String,
    },
    /// The time asked for by [`crate::Effect::WakeAt`] has come.
    Woke,
    /// The owner asks for an orderly end.
    Stop,
    /// The store does not do what was asked, and is asked again for a while.
    StoreWaits {
        /// What was asked.
        what: String,
        /// Why not.
        why: String,
    },
    /// A connected node wants to be let in.
    Arrived {
        /// Who.
        from: NodeId,
        /// What it said of itself.
        hello: Hello,
        /// When, in seconds since 1970: invitations may expire.
        unix_s: u64,
    },
    /// A second party has checked a case; the answer to [`crate::Effect::Confirm`].
    Confirmed {
        /// BLAKE3 of the case.
        evidence: Digest,
        /// What it found.
        confirmation: Confirmation,
    },
    /// A second party has looked for what is wrong in a convict's trace; the answer to [`crate::Effect::Compare`].
    Compared {
        /// The convict.
        miner: NodeId,
        /// The first output that is wrong, by its number, as it was signed; or why there is none.
        doubt: Result<(u32, ObjectRef), String>,
    },
    /// A second party has looked for the tile that is wrong; the answer to [`crate::Effect::Narrow`].
    Narrowed {
        /// The convict.
        miner: NodeId,
        /// BLAKE3 of the case of the evidence, which holds and is in the run's folder; or why there is none.
        evidence: Result<Digest, String>,
    },
}

/// What a second party says of an accusation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// It finds the same: the accused lied.
    Proven,
    /// It does not: the accuser lied.
    NotProven {
        /// What it finds instead, in one sentence.
        why: String,
    },
    /// It cannot tell, for a reason on its own side.
    Unable {
        /// In one sentence.
        why: String,
    },
}
