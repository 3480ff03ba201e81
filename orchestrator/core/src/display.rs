//! Events and effects in one line, for logs and golden conversations.

use crate::effect::{Effect, Ending, Report};
use crate::event::{Confirmation, Event};
use std::fmt;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => write!(f, "started"),
            Self::Resumed => write!(f, "started again"),
            Self::Message { from, message } => write!(f, "{} says {message}", from.short()),
            Self::Suspected(node) => write!(f, "{} is suspected", node.short()),
            Self::Recovered(node) => write!(f, "{} is heard again", node.short()),
            Self::Lost { peer, why } => write!(f, "{} is lost: {why}", peer.short()),
            Self::Stored { digest } => write!(f, "stored {}", digest.short()),
            Self::PointerMoved { manifest } => write!(f, "pointer names {}", manifest.short()),
            Self::StoreFailed { what, why } => write!(f, "store failed to {what}: {why}"),
            Self::Woke => write!(f, "woke"),
            Self::Stop => write!(f, "owner asks for the end"),
            Self::StoreWaits { what, why } => write!(f, "store does not {what} yet: {why}"),
            Self::Confirmed { evidence, confirmation } => {
                write!(f, "case {} checked: {confirmation}", evidence.short())
            }
            Self::Compared { miner, doubt: Ok((value, output)) } => {
                write!(f, "trace of {} compared: output {value} is wrong, {output}", miner.short())
            }
            Self::Compared { miner, doubt: Err(why) } => {
                write!(f, "trace of {} compared: {why}", miner.short())
            }
            Self::Narrowed { miner, evidence: Ok(evidence) } => {
                write!(f, "evidence against {} narrowed down: {}", miner.short(), evidence.short())
            }
            Self::Narrowed { miner, evidence: Err(why) } => {
                write!(f, "evidence against {} not narrowed down: {why}", miner.short())
            }
            Self::Arrived { from, hello, unix_s } => {
                write!(f, "{} says at {unix_s} s: hello as {} ({})", from.short(), hello.role, hello.software)
            }
        }
    }
}

impl fmt::Display for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven => write!(f, "proven"),
            Self::NotProven { why } => write!(f, "not proven: {why}"),
            Self::Unable { why } => write!(f, "not to be told: {why}"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { to, message } => write!(f, "to {}: {message}", to.short()),
            Self::Grant { to, ask } => write!(f, "to {}: presigned grant to {ask}", to.short()),
            Self::Put { object, .. } => write!(f, "put {object}"),
            Self::MovePointer { from, to } => {
                let from = from.map_or("nothing".into(), |from| from.short());
                write!(f, "move pointer from {from} to {}", to.short())
            }
            Self::Confirm { evidence, case } => {
                write!(f, "check case {} of {} bytes", evidence.short(), case.len())
            }
            Self::KeepEvidence { miner, bytes } => {
                write!(f, "keep {} bytes of evidence against {}", bytes.len(), miner.short())
            }
            Self::Credit { epoch, work, struck, .. } => {
                write!(f, "enter epoch {epoch}: work of {} miners, {} struck", work.len(), struck.len())
            }
            Self::Disconnect { peer, why } => write!(f, "disconnect {}: {why}", peer.short()),
            Self::WakeAt(at_ms) => write!(f, "wake at {at_ms} ms"),
            Self::Report(report) => write!(f, "report: {report}"),
            Self::Finish(ending) => write!(f, "finish: {ending}"),
            Self::Confine { peer } => write!(f, "pass on nothing more of {}", peer.short()),
            Self::Compare { miner, trace, .. } => {
                write!(f, "compare {} outputs of {}", trace.body.values, miner.short())
            }
            Self::Narrow { miner, value, output, .. } => {
                write!(f, "narrow down output {value} of {}: {output}", miner.short())
            }
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => write!(f, "complete"),
            Self::Stopped => write!(f, "stopped"),
            Self::Failed { why } => write!(f, "failed: {why}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { node, role, stage } => {
                write!(f, "{} joined as {role}", node.short())?;
                stage.map_or(Ok(()), |stage| write!(f, " of stage {stage}"))
            }
            Self::Gone { node, why } => write!(f, "{} is gone: {why}", node.short()),
            Self::Opened { epoch } => write!(f, "epoch {epoch} opened"),
            Self::Loss { epoch, step, microbatch, nats } => {
                write!(f, "epoch {epoch} step {step} microbatch {microbatch}: loss {nats:.4}")
            }
            Self::Stepped { epoch, step, tokens } => {
                write!(f, "epoch {epoch} step {step} taken, {tokens} tokens")
            }
            Self::Committed { epoch, manifest, nats } => {
                write!(f, "epoch {epoch} committed as {}, mean loss {nats:.4}", manifest.short())
            }
            Self::Audited { miner, stage, window, finding } => {
                write!(f, "{window} of {} (stage {stage}) audited: {finding}", miner.short())
            }
            Self::Suspected { node, suspected } => {
                write!(f, "{} is {}", node.short(), if *suspected { "suspected" } else { "heard again" })
            }
            Self::Reissued { epoch, stage, from, to, microbatches, tokens, why } => write!(
                f,
                "{microbatches} microbatches of {} in stage {stage} go to {}, {tokens} tokens that it folded in epoch {epoch} are lost: {why}",
                from.short(),
                to.short()
            ),
            Self::Rewound { epoch, steps, tokens, why } => {
                write!(f, "epoch {epoch} begins again, {steps} steps and {tokens} tokens lost: {why}")
            }
            Self::AddedUp { epoch, stage, shard, liars } => {
                write!(f, "epoch {epoch}: shard {shard} of stage {stage} added up again, wrong by")?;
                if liars.is_empty() {
                    return write!(f, " nobody");
                }
                liars.iter().try_for_each(|liar| write!(f, " {}", liar.short()))
            }
            Self::Convicted { why, .. } => write!(f, "convicted: {why}"),
            Self::RolledBack { epoch, epochs, steps, tokens, why } => write!(
                f,
                "back to the opening of epoch {epoch}, {epochs} epochs, {steps} steps and {tokens} tokens lost: {why}"
            ),
            Self::Stable { epoch } => write!(f, "epoch {epoch} is stable"),
            Self::Carried { node, frames, .. } => {
                write!(f, "{frames} blocks of {} went without the relay", node.short())
            }
            Self::Note { text } => write!(f, "note: {text}"),
            Self::Narrowed { node, evidence } => {
                write!(f, "evidence of one tile against {}: {}", node.short(), evidence.short())
            }
        }
    }
}
