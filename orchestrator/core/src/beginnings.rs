//! Where a miner stands when it begins an epoch: in the state that its own merge came to, or in the fresh one.
//!
//! The first is known by digest, from the receipt of the merge. Every other is said to be the fresh one, the manifest's weights and
//! outer momentum with moments, residual and step count of zero: a validator builds that and compares. Nobody need reveal anything.

use crate::audit::Pending;
use crate::machine::Orchestrator;
use spec::{NodeId, Window};
use std::collections::BTreeMap;
use wire::{Receipt, Signed};

impl Orchestrator {
    /// A miner's first receipt of the open epoch binds the state that it began with: unless its merge came to that, a validator looks.
    pub(crate) fn look_at_beginning(&mut self, from: NodeId, receipt: &Signed<Receipt>) {
        let Some(epoch) = self.state.epoch.as_ref().filter(|_| self.config.run.audit.windows > 0) else {
            return;
        };
        let (number, manifest) = (epoch.number, epoch.opened_with.clone());
        let merge = self.state.past.get(&number).and_then(|past| past.merges.get(&from));
        // In another stage than it merged in, nothing that it signed says where it stands.
        let merge = merge.filter(|merge| merge.body.stage == receipt.body.stage).cloned();
        if merge.as_ref().is_some_and(|merge| merge.body.state == receipt.body.state) {
            return;
        }
        let Some(record) = manifest.body.stages.get(usize::from(receipt.body.stage)) else { return };
        let pending = Pending::beginning(record, receipt, merge, self.now_ms);
        let audited = self.audited(number, manifest);
        audited.pending.insert((from, Window::BEGINNING), pending);
        self.order_audits();
    }

    /// An epoch is committed: the receipts of those whom its manifest names say where each of them stands.
    pub(crate) fn remember_merges(&mut self, merges: BTreeMap<NodeId, Signed<Receipt>>) {
        if let Some(past) = self.state.past.get_mut(&self.state.manifest.body.epoch) {
            past.merges = merges;
        }
    }
}
