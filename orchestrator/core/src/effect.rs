//! What an orchestrator wants done.

use credit::{Strike, Work};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Window};
use wire::{Ask, Finding, Message, ObjectRef, Role, Signed, Trace};

/// One thing to do. Effects are performed in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // effects are moved, not stored by the thousand
pub enum Effect {
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Presign this request and send the grant.
    Grant {
        /// To whom.
        to: NodeId,
        /// What was asked, and is allowed.
        ask: Ask,
    },
    /// Put an object under its digest; answered by `Stored` or `StoreFailed`.
    Put {
        /// Its name.
        object: ObjectRef,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Move the run's pointer by conditional write; answered by `PointerMoved` or `StoreFailed`. A pointer
    /// that names `to` already counts as moved: an answer may have been lost.
    MovePointer {
        /// Digest of the manifest's object that the pointer must name now; `None` for no pointer yet.
        from: Option<Digest>,
        /// Digest of the manifest's object that it is to name.
        to: Digest,
    },
    /// Have a validator's word against somebody checked by a second party; answered by `Confirmed`.
    Confirm {
        /// BLAKE3 of the case.
        evidence: Digest,
        /// Canonical bytes of [`wire::Evidence`] or [`wire::MergeEvidence`].
        case: Vec<u8>,
    },
    /// Write evidence into the run's folder and the store.
    KeepEvidence {
        /// Whom it convicts.
        miner: NodeId,
        /// Canonical bytes of [`wire::Evidence`].
        bytes: Vec<u8>,
    },
    /// Enter a stable epoch into the ledger; an epoch that stands there already is not entered again.
    Credit {
        /// The epoch.
        epoch: u32,
        /// Digest of the manifest that it committed.
        manifest: Digest,
        /// What was done in it, in key order.
        work: Vec<Work>,
        /// Who was convicted since the stable epoch before.
        struck: Vec<Strike>,
    },
    /// Close the connection to a node.
    Disconnect {
        /// Whom.
        peer: NodeId,
        /// Why, in one sentence.
        why: String,
    },
    /// Deliver `Woke` at this time (milliseconds, same clock as `now_ms`); a later one replaces it.
    WakeAt(u64),
    /// Tell whoever watches.
    Report(Report),
    /// The run ends; nothing follows.
    Finish(Ending),
    /// Pass on nothing more of a node, which is banned, to others; what it says is still heard.
    Confine {
        /// Whom.
        peer: NodeId,
    },
    /// Have the second party look which output of a convict's trace is wrong though all before are right; the digests are in the
    /// store. Answered by `Compared`.
    Compare {
        /// The convict.
        miner: NodeId,
        /// Canonical bytes of the [`wire::Evidence`] that convicted it.
        case: Vec<u8>,
        /// What it says of every op.
        trace: Signed<Trace>,
    },
    /// Have the second party narrow the evidence down to one tile of an output that the convict has put into the store, and write the
    /// evidence of it into the run's folder; answered by `Narrowed`.
    Narrow {
        /// The convict.
        miner: NodeId,
        /// Canonical bytes of the [`wire::Evidence`] that convicted it.
        case: Vec<u8>,
        /// What it says of every op.
        trace: Signed<Trace>,
        /// The output, by its number among all.
        value: u32,
        /// The output.
        output: ObjectRef,
    },
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "kebab-case")]
pub enum Ending {
    /// Every epoch is committed, and every drawn window was replayed and found equal.
    Complete,
    /// The owner asked for the end.
    Stopped,
    /// It cannot go on: in one sentence, with what to do.
    Failed {
        /// The sentence.
        why: String,
    },
}

