//! Messages, envelope, versions and limits: bytes and nothing else.
//!
//! A [`Frame`] is one message to one node, with an optional body of raw bytes (a tensor). Its layout is
//! drawn in `docs/formats.md`. The wire grows by adding variants at the end of an enum and never by
//! editing one; every message has a size bound that is checked before a byte of it is read.
//!
//! What is deliberately absent: input and output, clocks, compression (see `transport`).

pub mod audit;
pub mod canonical;
pub mod chain;
pub mod command;
mod display;
pub mod envelope;
pub mod guest;
pub mod hello;
pub mod limits;
pub mod machine;
pub mod manifest;
mod memory;
pub mod merge;
pub mod message;
pub mod neighbours;
pub mod object;
pub mod receipt;
pub mod signed;
pub mod terms;
pub mod trace;
pub mod transcript;
pub mod work;

pub use audit::{AuditOrder, Evidence, Finding, MergeInputs, Verdict};
pub use canonical::{digest_of, to_bytes};
pub use chain::{Chain, ChainError};
pub use command::Command;
pub use envelope::{Frame, HEADER_LEN, Header, WireError};
pub use hello::{Hello, Refusal, Role, Welcome};
pub use machine::{Alarm, Machine};
pub use manifest::{Manifest, StageRecord};
pub use memory::Remembering;
pub use merge::{Call, Merge, MergeEvidence, MergeOrder, Merged, Part, PartHead, Round, SumVerdict};
pub use message::Message;
pub use neighbours::{Carried, Neighbour};
pub use object::{Ask, Grant, ObjectRef, Presigned, Verb};
pub use receipt::Receipt;
pub use signed::{Key, Signable, SignatureError, Signed};
pub use terms::Terms;
pub use trace::{Explain, TileEvidence, Trace};
pub use transcript::Transcript;
pub use work::{Assignment, PayloadHead, PayloadKind, Slot};
