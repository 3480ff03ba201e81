//! The orchestrator as a value: `handle(now, event) -> effects`.
//!
//! It admits nodes, hands out microbatches, closes epochs, signs manifests, draws audits and takes in
//! verdicts. It never sees a tensor, a socket or a clock. Its journal is the log of its events: replayed
//! from the start they give the same state and the same effects.

mod effect;
mod event;

pub use effect::{Effect, Ending, Report};
pub use event::Event;
