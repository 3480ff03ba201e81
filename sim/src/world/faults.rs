//! What goes wrong, and how the others notice.

use super::chance::Chance;
use spec::Operation;
use std::collections::VecDeque;

/// After how long a silent node is suspected, in microseconds.
pub const SUSPECTED_US: u64 = 900_000;
/// After how long the connection of a silent node counts as gone, in microseconds.
pub const LOST_US: u64 = 1_400_000;
/// A miner's work of an epoch must be elsewhere so soon after it was killed, where its stage has others, in microseconds.
pub const ELSEWHERE_US: u64 = 2_000_000;

/// What befalls one node. The default is nothing.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    /// What happens to it, one after the other.
    pub mishaps: VecDeque<Mishap>,
    /// The node comes only then, in microseconds.
    pub comes_after_us: Option<u64>,
    /// The node does not say that it revealed a drawn window.
    pub withholds: bool,
    /// The node begins epochs with moments of its own making.
    pub other_moments: bool,
    /// The node begins epochs with moments of its own making once it was started again.
    pub returns_with_moments: bool,
    /// Each object that the node puts into the store takes so long, one after the other, in microseconds.
    pub upload_us: u64,
    /// The node has no room to keep a state.
    pub disk_is_full: bool,
    /// The node brings other codes to merges than its work came to.
    pub other_codes: bool,
    /// Takes another outer step than the sums say.
    pub other_weights: bool,
    /// The node signs wrong sums of merges.
    pub wrong_sums: bool,
    /// The node's results are changed.
    pub perturbation: Option<Perturbation>,
    /// Losses are higher where the node was on the route.
    pub harms: bool,
    /// The node takes a minute over each operation.
    pub lingers: bool,
    /// The validator says of every window that it is equal.
    pub lazy: bool,
    /// Its engine takes so many times longer more.
    pub slower: u64,
    /// The validator says of every window and sum that it is wrong.
    pub accuses: bool,
    /// Whoever takes a changed payload meets infinity.
    pub poisons: bool,
    /// What it does once it was convicted and is asked what every op gave.
    pub asked: Asked,
}

/// What a convict does that is asked what every op gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asked {
    /// It says it.
    #[default]
    Answers,
    /// Nothing.
    SaysNothing,
    /// It signs digests of something else.
    SaysSomethingElse,
    /// It is killed, and started again.
    Dies,
    /// It answers, but the orchestrator was killed meanwhile, and is started again.
    OutlivesItsOrchestrator,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Answers,
        Self::SaysNothing,
        Self::SaysSomethingElse,
        Self::Dies,
        Self::OutlivesItsOrchestrator,
    ];
}

impl Fate {
    /// Whether the node owes something to somebody.
    pub fn cheats(&self) -> bool {
        self.other_moments
            || self.returns_with_moments
            || self.other_codes
            || self.other_weights
            || self.perturbation.is_some()
            || self.withholds
            || self.wrong_sums
            || self.harms
            || self.lazy
            || self.accuses
    }
}

/// Something that happens instead of the event after so many that the node took in since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mishap {
    /// After how many.
    pub after_events: usize,
    /// What happens.
    pub what: What,
}

/// What can happen to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It stops without a word, and is started again so much later, if at all, in microseconds.
    Killed {
        /// Microseconds.
        restarted_after_us: Option<u64>,
    },
    /// The owner of the run takes everybody back to what is stable; it happens to the orchestrator.
    TakenBack,
    /// Its connection breaks, and no other comes up for so long.
    Cut {
        /// Microseconds.
        for_us: u64,
    },
}

/// One value changed in one microbatch of every inner step but the first of an epoch, or of one step alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Perturbation {
    position: u16,
    backward: bool,
    both: bool,
    step: Option<u32>,
}

impl Perturbation {
    /// Draws which microbatch of a step of `members`, and which pass.
    pub fn drawn(chance: &mut Chance, members: u16) -> Self {
        let position = chance.within(0..u64::from(members)) as u16;
        Self { position, backward: chance.within(0..2) == 1, both: false, step: None }
    }

    /// The same, but only in inner step `step` of each epoch.
    pub fn only_in(self, step: u32) -> Self {
        Self { step: Some(step), ..self }
    }

    /// The same, in either pass.
    pub fn both_ways(self) -> Self {
        Self { both: true, ..self }
    }

    /// Whether the result of `operation` in stage `stage` is changed. A head's backward gives nothing away that
    /// could be changed, so there it is always the forward.
    pub fn hits(&self, stage: u16, operation: &Operation) -> bool {
        let (member, backward) = match operation {
            Operation::Forward(member) => (member, false),
            Operation::Backward(member) => (member, true),
            _ => return false,
        };
        let due = self.step.map_or(member.step > 0, |step| member.step == step);
        due && member.position == self.position && (self.both || backward == (self.backward && stage > 0))
    }
}
