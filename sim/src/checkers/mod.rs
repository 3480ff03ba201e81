//! Invariants, each an object with a name that sees every event and effect.

mod cheat_is_caught_within_n;
mod honest_never_slashed;
mod journal_replays_equal;
mod ledger_follows_the_record;
mod no_double_fold;
mod no_microbatch_unfinished;
mod only_convicts_are_asked;
mod sum_is_exact;
mod weights_agree_after_merge;

pub use cheat_is_caught_within_n::CheatIsCaughtWithinN;
pub use honest_never_slashed::HonestNeverSlashed;
pub use journal_replays_equal::JournalReplaysEqual;
pub use ledger_follows_the_record::LedgerFollowsTheRecord;
pub use no_double_fold::NoDoubleFold;
pub use no_microbatch_unfinished::NoMicrobatchUnfinished;
pub use only_convicts_are_asked::OnlyConvictsAreAsked;
pub use sum_is_exact::SumIsExact;
pub use weights_agree_after_merge::WeightsAgreeAfterMerge;

use crate::cores::Recipe;
use crate::trace::Entry;
use crate::world::disk::Journal;
use spec::{Digest, NodeId};
use std::collections::BTreeSet;

/// An invariant.
pub trait Checker {
    /// Its name, as it stands in reports.
    fn name(&self) -> &'static str;

    /// Looks at one event or effect, before the effect is performed.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    fn observe(&mut self, entry: &Entry) -> Result<(), String>;

    /// Looks back once nothing can happen any more.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    fn finish(&mut self, end: &End<'_>) -> Result<(), String>;
}

/// What is known at the end.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Whether the run ended as complete.
    pub complete: bool,
    /// What every core did that is replayed.
    pub records: &'a [Record],
}

/// What one core did, and in which state it ended.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its role and number.
    pub name: String,
    /// How to build it again.
    pub recipe: Recipe,
    /// Every event it took in.
    pub journal: Journal,
    /// Digest of the effects of each event.
    pub effects: Vec<Digest>,
    /// Digest of its last state.
    pub state: Digest,
}

/// Every checker there is. `cheats` are the nodes whose work is tampered with, none of which may have lied in `escapes`
/// epochs that are stable; a microbatch has so many tokens.
pub fn all(cheats: BTreeSet<NodeId>, escapes: u32, microbatch_tokens: u64) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(NoDoubleFold::new(microbatch_tokens)),
        Box::new(JournalReplaysEqual),
        Box::new(NoMicrobatchUnfinished::default()),
        Box::new(OnlyConvictsAreAsked::new(cheats.clone())),
        Box::new(HonestNeverSlashed { cheats }),
        Box::new(CheatIsCaughtWithinN::new(escapes)),
        Box::new(WeightsAgreeAfterMerge::default()),
        Box::new(SumIsExact::default()),
        Box::new(LedgerFollowsTheRecord::default()),
    ]
}
