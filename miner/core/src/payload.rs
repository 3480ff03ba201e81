//! Payloads: who sent them, what was signed about them, and where they belong.

use crate::machine::Miner;
use crate::seat::Seat;
use serde::Serialize;
use spec::{Digest, Member, NodeId, Operation};
use std::collections::BTreeMap;
use wire::{Assignment, ObjectRef, PayloadHead, PayloadKind};

/// A payload that may be used: its block, and what its sender signed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Arrived {
    pub block: ObjectRef,
    /// Digest of the sender's receipt.
    pub receipt: Digest,
    pub signer: NodeId,
    /// The epoch it belongs to.
    pub epoch: u32,
    /// The work as the sender's stage saw it; `None` for what this miner made itself.
    pub member: Option<Member>,
}

impl Miner {
    pub(crate) fn take_payload(&mut self, head: PayloadHead, block: ObjectRef) {
        self.state.table.hold(block.digest);
        let Some(seat) = &self.state.seat else {
            self.release(block.digest);
            return self
                .note(format!("a payload of {} came before a seat, dropped", head.receipt.signer.short()));
        };
        match check(seat, &head, block) {
            Ok(arrived) => self.place(&head, arrived),
            Err(why) => self.refuse(head.receipt.signer, block.digest, why),
        }
    }

    /// An epoch opens: what came early for those before it will not be asked for.
    pub(crate) fn drop_stale(&mut self, epoch: u32) {
        let early = std::mem::take(&mut self.state.early);
        let (kept, stale) = early.into_iter().partition(|(_, arrived)| arrived.epoch >= epoch);
        self.state.early = kept;
        for arrived in BTreeMap::into_values(stale) {
            self.release(arrived.block.digest);
        }
    }

    /// The assignment is known now: looks for payloads that came before it.
    pub(crate) fn take_early(&mut self, id: u64) {
        for kind in [PayloadKind::Activation, PayloadKind::Gradient] {
            if let Some(arrived) = self.state.early.remove(&(id, kind)) {
                self.deliver(id, kind, arrived);
            }
        }
    }

    fn place(&mut self, head: &PayloadHead, arrived: Arrived) {
        let (id, kind, signer) = (head.assignment, head.kind, arrived.signer);
        let epoch = self.state.epoch.as_ref();
        if let (Some(seat), Some(assignment)) =
            (&self.state.seat, epoch.and_then(|epoch| epoch.assignment(id)))
            && !is_ahead(seat, assignment, kind, &arrived)
        {
            return self.deliver(id, kind, arrived);
        }
        let number = arrived.epoch;
        let opened = self.state.seat.as_ref().map_or(0, |seat| seat.manifest.body.epoch);
        let past = number < opened || epoch.is_some_and(|epoch| number == epoch.number && epoch.is_past(id));
        let (members, early_steps_max) = self.state.seat.as_ref().map_or((0, 0), |seat| {
            let of_all_lanes = usize::from(seat.run.inner.members) * usize::from(seat.run.miners_per_stage);
            (of_all_lanes, PAYLOADS * usize::try_from(seat.run.steps_ahead()).unwrap_or(usize::MAX))
        });
        if past && arrived.member.is_some_and(|member| member.attempt > 0) {
            // What the miner before this one sent was used.
            self.release(arrived.block.digest);
        } else if past {
            self.refuse(signer, arrived.block.digest, "belongs to an inner step that is over");
        } else if self.state.early.contains_key(&(id, kind)) {
            self.refuse(signer, arrived.block.digest, "came twice");
        } else if self.state.early.len() >= early_steps_max * members {
            self.refuse(signer, arrived.block.digest, "came too far ahead of its assignment");
        } else {
            self.state.early.insert((id, kind), arrived);
        }
    }

    fn deliver(&mut self, id: u64, kind: PayloadKind, arrived: Arrived) {
        let (signer, block) = (arrived.signer, arrived.block.digest);
        let (Some(seat), Some(epoch)) = (&self.state.seat, &mut self.state.epoch) else {
            return self.release(block);
        };
        let Some(assignment) = epoch.assignment(id) else { return self.release(block) };
        let amended = assignment.route.iter().any(|slot| slot.attempt > 0);
        let expected = comes_from_neighbour(seat, assignment, kind, &arrived);
        if expected && epoch.deliver(id, kind, arrived) {
            return;
        }
        match expected {
            // Two miners had one share: of what both sent, the first to come is used.
            _ if amended => self.release(block),
            true => self.refuse(signer, block, "came twice"),
            false => self.refuse(signer, block, "does not come from the neighbour on the route"),
        }
    }

    fn refuse(&mut self, signer: NodeId, block: Digest, why: &str) {
        self.release(block);
        self.note(format!("refused payloads of {}: one {why}", signer.short()));
    }
}

/// Payloads of an assignment. Orchestrator and neighbours reach this miner by different ways, so as many are kept before their
/// assignments came as are handed out ahead.
const PAYLOADS: usize = 2;

/// What can be checked without the assignment.
fn check(seat: &Seat, head: &PayloadHead, block: ObjectRef) -> Result<Arrived, &'static str> {
    let receipt = head.receipt.verify().map_err(|_| "has a signature that does not hold")?;
    if receipt.run != seat.run_id || receipt.mode != seat.run.mode {
        return Err("belongs to another run");
    }
    if receipt.output != Some(block.digest) {
        return Err("is not the block that its receipt binds");
    }
    let member = match (head.kind, &receipt.operation) {
        (PayloadKind::Activation, Operation::Forward(member))
        | (PayloadKind::Gradient, Operation::Backward(member)) => *member,
        _ => return Err("has a receipt of another operation"),
    };
    if neighbour(seat, head.kind) != Some(receipt.stage) {
        return Err("does not come from a neighbouring stage");
    }
    if (member.assignment, member.attempt) != (head.assignment, head.attempt) {
        return Err("has a receipt of another assignment");
    }
    let (signer, epoch, receipt) = (head.receipt.signer, receipt.epoch, head.receipt.digest());
    Ok(Arrived { block, receipt, signer, epoch, member: Some(member) })
}

/// Whether somebody sent this in the place of another that this miner still waits for: the amendment is on its way.
fn is_ahead(seat: &Seat, assignment: &Assignment, kind: PayloadKind, arrived: &Arrived) -> bool {
    let slot = neighbour(seat, kind).and_then(|stage| assignment.route.get(usize::from(stage)));
    let attempt = arrived.member.map_or(0, |member| member.attempt);
    slot.is_some_and(|slot| attempt > slot.attempt)
}

fn comes_from_neighbour(seat: &Seat, assignment: &Assignment, kind: PayloadKind, arrived: &Arrived) -> bool {
    let Some(stage) = neighbour(seat, kind).map(usize::from) else { return false };
    let slot = assignment.route.get(stage);
    slot.is_some_and(|slot| slot.miner == arrived.signer)
        && assignment.epoch == arrived.epoch
        && assignment.member(stage) == arrived.member
}

/// The stage that payloads of this kind come from.
fn neighbour(seat: &Seat, kind: PayloadKind) -> Option<u16> {
    match kind {
        PayloadKind::Activation => seat.stage.checked_sub(1),
        PayloadKind::Gradient => {
            let next = seat.stage.checked_add(1)?;
            (usize::from(next) < seat.run.model.stage_count()).then_some(next)
        }
    }
}
