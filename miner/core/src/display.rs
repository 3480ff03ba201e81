//! Events and effects in one line, for logs and golden conversations.

use crate::effect::{Effect, StateAfter, Task};
use crate::event::Event;
use std::fmt;
use wire::ObjectRef;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => write!(f, "connected"),
            Self::Disconnected { why } => write!(f, "disconnected: {why}"),
            Self::Message(message) => write!(f, "orchestrator says {message}"),
            Self::Payload { head, block } => {
                write!(f, "payload {} from {}: {head}", block.digest.short(), head.receipt.signer.short())
            }
            Self::Part { head, block } => {
                write!(f, "part {} from {}: {head}", block.digest.short(), head.receipt.signer.short())
            }
            Self::Done { ticket, done } => {
                write!(f, "task {ticket} is done")?;
                let object = |object: Option<ObjectRef>| object.map(|object| object.digest);
                let made = [
                    ("output", object(done.output)),
                    ("root", done.root),
                    ("state", done.state),
                    ("weights", object(done.weights)),
                    ("momentum", object(done.momentum)),
                ];
                for (what, digest) in made {
                    if let Some(digest) = digest {
                        write!(f, ", {what} {}", digest.short())?;
                    }
                }
                if done.outcome != spec::Outcome::Ok {
                    write!(f, ", {}", done.outcome.name())?;
                }
                Ok(())
            }
            Self::TaskFailed { ticket, why } => write!(f, "task {ticket} failed: {why}"),
            Self::Fetched { digest } => write!(f, "fetched {}", digest.short()),
            Self::Uploaded { digest } => write!(f, "uploaded {}", digest.short()),
            Self::StoreFailed { digest, why } => write!(f, "store failed on {}: {why}", digest.short()),
            Self::Woke => write!(f, "woke"),
            Self::Leave => write!(f, "owner asks to leave"),
            Self::RouteLost(node) => write!(f, "direct route to {} is gone", node.short()),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(message) => write!(f, "say {message}"),
            Self::SendPayload { to, head, block } => {
                write!(f, "send payload {} to {}: {head}", block.short(), to.short())
            }
            Self::SendPart { to, head, block } => {
                write!(f, "send part {} to {}: {head}", block.short(), to.short())
            }
            Self::Fetch { object, .. } => write!(f, "fetch {object}"),
            Self::Upload { object, .. } => write!(f, "upload {object}"),
            Self::Compute { ticket, task } => write!(f, "task {ticket}: {task}"),
            Self::Forget(digest) => write!(f, "forget {}", digest.short()),
            Self::CallAgain { after_ms } => write!(f, "call again after {after_ms} ms"),
            Self::WakeAt(at_ms) => write!(f, "wake at {at_ms} ms"),
            Self::Note(text) => write!(f, "note: {text}"),
            Self::Neighbours(neighbours) => {
                write!(f, "direct routes to")?;
                neighbours.iter().try_for_each(|neighbour| write!(f, " {}", neighbour.node.short()))
            }
            Self::Exit(Ok(why)) => write!(f, "exit: {why}"),
            Self::Exit(Err(why)) => write!(f, "exit in error: {why}"),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt { stage, epoch, weights, .. } => {
                write!(f, "adopt stage {stage} of epoch {epoch} with weights {}", weights.short())
            }
            Self::Keep { epoch, .. } => write!(f, "keep the state of epoch {epoch}"),
            Self::Cut { blocks } => write!(f, "cut blocks {} to {}", blocks.start, blocks.end),
            Self::Open { piece, from, root, blocks } => {
                let (piece, from, root) = (piece.short(), from.short(), root.short());
                write!(f, "open {piece} of {from}, blocks {} to {}, against {root}", blocks.start, blocks.end)
            }
            Self::Explain { order, show, .. } => {
                write!(f, "perform {} again", order.window)?;
                show.map_or(Ok(()), |value| write!(f, ", show output {value}"))
            }
            Self::Perform { operation, inputs, state, keep_weights, .. } => {
                write!(f, "{operation}")?;
                inputs.iter().try_for_each(|input| write!(f, ", input {}", input.short()))?;
                match state {
                    StateAfter::Untold => {}
                    StateAfter::Digest => write!(f, ", digest state")?,
                    StateAfter::File => write!(f, ", keep state")?,
                }
                if *keep_weights {
                    write!(f, ", keep weights")?;
                }
                Ok(())
            }
        }
    }
}
