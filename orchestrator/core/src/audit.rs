//! Audits: draw windows, collect what the receipts bind, order replays, take in verdicts.

use crate::accusations::Charge;
use crate::consequences::conviction_of;
use crate::effect::Report;
use crate::epoch::Epoch;
use crate::machine::Orchestrator;
use crate::windows::{At, Windows};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Operation, Outcome, Run, Window};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use wire::{
    AuditOrder, Evidence, Finding, Manifest, MergeInputs, Message, ObjectRef, Receipt, Signed, StageRecord,
    Verdict,
};

/// An epoch with windows that no verdict speaks of yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AuditedEpoch {
    /// The manifest it opened with.
    pub manifest: Signed<Manifest>,
    /// Windows drawn.
    pub drawn: usize,
    /// By miner and inner step.
    pub pending: Windows,
    /// Found equal, by which validator: the epoch is not stable yet.
    pub passed: BTreeMap<(NodeId, u32), (NodeId, Pending)>,
}

/// One drawn window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub stage: u16,
    /// When it came to where it stands.
    pub since_ms: u64,
    /// Whether its miner was given more time because it had been away.
    pub extended: bool,
    start: Signed<Receipt>,
    pub receipts: Vec<Signed<Receipt>>,
    /// What its operations read, where the window is a merge.
    pub merge: Option<MergeInputs>,
    pub standing: Standing,
}

/// How far an audit has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// The miner uploads what its receipts bind.
    Drawn,
    /// It is in the store, and waits for a validator.
    Revealed { state: ObjectRef, inputs: Vec<ObjectRef> },
    /// A validator replays it.
    Ordered { validator: NodeId, state: ObjectRef, inputs: Vec<ObjectRef> },
    /// It was found wrong, and a second party looks whether that is so.
    Accused { evidence: Digest, state: ObjectRef, inputs: Vec<ObjectRef> },
}

impl AuditedEpoch {
    fn new(manifest: Signed<Manifest>) -> Self {
        Self { manifest, drawn: 0, pending: Windows::default(), passed: BTreeMap::new() }
    }
}

impl Pending {
    /// Where a miner began the epoch of a manifest that says `record` of its stage: `start` binds the state, `merge` the one that
    /// its own merge came to, if the manifest names it. Nothing has to be revealed.
    pub fn beginning(
        record: &StageRecord,
        start: &Signed<Receipt>,
        merge: Option<Signed<Receipt>>,
        since_ms: u64,
    ) -> Self {
        let standing =
            Standing::Revealed { state: record.weights, inputs: record.momentum.into_iter().collect() };
        Self {
            stage: start.body.stage,
            since_ms,
            extended: false,
            start: start.clone(),
            receipts: merge.into_iter().collect(),
            merge: None,
            standing,
        }
    }

    /// Operations that a validator does again: sums of a merge are added up on their own, and where an epoch begins nothing is done.
    fn operations(&self, window: Window) -> usize {
        if window.is_beginning() {
            return 0;
        }
        let replayed = |receipt: &&Signed<Receipt>| receipt.body.operation.is_replayed();
        self.receipts.iter().filter(replayed).count()
    }

    /// The receipt that binds the state before it, by its digest.
    pub fn begins_with(&self) -> Digest {
        self.start.digest()
    }

    /// Digests of the payloads that came in.
    fn inputs(&self) -> BTreeSet<Digest> {
        if let Some(merge) = &self.merge {
            return merge.scales.iter().chain(&merge.sums).copied().collect();
        }
        self.receipts.iter().filter_map(|receipt| receipt.body.input).collect()
    }

    /// The order to replay it, in an epoch that opened with `manifest`.
    fn order(
        &self,
        manifest: &Manifest,
        (miner, window): (NodeId, Window),
        state: ObjectRef,
        inputs: Vec<ObjectRef>,
    ) -> AuditOrder {
        let (start, receipts, stage) = (self.start.clone(), self.receipts.clone(), self.stage);
        let record = manifest.stages.get(usize::from(stage));
        let weights = record.map(|record| record.weights.digest).unwrap_or_default();
        let merge = self.merge.clone();
        AuditOrder { miner, stage, window, weights, state, start, receipts, inputs, merge }
    }
}

