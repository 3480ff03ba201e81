//! What an orchestrator tells its owner while it runs.

use orchestrator_core::{Ending, Report};
use serde::{Deserialize, Serialize};

/// One line of the orchestrator's output: JSON with `--json`, else a sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice {
    /// Nodes may come.
    Listening {
        /// What a miner or validator needs to join.
        invitation: String,
        /// Where the store is.
        store: String,
    },
    /// The run can be watched.
    Dashboard {
        /// In a browser, here.
        url: String,
    },
    /// The core has something to tell.
    Report {
        /// Milliseconds since the orchestrator started.
        ms: u64,
        /// What.
        #[serde(flatten)]
        report: Report,
    },
    /// A run that was begun before goes on.
    Resumed {
        /// Events so far.
        entries: u64,
        /// The last of them, which were replayed: the others' outcome was in the journal.
        #[serde(default)]
        replayed: usize,
        /// Until nodes may come again, in milliseconds.
        took_ms: u64,
    },
    /// What the relay carried so far, payload bytes.
    Wire {
        /// Frames passed on.
        frames: u64,
        /// Bytes of their blocks, before lossless packing.
        bytes_plain: u64,
        /// Bytes of their blocks, as they travelled.
        bytes_sent: u64,
    },
    /// The run ended.
    Ended {
        /// How.
        #[serde(flatten)]
        ending: Ending,
    },
}

impl Notice {
    /// The notice as a sentence, or `None` where a person is better served by the screen.
    pub fn sentence(&self) -> Option<String> {
        match self {
            Self::Listening { invitation, store } => {
                Some(format!("listening; join with {invitation}; store at {store}"))
            }
            Self::Dashboard { url } => Some(format!("dashboard at {url}")),
            Self::Report { report, .. } => sentence_of(report),
            Self::Resumed { entries, replayed, took_ms } => Some(format!(
                "goes on after {entries} events, the last {replayed} of them replayed from its journal, in {took_ms} ms"
            )),
            Self::Wire { .. } => None,
            Self::Ended { ending: Ending::Complete } => Some("the run is complete".into()),
            Self::Ended { ending: Ending::Stopped } => Some("stopped as asked".into()),
            Self::Ended { ending: Ending::Failed { why } } => Some(format!("the run ended: {why}")),
        }
    }
}

fn sentence_of(report: &Report) -> Option<String> {
    Some(match report {
        Report::Joined { node, role, stage: Some(stage) } => {
            format!("{role:?} {} joined and holds stage {stage}", node.short())
        }
        Report::Joined { node, role, stage: None } => format!("{role:?} {} joined", node.short()),
        Report::Gone { node, why } => format!("{} is gone: {why}", node.short()),
        Report::Opened { epoch } => format!("epoch {epoch} opened"),
        Report::Rewound { epoch, steps, tokens, why } => {
            format!("epoch {epoch} begins again, {steps} steps and {tokens} tokens are lost: {why}")
        }
        Report::Reissued { epoch, stage, from, to, microbatches, tokens, why } => format!(
            "{microbatches} microbatches of {} (stage {stage}) go to {}, {tokens} tokens that it had folded in epoch {epoch} are lost: {why}",
            from.short(),
            to.short()
        ),
        Report::Loss { .. } | Report::Stepped { .. } | Report::Carried { .. } => return None,
        Report::Committed { epoch, manifest, nats } => {
            format!("epoch {epoch} committed as manifest {}: mean loss {nats:.4} nats", manifest.short())
        }
        Report::Audited { miner, stage, window, finding } => {
            format!("audit of {} (stage {stage}, {window}): {}", miner.short(), finding.sentence())
        }
        Report::Suspected { node, suspected: true } => {
            format!("nothing heard from {}: suspected", node.short())
        }
        Report::Suspected { node, suspected: false } => format!("{} is heard again", node.short()),
        Report::AddedUp { epoch, stage, shard, liars } => {
            let found = if liars.is_empty() { "as its owners said" } else { "not as its owners said" };
            format!("epoch {epoch}: shard {shard} of stage {stage} was added up again: {found}")
        }
        Report::Convicted { why, .. } => why.clone(),
        Report::RolledBack { epoch, epochs, steps, tokens, why } => format!(
            "back to the opening of epoch {epoch}: {epochs} epochs, {steps} steps and {tokens} tokens are lost: {why}"
        ),
        Report::Stable { epoch } => {
            format!("epoch {epoch} is stable: every window drawn from it was found equal")
        }
        Report::Note { text } => text.clone(),
        Report::Narrowed { node, evidence } => format!(
            "by what miner {} signed itself, one tile of one op convicts it: evidence {evidence}, which `iota verify evidence` decides at once",
            node.short()
        ),
    })
}
