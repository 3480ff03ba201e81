//! The orchestrator's state and who takes in which event.

use crate::account::Accounts;
use crate::accusations::Accusations;
use crate::audit::AuditedEpoch;
use crate::commit::Publishing;
use crate::config::{Config, ConfigError};
use crate::consequences::Consequences;
use crate::effect::{Effect, Ending, Report};
use crate::epoch::Epoch;
use crate::event::Event;
use crate::inquiry::{Divergences, Inquiry};
use crate::planted::Trials;
use crate::questions::Questions;
use crate::rollback::Past;
use crate::seats::Seats;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use wire::{Alarm, Carried, Machine, Manifest, Message, Neighbour, Signed};

/// The orchestrator's core.
#[derive(Debug, Clone)]
pub struct Orchestrator {
    pub(crate) config: Config,
    pub(crate) run_id: Digest,
    pub(crate) now_ms: u64,
    pub(crate) state: State,
    pub(crate) effects: Vec<Effect>,
    /// When all deadlines were last looked through, on which nothing but work depends: those that there were then have an alarm.
    pub(crate) deadlines_ms: Option<u64>,
}

/// Where the run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// The shell is not up.
    Idle,
    /// Seats are being taken.
    Gathering { since_ms: u64 },
    /// Microbatches go round.
    Working,
    /// The epoch's steps are done, the stages merge.
    Merging,
    /// The manifest goes to the store.
    Committing,
    /// The pointer goes back to an earlier manifest.
    RollingBack,
    /// Committed; the next epoch or the end waits for audits.
    Settling,
    /// It ended.
    Over,
}

/// Everything that the orchestrator remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub phase: Phase,
    pub alarm: Alarm,
    /// When the epoch, merge or commit last came closer to its end.
    pub progress_ms: u64,
    /// The last committed manifest.
    pub manifest: Signed<Manifest>,
    /// Digest of the manifest's object that the run's pointer names.
    pub pointer: Option<Digest>,
    pub publishing: Option<Publishing>,
    pub seats: Seats,
    pub next_assignment: u64,
    pub epoch: Option<Epoch>,
    pub audits: BTreeMap<u32, AuditedEpoch>,
    pub consequences: Consequences,
    pub trials: Trials,
    pub accusations: Accusations,
    pub questions: Questions,
    /// When it was last looked who lingers.
    pub looked_ms: u64,
    /// When deadlines of audits were last looked through, and the first of them.
    pub audit_alarm: Option<(u64, u64)>,
    pub inquiry: Option<Inquiry>,
    pub divergences: Divergences,
    /// The newest epochs that can be gone back to, by number.
    pub past: BTreeMap<u32, Past>,
    /// Until when a miner may be under way with pieces that nobody needs any more.
    pub uplinks: BTreeMap<NodeId, u64>,
    pub accounts: Accounts,
    /// Where miners can be reached directly, and what each was told of its neighbours.
    pub addresses: BTreeMap<NodeId, Vec<SocketAddr>>,
    pub neighbours: BTreeMap<NodeId, Vec<Neighbour>>,
    /// What was noted of whom, so that it is said once.
    pub noted: BTreeSet<(NodeId, String)>,
}

