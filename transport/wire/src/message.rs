//! Every message, and its frozen number.

use crate::audit::{AuditOrder, Verdict};
use crate::command::Command;
use crate::hello::{Hello, Refusal, Welcome};
use crate::manifest::Manifest;
use crate::merge::{Call, Merge, MergeOrder, Merged, PartHead, Round, SumVerdict};
use crate::neighbours::{Carried, Neighbour};
use crate::object::{Ask, Grant, ObjectRef};
use crate::receipt::Receipt;
use crate::signed::Signed;
use crate::trace::{Explain, Trace};
use crate::work::{Assignment, PayloadHead, PayloadKind};
use serde::{Deserialize, Serialize};
use spec::{NodeId, Window};
use std::net::SocketAddr;

/// One message. New ones are added at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // messages are moved, not stored by the thousand
pub enum Message {
    /// Node to orchestrator: let me in.
    Hello(Hello),
    /// Orchestrator to node: you are in.
    Welcome(Welcome),
    /// Orchestrator to node: you are not.
    Refused(Refusal),
    /// Node to orchestrator: may I reach this object?
    Ask(Ask),
    /// Orchestrator to node: this is how, or why not.
    Grant(Grant),
    /// Miner to orchestrator: I hold the weights of this epoch.
    Ready {
        /// The epoch the weights open.
        epoch: u32,
        /// The number of the last [`Message::Adopt`] that it has heard since it was started; 0 before the first.
        turn: u32,
    },
    /// Orchestrator to miner: the epoch begins with this manifest's weights.
    Open(Signed<Manifest>),
    /// Orchestrator to miner: do this.
    Assign(Assignment),
    /// Miner to miner: the block in the body is yours.
    Payload(PayloadHead),
    /// Miner to orchestrator: I did this.
    Receipt(Signed<Receipt>),
    /// Orchestrator to miner: the epoch's work is done, merge.
    Merge(Merge),
    /// Miner to orchestrator: merged, into these weights.
    Merged(Signed<Merged>),
    /// Orchestrator to miner: these windows are drawn; upload what their receipts bind.
    Draw {
        /// The epoch.
        epoch: u32,
        /// First steps of the windows.
        steps: Vec<u32>,
        /// Whether others of the epoch may be drawn later.
        more: bool,
    },
    /// Miner to orchestrator: it is in the store.
    Revealed {
        /// The window.
        window: Window,
        /// The state before it.
        state: ObjectRef,
        /// The payloads that came in.
        inputs: Vec<ObjectRef>,
    },
    /// Orchestrator to validator: replay this.
    Audit(AuditOrder),
    /// Validator to orchestrator: this is what I found.
    Verdict(Signed<Verdict>),
    /// Orchestrator to everyone: the run is over, for this reason.
    Finish {
        /// In one sentence.
        reason: String,
    },
    /// Node to orchestrator: I leave, for this reason.
    Leave {
        /// In one sentence.
        reason: String,
    },
    /// Orchestrator to the members of a merge: it has come so far.
    Call {
        /// The epoch that ends.
        epoch: u32,
        /// What there is to know.
        call: Call,
    },
    /// Miner to orchestrator: I hold this of everybody who is not lost.
    Holding {
        /// The epoch that ends.
        epoch: u32,
        /// What.
        round: Round,
    },
    /// Miner to miner of its stage: the part in the body is yours.
    Part(PartHead),
    /// Orchestrator to miner: put the weights that you merged into the store.
    Keep(ObjectRef),
    /// Miner to orchestrator: they are there.
    Kept(ObjectRef),
    /// Orchestrator to miner: stand where this manifest's epoch begins, and say that you are ready.
    Adopt {
        /// The stage to hold: another one than before where nobody else holds it.
        stage: u16,
        /// The manifest.
        manifest: Signed<Manifest>,
        /// How many of these it was sent since it was started, this one included: a readiness said before it is of before.
        turn: u32,
    },
    /// Orchestrator to miner: this one is back; send it again what it may have missed.
    Returned(NodeId),
    /// Orchestrator to the miners of a route: a miner of it was lost, this is who does its share now.
    Amend(Assignment),
    /// Orchestrator to an owner: put the pieces of this shard into the store, somebody adds them up again.
    Disclose {
        /// The epoch that ends.
        epoch: u32,
        /// Which shard.
        shard: u32,
    },
    /// Owner to orchestrator: these are the contributors' pieces, in key order.
    Disclosed {
        /// The epoch that ends.
        epoch: u32,
        /// Which shard.
        shard: u32,
        /// The pieces.
        pieces: Vec<ObjectRef>,
        /// Whether they are in the store by now.
        stored: bool,
    },
    /// Orchestrator to validator: add this up.
    AddUp(MergeOrder),
    /// Validator to orchestrator: this is the sum.
    AddedUp(Signed<SumVerdict>),
    /// The run's owner to the orchestrator: do this.
    Command(Command),
    /// Orchestrator to the run's owner: what it does, or why it does not.
    Answered(Result<String, String>),
    /// Orchestrator to the miners of a route: nobody does the rest of this. Who has not folded it leaves it out of its step.
    Strike(Assignment),
    /// Miner to orchestrator: others may reach me here; [`AS_SEEN`](crate::neighbours::AS_SEEN) stands for where you
    /// see me.
    Reachable(Vec<SocketAddr>),
    /// Orchestrator to miner: talk to these without the relay where that can be, and to nobody else.
    Neighbours(Vec<Neighbour>),
    /// Miner to orchestrator: so much went without the relay.
    Carried(Carried),
    /// Orchestrator to a convict: say what every op of this window gave.
    Explain(Explain),
    /// Convict to orchestrator: this; the digests go into the store.
    Explained(Signed<Trace>),
    /// Orchestrator to a convict: put this output of an op, which your trace names, into the store.
    Show {
        /// Its number among all.
        value: u32,
        /// What was signed of it.
        output: ObjectRef,
    },
    /// Convict to orchestrator: the digests, or that output, are there.
    Shown(ObjectRef),
}

