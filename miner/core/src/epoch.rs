//! The inner steps of an epoch: what may be done next, and what comes of it.

use crate::effect::{StateAfter, Task};
use crate::event::Done;
use crate::machine::Miner;
use crate::merge::MergeJob;
use crate::payload::Arrived;
use crate::seat::Seat;
use serde::Serialize;
use spec::{Digest, Member, NodeId, Operation, Outcome, Run, Window};
use std::collections::{BTreeMap, BTreeSet};
use wire::limits::STEPS_MORE_MAX;
use wire::{Assignment, ObjectRef, PayloadHead, PayloadKind, Slot};

/// What the engine was given to do.
#[derive(Debug, Clone, Serialize)]
pub(crate) enum Job {
    Adopt { weights: Digest, momentum: Option<Digest> },
    Keep,
    Work(Work),
    Merge(MergeJob),
    Explain,
}

impl Job {
    /// What the table holds for this job alone.
    pub fn holds(&self) -> impl Iterator<Item = Digest> {
        let held = match self {
            Self::Adopt { weights, momentum } => [Some(*weights), *momentum],
            Self::Work(work) => [work.input.as_ref().map(|input| input.block.digest), None],
            Self::Merge(job) => [job.holds(), None],
            Self::Keep | Self::Explain => [None, None],
        };
        held.into_iter().flatten()
    }

    /// Sends what it makes of an assignment to somebody else.
    pub fn redirect(&mut self, assignment: u64, kind: PayloadKind, to: NodeId) {
        let Self::Work(Work { operation, output_to: Some(output_to), .. }) = self else { return };
        if output_to.1 == kind && member_of(operation).is_some_and(|member| member.assignment == assignment) {
            output_to.0 = to;
        }
    }
}

/// One operation of an inner step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Work {
    pub operation: Operation,
    pub input: Option<Arrived>,
    /// To whom the output goes.
    pub output_to: Option<(NodeId, PayloadKind)>,
    /// Whether it is the epoch's first, whose receipt binds the state that the epoch begins with.
    pub is_first: bool,
}

