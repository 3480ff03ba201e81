//! The miner's state and who takes in which event.

use crate::again::Sent;
use crate::effect::{Effect, Task};
use crate::epoch::{Epoch, Job};
use crate::event::{Done, Event};
use crate::explain::Explaining;
use crate::merge::{EarlyPart, Merging};
use crate::objects::Table;
use crate::payload::Arrived;
use crate::reveal::Kept;
use crate::seat::Seat;
use serde::Serialize;
use spec::{Digest, NodeId, Window};
use std::collections::{BTreeMap, BTreeSet};
use wire::guest::{Config, GuestError, Waits};
use wire::{Chain, Machine, Message, Part, PayloadKind, Receipt, Signed, Verb};

/// Tasks given to the engine at a time: the one it does and the one it does next.
const TASKS_AHEAD: usize = 2;

/// The miner's core.
#[derive(Debug, Clone)]
pub struct Miner {
    pub(crate) config: Config,
    pub(crate) now_ms: u64,
    pub(crate) state: State,
    pub(crate) effects: Vec<Effect>,
}

/// Everything that the miner remembers.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct State {
    pub over: bool,
    pub waits: Waits,
    pub seat: Option<Seat>,
    pub chain: Chain,
    /// Receipts that the orchestrator may not have.
    pub given: Vec<Signed<Receipt>>,
    /// Payloads that their receivers may not have, by assignment.
    pub sent: BTreeMap<(u64, PayloadKind), Sent>,
    /// The epoch that this miner last said to be ready for, until it opens.
    pub ready: Option<u32>,
    /// The number of the last word to adopt that it heard.
    pub turn: u32,
    pub table: Table,
    pub tickets: u64,
    pub jobs: BTreeMap<u64, Job>,
    /// Tasks whose results nobody wants any more.
    pub abandoned: BTreeSet<u64>,
    /// Payloads whose assignment has not come yet.
    pub early: BTreeMap<(u64, PayloadKind), Arrived>,
    /// Parts of a merge that came before the order to merge.
    pub early_parts: BTreeMap<(Part, NodeId), EarlyPart>,
    pub epoch: Option<Epoch>,
    pub merging: Option<Merging>,
    /// What an audit of a window would ask for.
    pub kept: BTreeMap<Window, Kept>,
    /// What was said of windows of the last epochs.
    pub told: BTreeMap<Window, Message>,
    /// What it was convicted for, and says for itself.
    pub explaining: Option<Explaining>,
    pub noted: BTreeSet<String>,
}

impl Miner {
    /// A miner that follows an invitation.
    pub fn new(config: Config) -> Self {
        Self { config, now_ms: 0, state: State::default(), effects: Vec::new() }
    }

    /// Digest of everything the miner remembers; the secret key is not part of it.
    pub fn digest(&self) -> Digest {
        wire::digest_of(&self.state)
    }

    /// Whether the miner has ended.
    pub fn is_over(&self) -> bool {
        self.state.over
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.emit(Effect::Send(message));
    }

    /// Tells the owner, once for each text: a peer that repeats itself must not fill the log.
    pub(crate) fn note(&mut self, text: String) {
        if self.state.noted.len() < NOTES_MAX && self.state.noted.insert(text.clone()) {
            self.emit(Effect::Note(text));
        }
    }

    pub(crate) fn exit(&mut self, with: Result<String, GuestError>) {
        self.state.over = true;
        self.emit(Effect::Exit(with));
    }

    /// Leaves because of something on this side.
    pub(crate) fn leave(&mut self, why: String) {
        self.send(Message::Leave { reason: why.clone() });
        self.exit(Err(why.into()));
    }

    pub(crate) fn compute(&mut self, job: Job, task: Task) {
        let ticket = self.state.tickets;
        self.state.tickets += 1;
        self.state.jobs.insert(ticket, job);
        self.emit(Effect::Compute { ticket, task });
    }