impl Message {
    /// The message's number in the envelope, equal to its place in the enum.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 0,
            Self::Welcome(_) => 1,
            Self::Refused(_) => 2,
            Self::Ask(_) => 3,
            Self::Grant(_) => 4,
            Self::Ready { .. } => 5,
            Self::Open(_) => 6,
            Self::Assign(_) => 7,
            Self::Payload(_) => 8,
            Self::Receipt(_) => 9,
            Self::Merge(_) => 10,
            Self::Merged(_) => 11,
            Self::Draw { .. } => 12,
            Self::Revealed { .. } => 13,
            Self::Audit(_) => 14,
            Self::Verdict(_) => 15,
            Self::Finish { .. } => 16,
            Self::Leave { .. } => 17,
            Self::Call { .. } => 18,
            Self::Holding { .. } => 19,
            Self::Part(_) => 20,
            Self::Keep(_) => 21,
            Self::Kept(_) => 22,
            Self::Adopt { .. } => 23,
            Self::Returned(_) => 24,
            Self::Amend(_) => 25,
            Self::Disclose { .. } => 26,
            Self::Disclosed { .. } => 27,
            Self::AddUp(_) => 28,
            Self::AddedUp(_) => 29,
            Self::Command(_) => 30,
            Self::Answered(_) => 31,
            Self::Strike(_) => 32,
            Self::Reachable(_) => 33,
            Self::Neighbours(_) => 34,
            Self::Carried(_) => 35,
            Self::Explain(_) => 36,
            Self::Explained(_) => 37,
            Self::Show { .. } => 38,
            Self::Shown(_) => 39,
        }
    }

    /// Whether it goes before payloads that are not: backward goes before forward.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Payload(head) if head.kind == PayloadKind::Gradient)
    }
}

/// Number of message kinds.
pub const KINDS: u8 = 40;
/// The kind whose body is a payload block.
pub const PAYLOAD_KIND: u8 = 8;
/// The kind whose body is a part of a merge.
pub const PART_KIND: u8 = 20;
/// A kind whose head may be long: a whole window of receipts.
pub const AUDIT_KIND: u8 = 14;
/// Another one: the receipts of everybody who merges.
pub const ADD_UP_KIND: u8 = 28;
/// The third: a window again, for its miner.
pub const EXPLAIN_KIND: u8 = 36;

/// Whether messages of this kind have a body; no other has one.
pub fn has_body(kind: u8) -> bool {
    matches!(kind, PAYLOAD_KIND | PART_KIND)
}
