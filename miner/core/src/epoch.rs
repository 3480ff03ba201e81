//! The inner steps of an epoch: what may be done next, and what comes of it.

use crate::effect::Task;
use crate::event::Done;
use crate::machine::Miner;
use crate::merge::MergeJob;
use crate::payload::Arrived;
use crate::seat::Seat;
use serde::Serialize;
use spec::{Digest, Member, NodeId, Operation, Outcome, Window};
use std::collections::BTreeMap;
use wire::{Assignment, ObjectRef, PayloadHead, PayloadKind};

/// What the engine was given to do.
#[derive(Debug, Clone, Serialize)]
pub(crate) enum Job {
    Adopt { weights: Digest, momentum: Option<Digest> },
    Keep,
    Work(Work),
    Merge(MergeJob),
}

impl Job {
    /// What the table holds for this job alone.
    pub fn holds(&self) -> impl Iterator<Item = Digest> {
        let held = match self {
            Self::Adopt { weights, momentum } => [Some(*weights), *momentum],
            Self::Work(work) => [work.input.as_ref().map(|input| input.block.digest), None],
            Self::Merge(job) => [job.holds(), None],
            Self::Keep => [None, None],
        };
        held.into_iter().flatten()
    }
}

/// One operation of an inner step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Work {
    pub operation: Operation,
    pub input: Option<Arrived>,
    /// To whom the output goes.
    pub output_to: Option<(NodeId, PayloadKind)>,
}

impl Work {
    pub fn task(&self, seat: &Seat, epoch: u32) -> Task {
        let keep_state = match self.operation {
            Operation::Step { step, .. } => seat.run.digests_after(step),
            _ => false,
        };
        Task::Perform {
            epoch,
            operation: self.operation.clone(),
            inputs: self.input.iter().map(|input| input.block.digest).collect(),
            keep_state,
            keep_weights: false,
        }
    }

    /// The inner step it belongs to.
    fn step(&self) -> Option<u32> {
        match &self.operation {
            Operation::Forward(member) | Operation::Backward(member) => Some(member.step),
            Operation::Step { step, .. } => Some(*step),
            Operation::Scale | Operation::Encode | Operation::Reduce { .. } | Operation::Apply => None,
        }
    }
}

/// One microbatch on its way through this stage.
#[derive(Debug, Clone, Serialize)]
struct Place {
    assignment: Assignment,
    member: Member,
    activation: Option<Arrived>,
    gradient: Option<Arrived>,
    forward_given: bool,
}

/// An epoch from its opening to its merge. The engine does tasks in the order they are given, so what was
/// given counts as done when the next task is chosen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Epoch {
    pub number: u32,
    /// The inner step whose members are being given to the engine.
    step: u32,
    /// The position whose backward is due: gradients are folded in position order.
    fold: u16,
    /// Inner steps taken.
    pub stepped: u32,
    places: BTreeMap<(u32, u16), Place>,
    by_id: BTreeMap<u64, (u32, u16)>,
}

impl Epoch {
    pub fn new(number: u32) -> Self {
        Self { number, step: 0, fold: 0, stepped: 0, places: BTreeMap::new(), by_id: BTreeMap::new() }
    }

    /// Blocks that wait here for their turn.
    pub fn blocks(&self) -> impl Iterator<Item = Digest> {
        let waiting = self.places.values().flat_map(|place| [&place.activation, &place.gradient]);
        waiting.flatten().map(|arrived| arrived.block.digest)
    }

    /// The assignment with this number, while it is not folded.
    pub fn assignment(&self, id: u64) -> Option<&Assignment> {
        Some(&self.places.get(self.by_id.get(&id)?)?.assignment)
    }

    /// Whether inner step `step` of epoch `epoch` is over for this miner.
    pub fn is_past(&self, epoch: u32, step: u32) -> bool {
        (epoch, step) < (self.number, self.step)
    }

    /// Takes in a payload of a known assignment; `false` if there is or was one already.
    pub fn deliver(&mut self, id: u64, kind: PayloadKind, arrived: Arrived) -> bool {
        let due = (self.step, self.fold);
        let place = self.by_id.get(&id).and_then(|at| Some((*at >= due, self.places.get_mut(at)?)));
        let slot = match (kind, place) {
            (PayloadKind::Activation, Some((_, place))) if !place.forward_given => &mut place.activation,
            (PayloadKind::Gradient, Some((true, place))) => &mut place.gradient,
            _ => return false,
        };
        let free = slot.is_none();
        if free {
            *slot = Some(arrived);
        }
        free
    }

    fn add(&mut self, seat: &Seat, me: NodeId, assignment: Assignment) -> Result<(), String> {
        let stage = usize::from(seat.stage);
        let wrong = |what: &str| Err(format!("assignment {} {what}, ignored", assignment.id));
        let mine = assignment.route.get(stage).is_some_and(|slot| slot.miner == me);
        if assignment.route.len() != seat.run.model.stage_count() || !mine {
            return wrong("does not lead through this miner's stage");
        }
        let Some(member) = assignment.member(stage) else { return wrong("has no such stage") };
        if assignment.epoch != self.number || self.is_past(self.number, member.step) {
            return wrong("comes too late");
        }
        if member.step >= seat.run.epoch.steps || member.position >= seat.run.inner.members {
            return wrong("lies outside the epoch");
        }
        let at = (member.step, member.position);
        if self.places.contains_key(&at) || self.by_id.contains_key(&assignment.id) {
            return wrong("was given before");
        }
        self.by_id.insert(assignment.id, at);
        let place = Place { assignment, member, activation: None, gradient: None, forward_given: false };
        self.places.insert(at, place);
        Ok(())
    }

