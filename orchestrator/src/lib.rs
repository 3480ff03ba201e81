//! The orchestrator's shell: journal, peers, presigned URLs, manifests.
//!
//! Everything that decides is in `orchestrator-core`; here are the clock, the sockets, the disk and the
//! store around it. An event is in the journal before the core sees it, and an effect is performed after.

mod folder;
mod journal;
mod ledger;
mod notice;
mod shell;

pub use folder::{FolderError, RunFolder, Secrets};
pub use journal::{Entry, Journal, JournalError};
pub use ledger::{LedgerFile, LedgerFileError};
pub use notice::Notice;
pub use orchestrator_core::{Ending, Report};
pub use shell::{Options, OrchestratorError, parse_pointer, pointer_name, run};
pub use wire::Finding;