impl Orchestrator {
    /// What is audited of an epoch that opened with `manifest`.
    pub(crate) fn audited(&mut self, epoch: u32, manifest: Signed<Manifest>) -> &mut AuditedEpoch {
        self.state.audits.entry(epoch).or_insert_with(|| AuditedEpoch::new(manifest))
    }

    /// Draws windows of an epoch that is committed.
    pub(crate) fn draw_audits(&mut self, epoch: Epoch) {
        let (mut pending, mut draws, draw) = (BTreeMap::new(), Vec::new(), self.draw());
        // Whoever went away before what it did counted is not among them any more.
        let seats = self.state.seats.miners();
        let miners: Vec<(NodeId, u16)> = seats.map(|seat| (seat.miner, seat.stage)).collect();
        for (miner, stage) in miners {
            let of = epoch.miners.get(&miner).or_else(|| epoch.left.get(&miner));
            let Some(progress) = of else { continue };
            let mut windows = windows_of(&self.config.run, &progress.receipts);
            windows.retain(|window| window.whole);
            let whole: Vec<u32> = windows.iter().map(|window| window.step).collect();
            let drawn = self.drawn_steps(&draw, miner, &whole);
            let mut steps = Vec::new();
            for window in windows {
                if drawn.contains(&window.step) {
                    let at = (miner, window.step);
                    pending.insert(at, window.pending(&progress.receipts, stage, self.now_ms));
                    steps.push(window.step);
                }
            }
            let merge = self.is_merge_drawn(&draw, miner).then(|| self.merge_window(&epoch, miner, stage));
            if let Some((step, window)) = merge.flatten() {
                pending.insert((miner, step), window);
                steps.push(step);
            }
            if !steps.is_empty() {
                draws.push((miner, Message::Draw { epoch: epoch.number, steps, more: false }));
            }
        }
        let audited = self.audited(epoch.number, epoch.opened_with);
        audited.drawn = pending.len();
        audited.pending.extend(pending);
        self.send_draws(draws);
    }

    /// Tells miners what is drawn from them.
    pub(crate) fn send_draws(&mut self, draws: Vec<(NodeId, Message)>) {
        for (miner, draw) in draws {
            self.wait_for_uplink(miner);
            self.send(miner, draw);
        }
    }

    /// The merge of a miner as a window, by its number, where it has come to its end.
    pub(crate) fn merge_window(&self, epoch: &Epoch, miner: NodeId, stage: u16) -> Option<(u32, Pending)> {
        let receipts = &epoch.miners.get(&miner)?.receipts;
        let cut = merge_of(receipts)?;
        let merge = Some(epoch.merge_inputs(stage)?);
        Some((cut.step, Pending { merge, ..cut.pending(receipts, stage, self.now_ms) }))
    }

    pub(crate) fn take_revealed(
        &mut self,
        from: NodeId,
        window: Window,
        state: ObjectRef,
        inputs: Vec<ObjectRef>,
    ) {
        let pending = self.pending(from, window).filter(|pending| pending.standing == Standing::Drawn);
        let Some(pending) = pending else {
            return self.note(from, "revealed", "revealed a window that is not drawn; ignored");
        };
        let named: BTreeSet<Digest> = inputs.iter().map(|input| input.digest).collect();
        let bound = pending.inputs();
        // Of a window that is drawn before its end, more may have come in since.
        if pending.start.body.state != Some(state.digest)
            || !bound.is_subset(&named)
            || named.len() != inputs.len()
        {
            return self.turn_away(from, "revealed other objects than its receipts bind");
        }
        let inputs = inputs.into_iter().filter(|input| bound.contains(&input.digest)).collect();
        let now_ms = self.now_ms;
        self.change_pending(from, window, |pending| {
            (pending.standing, pending.since_ms) = (Standing::Revealed { state, inputs }, now_ms);
        });
        self.owes_less(from);
        self.inquiry_progressed();
        self.order_audits();
        self.convict_withholders();
    }

