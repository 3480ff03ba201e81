//! The second party that checks what a validator found wrong before it convicts: the function behind `iota verify evidence`.

use bytes::Bytes;
use engine::data::TokenShard;
use orchestrator::{Confirmation, Judge, RunFolder};
use spec::Digest;
use std::collections::BTreeSet;
use validator::evidence::{self, Expected, Outcome, Parts, merge};
use wire::{Finding, ObjectRef};

/// Checks cases on this machine's CPU.
pub struct SecondParty {
    /// The run's folder, which has the token shard where that is too long to travel with a case.
    pub folder: RunFolder,
}

impl Judge for SecondParty {
    fn needed(&self, case: &[u8]) -> Result<Vec<ObjectRef>, String> {
        evidence::needed(case).map_err(|refused| refused.to_string())
    }

    fn decide(&self, case: &[u8], objects: Vec<Bytes>) -> Confirmation {
        if let Some(said) = merge::said(case) {
            return decide_sum(said, case, &objects);
        }
        match Parts::of(case, &objects) {
            Ok(parts) => self.decide_window(parts),
            Err(refused) => Confirmation::Unable { why: refused.to_string() },
        }
    }
}

impl SecondParty {
    fn decide_window(&self, parts: Parts<'_>) -> Confirmation {
        let begins = parts.case.order.window.is_beginning();
        let said = parts.case.verdict.body.finding.clone();
        let path = self.folder.path(&format!("objects/{}", parts.run.data.train));
        let (shard, there) =
            (TokenShard::open(&path).ok(), parts.objects.keys().copied().collect::<BTreeSet<_>>());
        match evidence::decide(parts, shard.as_ref(), &Expected::default()).map(|report| report.outcome) {
            Ok(Outcome::Convicted(_)) => Confirmation::Proven,
            Ok(Outcome::NotProven { operations }) => {
                not_proven(format!("{operations} operations done again, every digest as it was signed"))
            }
            // A stranger asks the store; here it was asked. What a manifest names is not the accused's to reveal.
            Err(_) if !begins && matches!(&said, Finding::Withheld { digest } if !there.contains(digest)) => {
                Confirmation::Proven
            }
            // A stranger cannot know who chose the receipts; here they are all that the accused gave.
            Err(refused) if refused.field == "receipts" && matches!(said, Finding::Inconsistent { .. }) => {
                Confirmation::Proven
            }
            Err(refused) if refused.field == "replay" => Confirmation::Unable { why: refused.to_string() },
            Err(refused) => not_proven(refused.to_string()),
        }
    }
}

/// `said` is the sum that the verdict finds, or that the pieces do not open.
fn decide_sum(said: Option<Digest>, case: &[u8], pieces: &[Bytes]) -> Confirmation {
    match merge::decide(case, pieces, &Expected::default()) {
        // All who signed another sum than this one lied.
        Ok(report) if said == Some(report.found) && report.claimed != report.found => Confirmation::Proven,
        Ok(report) => not_proven(format!("the pieces add up to {}", report.found)),
        Err(refused)
            if said.is_none() && (refused.field == "pieces" || refused.field.starts_with("object")) =>
        {
            Confirmation::Proven
        }
        Err(refused) => not_proven(refused.to_string()),
    }
}

fn not_proven(why: String) -> Confirmation {
    Confirmation::NotProven { why }
}
