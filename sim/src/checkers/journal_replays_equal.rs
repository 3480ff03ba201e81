//! A core is its journal: the recorded events give the same effects and the same state again.

use super::{Checker, End, Record};
use crate::replay::replay;
use crate::trace::Entry;

/// Replays every core at the end.
#[derive(Debug, Default)]
pub struct JournalReplaysEqual;

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
