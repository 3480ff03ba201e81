//! What is known of a run, gathered from its notices: the screen, the dashboard, `/metrics` and the report are all made
//! of this.

mod curve;
mod numbers;
#[cfg(test)]
mod tests;

pub use curve::Curve;
pub use numbers::Numbers;

use crate::notice::Notice;
use orchestrator_core::{Ending, Report};
use serde::{Deserialize, Serialize};
use spec::{NodeId, Run};
use std::collections::{BTreeMap, VecDeque};
use wire::{Carried, Finding, Role};

/// Microbatches over which a loss is averaged.
const LOSS_WINDOW: usize = 24;
/// Steps over which the rate is taken.
const RATE_WINDOW: usize = 10;
/// Sentences of the log that are kept.
const LOG_MAX: usize = 400;

/// A run as it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Inner steps that every miner took.
    pub steps: u64,
    /// Inner steps of the whole run.
    pub steps_total: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens computed in vain, because somebody lost what it had done.
    pub tokens_lost: u64,
    /// Epochs that began again.
    pub rewinds: u32,
    /// Mean loss of the first microbatches, nats per token.
    pub first_nats: Option<f64>,
    /// Mean loss of the last microbatches, nats per token.
    pub last_nats: Option<f64>,
    /// Tokens a second from the opening of the first epoch to the last step or commit, merges included.
    pub tokens_per_second: f64,
    /// Manifests committed: epoch and digest.
    pub commits: Vec<(u32, String)>,
    /// Windows replayed and found equal.
    pub audits_equal: u32,
    /// What other audits found.
    pub audits_unequal: Vec<String>,
    /// Shards of merges that were added up again.
    pub sums_checked: u32,
    /// Who was convicted and banned: key, and why.
    pub convictions: Vec<(String, String)>,
    /// Epochs whose windows were all found equal.
    pub stable: u32,
    /// Payload frames from miner to miner, by either way.
    pub wire_frames: u64,
    /// Bytes of their blocks, before lossless packing.
    pub wire_bytes_plain: u64,
    /// Bytes of their blocks, as they travelled.
    pub wire_bytes_sent: u64,
    /// What of it went without the relay, as the miners say.
    pub wire_direct: Carried,
    /// How it ended. Nothing of it is kept: what has ended does not go on, and if its owner takes it back it has not ended.
    #[serde(skip)]
    pub ending: Option<Ending>,
    /// The run.
    pub facts: Facts,
    /// What it is doing.
    pub phase: Phase,
    /// The run's clock at the last notice, in milliseconds.
    pub now_ms: u64,
    /// Everybody who ever came.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Every epoch that was opened.
    pub epochs: Vec<EpochLine>,
    /// Loss in nats over tokens.
    pub loss: Curve,
    /// Tokens a second over seconds.
    pub rate: Curve,
    /// What was said, with the run's clock.
    pub log: VecDeque<(u64, String)>,
    last: VecDeque<f64>,
    first: Vec<f64>,
    recent: VecDeque<(u64, u64)>,
    rate_now: f64,
    seen: u64,
    /// What the relay carried, and had carried when its process was started.
    wire_relayed: Carried,
    wire_before: Carried,
}

/// What does not change while a run lasts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The run's id, short.
    pub id: String,
    /// The run's name.
    pub name: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// Stages.
    pub stages: usize,
    /// Miners of a stage.
    pub miners_per_stage: u16,
    /// Inner steps of an epoch.
    pub steps_per_epoch: u32,
    /// Epochs.
    pub epochs: u32,
    /// Tokens of a microbatch.
    pub microbatch_tokens: u64,
    /// How tensors cross a boundary.
    pub boundary: String,
}

/// What a run is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not enough nodes yet.
    #[default]
    Waiting,
    /// Inner steps of this epoch.
    Working(u32),
    /// Every step of this epoch is done.
    Merging(u32),
    /// This epoch is committed.
    Committed(u32),
    /// This epoch begins again.
    Again(u32),
    /// Nothing more comes.
    Ended,
}

/// A miner or validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// As what it came.
    pub role: Role,
    /// The stage that it holds or held.
    pub stage: Option<u16>,
    /// How it is.
    pub presence: Presence,
    /// How often it came.
    pub visits: u32,
    /// Its windows that were replayed and found equal.
    pub equal: u32,
    /// Its windows in which a replay found something.
    pub unequal: u32,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Heard lately.
    Here,
    /// Not heard for a while.
    Suspected,
    /// Gone.
    Gone,
}

/// The life of an epoch, on the run's clock in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochLine {
    /// Which.
    pub epoch: u32,
    /// When it was opened.
    pub opened_ms: u64,
    /// When its last step was done.
    pub worked_ms: Option<u64>,
    /// When it was committed.
    pub committed_ms: Option<u64>,
    /// How often it began again.
    pub rewinds: u32,
    /// Tokens whose loss was told before it.
    pub seen_before: u64,
    /// Mean training loss in nats per token.
    pub nats: Option<f64>,
}

