//! The state as a value of its own, to be kept and gone on from.

use crate::config::{Config, ConfigError};
use crate::machine::{Orchestrator, State};
use serde::{Deserialize, Serialize};

/// Everything that an orchestrator remembers between two events. With the configuration that it was made under it goes on
/// as the core that it was taken from: same effects, same digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot(Box<State>);

impl Snapshot {
    /// The form of what is in a snapshot. Raised whenever a field comes, goes, moves or means something else: bytes say
    /// nothing of themselves, and those of another form may decode.
    pub const FORMAT: u32 = 3;
}

impl Orchestrator {
    /// What the orchestrator remembers now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Box::new(self.state.clone()))
    }

    /// An orchestrator that goes on from a snapshot. `config` is the one that it was made under.
    ///
    /// # Errors
    /// As for [`Orchestrator::new`].
    pub fn restore(config: Config, snapshot: Snapshot) -> Result<Self, ConfigError> {
        let mut core = Self::new(config)?;
        core.state = *snapshot.0;
        Ok(core)
    }
}
