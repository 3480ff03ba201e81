//! Coming in: hello, the seat, the first weights.

use crate::effect::Task;
use crate::epoch::{Epoch, Job};
use crate::machine::Miner;
use serde::Serialize;
use spec::{Digest, NodeId, Operation, Outcome, Run, StageKind};
use std::collections::BTreeSet;
use wire::{Manifest, Message, ObjectRef, Receipt, Role, Signed, StageRecord, Verb, Welcome};

/// The stage that the miner holds, of which run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seat {
    pub run: Run,
    pub run_id: Digest,
    pub stage: u16,
    pub kind: StageKind,
    /// The last committed manifest.
    pub manifest: Signed<Manifest>,
    /// Objects to fetch before the stage can be adopted.
    pub missing: BTreeSet<Digest>,
    /// Digest of the weights that the engine holds; `None` before the first adoption.
    pub weights: Option<Digest>,
    /// The epoch whose merge gave them, until that is known to be what the manifest names.
    pub merged: Option<u32>,
}

/// What a miner of a stage must hold to stand where a manifest's epoch begins.
fn objects(record: &StageRecord) -> impl Iterator<Item = ObjectRef> + use<> {
    [Some(record.weights), record.momentum].into_iter().flatten()
}

/// Epochs for which a window's references can be said again.
const TOLD_EPOCHS: u32 = 8;

impl Seat {
    /// What the manifest says of this stage.
    pub fn record(&self) -> Option<&StageRecord> {
        self.manifest.body.stages.get(usize::from(self.stage))
    }

    /// Whether the engine stands where the epoch of a manifest begins, and nothing has to be fetched: it adopted just that, or came
    /// there by its own merge and is named for it.
    fn stands_at(&self, stage: u16, manifest: &Signed<Manifest>, me: NodeId) -> bool {
        let record = manifest.body.stages.get(usize::from(stage));
        let Some(record) = record.filter(|record| Some(record.weights.digest) == self.weights) else {
            return false;
        };
        self.stage == stage
            && match self.merged {
                None => self.manifest == *manifest,
                Some(epoch) => {
                    let follows = manifest.body.previous == self.manifest.digest();
                    follows && epoch + 1 == manifest.body.epoch && record.miners.contains(&me)
                }
            }
    }

    /// Whether an audit may start from a state that a receipt binds.
    pub fn is_audited(&self) -> bool {
        self.run.audit.windows > 0
    }
}

impl Miner {
    pub(crate) fn greet(&mut self) {
        self.state.waits.back();
        self.state.waits.greeted(self.now_ms);
        let hello = self.config.hello(Role::Miner, self.state.seat.is_some());
        self.send(hello);
    }

    pub(crate) fn take_seat(&mut self, welcome: Welcome) {
        if !self.state.waits.welcomed() {
            return self.note("the orchestrator said welcome twice, the second is ignored".into());
        }
        let run_id = match self.config.check_welcome(Role::Miner, &welcome) {
            Ok(run_id) => run_id,
            Err(error) => return self.leave(error.to_string()),
        };
        self.say_where_it_is_reached();
        if self.state.seat.is_some() {
            return self.resume(&welcome);
        }
        let Welcome { run, stage, manifest, chain } = welcome;
        let place = stage.and_then(|stage| Some((stage, run.model.stage(usize::from(stage))?.kind)));
        // `check_welcome` has seen that the stage exists.
        let Some((stage, kind)) = place else { return };
        let mut wanted: Vec<ObjectRef> =
            manifest.body.stages.get(usize::from(stage)).into_iter().flat_map(objects).collect();
        if kind.embeds() || kind.judges() {
            wanted.push(ObjectRef::train(&run.data));
        }
        let missing = wanted.iter().map(|object| object.digest).collect();
        // A miner that was started again goes on with the chain that the orchestrator has of it.
        self.state.chain = chain;
        self.state.seat =
            Some(Seat { run, run_id, stage, kind, manifest, missing, weights: None, merged: None });
        for object in wanted {
            self.ask(Verb::Get, object);
        }
    }

    pub(crate) fn is_token_shard(&self, digest: Digest) -> bool {
        self.state.seat.as_ref().is_some_and(|seat| seat.run.data.train == digest)
    }

