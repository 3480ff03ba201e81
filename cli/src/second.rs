//! The second party that checks what a validator found wrong before it convicts: the function behind `iota verify evidence`.

use bytes::Bytes;
use engine::data::TokenShard;
use orchestrator::{Answer, Confirmation, Judge, RunFolder};
use spec::Digest;
use std::collections::BTreeSet;
use validator::evidence::tile::{self, Doubt, Matter};
use validator::evidence::{self, Expected, FileBytes, Outcome, Parts, Refused, merge};
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

    fn doubt(&self, answer: &Answer) -> Result<(u32, ObjectRef), String> {
        let doubt = self.with_matter(answer, |matter, digests| matter.doubt(&answer.trace, digests))?;
        Ok((doubt.value, ObjectRef { digest: doubt.output, bytes: doubt.bytes }))
    }

    fn narrow(
        &self,
        answer: &Answer,
        (value, shown): (u32, ObjectRef),
        output: &[u8],
    ) -> Result<(Digest, Vec<u8>), String> {
        let doubt = Doubt { value, output: shown.digest, bytes: shown.bytes };
        let file =
            self.with_matter(answer, |matter, digests| matter.file(&answer.trace, digests, &doubt, output))?;
        // What does not convict is not kept.
        let report = tile::verify(&file, &Expected::default()).map_err(|refused| refused.to_string())?;
        match report.difference {
            Some(_) => Ok((report.evidence, file)),
            None => Err(format!("nothing is wrong in the tile of output {value} that it shows")),
        }
    }
}

impl SecondParty {
    /// A convict's side of a window, for whoever looks at it.
    fn with_matter<T>(
        &self,
        answer: &Answer,
        look: impl FnOnce(&Matter<'_>, &[Digest]) -> Result<T, Refused>,
    ) -> Result<T, String> {
        let looked = || {
            let parts = Parts::of(&answer.case, &answer.objects)?;
            let digests = tile::read_digests(&answer.trace.body, &answer.digests)?;
            let path = self.folder.path(&format!("objects/{}", parts.run.data.train));
            // A stage that reads no tokens does not miss them.
            let shard = FileBytes::open(&path).ok();
            look(&Matter::of(&parts, shard.as_deref().unwrap_or_default()), &digests)
        };
        looked().map_err(|refused| refused.to_string())
    }

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
