//! Every message, and its frozen number.

use crate::audit::{AuditOrder, Verdict};
use crate::hello::{Hello, Refusal, Welcome};
use crate::manifest::Manifest;
use crate::merge::{Merge, Merged};
use crate::object::{Ask, Grant, ObjectRef};
use crate::receipt::Receipt;
use crate::signed::Signed;
use crate::work::{Assignment, PayloadHead, PayloadKind};
use serde::{Deserialize, Serialize};
use spec::Window;

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
    /// Miner to orchestrator: merged, and the weights are in the store.
    Merged(Signed<Merged>),
    /// Orchestrator to miner: this window is drawn; upload what its receipts bind.
    Draw(Window),
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
            Self::Draw(_) => 12,
            Self::Revealed { .. } => 13,
            Self::Audit(_) => 14,
            Self::Verdict(_) => 15,
            Self::Finish { .. } => 16,
            Self::Leave { .. } => 17,
        }
    }

    /// Whether it goes before payloads that are not: backward goes before forward.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Payload(head) if head.kind == PayloadKind::Gradient)
    }
}

/// Number of message kinds.
pub const KINDS: u8 = 18;
/// The one kind that has a body.
pub const PAYLOAD_KIND: u8 = 8;
/// The one kind whose head may be long: a whole window of receipts.
pub const AUDIT_KIND: u8 = 14;
