//! Replay against receipt, digest by digest: no threshold.

use crate::event::Replayed;
use spec::{Digest, Outcome};
use wire::{AuditOrder, Finding, Receipt, Signed};

/// The first difference, or that there is none.
pub fn compare(receipts: &[Signed<Receipt>], results: &[Replayed], stopped: Option<&str>) -> Finding {
    let receipts: Vec<&Signed<Receipt>> =
        receipts.iter().filter(|receipt| receipt.body.operation.is_replayed()).collect();
    for (receipt, replayed) in receipts.iter().zip(results) {
        if let Some(finding) = difference(&receipt.body, replayed) {
            return finding;
        }
    }
    match receipts.get(results.len()) {
        None => Finding::Equal { operations: u32::try_from(receipts.len()).unwrap_or(u32::MAX) },
        Some(next) => Finding::Inconsistent {
            why: format!(
                "receipt {} ({}) cannot be replayed: {}",
                next.body.sequence,
                next.body.operation,
                stopped.unwrap_or("the replay gives no reason")
            ),
        },
    }
}

/// The state that a miner began its epoch with, against those in which it may: the one that its merge came to, and the fresh one.
pub fn compare_beginning(order: &AuditOrder, fresh: Digest) -> Finding {
    let Receipt { state, sequence, .. } = &order.start.body;
    let merged = order.receipts.first().and_then(|merge| merge.body.state);
    if [Some(fresh), merged].contains(state) && state.is_some() {
        return Finding::Equal { operations: 0 };
    }
    let found = state.map_or("nothing".into(), |state| state.to_string());
    Finding::Unequal { sequence: *sequence, what: "state".into(), expected: fresh.to_string(), found }
}

fn difference(body: &Receipt, replayed: &Replayed) -> Option<Finding> {
    let digest = |digest: Option<Digest>| digest.map_or("nothing".into(), |digest| digest.to_string());
    let loss = |loss: Option<i64>| loss.map_or("nothing".into(), |loss| format!("{loss} x 2^-32 nats"));
    let outcome = |outcome: Outcome| outcome.name().to_owned();
    let fields = [
        ("output", digest(replayed.output), digest(body.output)),
        ("state", digest(replayed.state), digest(body.state)),
        ("loss", loss(replayed.loss_q32), loss(body.loss_q32)),
        ("outcome", outcome(replayed.outcome), outcome(body.outcome)),
    ];
    let (what, expected, found) = fields.into_iter().find(|(_, expected, found)| expected != found)?;
    Some(Finding::Unequal { sequence: body.sequence, what: what.into(), expected, found })
}
