//! Miners that lie, to see them caught: each lie is wrapped around the engine or around what is sent, and an honest
//! miner never comes here.

use engine::data::TokenShard;
use engine::payload::{self, Expected, Kind};
use engine::state::StageState;
use engine::trace;
use engine::work::{self, Done, WorkError};
use engine::{Device, DeviceError};
use miner_core::{Effect, Miner};
use spec::{Digest, Member, Operation};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;
use transport::drive::{Next, Shell};
use wire::{Key, Machine, Message, Signed};

/// A way to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversary {
    /// Sends zeros instead of what it owes.
    FreeRider,
    /// Sends what came in instead of what it makes of it.
    Copier,
    /// Sends gradients with the other sign.
    SignFlipper,
    /// Sends what it sent for the same position of the step before.
    StaleReplayer,
    /// Keeps its weights in bf16, where f32 is owed.
    LazyPrecision,
    /// Works on another sample than the one assigned.
    LabelTamperer,
    /// Changes one bit of a forward's output.
    ForwardBit,
    /// Changes one bit of a backward's output.
    BackwardBit,
    /// Changes one bit of a weight after each step.
    StepBit,
    /// Sends finite numbers so large that whoever takes them meets infinity.
    Poison,
    /// Sends payloads with another header than the run's.
    Garbage,
    /// Adds one to a sum of a merge.
    WrongSum,
    /// Signs two receipts for one step.
    Equivocator,
    /// Does not reveal what is drawn from it.
    Withholder,
    /// Begins an epoch with other moments than it ended the one before with.
    Moments,
    /// Ends its process in its second epoch, and begins epochs with moments of its own making once it was started again.
    Returner,
    /// Brings another contribution to a merge than its work came to.
    Contribution,
    /// Does all that it should, but half a minute later.
    SlowLoris,
}

