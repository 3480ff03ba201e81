//! After a connection is lost: calling again, and saying again what may not have arrived.

use crate::effect::Effect;
use crate::machine::Miner;
use serde::Serialize;
use spec::{Digest, NodeId};
use wire::{Message, PayloadHead, PayloadKind, Round, Welcome};

/// A payload that its receiver may not have.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sent {
    to: NodeId,
    head: PayloadHead,
    block: Digest,
    /// The inner step of this miner that it belongs to.
    step: u32,
    /// Whether its receiver has used it. Whoever stands in for the receiver would still need it.
    used: bool,
}

impl Miner {
    pub(crate) fn disconnected(&mut self, why: &str) {
        match self.state.waits.lost(self.now_ms, &self.config) {
            Ok(after_ms) => self.emit(Effect::CallAgain { after_ms }),
            Err(gone_s) => self.exit(Err(format!(
                "the connection to the orchestrator has been gone for {gone_s} s ({why}): check that it runs, then start the miner again"
            )
            .into())),
        }
    }

    /// Takes up its seat again: everything that the orchestrator or a neighbour may have missed is said again.
    pub(crate) fn resume(&mut self, welcome: &Welcome) {
        let same = self
            .state
            .seat
            .as_ref()
            .is_some_and(|seat| seat.run_id == welcome.run.id() && Some(seat.stage) == welcome.stage);
        let given = &self.state.given;
        let from = given.iter().position(|receipt| receipt.body.sequence == welcome.chain.next);
        let whole = from.is_some() || welcome.chain == self.state.chain;
        if !same || !whole {
            return self.leave(
                "the orchestrator gave this miner's seat away while it was gone: start it again".into(),
            );
        }
        let missed: Vec<_> = from.map(|from| given[from..].to_vec()).unwrap_or_default();
        for receipt in missed {
            self.send(Message::Receipt(receipt));
        }
        // Named before they are asked for, else the requests are refused.
        self.disclose_again();
        for ask in self.state.waits.ask_again(self.now_ms) {
            self.send(ask);
        }
        self.say_ready();
        self.say_merge_again();
        self.send_again(None);
    }

    /// Sends again what a neighbour that was gone may have missed; to everyone where none is named.
    pub(crate) fn send_again(&mut self, to: Option<NodeId>) {
        let due = |sent: &&Sent| !sent.used && to.is_none_or(|to| sent.to == to);
        let again: Vec<Sent> = self.state.sent.values().filter(due).cloned().collect();
        for Sent { to, head, block, .. } in again {
            self.emit(Effect::SendPayload { to, head, block });
        }
        self.send_parts_again(to);
    }

    /// Sends a payload, and keeps it until it is known to have been used.
    pub(crate) fn send_payload(&mut self, to: NodeId, head: PayloadHead, block: Digest, step: u32) {
        self.state.table.hold(block);
        let key = (head.assignment, head.kind);
        if let Some(before) =
            self.state.sent.insert(key, Sent { to, head: head.clone(), block, step, used: false })
        {
            self.release(before.block);
        }
        self.emit(Effect::SendPayload { to, head, block });
    }

    /// The gradient of an assignment came back: its activation was used.
    pub(crate) fn activation_used(&mut self, assignment: u64) {
        if let Some(sent) = self.state.sent.get_mut(&(assignment, PayloadKind::Activation)) {
            sent.used = true;
        }
    }

    /// Somebody else does the neighbouring share of an assignment now: what was sent goes there again, and what is not
    /// computed yet will.
    pub(crate) fn send_instead(&mut self, assignment: u64, kind: PayloadKind, to: NodeId) {
        for job in self.state.jobs.values_mut() {
            job.redirect(assignment, kind, to);
        }
        let Some(sent) = self.state.sent.get_mut(&(assignment, kind)).filter(|sent| sent.to != to) else {
            return;
        };
        (sent.to, sent.used) = (to, false);
        let (head, block) = (sent.head.clone(), sent.block);
        self.emit(Effect::SendPayload { to, head, block });
    }

    /// Whatever was sent in inner steps before `step` was used.
    pub(crate) fn used_before(&mut self, step: u32) {
        let sent = std::mem::take(&mut self.state.sent);
        let (used, kept) = sent.into_iter().partition(|(_, sent)| sent.step < step);
        self.state.sent = kept;
        for sent in std::collections::BTreeMap::into_values(used) {
            self.release(sent.block);
        }
    }

    fn say_merge_again(&mut self) {
        let Some(merging) = &self.state.merging else { return };
        let (epoch, result, kept) = (merging.epoch(), merging.said(), merging.is_kept());
        let rounds: Vec<Round> = merging.rounds().collect();
        for round in rounds {
            self.send(Message::Holding { epoch, round });
        }
        if let Some((merged, weights)) = result {
            self.send(Message::Merged(merged));
            if kept {
                self.send(Message::Kept(weights));
            }
        }
    }
}
