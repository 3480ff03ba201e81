//! Events and effects in one line, for logs and golden conversations.

use crate::effect::Effect;
use crate::event::Event;
use std::fmt;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => write!(f, "connected"),
            Self::Disconnected { why } => write!(f, "disconnected: {why}"),
            Self::Message(message) => write!(f, "orchestrator says {message}"),
            Self::Fetched { digest } => write!(f, "fetched {}", digest.short()),
            Self::StoreFailed { digest, missing: true, .. } => {
                write!(f, "the store has no {}", digest.short())
            }
            Self::StoreFailed { digest, why, .. } => write!(f, "store failed on {}: {why}", digest.short()),
            Self::Replayed { results, stopped } => {
                write!(f, "replayed {} operations", results.len())?;
                stopped.iter().try_for_each(|why| write!(f, ", then stopped: {why}"))
            }
            Self::Built { state } => write!(f, "built the fresh state {}", state.short()),
            Self::AddedUp { sum: Some(sum) } => write!(f, "added up to {}", sum.short()),
            Self::AddedUp { sum: None } => write!(f, "a piece does not open"),
            Self::Woke => write!(f, "woke"),
            Self::Leave => write!(f, "owner asks to leave"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(message) => write!(f, "say {message}"),
            Self::Fetch { object, .. } => write!(f, "fetch {object}"),
            Self::Replay { stage, epoch, state, operations, .. } => write!(
                f,
                "replay {} operations of stage {stage} in epoch {epoch} from state {}",
                operations.len(),
                state.short()
            ),
            Self::Build { stage, weights, .. } => {
                write!(f, "build the fresh state of stage {stage} from weights {}", weights.short())
            }
            Self::AddUp { stage, blocks, pieces, .. } => {
                write!(f, "add up {} pieces of blocks {blocks:?} of stage {stage}", pieces.len())
            }
            Self::Forget(digest) => write!(f, "forget {}", digest.short()),
            Self::CallAgain { after_ms } => write!(f, "call again after {after_ms} ms"),
            Self::WakeAt(at_ms) => write!(f, "wake at {at_ms} ms"),
            Self::Note(text) => write!(f, "note: {text}"),
            Self::Exit(Ok(why)) => write!(f, "exit: {why}"),
            Self::Exit(Err(why)) => write!(f, "exit in error: {why}"),
        }
    }
}
