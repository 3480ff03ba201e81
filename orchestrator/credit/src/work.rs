//! What receipts prove of one miner in one epoch.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Operation, Outcome};
use wire::{Receipt, Signed};

/// One miner's work of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Who.
    pub miner: NodeId,
    /// Its stage.
    pub stage: u16,
    /// Microbatches that went forward.
    pub forwards: u64,
    /// Microbatches whose gradient was folded into a step that was taken.
    pub folded: u64,
    /// Inner steps.
    pub steps: u32,
    /// FLOPs of what was folded: forward and backward, as the model's shape counts them.
    pub flops: u64,
    /// Sequence number of the epoch's first receipt.
    pub first: u64,
    /// Sequence number of its last.
    pub last: u64,
    /// Digest of its last receipt, which binds all before it.
    pub head: Digest,
    /// Drawn windows that were replayed and found equal.
    pub audits_equal: u32,
}

impl Work {
    /// The work that an epoch's receipts of one miner prove, `flops` being those of one microbatch through its stage,
    /// forward and backward; `None` without receipts.
    ///
    /// Only what a step names as folded counts: whoever forwards and never folds has helped nobody.
    pub fn of(miner: NodeId, flops: u64, receipts: &[Signed<Receipt>]) -> Option<Self> {
        let (first, last) = (receipts.first()?, receipts.last()?);
        let mut work = Self {
            miner,
            stage: first.body.stage,
            forwards: 0,
            folded: 0,
            steps: 0,
            flops: 0,
            first: first.body.sequence,
            last: last.body.sequence,
            head: last.digest(),
            audits_equal: 0,
        };
        for receipt in receipts.iter().filter(|receipt| receipt.body.outcome == Outcome::Ok) {
            match &receipt.body.operation {
                Operation::Forward(_) => work.forwards += 1,
                Operation::Step { members, .. } => {
                    work.steps += 1;
                    work.folded += members.len() as u64;
                }
                _ => {}
            }
        }
        work.flops = work.folded.saturating_mul(flops);
        Some(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::{Member, Mode};
    use wire::Key;

    #[test]
    fn only_what_a_step_folded_is_worth_something() {
        let key = Key::from_seed([1; 32]);
        let member = |assignment| Member { assignment, attempt: 0, step: 0, position: 0, microbatch: 5 };
        let operations = [
            Operation::Forward(member(1)),
            Operation::Forward(member(2)),
            Operation::Forward(member(3)),
            Operation::Backward(member(1)),
            Operation::Backward(member(2)),
            Operation::Step { step: 0, members: vec![member(1), member(2)] },
            Operation::Scale,
        ];
        let receipts: Vec<_> = (7u64..)
            .zip(operations)
            .map(|(sequence, operation)| {
                let body = Receipt {
                    run: Digest([0; 32]),
                    mode: Mode::Portable,
                    epoch: 3,
                    sequence,
                    previous: Digest([2; 32]),
                    stage: 1,
                    operation,
                    state: None,
                    input_receipt: None,
                    input: None,
                    output: None,
                    loss_q32: None,
                    outcome: Outcome::Ok,
                };
                Signed::new(body, &key)
            })
            .collect();
        let work = Work::of(key.id(), 10, &receipts).unwrap();
        assert_eq!((work.forwards, work.folded, work.steps, work.flops), (3, 2, 1, 20));
        assert_eq!((work.first, work.last, work.head), (7, 13, receipts[6].digest()));
        assert_eq!(Work::of(key.id(), 10, &[]), None);
    }
}