    pub(crate) fn release(&mut self, digest: Digest) {
        if self.state.table.release(digest) {
            self.emit(Effect::Forget(digest));
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Connected => self.greet(),
            Event::Disconnected { why } => self.disconnected(&why),
            Event::Message(message) => self.hear(message),
            Event::Payload { head, block } => self.take_payload(head, block),
            Event::Part { head, block } => self.take_part(&head, block),
            Event::Done { ticket, done } => self.task_done(ticket, done),
            Event::TaskFailed { ticket, why } => self.task_failed(ticket, &why),
            Event::Fetched { digest } => self.fetched(digest),
            Event::Uploaded { digest } => self.uploaded(digest),
            Event::StoreFailed { digest, why } => match self.state.waits.failed(self.now_ms, digest) {
                Some(again) => again.into_iter().for_each(|ask| self.send(ask)),
                None => self.leave(format!(
                    "object {} could not be moved ({why}): check that the store can be reached from here",
                    digest.short()
                )),
            },
            Event::Woke => {
                if let Some(why) = self.state.waits.overdue(self.now_ms, &self.config) {
                    self.leave(why);
                }
            }
            Event::Leave => {
                self.send(Message::Leave { reason: "its owner asked it to".into() });
                self.exit(Ok("left the run because its owner asked".into()));
            }
            Event::RouteLost(node) => self.send_again(Some(node)),
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Welcome(welcome) => self.take_seat(welcome),
            Message::Refused(refusal) => self.exit(Err(GuestError::Refused(refusal))),
            Message::Grant(grant) => self.take_grant(grant),
            Message::Open(manifest) => self.open(manifest),
            Message::Adopt { stage, manifest, turn } => {
                self.state.turn = turn;
                self.adopt(stage, manifest);
            }
            Message::Returned(node) => self.send_again(Some(node)),
            Message::Neighbours(neighbours) => self.take_neighbours(neighbours),
            Message::Assign(assignment) => self.take_assignment(assignment),
            Message::Amend(assignment) => self.take_amendment(assignment),
            Message::Strike(assignment) => self.take_strike(&assignment),
            Message::Merge(merge) => self.start_merge(&merge),
            Message::Call { epoch, call } => self.take_call(epoch, call),
            Message::Keep(object) => self.keep_weights(object),
            Message::Draw { epoch, steps, more } => self.drawn(epoch, &steps, more),
            Message::Disclose { epoch, shard } => self.disclose(epoch, shard),
            Message::Explain(question) => self.explain(question),
            Message::Show { value, .. } => self.show(value),
            Message::Finish { reason } => {
                self.end_merge();
                self.exit(Ok(reason));
            }
            other => self.note(format!("the orchestrator said what is not for a miner, ignored: {other}")),
        }
    }

    fn task_done(&mut self, ticket: u64, done: Done) {
        if self.state.abandoned.remove(&ticket) {
            let made = [done.output, done.file, done.weights, done.momentum].into_iter().flatten();
            return made.for_each(|object| {
                self.state.table.hold(object.digest);
                self.release(object.digest);
            });
        }
        let Some(job) = self.state.jobs.remove(&ticket) else {
            self.note(format!("task {ticket} was never given, its result is ignored"));
            return;
        };
        match job {
            Job::Adopt { weights, momentum } => self.adopted(weights, momentum),
            Job::Keep => {}
            Job::Work(work) => self.worked(work, &done),
            Job::Merge(job) => self.merge_job_done(job, &done),
            Job::Explain => self.performed_again(&done),
        }
    }

    fn task_failed(&mut self, ticket: u64, why: &str) {
        if self.state.abandoned.remove(&ticket) {
            return;
        }
        let what = match self.state.jobs.remove(&ticket) {
            Some(Job::Keep) => {
                return self.note(format!("the state at the start of the epoch is not kept on disk: {why}"));
            }
            None => return self.note(format!("task {ticket} was never given, its failure is ignored")),
            Some(Job::Adopt { .. }) => "adopting the stage's weights",
            Some(Job::Work(work)) => work.operation.name(),
            Some(Job::Merge(job)) => job.name(),
            Some(Job::Explain) => "performing its window again",
        };
        self.leave(format!("{what} failed on this machine: {why}"));
    }

    fn fetched(&mut self, digest: Digest) {
        if self.state.waits.transferred(Verb::Get, digest) {
            self.state.table.hold(digest);
            if !self.explains_with(digest) && !self.adopt_when_loaded(digest) && !self.is_token_shard(digest)
            {
                self.release(digest);
            }
        }
    }

    fn uploaded(&mut self, digest: Digest) {
        if self.state.waits.transferred(Verb::Put, digest) {
            self.weights_kept(digest);
            self.piece_uploaded(digest);
            self.reveal_uploaded(digest);
            self.shown(digest);
        }
    }

    /// Gives the engine as much as it may have.
    fn plan(&mut self) {
        while !self.state.over && self.state.jobs.len() < TASKS_AHEAD {
            let (Some(seat), Some(epoch)) = (&self.state.seat, &mut self.state.epoch) else { return };
            let Some(work) = epoch.next_work(seat) else { return };
            let task = work.task(seat, epoch.number);
            self.compute(Job::Work(work), task);
        }
    }
}

/// Texts remembered so that none is said twice.
const NOTES_MAX: usize = 1024;

impl Machine for Miner {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        if self.state.over {
            return Vec::new();
        }
        self.now_ms = now_ms;
        if event != Event::Woke {
            self.state.waits.heard(now_ms);
        }
        self.take_in(event);
        self.plan();
        if !self.state.over
            && let Some(at_ms) = self.state.waits.alarm(&self.config)
        {
            self.emit(Effect::WakeAt(at_ms));
        }
        std::mem::take(&mut self.effects)
    }
}
