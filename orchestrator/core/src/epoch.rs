//! The inner steps of an epoch: assignments out, receipts in.

use crate::effect::Report;
use crate::machine::{Orchestrator, Phase};
use crate::merge::StageMerge;
use serde::Serialize;
use spec::{Digest, Member, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Assignment, Manifest, Message, ObjectRef, Receipt, Signed, Slot};

/// Inner steps handed out at a time: the one in work and the one that fills the pipeline after it.
const STEPS_AHEAD: u32 = 2;

/// An epoch from its opening until its successor opens.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Epoch {
    pub number: u32,
    /// The manifest it opened with.
    pub opened_with: Signed<Manifest>,
    /// The miners of each lane, head first.
    pub routes: Vec<Vec<NodeId>>,
    /// Steps handed out, by lane.
    handed_out: Vec<u32>,
    /// Microbatches that some stage has not folded.
    pub live: BTreeMap<u64, Tracked>,
    pub miners: BTreeMap<NodeId, Progress>,
    /// Inner steps that every miner has taken.
    pub stepped: u32,
    loss_q32_sum: i128,
    pub losses: u64,
    /// By stage, once the last step is taken.
    pub merges: Vec<StageMerge>,
}

/// A microbatch on its way.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tracked {
    pub assignment: Assignment,
    /// What each stage's forward receipt says.
    pub forward: Vec<Option<Leg>>,
    /// What each stage's backward receipt says.
    pub backward: Vec<Option<Leg>>,
}

/// What a receipt says of what came in and what went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Leg {
    pub receipt: Digest,
    pub input_receipt: Option<Digest>,
    pub input: Option<Digest>,
    pub output: Option<Digest>,
}

impl Leg {
    pub fn of(receipt: &Signed<Receipt>) -> Self {
        let Receipt { input_receipt, input, output, .. } = receipt.body;
        Self { receipt: receipt.digest(), input_receipt, input, output }
    }
}

/// What one miner has done in the epoch.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Progress {
    /// Its receipts of the epoch, in order.
    pub receipts: Vec<Signed<Receipt>>,
    /// Inner steps taken.
    pub steps: u32,
    /// Backwards folded since the last step.
    pub folded: Vec<Member>,
}

impl Epoch {
    /// Whether a miner is to put these weights into the store.
    pub fn may_keep(&self, miner: NodeId, stage: u16, object: ObjectRef) -> bool {
        self.merges.get(usize::from(stage)).is_some_and(|merge| merge.may_keep(miner, object))
    }

    /// Whether an owner named this object as a piece of a shard that is added up again.
    pub fn may_disclose(&self, miner: NodeId, object: ObjectRef) -> bool {
        let disputes = self.merges.iter().flat_map(|merge| merge.disputes.values());
        disputes.into_iter().any(|dispute| dispute.names(miner, object))
    }

    /// Whether a validator was asked to add this object up.
    pub fn may_add_up(&self, validator: NodeId, object: ObjectRef) -> bool {
        let disputes = self.merges.iter().flat_map(|merge| merge.disputes.values());
        disputes.into_iter().any(|dispute| dispute.ordered_to(validator, object))
    }

    /// Mean loss in 2^-32 nats per token.
    pub fn loss_q32(&self) -> Option<i64> {
        let mean = self.loss_q32_sum.checked_div(i128::from(self.losses))?;
        i64::try_from(mean).ok()
    }

    pub fn add_loss(&mut self, loss_q32: i64) {
        self.loss_q32_sum += i128::from(loss_q32);
        self.losses += 1;
    }
}

impl Orchestrator {
    /// Whether every seat is taken and ready, but for those that the others go on without, every stage has a miner,
    /// and the validators are there.
    pub(crate) fn is_gathered(&self) -> bool {
        let (seats, due) = (&self.state.seats, self.state.manifest.body.epoch);
        // Once the run has begun, only a conviction frees a seat, and the others go on.
        let full = seats.miners().count() == seats.lanes() * self.config.run.model.stage_count();
        let taken = full || !matches!(self.state.phase, Phase::Gathering { .. });
        let ready = seats.miners().all(|seat| seat.away || seat.lost.is_none() && seat.ready == Some(due));
        let validators = seats.validators_present().count();
        let enough = validators >= usize::from(self.config.validators);
        taken && ready && enough && !seats.routes(due).is_empty()
    }

