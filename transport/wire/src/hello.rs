//! Coming in: who I am, what I am given, or why I am not let in.

use crate::chain::Chain;
use crate::manifest::Manifest;
use crate::signed::Signed;
use serde::{Deserialize, Serialize};
use spec::Run;

/// What a node does in the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Computes a stage.
    Miner,
    /// Replays samples of the miners' work.
    Validator,
}

/// The first message of a node. The connection already proves its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the node wants to be.
    pub role: Role,
    /// The invitation's token; empty where admission is by key.
    pub token: Vec<u8>,
    /// Name and version of the program, for the log.
    pub software: String,
    /// Whether the node still has what it had when its connection went: it goes on where it was.
    pub resumes: bool,
}

/// The answer to a hello that is let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The run.
    pub run: Run,
    /// The stage the node holds; `None` for a validator.
    pub stage: Option<u16>,
    /// The last committed manifest.
    pub manifest: Signed<Manifest>,
    /// The end of the node's chain of receipts, as far as the orchestrator has it.
    pub chain: Chain,
}

/// Why a hello is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The token is not that of any invitation.
    #[error("the invitation's token is not known here: ask for a new invitation")]
    Token,
    /// The key is not among those admitted.
    #[error("this node's key is not on the run's list: ask the run's owner to add it")]
    Key,
    /// The key was convicted in this run.
    #[error("this node's key is banned from the run: {evidence}")]
    Banned {
        /// Which evidence says so.
        evidence: String,
    },
    /// No seat is free for this role.
    #[error("every seat for this role is taken: try again later")]
    Full,
    /// The run is over.
    #[error("the run is over")]
    Over,
    /// The invitation was for a time that is over.
    #[error("the invitation has expired, by the orchestrator's clock: ask for a new invitation")]
    Expired,
    /// The invitation is for the other role.
    #[error("the invitation is for a {0}: ask for one for your role")]
    OtherRole(Role),
}

impl Refusal {
    /// Whether the node must bring something else, another invitation or another key, rather than come at another time.
    pub fn is_of_what_it_brings(&self) -> bool {
        !matches!(self, Self::Full | Self::Over)
    }
}
