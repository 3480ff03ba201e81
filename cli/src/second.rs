//! The second party that checks what a validator found wrong before it convicts: the function behind `iota verify evidence`.

use engine::data::TokenShard;
use orchestrator::{Confirmation, Judge, RunFolder};
use spec::Digest;
use validator::evidence::{self, Expected, FILE_BYTES_MAX, OBJECT_BYTES_MAX, Outcome, merge};
use wire::{Evidence, Finding, MergeEvidence, ObjectRef};

/// Checks cases on this machine's CPU.
pub struct SecondParty {
    /// The run's folder, which has the token shard where that is too long to travel with a case.
    pub folder: RunFolder,
}

impl Judge for SecondParty {
    fn needed(&self, case: &[u8]) -> Result<Vec<ObjectRef>, String> {
        let needed = evidence::needed(case).map_err(|refused| refused.to_string())?;
        match needed.iter().find(|object| object.bytes > OBJECT_BYTES_MAX) {
            Some(object) => Err(format!("{object} is too long for an evidence file")),
            None => Ok(needed),
        }
    }

    fn decide(&self, case: &[u8], objects: Vec<Vec<u8>>) -> Confirmation {
        let there: Vec<Digest> = objects.iter().map(|bytes| Digest::of(bytes)).collect();
        let file = match evidence::pack(case, &objects) {
            Ok(file) if file.len() as u64 <= FILE_BYTES_MAX => file,
            Ok(file) => return Confirmation::Unable { why: format!("it is {} bytes long", file.len()) },
            Err(refused) => return Confirmation::Unable { why: refused.to_string() },
        };
        drop(objects);
        if let Ok(case) = postcard::from_bytes::<Evidence>(case) {
            return self.decide_window(&case, &file, &there);
        }
        match postcard::from_bytes::<MergeEvidence>(case) {
            Ok(case) => decide_sum(&case, &file),
            Err(error) => Confirmation::Unable { why: format!("it is no case: {error}") },
        }
    }
}

impl SecondParty {
    fn decide_window(&self, case: &Evidence, file: &[u8], there: &[Digest]) -> Confirmation {
        let (said, begins) = (&case.verdict.body.finding, case.order.window.is_beginning());
        let shard = postcard::from_bytes(&case.run).ok().and_then(|run: spec::Run| {
            let path = self.folder.path(&format!("objects/{}", run.data.train));
            TokenShard::open(&path).ok()
        });
        match evidence::verify(file, shard.as_ref(), &Expected::default()).map(|report| report.outcome) {
            Ok(Outcome::Convicted(_)) => Confirmation::Proven,
            Ok(Outcome::NotProven { operations }) => {
                not_proven(format!("{operations} operations done again, every digest as it was signed"))
            }
            // A stranger asks the store; here it was asked. What a manifest names is not the accused's to reveal.
            Err(_) if !begins && matches!(said, Finding::Withheld { digest } if !there.contains(digest)) => {
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

fn decide_sum(case: &MergeEvidence, file: &[u8]) -> Confirmation {
    let said = case.verdict.body.sum;
    match merge::verify(file, &Expected::default()) {
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
