//! The orchestrator as a value: `handle(now, event) -> effects`.
//!
//! It admits nodes, hands out microbatches, closes epochs, signs manifests, draws audits and takes in
//! verdicts. It never sees a tensor, a socket or a clock. Its journal is the log of its events: replayed
//! from the start, or from a [`Snapshot`] of the state in between, they give the same state and the same
//! effects. The conversation is told in `docs/protocol.md`.

mod account;
mod accusations;
mod audit;
mod beginnings;
mod commit;
mod config;
mod consequences;
mod deadlines;
mod display;
mod disputes;
mod draw;
mod effect;
mod epoch;
mod event;
mod grants;
mod handout;
mod inquiry;
mod lengths;
mod lingering;
mod machine;
mod merge;
mod moves;
mod neighbours;
mod pace;
mod pieces;
mod planted;
mod questions;
mod receipts;
mod recovery;
mod reissue;
mod rollback;
mod seats;
mod snapshot;
mod uplinks;
mod windows;

pub use config::{Config, ConfigError, Timeouts};
pub use effect::{Effect, Ending, Report};
pub use event::{Confirmation, Event};
pub use lengths::{TooLong, check_lengths};
pub use machine::Orchestrator;
pub use snapshot::Snapshot;