impl Orchestrator {
    /// An orchestrator that waits for [`Event::Started`].
    ///
    /// # Errors
    /// When the parts of the configuration do not belong together or this version cannot run them.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let run_id = config.run.id();
        let state = State {
            phase: Phase::Idle,
            alarm: Alarm::default(),
            progress_ms: 0,
            manifest: config.manifest.clone(),
            pointer: None,
            publishing: None,
            seats: Seats::new(config.run.model.stage_count(), config.run.miners_per_stage),
            next_assignment: 0,
            epoch: None,
            audits: BTreeMap::new(),
            consequences: Consequences::default(),
            trials: Trials::default(),
            accusations: Accusations::default(),
            questions: Questions::default(),
            looked_ms: 0,
            audit_alarm: None,
            inquiry: None,
            divergences: Divergences::default(),
            past: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            accounts: Accounts::default(),
            addresses: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            noted: BTreeSet::new(),
        };
        let mut core = Self { config, run_id, now_ms: 0, state, effects: Vec::new(), deadlines_ms: None };
        core.remember();
        Ok(core)
    }

    /// Digest of everything the orchestrator remembers; keys and secrets are not part of it.
    pub fn digest(&self) -> Digest {
        wire::digest_of(&self.state)
    }

    /// Whether the run has ended.
    pub fn is_over(&self) -> bool {
        self.state.phase == Phase::Over
    }

    /// The last committed manifest.
    pub fn manifest(&self) -> &Signed<Manifest> {
        &self.state.manifest
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.emit(Effect::Send { to, message });
    }

    pub(crate) fn report(&mut self, report: Report) {
        self.emit(Effect::Report(report));
    }

    /// Something happened that brings the epoch closer to its end.
    pub(crate) fn progressed(&mut self) {
        self.state.progress_ms = self.now_ms;
    }

    /// Ignores something, and says so once for each node and kind.
    pub(crate) fn note(&mut self, about: NodeId, kind: &'static str, text: &str) {
        if self.state.noted.insert((about, kind.to_owned())) {
            let name = self.name(about);
            self.report(Report::Note { text: format!("{name}: {}", shorten(text)) });
        }
    }

    /// Ends the run because it cannot go on.
    pub(crate) fn fail(&mut self, why: String) {
        self.finish(why.clone(), Ending::Failed { why });
    }

    pub(crate) fn finish(&mut self, reason: String, ending: Ending) {
        if self.is_over() {
            return;
        }
        self.finish_questions(&reason);
        for node in self.state.seats.connected() {
            self.send(node, Message::Finish { reason: reason.clone() });
        }
        self.state.phase = Phase::Over;
        self.emit(Effect::Finish(ending));
    }

    /// How people call a stage.
    pub(crate) fn stage_name(&self, stage: u16) -> String {
        let shape = self.config.run.model.stage(usize::from(stage));
        format!("stage {stage} ({})", shape.map_or("past the tail", |shape| shape.kind.name()))
    }

    /// How people call a node.
    pub(crate) fn name(&self, node: NodeId) -> String {
        match self.state.seats.stage_of(node) {
            Some(stage) => format!("miner {} of {}", node.short(), self.stage_name(stage)),
            None if self.state.seats.is_validator(node) => format!("validator {}", node.short()),
            None => format!("node {}", node.short()),
        }
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Started => self.start(),
            Event::Resumed => self.resumed(),
            Event::Message { from, message } => self.hear(from, message),
            Event::Suspected(node) if self.state.seats.knows(node) => {
                self.report(Report::Suspected { node, suspected: true });
            }
            Event::Recovered(node) if self.state.seats.knows(node) => {
                self.report(Report::Suspected { node, suspected: false });
            }
            Event::Suspected(_) | Event::Recovered(_) => {}
            Event::Lost { peer, why } => {
                self.lose(peer, &why);
                self.lose_convict_asked(peer, &why);
            }
            Event::Stored { digest } => self.stored(digest),
            Event::PointerMoved { manifest } => self.pointer_moved(manifest),
            Event::StoreFailed { what, why } => self.fail(format!(
                "the store did not {what} ({why}): check that it runs and has room, then take the run back to what is stable with `iota rollback` and start it again"
            )),
            Event::StoreWaits { what, why } => {
                let text = format!("the store did not {what} yet ({}): it is asked again", shorten(&why));
                self.report(Report::Note { text });
            }
            Event::Woke => self.check_deadlines(),
            Event::Stop => self.finish("the run's owner stopped it".into(), Ending::Stopped),
            Event::Confirmed { evidence, confirmation } => self.confirmed(evidence, confirmation),
            Event::Compared { miner, doubt } => self.compared(miner, doubt),
            Event::Narrowed { miner, evidence } => self.narrowed(miner, evidence),
            Event::Arrived { from, hello, unix_s } => self.admit(from, &hello, unix_s),
        }
    }

    pub(crate) fn start(&mut self) {
        if self.state.phase == Phase::Idle {
            self.state.phase = Phase::Gathering { since_ms: self.now_ms };
            self.publish(self.state.manifest.clone());
        }
    }

    fn hear(&mut self, from: NodeId, message: Message) {
        if let Message::Hello(hello) = message {
            // Before the end of every invitation.
            return self.admit(from, &hello, 0);
        }
        if let Message::Command(command) = message
            && from == self.config.key.id()
        {
            return self.obey(from, command);
        }
        if self.state.questions.asks(from) {
            return self.hear_convict(from, message);
        }
        if !self.state.seats.knows(from) {
            return self.emit(Effect::Disconnect {
                peer: from,
                why: "it said something before a hello was answered with a seat".into(),
            });
        }
        if self.state.seats.is_lost(from) {
            // Said before its connection went, or by a liar that was turned away.
            return;
        }
        let is_miner = self.state.seats.stage_of(from).is_some();
        match message {
            Message::Ask(ask) => self.answer(from, ask),
            Message::Leave { reason } => self.lose(from, &format!("it left: {reason}")),
            Message::Ready { epoch, turn } if is_miner => self.ready(from, epoch, turn),
            Message::Receipt(receipt) if is_miner => self.take_receipt(from, receipt),
            Message::Merged(merged) if is_miner => self.take_merged(from, &merged),
            Message::Holding { epoch, round } if is_miner => self.take_holding(from, epoch, round),
            Message::Kept(object) if is_miner => self.take_kept(from, object),
            Message::Revealed { window, state, inputs } if is_miner => {
                self.take_revealed(from, window, state, inputs);
            }
            Message::Disclosed { epoch, shard, pieces, stored } if is_miner => {
                self.take_disclosed(from, (epoch, shard), pieces, stored);
            }
            Message::Reachable(addresses) if is_miner => self.take_addresses(from, addresses),
            Message::Carried(Carried { frames, bytes_plain, bytes_sent })
                if is_miner && self.config.direct =>
            {
                self.report(Report::Carried { node: from, frames, bytes_plain, bytes_sent });
            }
            Message::AddedUp(verdict) if !is_miner => self.take_added_up(from, &verdict),
            Message::Verdict(verdict) if !is_miner => self.take_verdict(from, &verdict),
            other => self.note(from, "role", &format!("said what is not its to say, ignored: {other}")),
        }
    }
}

/// Longest text of a peer that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// What a peer said may be long; what a person reads must not be.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Machine for Orchestrator {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        if self.is_over() && !self.is_command(&event) {
            return Vec::new();
        }
        self.now_ms = now_ms;
        self.take_in(event);
        // A stand-in may have come back only now.
        if !self.is_over() && !matches!(self.state.phase, Phase::Idle | Phase::Gathering { .. }) {
            self.go_on_without_the_late();
        }
        self.advance();
        self.set_alarm();
        std::mem::take(&mut self.effects)
    }
}
