//! A sum is, to the unit, the weighted sum of the codes that its contributors committed to.

use super::{Checker, End};
use crate::trace::{Entry, What};
use crate::world::codes::{Contribution, Sum};
use spec::{Digest, NodeId};
use std::collections::BTreeMap;

/// Adds up again, from the contributions and not from the pieces.
#[derive(Debug, Default)]
pub struct SumIsExact {
    /// By root: whose, and what.
    contributions: BTreeMap<Digest, (NodeId, Contribution)>,
}

impl Checker for SumIsExact {
    fn name(&self) -> &'static str {
        "sum_is_exact"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Encoded { contribution } => {
                let made = (entry.node, contribution.clone());
                self.contributions.insert(contribution.root(entry.node), made);
                Ok(())
            }
            What::Reduced { contributors, roots, sum } => self.check(contributors, roots, sum),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl SumIsExact {
    fn check(&self, contributors: &[NodeId], roots: &[Digest], bytes: &[u8]) -> Result<(), String> {
        let sum: Sum = postcard::from_bytes(bytes).map_err(|_| "a sum that is none".to_owned())?;
        let mut expected = vec![0_i128; sum.sums.len()];
        let mut weight = 0;
        for (node, root) in contributors.iter().zip(roots) {
            let made = self.contributions.get(root).filter(|(who, _)| who == node);
            let (_, contribution) =
                made.ok_or_else(|| format!("{} is added up, but encoded nothing", node.short()))?;
            weight += u64::from(contribution.weight);
            let codes = contribution.codes.get(sum.blocks.start as usize..sum.blocks.end as usize);
            for (expected, &code) in expected.iter_mut().zip(codes.unwrap_or_default()) {
                *expected += i128::from(contribution.weight) * i128::from(code);
            }
        }
        let found = sum.sums.iter().map(|&sum| i128::from(sum));
        if weight != sum.weight || !found.eq(expected) {
            return Err(format!(
                "the sum of blocks {:?} is not that of its {} contributors",
                sum.blocks,
                contributors.len()
            ));
        }
        Ok(())
    }
}
