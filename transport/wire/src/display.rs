//! Messages in one line for a log. Names are shortened: a line is for reading, never for deciding.

use crate::{
    Ask, Assignment, Call, Carried, Command, Explain, Finding, Message, ObjectRef, Part, PartHead,
    PayloadHead, PayloadKind, Receipt, Role, Round, Slot, SumVerdict, Trace, Verb,
};
use spec::{Digest, NodeId, Outcome};
use std::fmt;

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => {
                let again = if hello.resumes { " again" } else { "" };
                write!(f, "hello{again} as {} ({})", hello.role, hello.software)
            }
            Self::Welcome(welcome) => {
                write!(f, "welcome to run {}", welcome.run.name)?;
                if let Some(stage) = welcome.stage {
                    write!(f, ", stage {stage}")?;
                }
                write!(f, ", manifest of epoch {}", welcome.manifest.body.epoch)
            }
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Ask(ask) => write!(f, "ask to {ask}"),
            Self::Grant(grant) => match &grant.answer {
                Ok(_) => write!(f, "grant to {}", grant.ask),
                Err(why) => write!(f, "no grant to {}: {why}", grant.ask),
            },
            Self::Ready { epoch, .. } => write!(f, "ready for epoch {epoch}"),
            Self::Open(manifest) => write!(f, "open epoch {}", manifest.body.epoch),
            Self::Assign(assignment) => write!(f, "assign {assignment}"),
            Self::Amend(assignment) => write!(f, "amend {assignment}"),
            Self::Strike(assignment) => write!(f, "strike {assignment}"),
            Self::Payload(head) => head.fmt(f),
            Self::Receipt(receipt) => write!(f, "receipt {}", receipt.body),
            Self::Merge(merge) => {
                write!(f, "merge epoch {} with", merge.epoch)?;
                merge.members.iter().try_for_each(|member| write!(f, " {}", member.short()))
            }
            Self::Merged(merged) => {
                write!(f, "merged epoch {} into {}", merged.body.epoch, merged.body.weights)
            }
            Self::Draw { epoch, steps, more } => {
                let more = if *more { ", and maybe more" } else { "" };
                write!(f, "draw the windows of epoch {epoch} from steps {steps:?}{more}")
            }
            Self::Revealed { window, state, inputs } => {
                write!(f, "revealed {}: state {state}, inputs", window)?;
                inputs.iter().try_for_each(|input| write!(f, " {input}"))
            }
            Self::Audit(order) => write!(
                f,
                "audit {} of {} (stage {}): {} receipts, {} inputs",
                order.window,
                order.miner.short(),
                order.stage,
                order.receipts.len(),
                order.inputs.len()
            ),
            Self::Verdict(verdict) => write!(
                f,
                "verdict on {} of {}: {}",
                verdict.body.window,
                verdict.body.miner.short(),
                verdict.body.finding
            ),
            Self::Finish { reason } => write!(f, "finish: {reason}"),
            Self::Command(Command::RollBack { to: Some(epoch) }) => write!(f, "roll back to epoch {epoch}"),
            Self::Command(Command::RollBack { to: None }) => write!(f, "roll back to what is stable"),
            Self::Answered(Ok(done)) => write!(f, "done: {done}"),
            Self::Answered(Err(why)) => write!(f, "not done: {why}"),
            Self::Leave { reason } => write!(f, "leave: {reason}"),
            Self::Call { epoch, call } => write!(f, "merge of epoch {epoch}: {call}"),
            Self::Holding { epoch, round } => {
                let what = match round {
                    Round::Scales => "scales",
                    Round::Pieces => "pieces",
                };
                write!(f, "holding everybody's {what} of epoch {epoch}")
            }
            Self::Part(head) => head.fmt(f),
            Self::Keep(object) => write!(f, "keep {object} in the store"),
            Self::Kept(object) => write!(f, "kept {object} in the store"),
            Self::Adopt { stage, manifest, .. } => {
                write!(f, "adopt stage {stage} of the manifest of epoch {}", manifest.body.epoch)
            }
            Self::Returned(node) => write!(f, "{} is back", node.short()),
            Self::Reachable(addresses) => {
                write!(f, "reachable at")?;
                addresses.iter().try_for_each(|address| write!(f, " {address}"))
            }
            Self::Neighbours(neighbours) => {
                write!(f, "neighbours")?;
                neighbours.iter().try_for_each(|neighbour| write!(f, " {}", neighbour.node.short()))
            }
            Self::Carried(Carried { frames, bytes_plain, bytes_sent }) => {
                write!(f, "{frames} blocks went directly, {bytes_plain} bytes as {bytes_sent}")
            }
            Self::Explain(Explain { order, receipt }) => {
                write!(
                    f,
                    "explain {} of stage {} up to receipt {}",
                    order.window,
                    order.stage,
                    receipt.short()
                )
            }
            Self::Explained(trace) => {
                let Trace { values, root, .. } = &trace.body;
                write!(f, "explained: {values} outputs, {}", root.short())
            }
            Self::Show { value, output } => write!(f, "show output {value}: {output}"),
            Self::Shown(output) => write!(f, "shown {output}"),
            Self::Disclose { epoch, shard } => {
                write!(f, "disclose the pieces of shard {shard} of epoch {epoch}")
            }
            Self::Disclosed { epoch, shard, pieces, stored } => {
                let place = if *stored { "in the store" } else { "to come" };
                write!(f, "{} pieces of shard {shard} of epoch {epoch} are {place}", pieces.len())
            }
            Self::AddUp(order) => write!(
                f,
                "add up {} pieces of shard {} of stage {} in epoch {}",
                order.pieces.len(),
                order.shard,
                order.stage,
                order.epoch
            ),
            Self::AddedUp(verdict) => {
                let SumVerdict { stage, epoch, shard, sum, .. } = &verdict.body;
                let sum = sum.map_or("nothing".into(), |sum| sum.short());
                write!(f, "shard {shard} of stage {stage} in epoch {epoch} adds up to {sum}")
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Miner => "miner",
            Self::Validator => "validator",
        })
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.digest.short(), self.bytes)
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Get => "get",
            Verb::Put => "put",
        };
        write!(f, "{verb} {}", self.object)
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: epoch {} microbatch {}", self.id, self.epoch, self.microbatch)?;
        self.route.iter().try_for_each(|slot| {
            let Slot { step, position, members, attempt, .. } = slot;
            write!(f, " > {} step {step} position {position} of {members}", slot.miner.short())?;
            if *attempt == 0 { Ok(()) } else { write!(f, " attempt {attempt}") }
        })
    }
}