    /// An object is here: whether it was waited for.
    pub(crate) fn adopt_when_loaded(&mut self, fetched: Digest) -> bool {
        let Some(seat) = &mut self.state.seat else { return false };
        let was_missing = seat.missing.remove(&fetched);
        if !was_missing || !seat.missing.is_empty() {
            return was_missing;
        }
        let Some(record) = seat.record() else { return true };
        let (weights, momentum) = (record.weights.digest, record.momentum.map(|momentum| momentum.digest));
        let (run, stage, epoch) = (seat.run.clone(), seat.stage, seat.manifest.body.epoch);
        let task = Task::Adopt { run, stage, epoch, manifest: seat.manifest.digest(), weights, momentum };
        self.compute(Job::Adopt { weights, momentum }, task);
        true
    }

    pub(crate) fn adopted(&mut self, weights: Digest, momentum: Option<Digest>) {
        self.release(weights);
        if let Some(momentum) = momentum {
            self.release(momentum);
        }
        let Some(seat) = &mut self.state.seat else { return };
        (seat.weights, seat.merged) = (Some(weights), None);
        let epoch = seat.manifest.body.epoch;
        self.stand_at(epoch);
    }

    /// Stands where an epoch begins, and says so.
    fn stand_at(&mut self, epoch: u32) {
        self.state.ready = Some(epoch);
        self.say_ready();
    }

    pub(crate) fn say_ready(&mut self) {
        if let Some(epoch) = self.state.ready {
            self.send(Message::Ready { epoch, turn: self.state.turn });
        }
    }

    /// Stands where the epoch of this manifest begins, whatever was done of it, before it or after it: who leads takes
    /// everybody back where work that others stand on was convicted.
    /// It may be another stage than before, where nobody else holds that any more.
    pub(crate) fn adopt(&mut self, stage: u16, manifest: Signed<Manifest>) {
        let Some(seat) = &mut self.state.seat else {
            return self
                .note("the orchestrator told a manifest to adopt before it gave a seat, ignored".into());
        };
        if let Err(error) = self.config.check_manifest(seat.run_id, &manifest) {
            return self.leave(error.to_string());
        }
        let epoch = manifest.body.epoch;
        if manifest.body.stages.len() != seat.run.model.stage_count() {
            return self
                .note(format!("a manifest of epoch {epoch} to adopt is of another stage cut, ignored"));
        }
        let Some(shape) = seat.run.model.stage(usize::from(stage)) else {
            return self.leave(format!("the orchestrator gives this miner stage {stage}, past the tail"));
        };
        // Whoever has worked since does not stand there any more, even where the weights are the same.
        let stands = self.state.epoch.is_none() && seat.stands_at(stage, &manifest, self.config.key.id());
        seat.manifest = manifest;
        // What was on its way for another manifest is not waited for; the token shard serves all.
        let tokens = ObjectRef::train(&seat.run.data);
        seat.missing.retain(|missing| *missing == tokens.digest);
        let moves = seat.stage != stage;
        if moves {
            (seat.stage, seat.kind) = (stage, shape.kind);
        }
        let reads = seat.kind.embeds() || seat.kind.judges();
        let unread = moves && reads && seat.missing.is_empty() && !self.state.table.holds(tokens.digest);
        let wanted = seat.record().into_iter().flat_map(objects).chain(unread.then_some(tokens));
        let wanted: Vec<ObjectRef> = wanted.collect();
        self.abandon(epoch);
        let Some(seat) = &mut self.state.seat else { return };
        seat.merged = None;
        if stands {
            return self.stand_at(epoch);
        }
        seat.weights = None;
        seat.missing.extend(wanted.iter().map(|object| object.digest));
        for object in wanted {
            self.ask(Verb::Get, object);
        }
    }

