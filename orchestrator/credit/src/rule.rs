//! From work to scores, from scores to weights: in integers, so that everybody gets the same.

use crate::entry::Share;
use crate::work::Work;
use serde::{Deserialize, Serialize};
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// What all weights of an entry and what is burned add up to.
pub const WEIGHTS_SUM: u16 = u16::MAX;

/// One, in the fractions below.
const ONE: u64 = 1 << 16;

/// How work is valued. Fractions are in units of 2^-16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Epochs that a score looks back on, the present one included.
    pub window_epochs: u16,
    /// What an epoch counts against the one after it.
    pub decay: u32,
    /// What is burned whatever happens.
    pub burn: u32,
    /// The most that one key gets; what is beyond goes to the others, or is burned.
    pub cap: u32,
    /// Below this part of its stage's mean score a key gets nothing.
    pub minimum: u32,
}

/// A rule that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("credit rule: {field} is {found}, expected {expected}")]
pub struct RuleError {
    field: &'static str,
    found: u32,
    expected: &'static str,
}

impl Default for Rule {
    /// Eight epochs, each counting 7/8 of the next; nothing burned, no cap; at least a tenth of the stage's mean.
    fn default() -> Self {
        let one = ONE as u32;
        Self { window_epochs: 8, decay: one / 8 * 7, burn: 0, cap: one, minimum: one / 10 }
    }
}

impl Rule {
    /// Checks the fields' bounds.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self) -> Result<(), RuleError> {
        let wrong = |field, found, expected| Err(RuleError { field, found, expected });
        let fraction = "at most 65536, which is one";
        if self.window_epochs == 0 {
            return wrong("window_epochs", 0, "at least 1");
        }
        for (field, found) in [("decay", self.decay), ("burn", self.burn), ("minimum", self.minimum)] {
            if u64::from(found) > ONE {
                return wrong(field, found, fraction);
            }
        }
        if self.cap == 0 || u64::from(self.cap) > ONE {
            return wrong("cap", self.cap, "between 1 and 65536, which is one");
        }
        Ok(())
    }

    /// The most that one key gets, of [`WEIGHTS_SUM`].
    pub(crate) fn cap_units(&self) -> u64 {
        units(self.cap)
    }

    /// Scores and weights, by key, after the last epoch of `epochs` (oldest first; only the window's are looked at), and
    /// what is burned. Keys in `struck` get nothing.
    ///
    /// A score is the decayed mean of the FLOPs of an epoch since the key first worked within the window: whoever came
    /// late is measured over the epochs it was there.
    pub fn shares(&self, epochs: &[&[Work]], struck: &BTreeSet<NodeId>) -> (Vec<Share>, u16) {
        let window = &epochs[epochs.len().saturating_sub(usize::from(self.window_epochs))..];
        let mut shares: BTreeMap<NodeId, Share> = BTreeMap::new();
        let mut tallies: BTreeMap<NodeId, (u128, u128)> = BTreeMap::new();
        for epoch in window {
            // One epoch older: what was counted so far counts less.
            for (sum, parts) in tallies.values_mut() {
                (*sum, *parts) = (decayed(*sum, self.decay), decayed(*parts, self.decay));
                *parts += u128::from(ONE);
            }
            for work in *epoch {
                let (sum, _) = tallies.entry(work.miner).or_insert((0, u128::from(ONE)));
                *sum += u128::from(work.flops) * u128::from(ONE);
                let share = Share { miner: work.miner, stage: work.stage, score: 0, weight: 0 };
                shares.insert(work.miner, share);
            }
        }
        for (miner, share) in &mut shares {
            let (sum, parts) = tallies[miner];
            share.score =
                if struck.contains(miner) { 0 } else { u64::try_from(sum / parts).unwrap_or(u64::MAX) };
        }
        let mut shares: Vec<Share> = shares.into_values().collect();
        let burned = self.weigh(&mut shares);
        (shares, burned)
    }

    /// Fills in the weights; returns what is burned.
    fn weigh(&self, shares: &mut [Share]) -> u16 {
        let (cap, mut left) = (self.cap_units(), u64::from(WEIGHTS_SUM) - units(self.burn));
        let mut open: Vec<usize> = (0..shares.len()).filter(|&i| self.is_enough(shares, i)).collect();
        // Whoever reaches the cap is paid it, and the rest shared anew; each round closes one at least.
        while !open.is_empty() {
            let total: u128 = open.iter().map(|&i| u128::from(shares[i].score)).sum();
            let due = |i: usize| u128::from(left) * u128::from(shares[i].score) / total;
            let (capped, below): (Vec<usize>, Vec<usize>) =
                open.iter().partition(|&&i| due(i) >= u128::from(cap));
            if capped.is_empty() {
                left -= divide(shares, &below, left, total);
                break;
            }
            for i in capped {
                let paid = cap.min(left);
                shares[i].weight = paid as u16;
                left -= paid;
            }
            open = below;
        }
        (units(self.burn) + left) as u16
    }

    /// Whether a score is above nothing, and not below the part of its stage's mean that is asked for.
    fn is_enough(&self, shares: &[Share], index: usize) -> bool {
        let share = shares[index];
        let peers = shares.iter().filter(|peer| peer.stage == share.stage && peer.score > 0);
        let (count, sum) = peers.fold((0u128, 0u128), |(n, sum), peer| (n + 1, sum + u128::from(peer.score)));
        share.score > 0 && u128::from(share.score) * count * u128::from(ONE) >= sum * u128::from(self.minimum)
    }
}

