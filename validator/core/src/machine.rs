//! The validator's state and who takes in which event.

use crate::beginnings::{Fresh, source_of};
use crate::check::{Objection, begins_epoch, check};
use crate::compare::compare;
use crate::effect::{Effect, Replay};
use crate::event::{Event, Replayed};
use crate::sums::Adding;
use serde::Serialize;
use spec::{Digest, Run};
use std::collections::{BTreeSet, VecDeque};
use wire::guest::{Config, GuestError, Waits};
use wire::{
    AuditOrder, Finding, Grant, Machine, MergeOrder, Message, ObjectRef, Role, Signed, Verb, Verdict, Welcome,
};

/// Orders that wait for their turn; an orchestrator that sends more has lost its mind.
const QUEUE_MAX: usize = 4096;

/// The validator's core.
#[derive(Debug, Clone)]
pub struct Validator {
    pub(crate) config: Config,
    now_ms: u64,
    pub(crate) state: State,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct State {
    pub over: bool,
    waits: Waits,
    pub seat: Option<Seat>,
    queue: VecDeque<AuditOrder>,
    pub audit: Option<Audit>,
    pub fresh: Fresh,
    pub sums: VecDeque<MergeOrder>,
    pub adding: Option<Adding>,
    noted: BTreeSet<&'static str>,
}

/// The run that the validator watches.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seat {
    pub run: Run,
    pub run_id: Digest,
    /// Whether the token shard, which heads and tails read, lies in the object table.
    has_tokens: bool,
}

/// The order in work.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Audit {
    pub order: AuditOrder,
    operations: Vec<Replay>,
    /// Objects on their way.
    missing: BTreeSet<Digest>,
    /// Objects in the table, to be dropped after.
    held: BTreeSet<Digest>,
    pub replaying: bool,
}

impl Validator {
    /// A validator that follows an invitation.
    pub fn new(config: Config) -> Self {
        Self { config, now_ms: 0, state: State::default(), effects: Vec::new() }
    }

    /// Digest of everything the validator remembers; the secret key is not part of it.
    pub fn digest(&self) -> Digest {
        wire::digest_of(&self.state)
    }

