//! What the ledger says of one epoch.

use crate::rule::Rule;
use crate::work::Work;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use wire::Signable;

/// One key's part of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Who.
    pub miner: NodeId,
    /// The stage it last held.
    pub stage: u16,
    /// Decayed mean of FLOPs an epoch.
    pub score: u64,
    /// Its part of [`WEIGHTS_SUM`](crate::WEIGHTS_SUM).
    pub weight: u16,
}

/// A key that was convicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Strike {
    /// Who.
    pub miner: NodeId,
    /// Digest of the evidence, where the lie can be replayed.
    pub evidence: Option<Digest>,
}

/// A stable epoch: what was done, and what it is worth. Scores and weights follow from the rule, the work of the entries
/// before, and the strikes so far; they stand here so that a reader need not compute, and a doubter can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The run's id.
    pub run: Digest,
    /// The epoch.
    pub epoch: u32,
    /// Digest of the manifest that it committed.
    pub manifest: Digest,
    /// Digest of the entry before; zero for the first.
    pub previous: Digest,
    /// How work is valued.
    pub rule: Rule,
    /// In key order.
    pub work: Vec<Work>,
    /// Convicted since the entry before, in key order.
    pub struck: Vec<Strike>,
    /// Everyone who worked within the window, in key order.
    pub shares: Vec<Share>,
    /// What goes to nobody.
    pub burned: u16,
}

impl Signable for Entry {
    const DOMAIN: &'static str = "iota ledger v1";
}
