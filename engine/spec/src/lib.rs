//! What a run is, as pure data with one canonical form.
//!
//! A run is fixed by its [`Run`]: model, stage cut, numeric mode, data, schedules, codecs, audit rate. Its
//! canonical bytes hash to the run id that every receipt, manifest and checkpoint carries, so two nodes
//! that agree on the id agree on everything below. The crate imports nothing of ours and may be imported
//! by every crate.

mod digest;
mod model;
mod operation;
mod run;

pub use digest::{Digest, NodeId, ParseHexError};
pub use model::{Model, RopeScaling, StageKind, StageShape};
pub use operation::{Member, Operation, Outcome, Window};
pub use run::{Admission, Audit, BoundaryCodec, Data, Epoch, Inner, Mode, Outer, Run, SpecError, Tokenizer};