impl fmt::Display for PayloadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PayloadKind::Activation => "activation",
            PayloadKind::Gradient => "gradient",
        };
        write!(f, "{kind} of assignment {} attempt {}", self.assignment, self.attempt)
    }
}

impl fmt::Display for PartHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = self.receipt.body.epoch;
        match self.part {
            Part::Scales => write!(f, "scales of epoch {epoch}"),
            Part::Piece { shard } => write!(f, "piece of shard {shard} of epoch {epoch}"),
            Part::Sum { shard } => write!(f, "sum of shard {shard} of epoch {epoch}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scaled { members } => {
                write!(f, "encode on the scales of")?;
                names(f, members.iter())
            }
            Self::Drawn { seats, .. } => {
                write!(f, "the pairs are drawn among")?;
                names(f, seats.iter().map(|seat| &seat.node))
            }
            Self::Closed { contributors } => {
                write!(f, "add up")?;
                names(f, contributors.iter())
            }
            Self::Announced { from, shard, sum } => {
                write!(f, "the sum of shard {shard} by {} is {}", from.short(), sum.short())
            }
            Self::Lost(node) => write!(f, "{} is lost", node.short()),
            Self::Abandoned => write!(f, "nobody is left"),
            Self::Settled { shard, sum } => write!(f, "the sum of shard {shard} is {}", sum.short()),
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: epoch {} stage {} ", self.sequence, self.epoch, self.stage)?;
        self.operation.fmt(f)?;
        for (what, digest) in [("input", self.input), ("output", self.output), ("state", self.state)] {
            if let Some(digest) = digest {
                write!(f, ", {what} {}", digest.short())?;
            }
        }
        if let Some(loss) = self.loss_nats() {
            write!(f, ", loss {loss:.4}")?;
        }
        if self.outcome != Outcome::Ok {
            write!(f, ", {}", self.outcome.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal { operations } => write!(f, "equal in {operations} operations"),
            Self::Unequal { sequence, what, expected, found } => {
                let (found, expected) = (brief(found), brief(expected));
                write!(f, "unequal: {what} of receipt {sequence} is {found}, the replay gives {expected}")
            }
            Self::Withheld { digest } => write!(f, "withheld: object {} is not in the store", digest.short()),
            Self::Inconsistent { why } => write!(f, "inconsistent: {why}"),
        }
    }
}

fn names<'a>(f: &mut fmt::Formatter<'_>, mut nodes: impl Iterator<Item = &'a NodeId>) -> fmt::Result {
    nodes.try_for_each(|node| write!(f, " {}", node.short()))
}

/// Digests by their first digits, everything else as it is.
fn brief(value: &str) -> String {
    value.parse().map_or_else(|_| value.to_owned(), |digest: Digest| digest.short())
}
