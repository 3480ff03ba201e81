//! Who says for a convict what every op of its window gave: the function behind `iota evidence answer`.

use engine::trace::Performer;
use miner::{Answerer, Asked};
use validator::evidence::{Objects, Revealed};
use wire::Trace;

/// Performs windows again on this machine's CPU.
pub struct Witness;

impl Answerer for Witness {
    fn answer(&self, asked: &Asked<'_>, performer: &mut Performer<'_>) -> Result<Vec<u8>, String> {
        let Asked { run, order, receipt, shard, show, .. } = *asked;
        let bytes = asked.objects.iter().map(|bytes| (&bytes[..]).into());
        let objects: Objects<'_> = order.objects().map(|object| object.digest).zip(bytes).collect();
        let revealed = Revealed { run, order, objects: &objects, shard };
        let keep = show.into_iter().collect();
        let performed = revealed.answer(&receipt, keep, performer).map_err(|refused| refused.to_string());
        let mut performed = performed?;
        match show {
            None => Ok(Trace::of(run.id(), receipt, &performed.digests).1),
            Some(value) => {
                performed.kept.remove(&value).ok_or_else(|| format!("there is no output {value} to show"))
            }
        }
    }
}
