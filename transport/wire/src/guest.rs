//! What miner and validator have in common: an invitation, objects asked for, and bounded waits.

use crate::hello::{Hello, Refusal, Role, Welcome};
use crate::machine::Alarm;
use crate::manifest::Manifest;
use crate::message::Message;
use crate::object::{Ask, Grant, ObjectRef, Presigned, Verb};
use crate::signed::{Key, SignatureError, Signed};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, SpecError};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Who a node is, whose invitation it follows, and how long it waits.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's secret key.
    pub key: Key,
    /// The orchestrator's key, from the invitation.
    pub orchestrator: NodeId,
    /// The invitation's token; empty where admission is by key.
    pub token: Vec<u8>,
    /// Name and version of the program, for the orchestrator's log.
    pub software: String,
    /// Where others may reach the node, if it takes calls: said after every welcome.
    pub reachable: Option<Vec<SocketAddr>>,
    /// How long an answer to a hello or an ask may take, in milliseconds.
    pub answer_ms: u64,
    /// How long nothing at all may happen, in milliseconds: longer than the orchestrator waits for others
    /// to join and than any task or transfer takes.
    pub idle_ms: u64,
    /// How long a lost connection is tried again, in milliseconds.
    pub away_ms: u64,
}

/// Why a guest ends before its run does: what went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GuestError {
    /// The orchestrator does not let it in.
    #[error("not let in: {0}")]
    Refused(Refusal),
    /// Everything else.
    #[error("{0}")]
    Ended(String),
}

impl From<String> for GuestError {
    fn from(why: String) -> Self {
        Self::Ended(why)
    }
}

/// A welcome or a manifest that the invitation does not cover.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WelcomeError {
    /// The run is no usable one.
    #[error("the orchestrator's run cannot be used: {0}")]
    Run(#[from] SpecError),
    /// The manifest's signature does not hold.
    #[error("the orchestrator's manifest cannot be trusted: {0}")]
    Signature(#[from] SignatureError),
    /// Somebody else signed the manifest.
    #[error("the manifest is signed by {found}, the invitation names {expected}: ask for a new invitation")]
    Signer {
        /// The invitation's key.
        expected: NodeId,
        /// The manifest's signer.
        found: NodeId,
    },
    /// The manifest belongs to another run.
    #[error("the manifest is of run {found}, the run offered is {expected}: the orchestrator mixes runs up")]
    OtherRun {
        /// Id of the run offered.
        expected: Digest,
        /// Id in the manifest.
        found: Digest,
    },
    /// The manifest or the seat does not fit the stage cut.
    #[error("the orchestrator's {what} does not fit the run's {stages} stages")]
    Stages {
        /// What does not fit.
        what: &'static str,
        /// Stages of the run.
        stages: usize,
    },
}

impl Config {
    /// A guest that takes no calls, with default patience: 30 s for an answer, 15 min for anything at all, 2 min without a
    /// connection.
    pub fn new(key: Key, orchestrator: NodeId, token: Vec<u8>, software: impl Into<String>) -> Self {
        let software = software.into();
        let (answer_ms, idle_ms, away_ms) = (30_000, 900_000, 120_000);
        Self { key, orchestrator, token, software, reachable: None, answer_ms, idle_ms, away_ms }
    }

    /// The first message. `resumes`: the node still has what it had when its connection went.
    pub fn hello(&self, role: Role, resumes: bool) -> Message {
        let (token, software) = (self.token.clone(), self.software.clone());
        Message::Hello(Hello { role, token, software, resumes })
    }

    /// Checks that the welcome is one for this role, by the orchestrator that invited; gives the run's id.
    ///
    /// # Errors
    /// [`WelcomeError`] says what is not as it should be.
    pub fn check_welcome(&self, role: Role, welcome: &Welcome) -> Result<Digest, WelcomeError> {
        welcome.run.check()?;
        let stages = welcome.run.model.stage_count();
        let fits = match (role, welcome.stage) {
            (Role::Miner, Some(stage)) => usize::from(stage) < stages,
            (Role::Validator, None) => true,
            (Role::Miner, None) | (Role::Validator, Some(_)) => false,
        };
        if !fits {
            return Err(WelcomeError::Stages { what: "seat", stages });
        }
        if welcome.manifest.body.stages.len() != stages {
            return Err(WelcomeError::Stages { what: "manifest", stages });
        }
        let run_id = welcome.run.id();
        self.check_manifest(run_id, &welcome.manifest)?;
        Ok(run_id)
    }

    /// Checks who signed a manifest, and for which run.
    ///
    /// # Errors
    /// [`WelcomeError`] says what is not as it should be.
    pub fn check_manifest(&self, run_id: Digest, manifest: &Signed<Manifest>) -> Result<(), WelcomeError> {
        let body = manifest.verify()?;
        if manifest.signer != self.orchestrator {
            return Err(WelcomeError::Signer { expected: self.orchestrator, found: manifest.signer });
        }
        if body.run != run_id {
            return Err(WelcomeError::OtherRun { expected: run_id, found: body.run });
        }
        Ok(())
    }
}

/// What a guest waits for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Waits {
    alarm: Alarm,
    heard_ms: u64,
    greeted_ms: Option<u64>,
    away: Option<Away>,
    transfers: BTreeMap<(Digest, Verb), Transfer>,
}

#[derive(Debug, Clone, Serialize)]
struct Transfer {
    bytes: u64,
    asked_ms: u64,
    granted: bool,
    failures: u32,
}

/// A connection that is gone.
#[derive(Debug, Clone, Serialize)]
struct Away {
    since_ms: u64,
    tries: u32,
}

/// First wait before a lost connection is tried again, doubled with each try, and its bound, in milliseconds.
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 50..=1_000;
/// How often a transfer is asked for again before it counts as failed.
const TRANSFER_FAILURES_MAX: u32 = 5;

