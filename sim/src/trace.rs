//! One thing that happened in the simulated world, as checkers and the log see it.

use crate::world::codes::Contribution;
use serde::Serialize;
use spec::{Digest, NodeId};

/// An event that a core takes in.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)] // moved, not stored by the thousand
pub enum Event {
    /// An orchestrator's.
    Orchestrator(orchestrator_core::Event),
    /// A miner's.
    Miner(miner_core::Event),
    /// A validator's.
    Validator(validator_core::Event),
}

/// An effect that a core emits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)] // moved, not stored by the thousand
pub enum Effect {
    /// An orchestrator's.
    Orchestrator(orchestrator_core::Effect),
    /// A miner's.
    Miner(miner_core::Effect),
    /// A validator's.
    Validator(validator_core::Effect),
}

/// What a checker is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Virtual time in microseconds.
    pub at_us: u64,
    /// Whose core.
    pub node: NodeId,
    /// What happened.
    pub what: What,
}

/// An event, an effect of the event before it, or what an engine did about one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(clippy::large_enum_variant)] // moved, not stored by the thousand
pub enum What {
    /// A core takes this in.
    Event(Event),
    /// A core emits this.
    Effect(Effect),
    /// A miner's engine encoded its change of an epoch.
    Encoded {
        /// What it commits to.
        contribution: Contribution,
    },
    /// A cheat's engine gave something else than it should.
    Lied {
        /// The epoch.
        epoch: u32,
    },
    /// A miner's engine added up pieces.
    Reduced {
        /// Whose.
        contributors: Vec<NodeId>,
        /// What they committed to.
        roots: Vec<Digest>,
        /// The sum's bytes.
        sum: Vec<u8>,
    },
}