impl Adversary {
    /// Every one, with its name.
    pub const ALL: [(&'static str, Self); 18] = [
        ("free-rider", Self::FreeRider),
        ("copier", Self::Copier),
        ("sign-flipper", Self::SignFlipper),
        ("stale-replayer", Self::StaleReplayer),
        ("lazy-precision", Self::LazyPrecision),
        ("label-tamperer", Self::LabelTamperer),
        ("forward-bit", Self::ForwardBit),
        ("backward-bit", Self::BackwardBit),
        ("step-bit", Self::StepBit),
        ("poison", Self::Poison),
        ("garbage", Self::Garbage),
        ("wrong-sum", Self::WrongSum),
        ("equivocator", Self::Equivocator),
        ("withholder", Self::Withholder),
        ("moments", Self::Moments),
        ("returner", Self::Returner),
        ("contribution", Self::Contribution),
        ("slow-loris", Self::SlowLoris),
    ];
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

/// Who does units of work.
pub(crate) trait Engine: Send {
    /// One unit of work, as [`work::perform`] says it.
    fn perform(
        &mut self,
        state: &mut StageState,
        data: Option<&TokenShard>,
        epoch: u32,
        operation: &Operation,
        inputs: &[&[u8]],
    ) -> Result<Done, WorkError>;
}

/// Does what it is told.
pub(crate) struct Honest;

impl Engine for Honest {
    fn perform(
        &mut self,
        state: &mut StageState,
        data: Option<&TokenShard>,
        epoch: u32,
        operation: &Operation,
        inputs: &[&[u8]],
    ) -> Result<Done, WorkError> {
        work::perform(state, data, epoch, operation, inputs)
    }
}

/// How long a slow-loris waits before each operation.
const DAWDLES: Duration = Duration::from_secs(30);

/// The exit code of a returner: one that it is started again after.
const RETURNS: i32 = 1;

/// Makes ordinary activations and gradients as large as f32 allows.
const POISON: f32 = 1e36;

/// Lies about what an engine did.
pub(crate) struct Lying {
    honest: Honest,
    adversary: Adversary,
    /// The last output, by direction and position.
    before: BTreeMap<(bool, u16), Vec<u8>>,
    /// The last epoch that it began, and the first since the process was started.
    begun: Option<u32>,
    first: Option<u32>,
}

impl Lying {
    pub fn new(adversary: Adversary) -> Self {
        Self { honest: Honest, adversary, before: BTreeMap::new(), begun: None, first: None }
    }

    /// What it sends in place of a payload.
    fn payload(
        &mut self,
        state: &StageState,
        operation: &Operation,
        input: Option<&[u8]>,
        honest: &[u8],
    ) -> Option<Vec<u8>> {
        let (kind, position) = match operation {
            Operation::Forward(member) => (Kind::Activation, member.position),
            Operation::Backward(member) => (Kind::Gradient, member.position),
            _ => return None,
        };
        let backward = kind == Kind::Gradient;
        let expected = Expected::of(state.run(), kind);
        let scaled = |by: f32| {
            let mut tensor = payload::decode(&expected, honest, &Device::Cpu).ok()?;
            tensor.data_mut().iter_mut().for_each(|value| *value *= by);
            payload::encode(&expected, &tensor).ok()?
        };
        match self.adversary {
            Adversary::FreeRider => scaled(0.0),
            Adversary::Poison => scaled(POISON),
            Adversary::Garbage => Some([&[!honest[0]], &honest[1..]].concat()),
            Adversary::SignFlipper if backward => scaled(-1.0),
            Adversary::Copier => input.map(<[u8]>::to_vec),
            Adversary::StaleReplayer => self.before.insert((backward, position), honest.to_vec()),
            Adversary::ForwardBit if !backward => Some(with_last_bit(honest)),
            Adversary::BackwardBit if backward => Some(with_last_bit(honest)),
            _ => None,
        }
    }

    fn spoil_weights(&self, state: &mut StageState) -> Result<(), DeviceError> {
        match self.adversary {
            Adversary::StepBit => {
                state.edit_weights(|weights| weights[0] = f32::from_bits(weights[0].to_bits() ^ 1))
            }
            Adversary::LazyPrecision => state.edit_weights(|weights| {
                for weight in weights {
                    *weight = f32::from_bits(weight.to_bits() & 0xFFFF_0000);
                }
            }),
            _ => Ok(()),
        }
    }

    /// The operation on another sample, where that is the lie.
    fn moved(&self, operation: &Operation) -> Operation {
        let other = |member: &Member| Member { microbatch: member.microbatch + 1, ..*member };
        match (self.adversary, operation) {
            (Adversary::LabelTamperer, Operation::Forward(member)) => Operation::Forward(other(member)),
            (Adversary::LabelTamperer, Operation::Backward(member)) => Operation::Backward(other(member)),
            (Adversary::LabelTamperer, Operation::Step { step, members }) => {
                Operation::Step { step: *step, members: members.iter().map(other).collect() }
            }
            _ => operation.clone(),
        }
    }
}

impl Engine for Lying {
    fn perform(
        &mut self,
        state: &mut StageState,
        data: Option<&TokenShard>,
        epoch: u32,
        operation: &Operation,
        inputs: &[&[u8]],
    ) -> Result<Done, WorkError> {
        if self.adversary == Adversary::SlowLoris {
            std::thread::sleep(DAWDLES);
        }
        let operation = &self.moved(operation);
        let begins = matches!(operation, Operation::Forward(_)) && self.begun != Some(epoch);
        if begins {
            self.begun = Some(epoch);
            // Who is there from the start begins with epoch 0.
            let returned = *self.first.get_or_insert(epoch) > 0;
            match self.adversary {
                Adversary::Returner if !returned && epoch > 0 => std::process::exit(RETURNS),
                Adversary::Returner if !returned => {}
                Adversary::Moments | Adversary::Returner => {
                    state.edit_moments(|moments| moments[0] += 1.0)?;
                }
                _ => {}
            }
        }
        let mut done = self.honest.perform(state, data, epoch, operation, inputs)?;
        let honest = done.output.as_deref().unwrap_or_default();
        let lie = match operation {
            Operation::Step { .. } => {
                self.spoil_weights(state)?;
                None
            }
            Operation::Reduce { .. } if self.adversary == Adversary::WrongSum => Some(with_last_bit(honest)),
            Operation::Encode if self.adversary == Adversary::Contribution => Some(with_other_code(honest)),
            _ if honest.is_empty() => None,
            _ => trace::aside(|| self.payload(state, operation, inputs.first().copied(), honest)),
        };
        if let Some(bytes) = lie {
            done.output_digest = Some(Digest::of(&bytes));
            done.output = Some(bytes);
        }
        Ok(done)
    }
}

/// The last code is another, and one that there is.
fn with_other_code(contribution: &[u8]) -> Vec<u8> {
    let mut bytes = contribution.to_vec();
    if let Some(code) = bytes.last_mut() {
        *code = u8::from(*code == 0);
    }
    bytes
}

/// The engine of a miner that lies so, or of an honest one, as it is before the first operation.
pub(crate) fn engine_of(adversary: Option<Adversary>) -> Box<dyn Engine> {
    match adversary {
        Some(adversary) => Box::new(Lying::new(adversary)),
        None => Box::new(Honest),
    }
}

/// How an adversary performs operations: what a trial tries without a swarm.
pub fn performer(adversary: Adversary) -> Box<trace::Performer<'static>> {
    let mut engine = engine_of(Some(adversary));
    Box::new(move |state, data, epoch, operation, inputs| {
        engine.perform(state, data, epoch, operation, inputs)
    })
}

fn with_last_bit(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes
}

/// Lies in what it sends.
pub(crate) struct Deceitful<S> {
    pub honest: S,
    pub adversary: Adversary,
    pub key: Key,
}

impl<S: Shell<Miner> + Send> Shell<Miner> for Deceitful<S>
where
    S::Error: Send,
{
    type Error = S::Error;

    async fn perform(&mut self, now_ms: u64, effect: Effect) -> Result<Next, S::Error> {
        let mut second = None;
        match (self.adversary, &effect) {
            (Adversary::Withholder, Effect::Send(Message::Revealed { .. })) => {
                return Ok(Next::Continue);
            }
            (Adversary::Equivocator, Effect::Send(Message::Receipt(receipt)))
                if matches!(receipt.body.operation, Operation::Step { .. }) =>
            {
                let mut body = receipt.body.clone();
                body.state = Some(Digest::of(b"another state"));
                second = Some(Effect::Send(Message::Receipt(Signed::new(body, &self.key))));
            }
            _ => {}
        }
        let next = self.honest.perform(now_ms, effect).await?;
        match second {
            Some(second) => self.honest.perform(now_ms, second).await,
            None => Ok(next),
        }
    }

    fn woken(&mut self) -> <Miner as Machine>::Event {
        self.honest.woken()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_adversary_has_a_name_of_its_own() {
        for (name, adversary) in Adversary::ALL {
            assert_eq!(name.parse(), Ok(adversary));
        }
        assert!("saint".parse::<Adversary>().unwrap_err().contains("free-rider, copier"));
    }
}
