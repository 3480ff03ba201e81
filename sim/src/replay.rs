//! A core brought back from its journal.

use crate::cores::{Core, Recipe};
use crate::world::disk::Journal;
use spec::Digest;

/// What a journal gives back.
#[derive(Debug)]
pub struct Replayed {
    /// The core after the last event.
    pub core: Core,
    /// Digest of the effects of each event.
    pub effects: Vec<Digest>,
}

/// A core that cannot be brought back.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// Its configuration is refused.
    #[error(transparent)]
    Config(#[from] orchestrator_core::ConfigError),
    /// The journal cannot be read.
    #[error("entry {entry} of the journal is no event of this core: {why}")]
    Entry {
        /// Counted from 0.
        entry: usize,
        /// What the decoder said.
        why: String,
    },
    /// The core does not come back from its snapshot.
    #[error("the snapshot after entry {entry} is none: {why}")]
    Snapshot {
        /// Counted from 0.
        entry: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// How often a core that keeps snapshots goes on from one while its journal is replayed.
const SNAPSHOTS: usize = 16;

/// Feeds every event of `journal` to a fresh core, which goes on from its own snapshot now and then.
///
/// # Errors
/// When the core cannot be built, an entry is no event of it, or a snapshot none.
pub fn replay(recipe: &Recipe, journal: &Journal) -> Result<Replayed, ReplayError> {
    let mut core = recipe.build()?;
    let mut effects = Vec::new();
    let apart = journal.len().div_ceil(SNAPSHOTS).max(1);
    for (entry, (now_ms, bytes)) in journal.entries().enumerate() {
        let event =
            recipe.decode(bytes).map_err(|error| ReplayError::Entry { entry, why: error.to_string() })?;
        effects.push(wire::digest_of(&core.handle(now_ms, event)));
        if (entry + 1).is_multiple_of(apart) {
            core = core.restarted(recipe).map_err(|why| ReplayError::Snapshot { entry, why })?;
        }
    }
    Ok(Replayed { core, effects })
}
