//! Evidence that a miner began an epoch in a state that is neither the one that its merge came to nor the fresh one.
//!
//! Everything follows from three things that were signed: the manifest, which says what the fresh state is made of and who merged
//! into it; the accused's receipt of that merge, if it is among those; and the accused's first receipt of the epoch.

use super::verify::{Conviction, Outcome, object};
use super::{Parts, Refused, refused};
use crate::replay::fresh_state;
use spec::Digest;
use std::panic::{AssertUnwindSafe, catch_unwind};
use validator_core::{check_beginning, compare_beginning};
use wire::{Evidence, Finding, ObjectRef};

/// Decides a case whose signatures hold.
///
/// # Errors
/// What proves nothing about anybody.
pub(super) fn decide(parts: &Parts<'_>, run_id: Digest) -> Result<Outcome, Refused> {
    let order = &parts.case.order;
    check_manifest(&parts.case)?;
    check_beginning(&parts.run, run_id, order)
        .map_err(|why| refused("receipts", "where the accused began an epoch, signed", why))?;
    let weights = object(parts, &order.state)?;
    let momentum = order.inputs.first().map(|momentum| object(parts, momentum)).transpose()?;
    // What a stranger's file makes the engine stumble over is a bug of ours, and convicts nobody.
    let built = catch_unwind(AssertUnwindSafe(|| fresh_state(&parts.run, order.stage, weights, momentum)));
    let fresh = built
        .map_err(|_| refused("fresh state", "a state", "a panic of the engine, which is a bug"))?
        .map_err(|why| refused("fresh state", "weights and momentum of the stage", why))?;
    Ok(match compare_beginning(order, fresh) {
        Finding::Equal { operations } => Outcome::NotProven { operations },
        finding => {
            let operation = Some(order.start.body.operation.to_string());
            Outcome::Convicted(Conviction { operation, finding })
        }
    })
}

/// The fresh state is made of what the manifest names, and the receipt of a merge is there if, and only if, it names the accused.
fn check_manifest(case: &Evidence) -> Result<(), Refused> {
    let (order, stages) = (&case.order, &case.manifest.body.stages);
    let record = stages.get(usize::from(order.stage));
    let record = record.ok_or_else(|| refused("manifest", "one of that stage", "none"))?;
    let named: Vec<ObjectRef> = std::iter::once(record.weights).chain(record.momentum).collect();
    let given: Vec<ObjectRef> = order.objects().collect();
    if given != named {
        let list =
            |objects: &[ObjectRef]| objects.iter().map(ObjectRef::to_string).collect::<Vec<_>>().join(", ");
        return Err(refused("weights and momentum", list(&named), list(&given)));
    }
    let (merged, given) = (record.miners.contains(&order.miner), !order.receipts.is_empty());
    if merged != given {
        let text = |is_there: bool| if is_there { "one of the accused" } else { "none" };
        return Err(refused("receipt of the merge", text(merged), text(given)));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a trial that cannot go on has failed
mod tests;
