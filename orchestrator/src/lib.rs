//! The orchestrator's shell: journal, peers, presigned URLs, manifests.
//!
//! Everything that decides is in `orchestrator-core`; here are the clock, the sockets, the disk and the
//! store around it. An event is in the journal before the core sees it, and an effect is performed after.

mod dashboard;
mod disk;
mod folder;
mod journal;
mod judge;
mod lead;
mod ledger;
mod notice;
pub mod owner;
pub mod page;
mod pointer;
mod prometheus;
mod pump;
mod replayed;
mod shell;
mod view;

pub use dashboard::Place;
pub use folder::{FolderError, RunFolder, Secrets};
pub use journal::{Entry, History, Journal, JournalError, Standing};
pub use judge::{Answer, Judge};
pub use lead::LeadError;
pub use ledger::{LedgerFile, LedgerFileError};
pub use notice::Notice;
pub use orchestrator_core::{Confirmation, Ending, Event, Report, Snapshot, check_lengths};
pub use owner::OwnerError;
pub use pointer::{parse_pointer, pointer_name};
pub use shell::{Options, OrchestratorError, run};
pub use view::{Curve, EpochLine, Facts, Node, Numbers, Phase, Presence, View};
pub use wire::Finding;