impl Waits {
    /// Something happened.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// The hello is on its way.
    pub fn greeted(&mut self, now_ms: u64) {
        self.greeted_ms = Some(now_ms);
    }

    /// Whether a hello waits for its answer, which says what the orchestrator has of this guest.
    pub fn is_greeting(&self) -> bool {
        self.greeted_ms.is_some()
    }

    /// The hello was answered; `false` if none was waiting for an answer.
    pub fn welcomed(&mut self) -> bool {
        self.greeted_ms.take().is_some()
    }

    /// The connection is gone, or could not be made again: how long to wait before the next try.
    ///
    /// # Errors
    /// When it has been gone for too long: since how many seconds.
    pub fn lost(&mut self, now_ms: u64, config: &Config) -> Result<u64, f64> {
        self.greeted_ms = None;
        let away = self.away.get_or_insert(Away { since_ms: now_ms, tries: 0 });
        let gone_ms = now_ms.saturating_sub(away.since_ms);
        if gone_ms >= config.away_ms {
            return Err(gone_ms as f64 / 1000.0);
        }
        let wait_ms = (BACKOFF_MS.start() << away.tries.min(16)).min(*BACKOFF_MS.end());
        away.tries += 1;
        Ok(wait_ms)
    }

    /// The connection is up: whether there was one before.
    pub fn back(&mut self) -> bool {
        self.away.take().is_some()
    }

    /// Every request whose answer or transfer may have been lost, to be sent again.
    pub fn ask_again(&mut self, now_ms: u64) -> Vec<Message> {
        let again = |(&(digest, verb), transfer): (&(Digest, Verb), &mut Transfer)| {
            (transfer.asked_ms, transfer.granted) = (now_ms, false);
            Message::Ask(Ask { verb, object: ObjectRef { digest, bytes: transfer.bytes } })
        };
        self.transfers.iter_mut().map(again).collect()
    }

    /// A transfer failed: the request to send again, or `None` once it has failed too often.
    pub fn failed(&mut self, now_ms: u64, failed: Digest) -> Option<Vec<Message>> {
        let mut again = Vec::new();
        for (&(digest, verb), transfer) in
            self.transfers.iter_mut().filter(|((digest, _), _)| *digest == failed)
        {
            transfer.failures += 1;
            if transfer.failures >= TRANSFER_FAILURES_MAX {
                return None;
            }
            (transfer.asked_ms, transfer.granted) = (now_ms, false);
            again.push(Message::Ask(Ask { verb, object: ObjectRef { digest, bytes: transfer.bytes } }));
        }
        Some(again)
    }

    /// The request to send for an object; `None` if it is under way already.
    pub fn ask(&mut self, now_ms: u64, verb: Verb, object: ObjectRef) -> Option<Message> {
        let key = (object.digest, verb);
        if self.transfers.contains_key(&key) {
            return None;
        }
        let bytes = object.bytes;
        self.transfers.insert(key, Transfer { bytes, asked_ms: now_ms, granted: false, failures: 0 });
        Some(Message::Ask(Ask { verb, object }))
    }

    /// Takes in a grant: the request to make or the refusal; `None` for a grant that nobody waits for.
    pub fn granted(&mut self, grant: Grant) -> Option<(Ask, Result<Presigned, String>)> {
        let transfer = self.transfers.get_mut(&(grant.ask.object.digest, grant.ask.verb))?;
        if transfer.granted {
            return None;
        }
        transfer.granted = true;
        Some((grant.ask, grant.answer))
    }

    /// A transfer is over; `false` if none was under way.
    pub fn transferred(&mut self, verb: Verb, digest: Digest) -> bool {
        self.transfers.remove(&(digest, verb)).is_some()
    }

    /// The alarm rang: what has waited too long, in one sentence.
    pub fn overdue(&mut self, now_ms: u64, config: &Config) -> Option<String> {
        self.alarm.rang();
        // Without a connection nobody can answer; how long that may last is `lost`'s matter.
        if self.away.is_some() {
            return None;
        }
        let late = |since_ms: u64, patience_ms: u64| now_ms >= since_ms.saturating_add(patience_ms);
        let seconds = |ms: u64| ms as f64 / 1000.0;
        if self.greeted_ms.is_some_and(|since| late(since, config.answer_ms)) {
            let answer_s = seconds(config.answer_ms);
            return Some(format!(
                "the orchestrator did not answer the hello within {answer_s} s: check that it runs, then start again"
            ));
        }
        let unanswered = self
            .transfers
            .iter()
            .find(|(_, transfer)| !transfer.granted && late(transfer.asked_ms, config.answer_ms));
        if let Some(((digest, _), _)) = unanswered {
            let answer_s = seconds(config.answer_ms);
            return Some(format!(
                "the orchestrator did not say within {answer_s} s how to reach object {}: check that it runs",
                digest.short()
            ));
        }
        late(self.heard_ms, config.idle_ms).then(|| {
            let idle_s = seconds(config.idle_ms);
            format!(
                "nothing happened for {idle_s} s: ask the run's owner what it waits for, then start again"
            )
        })
    }

    /// When the alarm must ring, if that is to be announced anew.
    pub fn alarm(&mut self, config: &Config) -> Option<u64> {
        if self.away.is_some() {
            return None;
        }
        let asked = self.transfers.values().filter(|transfer| !transfer.granted);
        let at_ms = asked
            .map(|transfer| transfer.asked_ms.saturating_add(config.answer_ms))
            .chain(self.greeted_ms.map(|since| since.saturating_add(config.answer_ms)))
            .chain([self.heard_ms.saturating_add(config.idle_ms)])
            .min()?;
        self.alarm.set(at_ms)
    }
}