    /// Gives every revealed window to the validator that has the fewest.
    pub(crate) fn order_audits(&mut self) {
        if self.state.audits.values().all(|audited| audited.pending.revealed().next().is_none()) {
            return;
        }
        let load =
            |validator| self.state.audits.values().map(|audited| audited.pending.load(validator)).sum();
        let mut load: BTreeMap<NodeId, usize> =
            self.state.seats.validators_present().map(|validator| (validator, load(validator))).collect();
        let now_ms = self.now_ms;
        let mut orders = Vec::new();
        for (&epoch, AuditedEpoch { manifest, pending, .. }) in &mut self.state.audits {
            let revealed: Vec<At> = pending.revealed().collect();
            for at in revealed {
                let Some((&validator, count)) = load.iter_mut().min_by_key(|(_, count)| **count) else {
                    return;
                };
                *count += 1;
                let order = pending.change(at, |pending| {
                    let Standing::Revealed { state, inputs } = &pending.standing else { return None };
                    let (state, inputs) = (*state, inputs.clone());
                    let (miner, step) = at;
                    let window = (miner, Window { epoch, step });
                    let order = pending.order(&manifest.body, window, state, inputs.clone());
                    pending.standing = Standing::Ordered { validator, state, inputs };
                    pending.since_ms = now_ms;
                    Some(order)
                });
                orders.extend(order.flatten().map(|order| (validator, order)));
            }
        }
        for (validator, order) in orders {
            self.send(validator, Message::Audit(order.clone()));
            self.try_validator(validator, &order);
        }
    }

    /// A validator is gone: what it had goes to another, or waits for its return.
    pub(crate) fn orphan_audits(&mut self, gone: NodeId) {
        for audited in self.state.audits.values_mut() {
            let its: Vec<At> = audited.pending.ordered_to(gone).map(|(at, _)| at).collect();
            for at in its {
                audited.pending.change(at, |pending| {
                    if let Standing::Ordered { state, inputs, .. } = &pending.standing {
                        pending.standing = Standing::Revealed { state: *state, inputs: inputs.clone() };
                    }
                });
            }
        }
        self.state.consequences.undone.retain(
            |_, (_, pending)| !matches!(pending.standing, Standing::Ordered { validator, .. } if validator == gone),
        );
        self.forget_trials(gone);
        self.order_audits();
        self.orphan_sums(gone);
    }

    pub(crate) fn take_verdict(&mut self, from: NodeId, verdict: &Signed<Verdict>) {
        let Ok(body) = verdict.verify().cloned() else {
            return self.turn_away(from, "sent a verdict whose signature does not hold");
        };
        if verdict.signer != from || body.run != self.run_id {
            return self.turn_away(from, "sent a verdict of another node or run");
        }
        let Verdict { miner, window, start, finding, .. } = body;
        if self.take_trial(from, miner, window, &finding) {
            return;
        }
        let Some((manifest, pending, undone)) = self.judged(miner, window, start) else {
            return self.note(from, "verdict", "judged a window that is not audited; ignored");
        };
        let (stage, count) = (pending.stage, pending.operations(window));
        let Standing::Ordered { validator, state, inputs } = pending.standing.clone() else {
            return self.note(from, "verdict", "judged a window that was not ordered; ignored");
        };
        if validator != from {
            return self.note(from, "verdict", "judged another validator's window; ignored");
        }
        if matches!(finding, Finding::Equal { operations } if operations as usize != count) {
            return self.note(
                from,
                "operations",
                "says that it replayed another number of operations; ignored",
            );
        }
        self.inquiry_progressed();
        if let Finding::Equal { .. } = finding {
            self.report(Report::Audited { miner, stage, window, finding });
            if undone {
                self.state.consequences.undone.remove(&(miner, window, start));
            } else {
                self.pass(miner, window, from);
            }
            // Where a miner stands is no work.
            if !window.is_beginning() {
                self.window_passed(miner);
                if !undone {
                    self.count_equal(miner, window.epoch);
                }
            }
            return self.settle();
        }
        let order = pending.order(&manifest.body, (miner, window), state, inputs.clone());
        let why = conviction_of(&order, &finding);
        let run = self.config.run.canonical_bytes();
        let case = wire::to_bytes(&Evidence { run, manifest, order, verdict: verdict.clone() });
        let charge = Charge::Window { miner, stage, window, finding, why };
        let evidence = self.accuse(from, case, charge);
        let accused = Standing::Accused { evidence, state, inputs };
        if !undone {
            self.change_pending(miner, window, |pending| pending.standing = accused);
        } else if let Some((_, pending)) = self.state.consequences.undone.get_mut(&(miner, window, start)) {
            pending.standing = accused;
        }
    }