impl Work {
    pub fn task(&self, seat: &Seat, epoch: u32) -> Task {
        let binds = match self.operation {
            Operation::Step { step, .. } => seat.run.digests_after(step),
            // A forward changes nothing, so what it is done on is bound by the state after it.
            _ => self.is_first,
        };
        let state = match binds {
            true if seat.is_audited() => StateAfter::File,
            true => StateAfter::Digest,
            false => StateAfter::Untold,
        };
        Task::Perform {
            epoch,
            operation: self.operation.clone(),
            inputs: self.input.iter().map(|input| input.block.digest).collect(),
            state,
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
    /// The inner step whose backwards are being given to the engine.
    step: u32,
    /// The position whose backward is due: gradients are folded in position order.
    fold: u16,
    /// Inner steps taken.
    pub stepped: u32,
    /// Members of each inner step that is known.
    sizes: BTreeMap<u32, u16>,
    places: BTreeMap<(u32, u16), Place>,
    by_id: BTreeMap<u64, (u32, u16)>,
    /// Assignments whose inner step is over, or that were struck.
    past: BTreeSet<u64>,
    /// What nobody does the rest of, in inner steps that are not over.
    struck: BTreeSet<(u32, u16)>,
    /// Whether an operation was given to the engine.
    begun: bool,
    /// It met what are no numbers: nothing that follows could be done, and the epoch will not count.
    halted: bool,
}

impl Epoch {
    pub fn new(number: u32) -> Self {
        Self {
            number,
            step: 0,
            fold: 0,
            stepped: 0,
            sizes: BTreeMap::new(),
            places: BTreeMap::new(),
            by_id: BTreeMap::new(),
            past: BTreeSet::new(),
            struck: BTreeSet::new(),
            begun: false,
            halted: false,
        }
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

    /// Whether the inner step of an assignment is over for this miner.
    pub fn is_past(&self, id: u64) -> bool {
        self.past.contains(&id)
    }

    /// Whether every inner step that was handed out is taken, and the last one's receipt binds the state: the epoch
    /// of a miner that is too slow for the others ends with a window.
    pub fn is_finished(&self, run: &Run) -> bool {
        let bound = self.stepped.checked_sub(1).is_some_and(|last| run.digests_after(last));
        self.sizes.is_empty() && self.stepped == self.step && bound
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
        let wrong = |what: &str| Err(format!("assignment {} {what}, ignored", assignment.id));
        let Some((slot, member)) = own(seat, me, &assignment) else {
            return wrong("does not lead through this miner's stage");
        };
        if assignment.epoch != self.number || member.step < self.step || self.is_past(assignment.id) {
            return wrong("comes too late");
        }
        // Whoever stands in for a lost miner may take some steps more.
        let steps = seat.run.epoch.steps.saturating_add(STEPS_MORE_MAX);
        if member.step >= steps || member.position >= slot.members {
            return wrong("lies outside the epoch");
        }
        let at = (member.step, member.position);
        if self.places.contains_key(&at) || self.by_id.contains_key(&assignment.id) {
            return wrong("was given before");
        }
        if *self.sizes.entry(member.step).or_insert(slot.members) != slot.members {
            return wrong("is of a step that has another number of members");
        }
        self.by_id.insert(assignment.id, at);
        let place = Place { assignment, member, activation: None, gradient: None, forward_given: false };
        self.places.insert(at, place);
        Ok(())
    }

    /// Takes in the way that an assignment takes now; `false` if its inner step is over or it is not known.
    fn amend(&mut self, seat: &Seat, me: NodeId, assignment: &Assignment) -> bool {
        let at = self.by_id.get(&assignment.id);
        let Some(place) = at.and_then(|at| self.places.get_mut(at)) else { return false };
        if own(seat, me, assignment).is_some_and(|(_, member)| member == place.member) {
            place.assignment = assignment.clone();
        }
        true
    }

    /// Leaves an assignment out of its inner step, unless it is folded there; the answer is what had come in for it.
    fn strike(&mut self, seat: &Seat, me: NodeId, assignment: &Assignment) -> Vec<Digest> {
        let Some((slot, member)) = own(seat, me, assignment) else { return Vec::new() };
        let at = (member.step, member.position);
        if self.is_past(assignment.id) || at < (self.step, self.fold) || member.position >= slot.members {
            return Vec::new();
        }
        self.sizes.entry(member.step).or_insert(slot.members);
        self.struck.insert(at);
        self.past.insert(assignment.id);
        self.by_id.remove(&assignment.id);
        let waiting = self.places.remove(&at).map(|place| [place.activation, place.gradient]);
        waiting.into_iter().flatten().flatten().map(|arrived| arrived.block.digest).collect()
    }

    /// The next operation that may be given to the engine: the backward that is due, else the step, else
    /// the forward of the lowest position; once all of these are given, that of the next step where its weights may be stale.
    pub fn next_work(&mut self, seat: &Seat) -> Option<Work> {
        let members = *self.sizes.get(&self.step).filter(|_| !self.halted)?;
        while self.struck.contains(&(self.step, self.fold)) {
            self.fold += 1;
        }
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
            return Some(Work { operation, input: place.gradient.take(), output_to, is_first: false });
        }
        let forward = self.forward_step(seat, members);
        let due = self.places.range_mut((forward, 0)..=(forward, u16::MAX));
        let ready =
            |place: &&mut Place| !place.forward_given && (seat.kind.embeds() || place.activation.is_some());
        let place = due.map(|(_, place)| place).find(ready)?;
        place.forward_given = true;
        let operation = Operation::Forward(place.member);
        let to = place.assignment.route.get(usize::from(seat.stage) + 1);
        let output_to = to.map(|slot| (slot.miner, PayloadKind::Activation));
        let is_first = !std::mem::replace(&mut self.begun, true);
        Some(Work { operation, input: place.activation.take(), output_to, is_first })
    }

    /// The inner step whose forwards are due. Forwards are given step by step, so that the epoch's first is one of its first step.
    fn forward_step(&self, seat: &Seat, members: u16) -> u32 {
        let step = self.step;
        let given = |position| {
            let at = (step, position);
            self.struck.contains(&at) || self.places.get(&at).is_some_and(|place| place.forward_given)
        };
        match step.checked_add(1).filter(|&next| seat.run.is_stale(next)) {
            Some(next) if (0..members).all(given) => next,
            _ => step,
        }
    }

    fn next_step(&mut self) -> Work {
        let step = self.step;
        let later = self.places.split_off(&(step.saturating_add(1), 0));
        let folded = std::mem::replace(&mut self.places, later);
        let members: Vec<Member> = folded.values().map(|place| place.member).collect();
        for member in &members {
            self.by_id.remove(&member.assignment);
            self.past.insert(member.assignment);
        }
        self.sizes.remove(&step);
        self.struck.retain(|(of, _)| *of > step);
        self.step += 1;
        self.fold = 0;
        Work { operation: Operation::Step { step, members }, input: None, output_to: None, is_first: false }
    }
}

impl Miner {
    pub(crate) fn take_assignment(&mut self, assignment: Assignment) {
        let me = self.config.key.id();
        let (Some(seat), Some(epoch)) = (&self.state.seat, &mut self.state.epoch) else {
            return self.note(format!("assignment {} came while no epoch is open, ignored", assignment.id));
        };
        let id = assignment.id;
        let settled = own(seat, me, &assignment).map_or(0, |(slot, _)| slot.settled);
        match epoch.add(seat, me, assignment) {
            Ok(()) => {
                self.used_before(settled);
                self.take_early(id);
            }
            Err(why) => self.note(why),
        }
    }

    /// A miner of an assignment's route was lost: its stand-in gets what was sent to it, and is heard instead of it.
    pub(crate) fn take_amendment(&mut self, assignment: Assignment) {
        let me = self.config.key.id();
        let (Some(seat), Some(epoch)) = (&self.state.seat, &mut self.state.epoch) else {
            return self
                .note(format!("assignment {} was amended while no epoch is open, ignored", assignment.id));
        };
        if assignment.epoch != epoch.number || own(seat, me, &assignment).is_none() {
            return self.note(format!(
                "assignment {} was amended, which is not this miner's, ignored",
                assignment.id
            ));
        }
        let (id, stage) = (assignment.id, usize::from(seat.stage));
        let known = epoch.amend(seat, me, &assignment) || epoch.is_past(id);
        let neighbours =
            [(PayloadKind::Gradient, stage.checked_sub(1)), (PayloadKind::Activation, stage.checked_add(1))];
        for (kind, stage) in neighbours {
            if let Some(slot) = stage.and_then(|stage| assignment.route.get(stage)) {
                self.send_instead(id, kind, slot.miner);
            }
        }
        if known {
            self.take_early(id);
        } else {
            self.take_assignment(assignment);
        }
    }

    /// Nobody does the rest of an assignment.
    pub(crate) fn take_strike(&mut self, assignment: &Assignment) {
        let me = self.config.key.id();
        let (Some(seat), Some(epoch)) = (&self.state.seat, &mut self.state.epoch) else {
            return self
                .note(format!("assignment {} was struck while no epoch is open, ignored", assignment.id));
        };
        if assignment.epoch != epoch.number {
            return self.note(format!("assignment {} of another epoch was struck, ignored", assignment.id));
        }
        for block in epoch.strike(seat, me, assignment) {
            self.release(block);
        }
        for kind in [PayloadKind::Activation, PayloadKind::Gradient] {
            if let Some(arrived) = self.state.early.remove(&(assignment.id, kind)) {
                self.release(arrived.block.digest);
            }
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
        let outputs = [done.output.map(|object| object.digest), done.state];
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
        if let Some(state) = done.file.filter(|_| work.is_first) {
            self.keep_state(Window { epoch, step: 0 }, state);
        }
        if let (Some(input), Some(step)) = (work.input, step) {
            self.keep_step_input(epoch, step, input.block);
        }
        if done.outcome != Outcome::Ok {
            return self.halt();
        }
        if matches!(work.operation, Operation::Step { .. }) {
            self.stepped(epoch, done.file);
        }
    }

    /// What the engine was given after the operation that failed may fail for want of it, and is nobody's fault.
    fn halt(&mut self) {
        if let Some(epoch) = &mut self.state.epoch {
            epoch.halted = true;
        }
        let work: Vec<u64> = self
            .state
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job, Job::Work(_)))
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in work {
            self.state.abandoned.insert(ticket);
            for digest in self.state.jobs.remove(&ticket).iter().flat_map(Job::holds) {
                self.release(digest);
            }
        }
    }

    fn stepped(&mut self, number: u32, file: Option<ObjectRef>) {
        let Some(epoch) = &mut self.state.epoch else { return };
        epoch.stepped += 1;
        let window = Window { epoch: number, step: epoch.stepped };
        if let Some(file) = file {
            self.keep_state(window, file);
        }
    }
}

/// This miner's share of an assignment.
fn own(seat: &Seat, me: NodeId, assignment: &Assignment) -> Option<(Slot, Member)> {
    let stage = usize::from(seat.stage);
    let slot = assignment.route.get(stage).filter(|slot| slot.miner == me)?;
    let whole = assignment.route.len() == seat.run.model.stage_count();
    Some((*slot, assignment.member(stage).filter(|_| whole)?))
}

fn member_of(operation: &Operation) -> Option<&Member> {
    match operation {
        Operation::Forward(member) | Operation::Backward(member) => Some(member),
        _ => None,
    }
}