impl View {
    /// The form of a view that is kept. Raised whenever a field comes, goes, moves or means something else.
    pub const FORMAT: u32 = 1;

    /// A run of which nothing has happened yet.
    pub fn new(run: &Run) -> Self {
        Self {
            steps_total: run.total_steps(),
            facts: Facts {
                id: run.id().short(),
                name: run.name.clone(),
                parameters: run.model.parameters(),
                stages: run.model.stage_count(),
                miners_per_stage: run.miners_per_stage,
                steps_per_epoch: run.epoch.steps,
                epochs: run.epoch.count,
                microbatch_tokens: run.microbatch_tokens(),
                boundary: format!("{:?}", run.boundary).to_lowercase(),
            },
            ..Self::default()
        }
    }

    /// Takes in a notice.
    pub fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Report { ms, report } => {
                self.now_ms = *ms;
                self.take_report(*ms, report);
            }
            Notice::Wire { frames, bytes_plain, bytes_sent } => {
                let before = self.wire_before;
                self.wire_relayed = Carried {
                    frames: before.frames + frames,
                    bytes_plain: before.bytes_plain + bytes_plain,
                    bytes_sent: before.bytes_sent + bytes_sent,
                };
                self.add_up_wire();
            }
            // The relay counts from nothing when its process starts.
            Notice::Listening { .. } => self.wire_before = self.wire_relayed,
            Notice::Dashboard { .. } | Notice::Resumed { .. } => {}
            Notice::Ended { ending } => {
                self.phase = Phase::Ended;
                self.ending = Some(ending.clone());
            }
        }
        // An invitation is for whoever is invited, not for every reader of a page.
        let public = !matches!(notice, Notice::Listening { .. } | Notice::Dashboard { .. });
        if let Some(sentence) = notice.sentence().filter(|_| public) {
            self.log.push_back((self.now_ms, sentence));
            if self.log.len() > LOG_MAX {
                self.log.pop_front();
            }
        }
    }

    /// What went through the relay.
    pub fn wire_relayed(&self) -> Carried {
        self.wire_relayed
    }

    fn add_up_wire(&mut self) {
        let (relayed, direct) = (self.wire_relayed, self.wire_direct);
        self.wire_frames = relayed.frames.saturating_add(direct.frames);
        self.wire_bytes_plain = relayed.bytes_plain.saturating_add(direct.bytes_plain);
        self.wire_bytes_sent = relayed.bytes_sent.saturating_add(direct.bytes_sent);
    }

    /// Tokens a second over the last few steps; while none are made, over the last few that were.
    pub fn rate_now(&self) -> f64 {
        self.rate_now
    }

    /// Seconds until the last epoch is committed, at the pace so far with its merges.
    pub fn seconds_left(&self) -> Option<f64> {
        let began = self.epochs.first()?.opened_ms;
        let spent = self.now_ms.saturating_sub(began) as f64 / 1e3;
        let left = self.steps_total.saturating_sub(self.steps) as f64;
        (self.steps > 0 && spent > 0.0).then(|| left * spent / self.steps as f64)
    }

    /// Those who are there, by stage; last those without one.
    pub fn present(&self, stage: Option<u16>) -> usize {
        self.nodes.values().filter(|node| node.stage == stage && node.presence != Presence::Gone).count()
    }

    fn take_report(&mut self, ms: u64, report: &Report) {
        match report {
            Report::Joined { node, role, stage } => {
                let visits = self.nodes.get(node).map_or(0, |node| node.visits) + 1;
                let before = self.nodes.get(node).map_or((0, 0), |node| (node.equal, node.unequal));
                let presence = Presence::Here;
                let (equal, unequal) = before;
                self.nodes
                    .insert(*node, Node { role: *role, stage: *stage, presence, visits, equal, unequal });
            }
            Report::Gone { node, .. } => self.presence(node, Presence::Gone),
            Report::Carried { frames, bytes_plain, bytes_sent, .. } => {
                let direct = &mut self.wire_direct;
                direct.frames = direct.frames.saturating_add(*frames);
                direct.bytes_plain = direct.bytes_plain.saturating_add(*bytes_plain);
                direct.bytes_sent = direct.bytes_sent.saturating_add(*bytes_sent);
                self.add_up_wire();
            }
            Report::Suspected { node, suspected } => {
                let presence = if *suspected { Presence::Suspected } else { Presence::Here };
                self.presence(node, presence);
            }
            Report::Opened { epoch } => {
                self.recent.clear();
                self.phase = Phase::Working(*epoch);
                match self.epochs.last_mut().filter(|line| line.epoch == *epoch) {
                    Some(line) => line.worked_ms = None,
                    None => {
                        let (opened_ms, seen_before) = (ms, self.seen);
                        self.epochs.push(EpochLine {
                            epoch: *epoch,
                            opened_ms,
                            seen_before,
                            ..Default::default()
                        });
                    }
                }
            }
            Report::Loss { nats, .. } => self.take_loss(*nats),
            Report::Stepped { epoch, step, tokens } => self.take_step(ms, *epoch, *step, *tokens),
            Report::Committed { epoch, manifest, nats } => {
                self.commits.push((*epoch, manifest.to_string()));
                self.phase = Phase::Committed(*epoch);
                if let Some(line) = self.epochs.last_mut() {
                    (line.committed_ms, line.nats) = (Some(ms), Some(*nats));
                }
                self.take_rate(ms);
            }
            // Where a miner stands is no work.
            Report::Audited { window, finding: Finding::Equal { .. }, .. } if window.is_beginning() => {}
            Report::Audited { miner, stage, finding, .. } => {
                let equal = matches!(finding, Finding::Equal { .. });
                if let Some(node) = self.nodes.get_mut(miner) {
                    *(if equal { &mut node.equal } else { &mut node.unequal }) += 1;
                }
                if equal {
                    self.audits_equal += 1;
                } else {
                    let said = finding.sentence();
                    self.audits_unequal.push(format!("miner {} of stage {stage}: {said}", miner.short()));
                }
            }
            Report::Rewound { epoch, steps, tokens, .. } => {
                self.undo(*epoch, u64::from(*steps), *tokens);
            }
            Report::RolledBack { epoch, steps, tokens, .. } => {
                self.commits.retain(|(of, _)| of < epoch);
                self.undo(*epoch, *steps, *tokens);
            }
            Report::Reissued { tokens, .. } => self.tokens_lost += tokens,
            Report::AddedUp { .. } => self.sums_checked += 1,
            Report::Convicted { node, why, .. } => self.convictions.push((node.to_string(), why.clone())),
            Report::Narrowed { node, evidence } => {
                let node = node.to_string();
                let of_it = self.convictions.iter_mut().filter(|(convict, _)| *convict == node);
                of_it.for_each(|(_, why)| why.push_str(&format!("; of one tile: evidence {evidence}")));
            }
            Report::Stable { epoch } => self.stable = epoch + 1,
            // Only words.
            _ => {}
        }
    }

    /// Everything from the opening of an epoch on begins again: steps that count no longer, and tokens computed in vain.
    fn undo(&mut self, epoch: u32, steps: u64, tokens: u64) {
        let per_step = self.tokens.checked_div(self.steps).unwrap_or_default();
        self.steps -= steps.min(self.steps);
        self.tokens -= (steps * per_step).min(self.tokens);
        self.tokens_lost += tokens;
        self.rewinds += 1;
        self.recent.clear();
        self.epochs.retain(|line| line.epoch <= epoch);
        if let Some(line) = self.epochs.last_mut() {
            line.rewinds += 1;
            (line.worked_ms, line.committed_ms, line.nats) = (None, None, None);
            self.seen = line.seen_before;
        }
        self.loss.cut_after(self.seen as f64);
        self.phase = Phase::Again(epoch);
    }

    fn presence(&mut self, node: &NodeId, presence: Presence) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.presence = presence;
        }
    }

    fn take_step(&mut self, ms: u64, epoch: u32, step: u32, tokens: u64) {
        self.steps += 1;
        self.tokens += tokens;
        self.recent.push_back((ms, self.tokens));
        if self.recent.len() > RATE_WINDOW {
            self.recent.pop_front();
        }
        if let (Some(a), Some(b)) = (self.recent.front(), self.recent.back())
            && b.0 > a.0
        {
            self.rate_now = rate(b.1 - a.1, b.0 - a.0);
            self.rate.push(ms as f64 / 1e3, self.rate_now);
        }
        self.take_rate(ms);
        if step + 1 >= self.facts.steps_per_epoch {
            self.phase = Phase::Merging(epoch);
            if let Some(line) = self.epochs.last_mut() {
                line.worked_ms = Some(ms);
            }
        }
    }

    /// All tokens over all time since the first epoch opened, merges included.
    fn take_rate(&mut self, ms: u64) {
        let began = self.epochs.first().map_or(ms, |line| line.opened_ms);
        self.tokens_per_second = rate(self.tokens, ms.saturating_sub(began));
    }

    fn take_loss(&mut self, nats: f64) {
        self.seen += self.facts.microbatch_tokens;
        self.loss.push(self.seen as f64, nats);
        if self.first.len() < LOSS_WINDOW {
            self.first.push(nats);
            self.first_nats = Some(mean(self.first.iter()));
        }
        self.last.push_back(nats);
        if self.last.len() > LOSS_WINDOW {
            self.last.pop_front();
        }
        self.last_nats = Some(mean(self.last.iter()));
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Waiting => write!(f, "waiting for nodes"),
            Self::Working(epoch) => write!(f, "epoch {epoch}: working"),
            Self::Merging(epoch) => write!(f, "epoch {epoch}: merging"),
            Self::Committed(epoch) => write!(f, "epoch {epoch}: committed"),
            Self::Again(epoch) => write!(f, "epoch {epoch}: beginning again"),
            Self::Ended => write!(f, "ended"),
        }
    }
}

fn rate(tokens: u64, ms: u64) -> f64 {
    if ms == 0 { 0.0 } else { tokens as f64 * 1000.0 / ms as f64 }
}

fn mean<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