    /// Drops everything that belongs to the epoch in hand; windows from `epoch` on are not drawn as they are.
    pub(crate) fn abandon(&mut self, epoch: u32) {
        self.end_merge();
        let mut blocks: Vec<Digest> = self.state.epoch.take().iter().flat_map(Epoch::blocks).collect();
        blocks.extend(std::mem::take(&mut self.state.early).into_values().map(|early| early.block.digest));
        blocks.extend(std::mem::take(&mut self.state.early_parts).into_values().map(|early| early.block()));
        for (ticket, job) in std::mem::take(&mut self.state.jobs) {
            self.state.abandoned.insert(ticket);
            blocks.extend(job.holds());
        }
        let stale: Vec<_> = self.state.kept.keys().filter(|window| window.epoch >= epoch).copied().collect();
        for window in stale {
            for digest in self.state.kept.remove(&window).iter().flat_map(|kept| kept.digests()) {
                self.state.waits.transferred(Verb::Put, digest);
                blocks.push(digest);
            }
        }
        for block in blocks {
            self.release(block);
        }
        self.reveal_next();
        self.state.told.retain(|window, _| window.epoch < epoch);
        self.used_before(u32::MAX);
        self.state.ready = None;
    }

    pub(crate) fn open(&mut self, manifest: Signed<Manifest>) {
        let held = self.state.seat.as_ref().is_some_and(|seat| seat.manifest == manifest);
        if held && self.state.ready.is_none() && (self.state.epoch.is_some() || self.state.merging.is_some())
        {
            // Said again after a connection was lost.
            return;
        }
        match self.check_open(&manifest) {
            Ok(epoch) => self.state.epoch = Some(epoch),
            Err(why) => return self.leave(why),
        }
        self.end_merge();
        self.drop_stale(manifest.body.epoch);
        self.drop_settled(manifest.body.epoch);
        self.used_before(u32::MAX);
        self.state.given.clear();
        self.state.ready = None;
        self.state.told.retain(|window, _| window.epoch + TOLD_EPOCHS >= manifest.body.epoch);
        let (epoch, digest) = (manifest.body.epoch, manifest.digest());
        if let Some(seat) = &mut self.state.seat {
            seat.manifest = manifest;
        }
        self.compute(Job::Keep, Task::Keep { epoch, manifest: digest });
    }

    fn check_open(&self, manifest: &Signed<Manifest>) -> Result<Epoch, String> {
        let Some(seat) = &self.state.seat else {
            return Err("the orchestrator opened an epoch before it gave a seat".into());
        };
        self.config.check_manifest(seat.run_id, manifest).map_err(|error| error.to_string())?;
        let (body, held) = (&manifest.body, &seat.manifest);
        let follows = body.epoch == held.body.epoch.saturating_add(1) && body.previous == held.digest();
        if manifest.digest() != held.digest() && !follows || self.state.epoch.is_some() {
            return Err(format!(
                "the orchestrator opened epoch {} with a manifest that does not follow that of epoch {}",
                body.epoch, held.body.epoch
            ));
        }
        let named = body.stages.get(usize::from(seat.stage)).map(|record| record.weights.digest);
        if named.is_none() || named != seat.weights {
            return Err(format!(
                "epoch {} opens with weights that this miner does not hold: start it again to fetch them",
                body.epoch
            ));
        }
        Ok(Epoch::new(body.epoch))
    }

    /// Signs the next receipt of the chain and sends it.
    pub(crate) fn give_receipt(
        &mut self,
        epoch: u32,
        operation: Operation,
        [input_receipt, input]: [Option<Digest>; 2],
        [output, state]: [Option<Digest>; 2],
        loss_q32: Option<i64>,
        outcome: Outcome,
    ) -> Option<Signed<Receipt>> {
        let seat = self.state.seat.as_ref()?;
        let body = Receipt {
            run: seat.run_id,
            mode: seat.run.mode,
            epoch,
            sequence: self.state.chain.next,
            previous: self.state.chain.last,
            stage: seat.stage,
            operation,
            state,
            input_receipt,
            input,
            output,
            loss_q32,
            outcome,
        };
        self.state.chain = wire::Chain::after(&body);
        let receipt = Signed::new(body, &self.config.key);
        self.state.given.push(receipt.clone());
        // Until the welcome says which of them are missing, one more would leave a gap.
        if !self.state.waits.is_greeting() {
            self.send(Message::Receipt(receipt.clone()));
        }
        Some(receipt)
    }
}
