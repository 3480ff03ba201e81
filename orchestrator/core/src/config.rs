//! What an orchestrator is given, and whether it can be run.

use crate::audit::RECEIPTS_MAX;
use crate::lengths::{TooLong, check_lengths};
use spec::{Digest, NodeId, Run, SpecError};
use wire::{Key, Manifest, SignatureError, Signed};

/// Everything an orchestrator needs to know before its first event.
#[derive(Debug, Clone)]
pub struct Config {
    /// The run.
    pub run: Run,
    /// The key that signs manifests; nodes are invited to its public half.
    pub key: Key,
    /// The manifest to start from, signed by `key`.
    pub manifest: Signed<Manifest>,
    /// The invitation's token, where admission is by invitation.
    pub token: Vec<u8>,
    /// What nobody else knows: draws of audits and merges grow from it.
    pub secret: [u8; 32],
    /// Validators that must be there before the start; no more are let in.
    pub validators: u16,
    /// Miners of each stage that must be there before the start, at most `run.miners_per_stage`; 0 for all of these. Who comes
    /// later takes a free seat and works from the next epoch on.
    pub lanes_at_start: u16,
    /// Whether the miners of a route are others in every epoch. Where they never are, attribution cannot tell the miners of
    /// one route apart.
    pub mixes_routes: bool,
    /// Whether miners are told where their neighbours can be reached, to send payloads and parts past the relay.
    pub direct: bool,
    /// How long it waits for what.
    pub timeouts: Timeouts,
}

/// Bounds of every wait, in milliseconds where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start until every seat is taken and ready.
    pub join_ms: u64,
    /// Until a lost miner's work of the epoch goes to another of its stage: time for a connection that broke to come up again.
    pub reissue_ms: u64,
    /// The same where the orchestrator itself was away, or nobody of the stage can take over in the epoch.
    pub absence_ms: u64,
    /// Until a lost node must be back that nobody stands in for.
    pub seat_grace_ms: u64,
    /// Until a miner that is there must have revealed a drawn window, besides what its bytes take at `uplink_bytes_per_s`.
    pub reveal_ms: u64,
    /// Bytes/s of the slowest uplink that is waited for; 0 if transfers are given no time of their own.
    pub uplink_bytes_per_s: u64,
    /// Without any progress of an epoch, a commit or an audit.
    pub stall_ms: u64,
    /// Once half of an epoch's lanes are through, the others have so many percent of the time it took more (see
    /// [`pace`](crate::pace)); with 0 they are waited for however slow they are.
    pub lane_patience_percent: u16,
    /// Until a miner that has all it needs for its next operation must have done it, where another could; longer where its
    /// stage's others are slow themselves.
    pub linger_ms: u64,
    /// Until a second party must have checked what a validator found wrong: it does a window again, on the CPU.
    pub confirm_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            join_ms: 120_000,
            reissue_ms: 200,
            absence_ms: 3_000,
            seat_grace_ms: 60_000,
            reveal_ms: 60_000,
            uplink_bytes_per_s: 1_250_000,
            stall_ms: 120_000,
            lane_patience_percent: 50,
            linger_ms: 10_000,
            confirm_ms: 600_000,
        }
    }
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The run is no usable one.
    #[error(transparent)]
    Run(#[from] SpecError),
    /// The manifest's signature does not hold.
    #[error("the manifest to start from: {0}; make it anew with `iota run new`")]
    Signature(#[from] SignatureError),
    /// Somebody else signed the manifest.
    #[error(
        "the manifest to start from is signed by {found}, this orchestrator is {expected}: use the key of the run's folder"
    )]
    Signer {
        /// This orchestrator.
        expected: NodeId,
        /// The signer.
        found: NodeId,
    },
    /// The manifest belongs to another run.
    #[error(
        "the manifest to start from is of run {found}, run.toml is run {expected}: they come from different folders, or run.toml was edited"
    )]
    OtherRun {
        /// Id of the run.
        expected: Digest,
        /// Id in the manifest.
        found: Digest,
    },
    /// The manifest does not fit the stage cut.
    #[error("the manifest to start from has {found} stages, the run has {expected}")]
    Stages {
        /// Stages of the run.
        expected: usize,
        /// Stages in the manifest.
        found: usize,
    },
    /// Something that the run's nodes could not send one another.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// A number of nodes or members that this version cannot serve.
    #[error("{what} is {found}, expected {expected}")]
    Count {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u16,
        /// What would be right.
        expected: &'static str,
    },
}

impl Config {
    /// Miners of each stage without which work does not begin.
    pub(crate) fn lanes_needed(&self) -> usize {
        usize::from(if self.lanes_at_start == 0 { self.run.miners_per_stage } else { self.lanes_at_start })
    }

    /// Checks that the parts belong together and that this version can run them.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.run.check()?;
        check_lengths(&self.run)?;
        let manifest = self.manifest.verify()?;
        let (expected, found) = (self.key.id(), self.manifest.signer);
        if expected != found {
            return Err(ConfigError::Signer { expected, found });
        }
        let (expected, found) = (self.run.id(), manifest.run);
        if expected != found {
            return Err(ConfigError::OtherRun { expected, found });
        }
        let (expected, found) = (self.run.model.stage_count(), manifest.stages.len());
        if expected != found {
            return Err(ConfigError::Stages { expected, found });
        }
        let audited = self.run.audit.windows > 0;
        let receipts = u64::from(self.run.epoch.digest_every) * (2 * u64::from(self.run.inner.members) + 1);
        let counts = [
            (
                self.lanes_at_start <= self.run.miners_per_stage,
                "miners of a stage to start with",
                self.lanes_at_start,
                "at most miners_per_stage of run.toml",
            ),
            (
                self.validators > 0 || !audited,
                "validators",
                self.validators,
                "at least 1, because audit.windows is not 0",
            ),
            (
                receipts <= RECEIPTS_MAX as u64 || !audited,
                "epoch.digest_every * (2 * inner.members + 1)",
                u16::try_from(receipts).unwrap_or(u16::MAX),
                "at most 2049, so that a window's receipts fit one audit order",
            ),
        ];
        match counts.into_iter().find(|(holds, ..)| !holds) {
            Some((_, what, found, expected)) => Err(ConfigError::Count { what, found, expected }),
            None => Ok(()),
        }
    }
}
