//! Whether an order holds together, before anything is fetched or replayed.
//!
//! Two kinds of objection are told apart, because evidence outlives the conversation: a receipt that is wrong by
//! itself convicts who signed it, a choice of receipts that is no window convicts nobody.

use crate::effect::Replay;
use spec::{Digest, Member, Operation, Outer, Run, StageKind};
use std::collections::BTreeSet;
use wire::merge::inputs_digest;
use wire::{AuditOrder, Chain, MergeInputs, Receipt, Signed};

/// Why an order cannot be replayed, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// The receipts are not one window of the miner. An honest chain has stretches that are none, such as where an
    /// epoch began again in the middle of a step, so whoever chose them is to blame.
    #[error("{0}")]
    Order(String),
    /// A receipt under the miner's own signature has other fields than its operation.
    #[error("{0}")]
    Miner(String),
}

use Objection::{Miner, Order};

/// What is to be replayed, if the receipts are those of one window of one miner, from its start without a gap. They may end
/// before the window does: what was signed until then is as wrong or right as it is.
///
/// # Errors
/// The first contradiction.
pub fn check(run: &Run, run_id: Digest, order: &AuditOrder) -> Result<Vec<Replay>, Objection> {
    let kind = run.model.stage(usize::from(order.stage)).map(|stage| stage.kind);
    let kind = kind.ok_or_else(|| Order(format!("stage {} is past the tail", order.stage)))?;
    if run.window_start(order.window.step) != order.window.step {
        return Err(Order(format!("no receipt binds the state before step {}", order.window.step)));
    }
    check_chain(run, run_id, order)?;
    check_start(order)?;
    let inputs: BTreeSet<Digest> = order.inputs.iter().map(|input| input.digest).collect();
    if let Some(merge) = &order.merge {
        return check_merging(run, order, merge, &inputs);
    }
    check_operations(run, kind, order)?;
    let bodies = order.receipts.iter().map(|receipt| &receipt.body);
    for (at, body) in bodies.clone().enumerate() {
        check_fields(run, kind, body, begins_epoch(order) && at == 0)?;
        if let Some(input) = body.input.filter(|input| !inputs.contains(input)) {
            return Err(Order(format!(
                "the input {} of receipt {} is not among those revealed",
                input.short(),
                body.sequence
            )));
        }
    }
    let replay = |body: &Receipt| Replay {
        operation: body.operation.clone(),
        inputs: body.input.into_iter().collect(),
        digest_state: body.state.is_some(),
    };
    Ok(bodies.map(replay).collect())
}

/// Whether an order to look where a miner began its epoch holds together: it signed the state, and the receipt of the merge by which
/// it came there, if that is given.
///
/// # Errors
/// The first contradiction. Whoever chose the receipts is to blame.
pub fn check_beginning(run: &Run, run_id: Digest, order: &AuditOrder) -> Result<(), Objection> {
    let start = &order.start;
    check_signature(run, run_id, (order, order.window.epoch), start)?;
    let begins = matches!(start.body.operation, Operation::Forward(_)) && start.body.state.is_some();
    if !order.window.is_beginning() || !begins || order.receipts.len() > 1 {
        return Err(Order(format!("receipt {} does not bind where an epoch begins", start.body.sequence)));
    }
    let Some(merge) = order.receipts.first() else { return Ok(()) };
    let before = order.window.epoch.checked_sub(1);
    let before = before.ok_or_else(|| Order("no merge comes before the first epoch".into()))?;
    check_signature(run, run_id, (order, before), merge)?;
    let Receipt { operation, output, state, sequence, .. } = &merge.body;
    let merges = *operation == Operation::Apply && *output == Some(order.weights) && state.is_some();
    if !merges || *sequence >= start.body.sequence {
        return Err(Order(format!("receipt {sequence} is not of the merge that the epoch began after")));
    }
    Ok(())
}

/// Whether the window begins its epoch. The state before it is bound by the first receipt of the window itself: a forward changes nothing.
pub fn begins_epoch(order: &AuditOrder) -> bool {
    order.window.step == 0
}

fn check_chain(run: &Run, run_id: Digest, order: &AuditOrder) -> Result<(), Objection> {
    let Some(first) = order.receipts.first() else { return Err(Order("there is no receipt".into())) };
    let before = if begins_epoch(order) { None } else { Some(&order.start) };
    if before.is_none() && *first != order.start {
        return Err(Order("the receipt that binds the state is not the window's first".into()));
    }
    let mut chain = Chain { next: order.start.body.sequence, last: order.start.body.previous };
    for receipt in before.into_iter().chain(&order.receipts) {
        check_signature(run, run_id, (order, order.window.epoch), receipt)?;
        chain.follow(&receipt.body).map_err(|error| Order(error.to_string()))?;
    }
    Ok(())
}

fn check_signature(
    run: &Run,
    run_id: Digest,
    (order, epoch): (&AuditOrder, u32),
    receipt: &Signed<Receipt>,
) -> Result<(), Objection> {
    let body = receipt.verify().map_err(|error| Order(error.to_string()))?;
    let sequence = body.sequence;
    if receipt.signer != order.miner {
        return Err(Order(format!(
            "receipt {sequence} is signed by {}, not by the miner {}",
            receipt.signer.short(),
            order.miner.short()
        )));
    }
    let place = (body.run, body.mode, body.epoch, body.stage);
    if place != (run_id, run.mode, epoch, order.stage) {
        return Err(Order(format!("receipt {sequence} is of another run, mode, epoch or stage")));
    }
    Ok(())
}