    /// The next operation that may be given to the engine: the backward that is due, else the step, else
    /// the forward of the lowest position.
    pub fn next_work(&mut self, seat: &Seat) -> Option<Work> {
        if self.step == seat.run.epoch.steps {
            return None;
        }
        let members = seat.run.inner.members;
        if self.fold == members {
            return Some(self.next_step());
        }
        if let Some(place) = self.places.get_mut(&(self.step, self.fold))
            && place.forward_given
            && (seat.kind.judges() || place.gradient.is_some())
        {
            self.fold += 1;
            let operation = Operation::Backward(place.member);
            let to =
                seat.stage.checked_sub(1).and_then(|stage| place.assignment.route.get(usize::from(stage)));
            let output_to = to.map(|slot| (slot.miner, PayloadKind::Gradient));
            return Some(Work { operation, input: place.gradient.take(), output_to });
        }
        let due = self.places.range_mut((self.step, 0)..(self.step, members));
        let ready =
            |place: &&mut Place| !place.forward_given && (seat.kind.embeds() || place.activation.is_some());
        let place = due.map(|(_, place)| place).find(ready)?;
        place.forward_given = true;
        let operation = Operation::Forward(place.member);
        let to = place.assignment.route.get(usize::from(seat.stage) + 1);
        let output_to = to.map(|slot| (slot.miner, PayloadKind::Activation));
        Some(Work { operation, input: place.activation.take(), output_to })
    }

    fn next_step(&mut self) -> Work {
        let step = self.step;
        let later = self.places.split_off(&(step.saturating_add(1), 0));
        let folded = std::mem::replace(&mut self.places, later);
        let members: Vec<Member> = folded.values().map(|place| place.member).collect();
        for member in &members {
            self.by_id.remove(&member.assignment);
        }
        self.step += 1;
        self.fold = 0;
        Work { operation: Operation::Step { step, members }, input: None, output_to: None }
    }
}

impl Miner {
    pub(crate) fn take_assignment(&mut self, assignment: Assignment) {
        let me = self.config.key.id();
        let (Some(seat), Some(epoch)) = (&self.state.seat, &mut self.state.epoch) else {
            return self.note(format!("assignment {} came while no epoch is open, ignored", assignment.id));
        };
        let id = assignment.id;
        let step = assignment.member(usize::from(seat.stage)).map_or(0, |member| member.step);
        match epoch.add(seat, me, assignment) {
            Ok(()) => {
                // Steps are handed out two ahead of the slowest on the route.
                self.used_before(step.saturating_sub(1));
                self.take_early(id);
            }
            Err(why) => self.note(why),
        }
    }

    /// An operation of an inner step is done: receipt, payload, and what may be forgotten.
    pub(crate) fn worked(&mut self, work: Work, done: &Done) {
        let Some(epoch) = self.state.epoch.as_ref().map(|epoch| epoch.number) else { return };
        let due = work.output_to.is_some() && done.outcome == Outcome::Ok;
        if due && done.output.is_none() {
            return self
                .leave(format!("{} gave no payload, which is a bug of this program", work.operation.name()));
        }
        let input = work.input.as_ref();
        let inputs = [input.map(|input| input.receipt), input.map(|input| input.block.digest)];
        let outputs = [done.output, done.state].map(|object| object.map(|object| object.digest));
        let step = work.step();
        let operation = work.operation.clone();
        let receipt = self.give_receipt(epoch, operation, inputs, outputs, done.loss_q32, done.outcome);
        if let (Some(block), Some(receipt)) = (done.output, receipt) {
            self.state.table.hold(block.digest);
            if let (Some((to, kind)), Some(member)) = (work.output_to, member_of(&work.operation)) {
                let (assignment, attempt) = (member.assignment, member.attempt);
                let head = PayloadHead { kind, assignment, attempt, receipt };
                self.send_payload(to, head, block.digest, member.step);
            }
            self.release(block.digest);
        }
        if let Operation::Backward(member) = &work.operation {
            self.activation_used(member.assignment);
        }
        if let (Some(input), Some(step)) = (work.input, step) {
            self.keep_input(Window { epoch, step }, input.block);
        }
        if matches!(work.operation, Operation::Step { .. }) {
            self.stepped(epoch, done.state);
        }
    }

    fn stepped(&mut self, number: u32, state: Option<ObjectRef>) {
        let Some(epoch) = &mut self.state.epoch else { return };
        epoch.stepped += 1;
        let window = Window { epoch: number, step: epoch.stepped };
        if let Some(state) = state {
            self.keep_state(window, state);
        }
    }
}

fn member_of(operation: &Operation) -> Option<&Member> {
    match operation {
        Operation::Forward(member) | Operation::Backward(member) => Some(member),
        _ => None,
    }
}
