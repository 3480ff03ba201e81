//! Validators that lie, to see them found out: a lie is wrapped around what an honest one sends.

use spec::Digest;
use std::collections::VecDeque;
use std::str::FromStr;
use transport::drive::{Next, Shell};
use validator_core::{Effect, Validator};
use wire::{Finding, Key, Machine, Message, Signed, SumVerdict, Verdict};

/// A way to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversary {
    /// Says of every window that it is equal.
    Lazy,
    /// Says of every window and sum that it is wrong.
    Accuser,
}

impl Adversary {
    /// Every one, with its name.
    pub const ALL: [(&'static str, Self); 2] = [("lazy-validator", Self::Lazy), ("accuser", Self::Accuser)];
}

impl FromStr for Adversary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|(name, _)| *name == text);
        known.map(|(_, adversary)| adversary).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("no adversary {text:?}: there are {names}")
        })
    }
}

/// Lies in what it sends.
pub(crate) struct Deceitful<S> {
    pub honest: S,
    pub adversary: Adversary,
    pub key: Key,
    /// Operations of the windows that it was asked to replay.
    pub asked: VecDeque<u32>,
}

impl<S> Deceitful<S> {
    fn lie(&mut self, message: Message) -> Message {
        let window = |verdict: &Signed<Verdict>, finding| {
            Message::Verdict(Signed::new(Verdict { finding, ..verdict.body.clone() }, &self.key))
        };
        match (self.adversary, message) {
            (Adversary::Lazy, Message::Verdict(verdict)) if verdict.body.window.is_beginning() => {
                window(&verdict, Finding::Equal { operations: 0 })
            }
            (Adversary::Lazy, Message::Verdict(verdict)) => {
                let operations = self.asked.pop_front().unwrap_or_default();
                window(&verdict, Finding::Equal { operations })
            }
            (Adversary::Accuser, Message::Verdict(verdict)) => {
                let [expected, found] = ["something", "something else"].map(Into::into);
                window(&verdict, Finding::Unequal { sequence: 0, what: "output".into(), expected, found })
            }
            (Adversary::Accuser, Message::AddedUp(verdict)) => {
                let sum = verdict.body.sum.map(|sum| Digest::of(sum.as_bytes()));
                Message::AddedUp(Signed::new(SumVerdict { sum, ..verdict.body }, &self.key))
            }
            (_, honest) => honest,
        }
    }
}

impl<S: Shell<Validator> + Send> Shell<Validator> for Deceitful<S>
where
    S::Error: Send,
{
    type Error = S::Error;

    async fn perform(&mut self, now_ms: u64, effect: Effect) -> Result<Next, S::Error> {
        let effect = match effect {
            Effect::Send(message) => Effect::Send(self.lie(message)),
            Effect::Replay { ref operations, .. } => {
                self.asked.push_back(u32::try_from(operations.len()).unwrap_or(u32::MAX));
                effect
            }
            honest => honest,
        };
        self.honest.perform(now_ms, effect).await
    }

    fn woken(&mut self) -> <Validator as Machine>::Event {
        self.honest.woken()
    }
}