    /// Whether the validator has ended.
    pub fn is_over(&self) -> bool {
        self.state.over
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.state.waits.back();
                self.state.waits.greeted(self.now_ms);
                let hello = self.config.hello(Role::Validator, self.state.seat.is_some());
                self.send(hello);
            }
            Event::Disconnected { why } => self.lost(&why),
            Event::Message(message) => self.hear(message),
            Event::Fetched { digest } => self.fetched(digest),
            Event::StoreFailed { digest, missing, why } => self.fetch_failed(digest, missing, &why),
            Event::AddedUp { sum } => self.added_up(sum),
            Event::Built { state } => self.built(state),
            Event::Replayed { results, stopped } => self.replayed(&results, stopped.as_deref()),
            Event::Woke => {
                if let Some(why) = self.state.waits.overdue(self.now_ms, &self.config) {
                    self.leave(why);
                }
            }
            Event::Leave => {
                self.send(Message::Leave { reason: "its owner asked it to".into() });
                self.exit(Ok("left the run because its owner asked".into()));
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Welcome(welcome) => self.take_seat(welcome),
            Message::Refused(refusal) => self.exit(Err(GuestError::Refused(refusal))),
            Message::Grant(grant) => self.take_grant(grant),
            Message::Audit(order) if self.state.seat.is_some() && self.state.queue.len() < QUEUE_MAX => {
                self.state.queue.push_back(order);
            }
            Message::AddUp(order) if self.state.seat.is_some() && self.state.sums.len() < QUEUE_MAX => {
                self.state.sums.push_back(order);
            }
            Message::Finish { reason } => self.exit(Ok(reason)),
            _ => self.note("the orchestrator said what is not for a validator or not yet, ignored"),
        }
    }

    fn take_seat(&mut self, welcome: Welcome) {
        if !self.state.waits.welcomed() {
            return self.note("the orchestrator said welcome twice, the second is ignored");
        }
        match self.config.check_welcome(Role::Validator, &welcome) {
            Ok(run_id) if self.state.seat.as_ref().is_some_and(|seat| seat.run_id == run_id) => {
                for ask in self.state.waits.ask_again(self.now_ms) {
                    self.send(ask);
                }
            }
            Ok(_) if self.state.seat.is_some() => {
                self.leave("the orchestrator leads another run now: start the validator again".into());
            }
            Ok(run_id) => {
                let tokens = ObjectRef::train(&welcome.run.data);
                self.state.seat = Some(Seat { run: welcome.run, run_id, has_tokens: false });
                self.ask(tokens);
            }
            Err(error) => self.leave(error.to_string()),
        }
    }

    /// The connection is gone: calls again. Who leads gives its orders anew, to this validator or another.
    fn lost(&mut self, why: &str) {
        self.state.queue.clear();
        self.state.sums.clear();
        if let Some((missing, held)) = self.state.adding.take().map(Adding::digests) {
            self.drop_digests(missing, held);
        }
        if let Some(audit) = self.state.audit.take() {
            self.drop_objects(audit);
        }
        match self.state.waits.lost(self.now_ms, &self.config) {
            Ok(after_ms) => self.emit(Effect::CallAgain { after_ms }),
            Err(gone_s) => self.exit(Err(format!(
                "the connection to the orchestrator has been gone for {gone_s} s ({why}): check that it runs, then start the validator again"
            )
            .into())),
        }
    }

    fn drop_objects(&mut self, audit: Audit) {
        self.drop_digests(audit.missing, audit.held);
    }

    pub(crate) fn drop_digests(&mut self, missing: BTreeSet<Digest>, held: BTreeSet<Digest>) {
        for digest in held {
            self.emit(Effect::Forget(digest));
        }
        for digest in missing {
            self.state.waits.transferred(Verb::Get, digest);
        }
    }

    fn take_grant(&mut self, grant: Grant) {
        match self.state.waits.granted(grant) {
            None => self.note("the orchestrator granted an object that was not asked for, ignored"),
            Some((ask, Ok(request))) => self.emit(Effect::Fetch { object: ask.object, request }),
            Some((ask, Err(why))) => {
                let digest = ask.object.digest;
                self.state.waits.transferred(ask.verb, digest);
                let wanted = |audit: &mut Audit| audit.missing.remove(&digest);
                let sum = self.state.adding.take_if(|adding| adding.waits_for(digest));
                if let Some((missing, held)) = sum.map(Adding::digests) {
                    self.drop_digests(missing, held);
                    return self.note("an order was withdrawn");
                }
                match self.state.audit.take_if(wanted) {
                    // Its miner was convicted of something else meanwhile: nobody waits for this verdict.
                    Some(audit) => {
                        self.drop_objects(audit);
                        self.note("an order was withdrawn");
                    }
                    None => self.leave(format!("the orchestrator does not let me {ask}: {why}")),
                }
            }
        }
    }

    fn fetched(&mut self, digest: Digest) {
        if !self.state.waits.transferred(Verb::Get, digest) {
            // Its audit was judged before it came.
            return self.emit(Effect::Forget(digest));
        }
        if self.state.adding.as_mut().is_some_and(|adding| adding.arrived(digest)) {
            return;
        }
        if let Some(audit) = &mut self.state.audit
            && audit.missing.remove(&digest)
        {
            audit.held.insert(digest);
        }
        if let Some(seat) = self.state.seat.as_mut().filter(|seat| seat.run.data.train == digest) {
            seat.has_tokens = true;
        }
    }

    fn fetch_failed(&mut self, digest: Digest, missing: bool, why: &str) {
        if missing && self.state.adding.as_ref().is_some_and(|adding| adding.waits_for(digest)) {
            self.state.waits.transferred(Verb::Get, digest);
            return self.added_up(None);
        }
        // What a fresh state is made of is nobody's to reveal.
        let of_miner = |audit: &&Audit| !audit.order.window.is_beginning() && audit.missing.contains(&digest);
        if missing && self.state.audit.as_ref().filter(of_miner).is_some() {
            self.state.waits.transferred(Verb::Get, digest);
            return self.judge(Finding::Withheld { digest });
        }
        if let Some(again) = self.state.waits.failed(self.now_ms, digest) {
            return again.into_iter().for_each(|ask| self.send(ask));
        }
        self.leave(format!(
            "object {} could not be fetched ({why}): check that the store can be reached from here",
            digest.short()
        ));
    }

    fn replayed(&mut self, results: &[Replayed], stopped: Option<&str>) {
        let replays = |audit: &&Audit| audit.replaying && !audit.order.window.is_beginning();
        match self.state.audit.as_ref().filter(replays) {
            Some(audit) => self.judge(compare(&audit.order.receipts, results, stopped)),
            None => self.note("a replay came that was not asked for, ignored"),
        }
    }

    /// Takes the next order, and replays it once everything is there.
    fn advance(&mut self) {
        while !self.state.over && self.state.audit.is_none() {
            let Some(order) = self.state.queue.pop_front() else { return };
            self.begin(order);
        }
        let (Some(seat), Some(audit)) = (&self.state.seat, &mut self.state.audit) else { return };
        if audit.replaying || !audit.missing.is_empty() {
            return;
        }
        if audit.order.window.is_beginning() {
            audit.replaying = true;
            let ((stage, weights, momentum), run) = (source_of(&audit.order), seat.run.clone());
            return self.emit(Effect::Build { run, stage, weights, momentum });
        }
        if !seat.has_tokens {
            return;
        }
        audit.replaying = true;
        let AuditOrder { stage, window, state, weights, .. } = audit.order;
        let weights = Some(weights).filter(|_| begins_epoch(&audit.order));
        let (run, operations) = (seat.run.clone(), audit.operations.clone());
        let (miner, anchor) =
            (audit.order.miner, audit.order.merge.as_ref().map(|merge| merge.anchor.digest));
        let (epoch, state) = (window.epoch, state.digest);
        self.emit(Effect::Replay { run, stage, epoch, state, weights, miner, anchor, operations });
    }

    fn begin(&mut self, order: AuditOrder) {
        let Some(seat) = &self.state.seat else { return };
        let operations = if order.window.is_beginning() {
            self.known_beginning(&order).map_or(Ok(Vec::new()), Err)
        } else {
            let inconsistent = |why: Objection| Finding::Inconsistent { why: why.to_string() };
            check(&seat.run, seat.run_id, &order).map_err(inconsistent)
        };
        let objects: Vec<ObjectRef> = order.objects().collect();
        let (missing, held) = (objects.iter().map(|object| object.digest).collect(), BTreeSet::new());
        let empty = Audit { order, operations: Vec::new(), missing, held, replaying: false };
        match operations {
            Ok(operations) => {
                self.state.audit = Some(Audit { operations, ..empty });
                for object in objects {
                    self.ask(object);
                }
            }
            Err(finding) => {
                self.state.audit = Some(empty);
                self.judge(finding);
            }
        }
    }

    /// Says what was found, and drops what was fetched for it.
    pub(crate) fn judge(&mut self, finding: Finding) {
        let (Some(seat), Some(audit)) = (&self.state.seat, self.state.audit.take()) else { return };
        let AuditOrder { miner, window, ref start, .. } = audit.order;
        let verdict = Verdict { run: seat.run_id, miner, window, start: start.digest(), finding };
        self.drop_objects(audit);
        let verdict = Signed::new(verdict, &self.config.key);
        self.send(Message::Verdict(verdict));
    }

    pub(crate) fn ask(&mut self, object: ObjectRef) {
        if let Some(message) = self.state.waits.ask(self.now_ms, Verb::Get, object) {
            self.send(message);
        }
    }

    pub(crate) fn note(&mut self, text: &'static str) {
        if self.state.noted.insert(text) {
            self.emit(Effect::Note(text.into()));
        }
    }

    /// Leaves because of something on this side.
    fn leave(&mut self, why: String) {
        self.send(Message::Leave { reason: why.clone() });
        self.exit(Err(why.into()));
    }

    fn exit(&mut self, with: Result<String, GuestError>) {
        self.state.over = true;
        self.emit(Effect::Exit(with));
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.emit(Effect::Send(message));
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

impl Machine for Validator {
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
        self.advance();
        self.advance_sums();
        if !self.state.over
            && let Some(at_ms) = self.state.waits.alarm(&self.config)
        {
            self.emit(Effect::WakeAt(at_ms));
        }
        std::mem::take(&mut self.effects)
    }
}
