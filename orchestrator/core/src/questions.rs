//! What a convict is asked after its conviction: what every op of its window gave, and one output of them. With that a
//! conviction is shown by one tile of one op (`docs/decisions/011-evidence-of-one-tile.md`).
//!
//! The key is banned and all that follows has followed: nobody waits. Only the connection stays open for as long as an answer may
//! take, and nothing is heard on it but answers. Whatever comes of it, the evidence of the window stands; so a question ends with
//! the orchestrator, with the connection, and with the first word that is none of an answer.

use crate::effect::{Effect, Report};
use crate::machine::{Orchestrator, shorten};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Operation, Outcome};
use std::collections::BTreeMap;
use wire::limits::{SHOWN_BYTES_MAX, TRACE_VALUES_MAX};
use wire::{Ask, Evidence, Explain, Finding, Grant, Message, ObjectRef, Receipt, Signed, Trace, Verb};

/// Convicts that are asked at a time; what is known of each is as long as an order to audit.
const QUESTIONS_MAX: usize = 16;
/// Most that the bytes of an answer add to its time, in milliseconds.
const TRANSFER_MS_MAX: u64 = 600_000;
/// Messages that a convict may send besides the requests for its objects: it may not have heard yet that it is one.
const STRAYS_MAX: u64 = 1024;
/// How often an object may be asked for.
const ASKS_MAX: u64 = 8;

/// Convicts that are asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Questions(BTreeMap<NodeId, Question>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Question {
    /// By what it was convicted.
    case: Evidence,
    /// The receipt that is wrong, by its digest.
    receipt: Digest,
    due_ms: u64,
    /// Messages of the convict since it was asked.
    heard: u64,
    turn: Turn,
}

/// Whose turn it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Turn {
    /// The convict's: it performs its window again.
    Explains,
    /// The convict's: it puts the digests that it signed for into the store.
    Proves { trace: Signed<Trace> },
    /// The judge's: which output is wrong?
    Compares { trace: Signed<Trace> },
    /// The convict's: it puts that output into the store.
    Shows { trace: Signed<Trace>, value: u32, output: ObjectRef },
    /// The judge's: which tile of it?
    Narrows,
}

impl Questions {
    pub fn asks(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// When the first of them is over.
    pub fn due_ms(&self) -> Option<u64> {
        self.0.values().map(|question| question.due_ms).min()
    }
}

impl Question {
    fn heard_max(&self) -> u64 {
        STRAYS_MAX.saturating_add(ASKS_MAX.saturating_mul(self.case.order.objects().count() as u64))
    }
}

/// The receipt up to which a convict can say what its ops gave; `None` where the window itself decides: other findings than digests
/// and losses, merges, beginnings, and what numbers that are none lead to.
fn wrong_receipt(case: &Evidence) -> Option<Digest> {
    let Finding::Unequal { sequence, what, .. } = &case.verdict.body.finding else { return None };
    let order = &case.order;
    if what == "outcome" || order.window.is_beginning() || order.merge.is_some() {
        return None;
    }
    let at = order.receipts.iter().position(|receipt| receipt.body.sequence == *sequence)?;
    let traced = |receipt: &Receipt| {
        let inner = matches!(
            receipt.operation,
            Operation::Forward(_) | Operation::Backward(_) | Operation::Step { .. }
        );
        inner && receipt.outcome == Outcome::Ok
    };
    let all = order.receipts[..=at].iter().all(|receipt| traced(&receipt.body));
    all.then(|| order.receipts[at].digest())
}

impl Orchestrator {
    /// A second party found what a case says: its miner, which is about to be convicted, will be asked if it is there.
    pub(crate) fn prepare_question(&mut self, case: &[u8]) {
        let Some(case) = Evidence::from_bytes(case) else { return };
        let (miner, receipt) = (case.order.miner, wrong_receipt(&case));
        let is_there = self.state.seats.seat(miner).is_some_and(|seat| seat.lost.is_none());
        let Some(receipt) = receipt.filter(|_| is_there) else { return };
        if self.state.questions.0.len() >= QUESTIONS_MAX {
            return self.level_1_stands(miner, &format!("{QUESTIONS_MAX} others are asked"));
        }
        let fetched = case.order.objects().map(|object| object.bytes).fold(0, u64::saturating_add);
        let due_ms = self.answer_due_ms(fetched);
        let turn = Turn::Explains;
        self.state.questions.0.insert(miner, Question { case, receipt, due_ms, heard: 0, turn });
    }