    /// The window that a verdict speaks of, with the manifest of its epoch, and whether it was undone since.
    fn judged(
        &self,
        miner: NodeId,
        window: Window,
        start: Digest,
    ) -> Option<(Signed<Manifest>, Pending, bool)> {
        if let Some((manifest, pending)) = self.state.consequences.undone.get(&(miner, window, start)) {
            return Some((manifest.clone(), pending.clone(), true));
        }
        let audited = self.state.audits.get(&window.epoch)?;
        let pending = audited.pending.get((miner, window.step)).filter(|of| of.begins_with() == start)?;
        Some((audited.manifest.clone(), pending.clone(), false))
    }

    /// A window was found equal, by this validator.
    fn pass(&mut self, miner: NodeId, Window { epoch, step }: Window, by: NodeId) {
        let Some(audited) = self.state.audits.get_mut(&epoch) else { return };
        if let Some(pending) = audited.pending.remove((miner, step)) {
            audited.passed.insert((miner, step), (by, pending));
        }
    }

    /// Whether `digest` is bound by a window drawn from `miner`, in which stage: with `true` as state, with `false` as input.
    pub(crate) fn drawn_bound(&self, miner: NodeId, digest: Digest) -> Option<(u16, bool)> {
        let drawn = self.pending_of(miner).filter(|pending| pending.standing == Standing::Drawn);
        let mut bound = None;
        for pending in drawn {
            if pending.start.body.state == Some(digest) {
                return Some((pending.stage, true));
            }
            if pending.inputs().contains(&digest) {
                bound = Some((pending.stage, false));
            }
        }
        // Of a window that is drawn before its end, the miner may have gone on.
        let open = self.state.epoch.as_ref().filter(|_| self.state.inquiry.is_some());
        let later = open
            .and_then(|epoch| epoch.miners.get(&miner))
            .filter(|progress| progress.receipts.iter().any(|receipt| receipt.body.input == Some(digest)));
        bound.or(later.and_then(|_| Some((self.state.seats.stage_of(miner)?, false))))
    }

    /// As long as anything is found out, nothing stands still.
    fn inquiry_progressed(&mut self) {
        if self.state.inquiry.is_some() {
            self.progressed();
        }
    }

    /// Whether `object` belongs to an audit that this validator was ordered to do.
    pub(crate) fn ordered_to(&self, node: NodeId, object: ObjectRef) -> bool {
        let undone = self.state.consequences.undone.values().map(|(_, pending)| pending);
        let pending = self.state.audits.values().flat_map(|epoch| epoch.pending.ordered_to(node));
        let pending = pending.map(|(_, pending)| pending);
        self.planted_for(node, object)
            || pending.chain(undone).any(|pending| match &pending.standing {
                Standing::Ordered { validator, state, inputs } => {
                    let anchor = pending.merge.as_ref().map(|merge| merge.anchor);
                    *validator == node
                        && (*state == object || inputs.contains(&object) || anchor == Some(object))
                }
                Standing::Drawn | Standing::Revealed { .. } | Standing::Accused { .. } => false,
            })
    }