/// Shares `units` out by score, whole units by largest remainder and then by key; returns how many were given.
fn divide(shares: &mut [Share], among: &[usize], units: u64, total: u128) -> u64 {
    let mut remainders = Vec::with_capacity(among.len());
    let mut given = 0;
    for &i in among {
        let exact = u128::from(units) * u128::from(shares[i].score);
        let whole = (exact / total) as u64;
        shares[i].weight = whole as u16;
        given += whole;
        remainders.push((std::cmp::Reverse(exact % total), shares[i].miner, i));
    }
    remainders.sort_unstable();
    for (_, _, i) in remainders.into_iter().take((units - given) as usize) {
        shares[i].weight += 1;
        given += 1;
    }
    given
}

/// A fraction of all weights.
fn units(fraction: u32) -> u64 {
    u64::from(WEIGHTS_SUM) * u64::from(fraction) / ONE
}

fn decayed(value: u128, decay: u32) -> u128 {
    value * u128::from(decay) / u128::from(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::work;

    fn rule() -> Rule {
        Rule { minimum: 0, ..Rule::default() }
    }

    fn weights(rule: &Rule, epochs: &[&[Work]]) -> (Vec<u16>, u16) {
        let (shares, burned) = rule.shares(epochs, &BTreeSet::new());
        let sum: u32 = shares.iter().map(|share| u32::from(share.weight)).sum();
        assert_eq!(sum + u32::from(burned), u32::from(WEIGHTS_SUM));
        (shares.iter().map(|share| share.weight).collect(), burned)
    }

    #[test]
    fn weights_follow_work_and_add_up() {
        let epoch = [work(1, 0, 100), work(2, 0, 200), work(3, 1, 300)];
        assert_eq!(weights(&rule(), &[&epoch]), (vec![10923, 21845, 32767], 0));
        assert_eq!(weights(&rule(), &[]), (vec![], WEIGHTS_SUM));
    }

    #[test]
    fn who_came_late_is_not_punished_and_who_left_fades() {
        let (both, second) = ([work(1, 0, 100), work(2, 0, 100)], [work(1, 0, 100)]);
        let (late, _) = weights(&rule(), &[&second, &second, &second, &both]);
        assert_eq!(late, [32768, 32767]);
        let (left, _) = weights(&rule(), &[&both, &second, &second]);
        assert!(left[1] < left[0] / 2 && left[1] > 0, "{left:?}");
        let long = [&second[..]; 8];
        let gone: Vec<&[Work]> = [&both[..]].into_iter().chain(long).collect();
        assert_eq!(weights(&rule(), &gone).0, [WEIGHTS_SUM], "beyond the window nothing is left");
    }

    #[test]
    fn burn_cap_and_minimum() {
        let epoch = [work(1, 0, 800), work(2, 0, 100), work(3, 0, 100)];
        let half = ONE as u32 / 2;
        assert_eq!(weights(&Rule { burn: half, ..rule() }, &[&epoch]).1, 32767);
        let (capped, burned) = weights(&Rule { cap: half, ..rule() }, &[&epoch]);
        assert_eq!((capped, burned), (vec![32767, 16384, 16384], 0));
        let (all, burned) = weights(&Rule { cap: ONE as u32 / 4, ..rule() }, &[&epoch]);
        assert_eq!((all, burned), (vec![16383; 3], 16386));
        // The mean is 333: a third of it is 111.
        let (least, _) = weights(&Rule { minimum: ONE as u32 / 3, ..rule() }, &[&epoch]);
        assert_eq!(least, [WEIGHTS_SUM, 0, 0]);
    }

    #[test]
    fn the_struck_get_nothing() {
        let epoch = [work(1, 0, 100), work(2, 0, 100)];
        let (shares, _) = rule().shares(&[&epoch], &BTreeSet::from([NodeId([1; 32])]));
        assert_eq!((shares[0].score, shares[0].weight, shares[1].weight), (0, 0, WEIGHTS_SUM));
    }

    #[test]
    fn a_rule_out_of_bounds_is_refused() {
        assert_eq!(rule().check(), Ok(()));
        let error = Rule { burn: 70_000, ..rule() }.check().unwrap_err();
        assert_eq!(error.to_string(), "credit rule: burn is 70000, expected at most 65536, which is one");
        assert!(Rule { cap: 0, ..rule() }.check().is_err());
        assert!(Rule { window_epochs: 0, ..rule() }.check().is_err());
    }
}