    /// A convict's connection is closed, or stays open for its answer.
    pub(crate) fn dismiss(&mut self, convict: NodeId) {
        let Some(Question { case, receipt, .. }) = self.state.questions.0.get(&convict) else {
            return self.turn_away(convict, "is banned");
        };
        let explain = Explain { order: case.order.clone(), receipt: *receipt };
        self.emit(Effect::Confine { peer: convict });
        self.send(convict, Message::Explain(explain));
        self.lose(convict, "it is banned");
    }

    /// Until when an answer is waited for that moves so many bytes.
    fn answer_due_ms(&self, bytes: u64) -> u64 {
        let transfer_ms = self.uplink_ms(|| bytes).min(TRANSFER_MS_MAX);
        self.now_ms.saturating_add(self.config.timeouts.reveal_ms).saturating_add(transfer_ms)
    }

    /// A convict said something.
    pub(crate) fn hear_convict(&mut self, from: NodeId, message: Message) {
        let Some(question) = self.state.questions.0.get_mut(&from) else { return };
        question.heard += 1;
        if question.heard > question.heard_max() {
            return self.end_question(from, "it says too much that it was not asked");
        }
        match message {
            Message::Ask(ask) => self.answer_convict(from, ask),
            Message::Explained(trace) => self.take_explained(from, trace),
            Message::Shown(output) => self.take_shown(from, output),
            Message::Leave { reason } => self.end_question(from, &format!("it left: {}", shorten(&reason))),
            // Said before it heard that it is banned, or for nothing.
            _ => {}
        }
    }

    /// A convict moves the objects of its answer, and no others: what it asked for before it heard is refused.
    fn answer_convict(&mut self, from: NodeId, ask: Ask) {
        let shard = ObjectRef::train(&self.config.run.data);
        let Some(Question { case, turn, .. }) = self.state.questions.0.get(&from) else { return };
        let allowed = match (ask.verb, turn) {
            (Verb::Get, _) => ask.object == shard || case.order.objects().any(|object| object == ask.object),
            (Verb::Put, Turn::Proves { trace }) => ask.object == trace.body.digests(),
            (Verb::Put, Turn::Shows { output, .. }) => ask.object == *output,
            (Verb::Put, _) => false,
        };
        if allowed {
            return self.emit(Effect::Grant { to: from, ask });
        }
        let answer = Err("a convict moves the objects of its answer alone".into());
        self.send(from, Message::Grant(Grant { ask, answer }));
    }

    fn take_explained(&mut self, from: NodeId, trace: Signed<Trace>) {
        let Some(Question { receipt, turn: Turn::Explains, .. }) = self.state.questions.0.get(&from) else {
            return self.end_question(from, "it explains itself twice");
        };
        let body = &trace.body;
        let is_answer = trace.signer == from
            && (body.run, body.receipt) == (self.run_id, *receipt)
            && trace.verify().is_ok();
        if !is_answer {
            return self.end_question(from, "its trace is not signed by it, or is of something else");
        }
        if body.values > TRACE_VALUES_MAX {
            let why =
                format!("its trace has {} outputs, at most {TRACE_VALUES_MAX} are looked at", body.values);
            return self.end_question(from, &why);
        }
        let due_ms = self.answer_due_ms(body.digests().bytes);
        self.takes_turn(from, Turn::Proves { trace }, due_ms);
    }

    /// Something that a convict was asked for is in the store: the digests, or the output that is wrong.
    fn take_shown(&mut self, from: NodeId, shown: ObjectRef) {
        let Some(Question { case, turn, .. }) = self.state.questions.0.get(&from) else { return };
        let due_ms = self.now_ms.saturating_add(self.config.timeouts.confirm_ms);
        let case = wire::to_bytes(case);
        match turn.clone() {
            Turn::Proves { trace } if shown == trace.body.digests() => {
                self.takes_turn(from, Turn::Compares { trace: trace.clone() }, due_ms);
                self.emit(Effect::Compare { miner: from, case, trace });
            }
            Turn::Shows { trace, value, output } if shown == output => {
                self.takes_turn(from, Turn::Narrows, due_ms);
                self.emit(Effect::Narrow { miner: from, case, trace, value, output });
                // Nothing more is asked.
                self.hang_up(from);
            }
            _ => self.end_question(from, "it shows what it was not asked for"),
        }
    }

