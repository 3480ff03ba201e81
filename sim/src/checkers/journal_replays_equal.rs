//! A core is its journal: the recorded events give the same effects and the same state again.

use super::{Checker, End, Record};
use crate::replay::replay;
use crate::trace::Entry;

/// So many cores are replayed of a larger swarm: it takes as long as the run itself.
const REPLAYED_MAX: usize = 64;

/// Replays every core at the end; of a large swarm the orchestrator's, and others evenly among the miners.
#[derive(Debug, Default)]
pub struct JournalReplaysEqual;

impl JournalReplaysEqual {
    /// Of so many nodes, the orchestrator first, every how many-th is replayed: no more need be kept of the others.
    pub fn apart(nodes: usize) -> usize {
        nodes.div_ceil(REPLAYED_MAX).max(1)
    }
}

impl Checker for JournalReplaysEqual {
    fn name(&self) -> &'static str {
        "journal_replays_equal"
    }

    fn observe(&mut self, _entry: &Entry) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        end.records.iter().try_for_each(check)
    }
}

fn check(record: &Record) -> Result<(), String> {
    let name = &record.name;
    let again = replay(&record.recipe, &record.journal).map_err(|error| format!("{name}: {error}"))?;
    let differs = again.effects.iter().zip(&record.effects).position(|(a, b)| a != b);
    if let Some(event) = differs {
        return Err(format!("{name}: event {event} has other effects when it is replayed"));
    }
    let (found, expected) = (again.effects.len(), record.effects.len());
    if found != expected {
        return Err(format!("{name}: the journal holds {found} events, {expected} were taken in"));
    }
    if again.core.digest() != record.state {
        return Err(format!("{name}: the state after {found} events is another one when they are replayed"));
    }
    Ok(())
}