fn check_start(order: &AuditOrder) -> Result<(), Objection> {
    let start = &order.start.body;
    if start.state != Some(order.state.digest) {
        return Err(Order(format!(
            "the state revealed is not the one that receipt {} binds",
            start.sequence
        )));
    }
    match start.operation {
        Operation::Forward(member) if begins_epoch(order) && member.step == 0 => Ok(()),
        Operation::Step { step, .. } if step.checked_add(1) == Some(order.window.step) => Ok(()),
        _ => Err(Order(format!("receipt {} is not the one before the window", start.sequence))),
    }
}

/// Step by step: each member forward before backward, backwards in position order, then the step on all of them. Forwards of a
/// step whose weights may be stale may come before the step before it.
fn check_operations(run: &Run, kind: StageKind, order: &AuditOrder) -> Result<(), Objection> {
    let (mut forward, mut folded): (BTreeSet<Member>, Vec<Member>) = Default::default();
    let mut due = order.window.step;
    for (at, body) in order.receipts.iter().map(|receipt| &receipt.body).enumerate() {
        let sequence = body.sequence;
        let within = run.window_start(due) == order.window.step;
        let holds = within
            && match &body.operation {
                // An epoch that begins again binds its state again.
                Operation::Forward(member) => {
                    let begins = body.state.is_some() && (at > 0 || !begins_epoch(order));
                    let ahead = due.checked_add(1) == Some(member.step) && run.is_stale(member.step);
                    (member.step == due || ahead) && !begins && forward.insert(*member)
                }
                Operation::Backward(member) => {
                    let after = folded.last().is_none_or(|last| last.position < member.position);
                    let in_turn = after && member.step == due && forward.contains(member);
                    folded.push(*member);
                    in_turn
                }
                // The step of a miner that stands in for another has more members than the run says, one of which some
                // were struck has fewer. Which were due, the orchestrator knows; that none is left out here, the chain says.
                Operation::Step { step, members } => {
                    let holds = *step == due && *members == folded;
                    due = due.saturating_add(1);
                    forward.retain(|member| member.step > *step);
                    folded.clear();
                    holds
                }
                Operation::Scale | Operation::Encode | Operation::Reduce { .. } | Operation::Apply => false,
            };
        if !holds {
            return Err(Order(format!(
                "receipt {sequence} ({}) is out of place in the window of a {}",
                body.operation,
                kind.name()
            )));
        }
    }
    Ok(())
}

/// What a miner does when its stage merges, to its end: scales and an encoding where there is an outer optimizer, sums, the
/// outer step. What goes in is named by digest, and is all there.
fn check_merging(
    run: &Run,
    order: &AuditOrder,
    merge: &MergeInputs,
    there: &BTreeSet<Digest>,
) -> Result<Vec<Replay>, Objection> {
    let MergeInputs { anchor, scales, sums } = merge;
    // A miner whose lane was too slow for the others merges after fewer steps than the run's, with a window's end.
    if begins_epoch(order) || anchor.digest != order.weights {
        return Err(Order("the merge is not that of the epoch".into()));
    }
    if let Some(absent) = scales.iter().chain(sums).find(|input| !there.contains(input)) {
        return Err(Order(format!("the input {} of the merge is not among those revealed", absent.short())));
    }
    let named = |inputs: &[Digest]| (!inputs.is_empty()).then(|| inputs_digest(inputs));
    let merges = run.outer != Outer::None;
    let (mut due, mut replays) = (if scales.is_empty() { 1 } else { 0 }, Vec::new());
    for body in order.receipts.iter().map(|receipt| &receipt.body) {
        let (turn, input, inputs) = match &body.operation {
            Operation::Scale => (0, None, Vec::new()),
            Operation::Encode => (1, named(scales), scales.clone()),
            Operation::Reduce { .. } => (2, body.input, Vec::new()),
            Operation::Apply => (3, named(sums), sums.clone()),
            Operation::Forward(_) | Operation::Backward(_) | Operation::Step { .. } => (4, None, Vec::new()),
        };
        // Sums may be any number, all else comes once.
        let in_turn = turn == due || merges && due == 2 && turn == 3 || !merges && turn == 3 && due < 3;
        if !in_turn || body.input != input {
            return Err(Order(format!(
                "receipt {} ({}) is out of place in a merge, or reads something else",
                body.sequence, body.operation
            )));
        }
        due = if turn == 2 { 2 } else { turn + 1 };
        let is_last = turn == 3;
        if body.state.is_some() != is_last {
            let verb = if is_last { "lacks" } else { "has" };
            return Err(Miner(format!(
                "receipt {} ({}) {verb} a state digest",
                body.sequence, body.operation
            )));
        }
        if body.operation.is_replayed() {
            replays.push(Replay { operation: body.operation.clone(), inputs, digest_state: is_last });
        }
    }
    if due == 4 { Ok(replays) } else { Err(Order("the merge does not come to its end".into())) }
}

fn check_fields(run: &Run, kind: StageKind, body: &Receipt, begins: bool) -> Result<(), Objection> {
    let (input, state) = match &body.operation {
        Operation::Forward(_) => (!kind.embeds(), begins),
        Operation::Backward(_) => (!kind.judges(), false),
        Operation::Step { step, .. } => (false, run.digests_after(*step)),
        Operation::Scale | Operation::Encode | Operation::Reduce { .. } | Operation::Apply => (false, false),
    };
    for (what, found, expected) in
        [("an input", body.input.is_some(), input), ("a state digest", body.state.is_some(), state)]
    {
        if found != expected {
            let verb = if expected { "lacks" } else { "has" };
            return Err(Miner(format!("receipt {} ({}) {verb} {what}", body.sequence, body.operation)));
        }
    }
    Ok(())
}
