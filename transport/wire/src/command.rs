//! What a run's owner tells the orchestrator, over a connection that proves the orchestrator's own key.

use serde::{Deserialize, Serialize};

/// One command. New ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Everybody goes back to the opening of an epoch.
    RollBack {
        /// The epoch; the newest that is stable when `None`.
        to: Option<u32>,
    },
}
