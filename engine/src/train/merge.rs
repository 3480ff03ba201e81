//! The end of an epoch for the replicas of one stage.

use super::TrainError;
use crate::contribution::{Committed, Contribution};
use crate::state::StageState;
use crate::work::{Done, WorkError, perform};
use spec::{NodeId, Operation, Outcome, Outer};

/// Scales, codes on the shared scales, one exact sum, the outer step in
/// each. Sums are integers, so how a swarm cuts them into shards shows in no bit of the result.
pub(super) fn merge(replicas: &mut [&mut StageState], stage: usize, epoch: u32) -> Result<(), TrainError> {
    let mut sums = Vec::new();
    if let Some(Outer::Nesterov { bits, .. }) = replicas.first().map(|first| first.run.outer.clone()) {
        let scales = each(replicas, stage, epoch, &Operation::Scale, &[])?;
        let contributions = each(replicas, stage, epoch, &Operation::Encode, &scales)?;
        // Whose they are shows in no bit of the sum either.
        let contributors: Vec<NodeId> = (0..replicas.len()).map(|i| NodeId([i as u8; 32])).collect();
        let mut pieces = Vec::new();
        for (bytes, &who) in contributions.iter().zip(&contributors) {
            let count = replicas[0].parameters();
            let contribution = Contribution::from_bytes(bits, count, bytes).map_err(WorkError::from)?;
            let whole = Committed::new(contribution, who);
            pieces.extend(whole.piece(&(0..whole.leaves())));
        }
        let reduce = Operation::Reduce { shard: 0, contributors };
        sums = each(&mut replicas[..1], stage, epoch, &reduce, &pieces)?;
    }
    each(replicas, stage, epoch, &Operation::Apply, &sums).map(drop)
}

/// Performs an operation of the merge in each replica; the outputs, of those that have one.
fn each(
    replicas: &mut [&mut StageState],
    stage: usize,
    epoch: u32,
    operation: &Operation,
    inputs: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, TrainError> {
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs = Vec::new();
    for state in replicas {
        let Done { output, outcome, .. } = perform(state, None, epoch, operation, &inputs)?;
        if outcome == Outcome::NonFinite {
            return Err(TrainError::NonFinite { operation: operation.to_string(), stage, epoch });
        }
        outputs.extend(output);
    }
    Ok(outputs)
}