/// What a watcher is told: the live screen, the metrics file and the log are made of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// A node is in.
    Joined {
        /// Who.
        node: NodeId,
        /// As what.
        role: Role,
        /// The stage it holds.
        stage: Option<u16>,
    },
    /// A node is gone or was turned away.
    Gone {
        /// Who.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// An epoch begins.
    Opened {
        /// Which.
        epoch: u32,
    },
    /// A microbatch went through every stage.
    Loss {
        /// Epoch.
        epoch: u32,
        /// Inner step.
        step: u32,
        /// Microbatch within the epoch.
        microbatch: u64,
        /// Mean loss in nats per token.
        nats: f64,
    },
    /// Every miner has taken an inner step.
    Stepped {
        /// Epoch.
        epoch: u32,
        /// The inner step.
        step: u32,
        /// Tokens of the step, over all miners of one stage.
        tokens: u64,
    },
    /// An epoch is committed: its manifest is in the store and the pointer names it.
    Committed {
        /// The epoch that ended.
        epoch: u32,
        /// Digest of the manifest's object.
        manifest: Digest,
        /// Mean training loss of the epoch in nats per token.
        nats: f64,
    },
    /// A window was replayed.
    Audited {
        /// Whose.
        miner: NodeId,
        /// Its stage.
        stage: u16,
        /// Which.
        window: Window,
        /// What was found.
        finding: Finding,
    },
    /// A node is suspected or heard again.
    Suspected {
        /// Who.
        node: NodeId,
        /// `false` when it is heard again.
        suspected: bool,
    },
    /// An epoch begins again from its manifest, because somebody lost what it had done.
    Rewound {
        /// The epoch.
        epoch: u32,
        /// Inner steps of it that every miner had taken.
        steps: u32,
        /// Tokens whose loss was reported in vain.
        tokens: u64,
        /// Who, and why.
        why: String,
    },
    /// A third party added up a shard of a merge.
    AddedUp {
        /// The epoch that ends.
        epoch: u32,
        /// The stage that merges.
        stage: u16,
        /// Which shard.
        shard: u32,
        /// Owners that signed another sum.
        liars: Vec<NodeId>,
    },
    /// A miner was convicted and is banned.
    Convicted {
        /// Who.
        node: NodeId,
        /// The stage it held.
        stage: Option<u16>,
        /// BLAKE3 of the evidence, where the lie can be replayed.
        evidence: Option<Digest>,
        /// Of what, in one sentence.
        why: String,
    },
    /// Everybody goes back to the manifest with which an epoch opened.
    RolledBack {
        /// The epoch that begins again.
        epoch: u32,
        /// Committed epochs that are undone.
        epochs: u32,
        /// Inner steps of every miner that are undone, those of the epoch in hand included.
        steps: u64,
        /// Tokens whose loss was reported in vain.
        tokens: u64,
        /// Why.
        why: String,
    },
    /// Every window drawn from an epoch, and from all before it, was found equal: it is never undone.
    Stable {
        /// The epoch.
        epoch: u32,
    },
    /// A lost miner's work goes to another of its stage, and the epoch goes on.
    Reissued {
        /// The epoch.
        epoch: u32,
        /// The stage.
        stage: u16,
        /// Who was lost.
        from: NodeId,
        /// Who does its work from now on.
        to: NodeId,
        /// Microbatches in work that go to it.
        microbatches: u64,
        /// Tokens that the lost miner had folded and nobody folds again: what they taught it is lost.
        tokens: u64,
        /// What became of the lost one.
        why: String,
    },
    /// Blocks that a miner says went from it to others without the relay, since it last said so.
    Carried {
        /// Who.
        node: NodeId,
        /// How many.
        frames: u64,
        /// Their bytes before lossless packing.
        bytes_plain: u64,
        /// Their bytes as they travelled.
        bytes_sent: u64,
    },
    /// Something a person should read.
    Note {
        /// In one sentence.
        text: String,
    },
    /// The evidence against a convict is narrowed down to one tile of one op, by what it signed itself.
    Narrowed {
        /// Whom it convicts.
        node: NodeId,
        /// BLAKE3 of its case.
        evidence: Digest,
    },
}