    fn takes_turn(&mut self, convict: NodeId, turn: Turn, due_ms: u64) {
        if let Some(question) = self.state.questions.0.get_mut(&convict) {
            (question.turn, question.due_ms) = (turn, due_ms);
        }
    }

    /// The judge looked which output of a convict's trace is wrong though all before are right.
    pub(crate) fn compared(&mut self, miner: NodeId, doubt: Result<(u32, ObjectRef), String>) {
        let Some(question) = self.state.questions.0.get(&miner) else { return };
        let Turn::Compares { trace } = question.turn.clone() else { return };
        let (value, output) = match doubt {
            Ok(doubt) => doubt,
            Err(why) => return self.end_question(miner, &shorten(&why)),
        };
        if output.bytes > SHOWN_BYTES_MAX {
            let why = format!("output {value} of {} bytes is longer than one is asked to show", output.bytes);
            return self.end_question(miner, &why);
        }
        let due_ms = self.answer_due_ms(output.bytes);
        self.takes_turn(miner, Turn::Shows { trace, value, output }, due_ms);
        self.send(miner, Message::Show { value, output });
    }

    /// The judge looked for the tile that is wrong. The evidence of it is written, or there is none.
    pub(crate) fn narrowed(&mut self, miner: NodeId, evidence: Result<Digest, String>) {
        if !matches!(self.state.questions.0.get(&miner), Some(Question { turn: Turn::Narrows, .. })) {
            return;
        }
        match evidence {
            Ok(evidence) => {
                self.state.questions.0.remove(&miner);
                self.report(Report::Narrowed { node: miner, evidence });
            }
            Err(why) => self.end_question(miner, &shorten(&why)),
        }
    }

    /// A convict's connection is gone. Once it has shown all it is not needed any more.
    pub(crate) fn lose_convict_asked(&mut self, peer: NodeId, why: &str) {
        if self.state.questions.0.get(&peer).is_some_and(|question| !matches!(question.turn, Turn::Narrows)) {
            self.end_question(peer, &format!("its connection went before it answered ({})", shorten(why)));
        }
    }

    pub(crate) fn end_late_questions(&mut self) {
        let now_ms = self.now_ms;
        let late = |(miner, question): (&NodeId, &Question)| {
            let why = match question.turn {
                Turn::Explains | Turn::Proves { .. } | Turn::Shows { .. } => "it did not answer in time",
                Turn::Compares { .. } | Turn::Narrows => "this machine did not look at its answer in time",
            };
            (now_ms >= question.due_ms).then_some((*miner, why))
        };
        let late: Vec<(NodeId, &str)> = self.state.questions.0.iter().filter_map(late).collect();
        for (miner, why) in late {
            self.end_question(miner, why);
        }
    }

    /// This orchestrator was started again: every connection is gone.
    pub(crate) fn drop_questions(&mut self) {
        for miner in std::mem::take(&mut self.state.questions).0.into_keys() {
            self.level_1_stands(miner, "the orchestrator was started again");
        }
    }

    /// The run ends, which waits for no answer.
    pub(crate) fn finish_questions(&mut self, reason: &str) {
        for miner in std::mem::take(&mut self.state.questions).0.into_keys() {
            self.send(miner, Message::Finish { reason: reason.into() });
            self.level_1_stands(miner, "the run ended before its answer was looked at");
        }
    }

    fn end_question(&mut self, miner: NodeId, why: &str) {
        if let Some(question) = self.state.questions.0.remove(&miner) {
            if !matches!(question.turn, Turn::Narrows) {
                self.hang_up(miner);
            }
            self.level_1_stands(miner, why);
        }
    }

    fn hang_up(&mut self, convict: NodeId) {
        let why = format!("miner {} is banned", convict.short());
        self.emit(Effect::Disconnect { peer: convict, why });
    }

    fn level_1_stands(&mut self, miner: NodeId, why: &str) {
        let name = miner.short();
        let text = format!(
            "the evidence against miner {name} is not narrowed down to one tile: {why}; its window decides"
        );
        self.report(Report::Note { text });
    }
}
