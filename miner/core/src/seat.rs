//! Coming in: hello, the seat, the first weights.

use crate::effect::Task;
use crate::epoch::{Epoch, Job};
use crate::machine::Miner;
use serde::Serialize;
use spec::{Digest, Operation, Outcome, Run, StageKind};
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
}

impl Seat {
    /// What the manifest says of this stage.
    pub fn record(&self) -> Option<&StageRecord> {
        self.manifest.body.stages.get(usize::from(self.stage))
    }
}

impl Miner {
    pub(crate) fn greet(&mut self) {
        self.state.waits.greeted(self.now_ms);
        let hello = self.config.hello(Role::Miner);
        self.send(hello);
    }

    pub(crate) fn take_seat(&mut self, welcome: Welcome) {
        if !self.state.waits.welcomed() || self.state.seat.is_some() {
            return self.note("the orchestrator said welcome twice, the second is ignored".into());
        }
        let run_id = match self.config.check_welcome(Role::Miner, &welcome) {
            Ok(run_id) => run_id,
            Err(error) => return self.leave(error.to_string()),
        };
        let Welcome { run, stage, manifest } = welcome;
        let place = stage.and_then(|stage| Some((stage, run.model.stage(usize::from(stage))?.kind)));
        // `check_welcome` has seen that the stage exists.
        let Some((stage, kind)) = place else { return };
        let mut wanted: Vec<ObjectRef> =
            manifest.body.stages.get(usize::from(stage)).map(|record| record.weights).into_iter().collect();
        if kind.embeds() || kind.judges() {
            wanted.push(ObjectRef::train(&run.data));
        }
        let missing = wanted.iter().map(|object| object.digest).collect();
        self.state.seat = Some(Seat { run, run_id, stage, kind, manifest, missing, weights: None });
        for object in wanted {
            self.ask(Verb::Get, object);
        }
    }

    pub(crate) fn adopt_when_loaded(&mut self, fetched: Digest) {
        let Some(seat) = &mut self.state.seat else { return };
        let was_missing = seat.missing.remove(&fetched);
        if !was_missing || !seat.missing.is_empty() {
            return;
        }
        let Some(weights) = seat.record().map(|record| record.weights.digest) else { return };
        let task = Task::Adopt { run: seat.run.clone(), stage: seat.stage, weights };
        self.compute(Job::Adopt { weights }, task);
    }

    pub(crate) fn adopted(&mut self, weights: Digest) {
        self.release(weights);
        let Some(seat) = &mut self.state.seat else { return };
        seat.weights = Some(weights);
        let epoch = seat.manifest.body.epoch;
        self.send(Message::Ready { epoch });
    }

    pub(crate) fn open(&mut self, manifest: Signed<Manifest>) {
        match self.check_open(&manifest) {
            Ok(epoch) => self.state.epoch = Some(epoch),
            Err(why) => return self.leave(why),
        }
        self.end_merge();
        self.drop_stale(manifest.body.epoch);
        if let Some(seat) = &mut self.state.seat {
            seat.manifest = manifest;
        }
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
        self.send(Message::Receipt(receipt.clone()));
        Some(receipt)
    }
}