    pub(crate) fn pending(&self, miner: NodeId, window: Window) -> Option<&Pending> {
        self.state.audits.get(&window.epoch)?.pending.get((miner, window.step))
    }

    /// Changes a window that waits, if there is such a one.
    pub(crate) fn change_pending(
        &mut self,
        miner: NodeId,
        window: Window,
        change: impl FnOnce(&mut Pending),
    ) {
        if let Some(audited) = self.state.audits.get_mut(&window.epoch) {
            audited.pending.change((miner, window.step), change);
        }
    }

    pub(crate) fn pending_of(&self, miner: NodeId) -> impl Iterator<Item = &Pending> {
        let of_it = self.state.audits.values().flat_map(move |epoch| epoch.pending.of(miner));
        of_it.map(|(_, pending)| pending)
    }
}

/// Receipts that fit one order. Only a window of a miner that stands in for others can have more, and is not drawn then.
pub(crate) const RECEIPTS_MAX: usize = 2 * 1024 + 1;

/// Where a window lies among a miner's receipts of an epoch.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// Its first inner step.
    pub step: u32,
    /// The receipt that binds the state before it.
    start: usize,
    /// Its own receipts.
    receipts: Range<usize>,
    /// Whether it has come to its end, with the state bound.
    whole: bool,
}

impl Cut {
    /// The window as it is drawn now, from the receipts that it was cut from.
    pub fn pending(&self, receipts: &[Signed<Receipt>], stage: u16, since_ms: u64) -> Pending {
        let (start, receipts) = (receipts[self.start].clone(), receipts[self.receipts.clone()].to_vec());
        let (extended, merge, standing) = (false, None, Standing::Drawn);
        Pending { stage, since_ms, extended, start, receipts, merge, standing }
    }
}

/// The merge that a miner's receipts of an epoch end with, from the state after its last inner step to the one in which
/// it begins the next epoch.
fn merge_of(receipts: &[Signed<Receipt>]) -> Option<Cut> {
    let last =
        receipts.iter().rposition(|receipt| matches!(receipt.body.operation, Operation::Step { .. }))?;
    let Operation::Step { step, .. } = receipts[last].body.operation else { return None };
    let ends = receipts.last()?.body.operation == Operation::Apply;
    let cut =
        Cut { step: step.checked_add(1)?, start: last, receipts: last + 1..receipts.len(), whole: true };
    let fits = cut.receipts.len() <= RECEIPTS_MAX && receipts.last()?.body.outcome == Outcome::Ok;
    Some(cut).filter(|_| ends && fits)
}

/// The windows of a miner's receipts of an epoch, from bound state to bound state, that fit an order; the last may not
/// have come to its end.
pub(crate) fn windows_of(run: &Run, receipts: &[Signed<Receipt>]) -> Vec<Cut> {
    let mut windows = Vec::new();
    // The first receipt binds the state that the epoch began with.
    let (mut step, mut start, mut from) = (0, 0, 0);
    for (at, receipt) in receipts.iter().enumerate() {
        let ends = match &receipt.body.operation {
            Operation::Forward(_) | Operation::Backward(_) => None,
            Operation::Step { step, .. } => Some(*step),
            Operation::Scale | Operation::Encode | Operation::Reduce { .. } | Operation::Apply => break,
        };
        let end = at + 1;
        match ends.filter(|&ended| run.digests_after(ended)) {
            Some(ended) => {
                windows.push(Cut { step, start, receipts: from..end, whole: true });
                (step, start, from) = (ended.saturating_add(1), at, end);
            }
            None if end == receipts.len() => {
                windows.push(Cut { step, start, receipts: from..end, whole: false });
            }
            None => {}
        }
    }
    windows.retain(|window| window.receipts.len() <= RECEIPTS_MAX);
    windows
}