    pub(crate) fn open_epoch(&mut self) {
        let manifest = self.state.manifest.clone();
        let number = manifest.body.epoch;
        let routes = self.state.seats.routes(number);
        let miners: BTreeSet<NodeId> = routes.iter().flatten().copied().collect();
        for &miner in &miners {
            self.send(miner, Message::Open(manifest.clone()));
        }
        self.report(Report::Opened { epoch: number });
        self.state.phase = Phase::Working;
        self.state.epoch = Some(Epoch {
            number,
            opened_with: manifest,
            handed_out: vec![0; routes.len()],
            routes,
            live: BTreeMap::new(),
            miners: miners.into_iter().map(|miner| (miner, Progress::default())).collect(),
            stepped: 0,
            loss_q32_sum: 0,
            losses: 0,
            merges: Vec::new(),
        });
        self.progressed();
        self.hand_out();
    }

    /// Hands out steps to every lane that has room ahead.
    pub(crate) fn hand_out(&mut self) {
        for lane in 0..self.lanes() {
            while let Some(step) = self.next_step_of(lane) {
                self.hand_out_step(lane, step);
            }
        }
    }

    /// Reports inner steps that every miner has taken, and forgets their microbatches.
    pub(crate) fn report_steps(&mut self) {
        let Some(epoch) = &mut self.state.epoch else { return };
        let taken = epoch.miners.values().map(|progress| progress.steps).min().unwrap_or(0);
        let (number, reported) = (epoch.number, epoch.stepped);
        if taken == reported {
            return;
        }
        epoch.stepped = taken;
        epoch.live.retain(|_, tracked| tracked.assignment.route.iter().any(|slot| slot.step >= taken));
        let members = u64::from(self.config.run.inner.members) * self.lanes() as u64;
        let tokens = self.config.run.microbatch_tokens() * members;
        for step in reported..taken {
            self.report(Report::Stepped { epoch: number, step, tokens });
        }
        if taken == self.config.run.epoch.steps {
            self.order_merge();
        }
    }

    /// Routes of the epoch.
    fn lanes(&self) -> usize {
        self.state.epoch.as_ref().map_or(0, |epoch| epoch.routes.len())
    }

    fn next_step_of(&self, lane: usize) -> Option<u32> {
        let epoch = self.state.epoch.as_ref()?;
        let route = epoch.routes.get(lane)?;
        let taken =
            route.iter().filter_map(|miner| epoch.miners.get(miner)).map(|progress| progress.steps).min()?;
        let step = *epoch.handed_out.get(lane)?;
        (step < self.config.run.epoch.steps && step < taken.saturating_add(STEPS_AHEAD)).then_some(step)
    }

    fn hand_out_step(&mut self, lane: usize, step: u32) {
        let (members, lanes) = (u64::from(self.config.run.inner.members), self.lanes() as u64);
        let Some(epoch) = &mut self.state.epoch else { return };
        let Some(miners) = epoch.routes.get(lane).cloned() else { return };
        let mut assignments = Vec::new();
        for position in 0..self.config.run.inner.members {
            // Microbatches go round the lanes, so that none is left out and none is given twice.
            let turn = u64::from(step) * members + u64::from(position);
            let assignment = Assignment {
                id: self.state.next_assignment,
                attempt: 0,
                epoch: epoch.number,
                microbatch: turn * lanes + lane as u64,
                route: miners.iter().map(|&miner| Slot { miner, step, position }).collect(),
            };
            self.state.next_assignment += 1;
            let none = vec![None; miners.len()];
            let tracked = Tracked { assignment: assignment.clone(), forward: none.clone(), backward: none };
            epoch.live.insert(assignment.id, tracked);
            assignments.push(assignment);
        }
        epoch.handed_out[lane] = step + 1;
        for assignment in assignments {
            for &miner in &miners {
                self.send(miner, Message::Assign(assignment.clone()));
            }
        }
    }
}
