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
}

/// Feeds every event of `journal` to a fresh core.
///
/// # Errors
/// When the core cannot be built, or an entry is no event of it.
pub fn replay(recipe: &Recipe, journal: &Journal) -> Result<Replayed, ReplayError> {
    let mut core = recipe.build()?;
    let mut effects = Vec::new();
    for (entry, (now_ms, bytes)) in journal.entries().enumerate() {
        let event =
            recipe.decode(bytes).map_err(|error| ReplayError::Entry { entry, why: error.to_string() })?;
        effects.push(wire::digest_of(&core.handle(now_ms, event)));
    }
    Ok(Replayed { core, effects })
}
