//! Doing again what others did: a validator's replays and sums, and the second party's.

use super::codes;
use super::disk::Objects;
use super::learner::{Learner, Made};
use super::perform::missing;
use orchestrator_core::Confirmation;
use spec::{Digest, NodeId, Operation, Run};
use validator_core::{
    Addition, Objection, begins_epoch, check, check_beginning, check_merge, compare, compare_beginning,
};
use wire::{Evidence, Finding, Key, MergeEvidence, Message, ObjectRef, Signed, SumVerdict, Verdict};

/// What pieces of a shard add up to, if all open.
pub(super) fn add_up(
    table: &Objects,
    blocks: &std::ops::Range<u64>,
    roots: &[(NodeId, Digest)],
    pieces: &[Digest],
) -> Option<Digest> {
    let pieces: Vec<&[u8]> = pieces.iter().map(|piece| table.get(*piece)).collect::<Option<_>>()?;
    let opens = |(bytes, root): (&&[u8], &(NodeId, Digest))| {
        codes::piece(bytes).is_ok_and(|piece| (piece.who, piece.root) == *root && piece.blocks == *blocks)
    };
    let all = pieces.iter().zip(roots).all(opens);
    Some(Digest::of(&codes::sum(&pieces).ok().filter(|_| all)?))
}

/// The fresh state of a stage, from what a manifest names of it.
pub(super) fn fresh_state(
    table: &Objects,
    stage: u16,
    weights: Digest,
    momentum: Option<Digest>,
) -> Result<Learner, String> {
    let object = |digest| table.get(digest).ok_or_else(|| missing(digest));
    Learner::of_manifest(stage, object(weights)?, momentum.map(object).transpose()?)
}

/// Does again what receipts say, up to the first operation that cannot be done.
pub(super) fn replay(
    run: &Run,
    table: &Objects,
    (miner, epoch): (NodeId, u32),
    (state, weights): (Digest, Option<Digest>),
    operations: &[validator_core::Replay],
) -> (Vec<validator_core::Replayed>, Option<String>) {
    let mut results = Vec::new();
    let start = table.get(state).ok_or_else(|| missing(state)).and_then(Learner::from_state);
    let mut learner = match start {
        Ok(learner) => learner,
        Err(why) => return (results, Some(why)),
    };
    if weights.is_some_and(|weights| weights != Digest::of(&learner.shard())) {
        return (results, Some("the epoch began with other weights".into()));
    }
    for replay in operations {
        let inputs: Result<Vec<&[u8]>, String> =
            replay.inputs.iter().map(|&input| table.get(input).ok_or_else(|| missing(input))).collect();
        let made = match inputs {
            Err(absent) => Err(absent),
            Ok(inputs) => learner.perform(run, epoch, &replay.operation, &inputs),
        };
        match made {
            Ok(Made { output, loss_q32, outcome, contribution }) => results.push(validator_core::Replayed {
                output: match replay.operation {
                    Operation::Encode => contribution.map(|contribution| contribution.root(miner)),
                    Operation::Apply => Some(Digest::of(&learner.shard())),
                    _ => output.map(|bytes| Digest::of(&bytes)),
                },
                state: replay.digest_state.then(|| Digest::of(&learner.state())),
                loss_q32,
                outcome,
            }),
            Err(why) => return (results, Some(why)),
        }
    }
    (results, None)
}

/// What a second party that has the store says of a case: the truth.
pub(super) fn confirm(run: &Run, store: &Objects, case: &[u8]) -> Confirmation {
    let holds = if let Ok(case) = postcard::from_bytes::<Evidence>(case) {
        window_is_wrong(run, store, &case)
    } else if let Ok(case) = postcard::from_bytes::<MergeEvidence>(case) {
        sum_is_wrong(run, store, &case)
    } else {
        return Confirmation::Unable { why: "it is no case".into() };
    };
    if holds {
        Confirmation::Proven
    } else {
        Confirmation::NotProven { why: "it is as it was signed".into() }
    }
}

fn window_is_wrong(run: &Run, store: &Objects, case: &Evidence) -> bool {
    let order = &case.order;
    if order.window.is_beginning() {
        return beginning_is_wrong(run, store, case);
    }
    let operations = match check(run, run.id(), order) {
        Ok(operations) => operations,
        Err(Objection::Miner(_)) => return true,
        Err(Objection::Order(_)) => return matches!(case.verdict.body.finding, Finding::Inconsistent { .. }),
    };
    let mut objects = order.objects();
    if objects.any(|object| store.get(object.digest).is_none()) {
        return matches!(case.verdict.body.finding, Finding::Withheld { .. });
    }
    let weights = Some(order.weights).filter(|_| begins_epoch(order));
    let (results, stopped) =
        replay(run, store, (order.miner, order.window.epoch), (order.state.digest, weights), &operations);
    !matches!(compare(&order.receipts, &results, stopped.as_deref()), Finding::Equal { .. })
}

fn beginning_is_wrong(run: &Run, store: &Objects, case: &Evidence) -> bool {
    let order = &case.order;
    let record = &case.manifest.body.stages[usize::from(order.stage)];
    let named: Vec<ObjectRef> = std::iter::once(record.weights).chain(record.momentum).collect();
    let is_whole =
        order.objects().eq(named) && record.miners.contains(&order.miner) != order.receipts.is_empty();
    if !is_whole || check_beginning(run, run.id(), order).is_err() {
        return false;
    }
    let momentum = record.momentum.map(|momentum| momentum.digest);
    let fresh = fresh_state(store, order.stage, record.weights.digest, momentum);
    fresh.is_ok_and(|fresh| {
        let found = compare_beginning(order, Digest::of(&fresh.state()));
        !matches!(found, Finding::Equal { .. })
    })
}

fn sum_is_wrong(run: &Run, store: &Objects, case: &MergeEvidence) -> bool {
    let Ok(Addition { blocks, roots }) = check_merge(run, run.id(), &case.order) else { return false };
    let pieces: Vec<Digest> = case.order.pieces.iter().map(|piece| piece.digest).collect();
    let found = add_up(store, &blocks, &roots, &pieces);
    let claim = case.order.claims.iter().find(|claim| claim.signer == case.accused);
    let lied = found.is_none() || claim.is_some_and(|claim| claim.body.output != found);
    lied && found == case.verdict.body.sum
}

/// What a validator says that finds everything wrong.
pub(super) fn slander(message: &Message, key: &Key) -> Message {
    match message {
        Message::Verdict(verdict) if matches!(verdict.body.finding, Finding::Equal { .. }) => {
            let finding = Finding::Unequal {
                sequence: 0,
                what: "output".into(),
                expected: "something".into(),
                found: "something else".into(),
            };
            Message::Verdict(Signed::new(Verdict { finding, ..verdict.body.clone() }, key))
        }
        Message::AddedUp(verdict) => {
            let sum = verdict.body.sum.map(|sum| Digest::of(sum.as_bytes()));
            Message::AddedUp(Signed::new(SumVerdict { sum, ..verdict.body.clone() }, key))
        }
        other => other.clone(),
    }
}
