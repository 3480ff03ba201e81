//! A sum is, to the unit, the weighted sum of the codes that its contributors committed to.

use super::{Checker, End};
use crate::trace::{Entry, What};
use crate::world::codes::{Contribution, Sum};
use spec::NodeId;
use std::collections::BTreeMap;

/// Adds up again, from the contributions and not from the pieces.
#[derive(Debug, Default)]
pub struct SumIsExact {
    /// By epoch and miner.
    contributions: BTreeMap<(u32, NodeId), Contribution>,
    sums: usize,
}

impl Checker for SumIsExact {
    fn name(&self) -> &'static str {
        "sum_is_exact"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Encoded { epoch, contribution } => {
                let key = (*epoch, entry.node);
                if self.contributions.insert(key, contribution.clone()).is_some() {
                    return Err(format!("{} encoded epoch {epoch} twice", entry.node.short()));
                }
                Ok(())
            }
            What::Reduced { epoch, contributors, sum } => {
                self.sums += 1;
                self.check(*epoch, contributors, sum)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl SumIsExact {
    fn check(&self, epoch: u32, contributors: &[NodeId], bytes: &[u8]) -> Result<(), String> {
        let sum: Sum = postcard::from_bytes(bytes).map_err(|_| "a sum that is none".to_owned())?;
        let mut expected = vec![0_i128; sum.sums.len()];
        let mut weight = 0;
        for node in contributors {
            let contribution = self
                .contributions
                .get(&(epoch, *node))
                .ok_or_else(|| format!("{} is added up, but encoded nothing", node.short()))?;
            weight += u64::from(contribution.weight);
            let codes = contribution.codes.get(sum.blocks.start as usize..sum.blocks.end as usize);
            for (expected, &code) in expected.iter_mut().zip(codes.unwrap_or_default()) {
                *expected += i128::from(contribution.weight) * i128::from(code);
            }
        }
        let found = sum.sums.iter().map(|&sum| i128::from(sum));
        if weight != sum.weight || !found.eq(expected) {
            return Err(format!(
                "the sum of blocks {:?} of epoch {epoch} is not that of its {} contributors",
                sum.blocks,
                contributors.len()
            ));
        }
        Ok(())
    }
}
