//! Why a key got what it got.

use crate::entry::{Share, Strike};
use crate::ledger::Ledger;
use crate::work::Work;
use spec::{Digest, NodeId};

/// Why a weight is not simply a part of the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It follows from the score.
    Score,
    /// It was convicted, in this epoch or before.
    Struck {
        /// Digest of the evidence, where the lie can be replayed.
        evidence: Option<Digest>,
    },
    /// It did less than the minimum.
    Minimum,
    /// It reached the cap.
    Cap,
    /// It did nothing within the window, or never came.
    Absent,
}

/// What one entry says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The epoch.
    pub epoch: u32,
    /// What it did in the epoch.
    pub work: Option<Work>,
    /// What it has after it.
    pub share: Option<Share>,
    /// All work of its stage in the epoch, in FLOPs.
    pub stage_flops: u64,
    /// Why.
    pub reason: Reason,
}

/// What every entry says of `miner`, oldest first.
pub fn explain(ledger: &Ledger, miner: NodeId) -> Vec<Line> {
    let mut strike: Option<Strike> = None;
    let mut lines = Vec::with_capacity(ledger.entries().len());
    for entry in ledger.entries() {
        let entry = &entry.body;
        strike = strike.or_else(|| entry.struck.iter().find(|strike| strike.miner == miner).copied());
        let work = entry.work.iter().find(|work| work.miner == miner).copied();
        let share = entry.shares.iter().find(|share| share.miner == miner).copied();
        let stage = work.map(|work| work.stage);
        let peers = entry.work.iter().filter(|work| Some(work.stage) == stage);
        let stage_flops = peers.fold(0u64, |sum, work| sum.saturating_add(work.flops));
        let cap = entry.rule.cap_units();
        let reason = match (strike, share) {
            (Some(strike), _) => Reason::Struck { evidence: strike.evidence },
            (None, None) => Reason::Absent,
            (None, Some(share)) if share.weight == 0 => Reason::Minimum,
            (None, Some(share)) if u64::from(share.weight) >= cap && entry.shares.len() > 1 => Reason::Cap,
            (None, Some(_)) => Reason::Score,
        };
        lines.push(Line { epoch: entry.epoch, work, share, stage_flops, reason });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;
    use crate::testing::work;
    use wire::Key;

    #[test]
    fn each_reason_is_told() {
        let (mut ledger, key) = (Ledger::default(), Key::from_seed([5; 32]));
        let rule = Rule { cap: 1 << 15, ..Rule::default() };
        let strike = Strike { miner: NodeId([3; 32]), evidence: Some(Digest([9; 32])) };
        for (epoch, struck) in [(0, vec![]), (1, vec![strike])] {
            let done = vec![work(1, 0, 1000), work(2, 0, 300), work(3, 0, 300), work(4, 0, 2)];
            let at = (Digest([1; 32]), epoch, Digest([2; 32]));
            let entry = ledger.next(&key, at, rule, done, struck).unwrap();
            ledger.push(entry).unwrap();
        }
        let reasons = |name| {
            explain(&ledger, NodeId([name; 32])).into_iter().map(|line| line.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(1), [Reason::Cap, Reason::Cap]);
        assert_eq!(reasons(2), [Reason::Score, Reason::Cap]);
        assert_eq!(reasons(3), [Reason::Score, Reason::Struck { evidence: strike.evidence }]);
        assert_eq!(reasons(4), [Reason::Minimum, Reason::Minimum]);
        assert_eq!(reasons(5), [Reason::Absent, Reason::Absent]);
        let line = explain(&ledger, NodeId([2; 32]))[0];
        assert_eq!((line.stage_flops, line.work.unwrap().flops), (1602, 300));
    }
}
