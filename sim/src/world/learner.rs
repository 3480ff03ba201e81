//! An arithmetic that is a hash: what `engine::work` is to the product.
//!
//! Every output is BLAKE3 of the weights, the operation and the inputs. So an honest miner and a validator
//! that replays it agree to the bit, and nobody else does. What is merged is integers all the same, so that sums can
//! be held against what was added: see [`codes`](super::codes).

use super::codes::{self, Contribution};
use serde::{Deserialize, Serialize};
use spec::{Digest, Member, Operation, Outcome, Run, StageKind};
use std::collections::BTreeMap;

/// What a block begins with that makes whoever takes it meet infinity.
pub const POISON: &[u8] = b"poison";
/// What a block begins with if the loss at the end of its route is higher.
pub const WORSE: &[u8] = b"worse";
/// By how much, in 2^-32 nats.
pub const WORSE_Q32: i64 = 1 << 29;
/// A rate of learning beyond which a run diverges: in its third inner step its first stage meets infinity.
const LR_MAX: f64 = 1.0;
const DIVERGES_IN_STEP: u32 = 2;

/// The full state of a stage. Its postcard is the state object, which work in flight is not part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learner {
    stage: u16,
    weights: Digest,
    /// The weights of the last merge.
    anchor: Digest,
    moments: Digest,
    momentum: Digest,
    /// Microbatches folded since the last merge.
    folded: u32,
    /// Gradients of the members that were not folded into a step yet, with the input of their forward.
    #[serde(skip)]
    open: BTreeMap<Member, (Digest, Digest)>,
    /// The weights before the last step, where the members of this one run on them.
    #[serde(skip)]
    stash: Option<(u32, Digest)>,
}

/// What an operation gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The payload block or contribution.
    pub output: Option<Vec<u8>>,
    /// The loss, from a stage that judges.
    pub loss_q32: Option<i64>,
    /// The contribution, from an encode.
    pub contribution: Option<Contribution>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Learner {
    /// The first weights of a stage, as they lie in the store.
    pub fn first_weights(run: &Run, stage: u16) -> Vec<u8> {
        let weights = hash("first weights", &(run.seed, stage, run.model.stage_parameters(stage.into())));
        wire::to_bytes(&(stage, weights))
    }

    /// A stage with these weights and fresh moments.
    ///
    /// # Errors
    /// When the bytes are no weights of that stage.
    pub fn adopt(stage: u16, bytes: &[u8]) -> Result<Self, String> {
        let (found, weights): (u16, Digest) =
            postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        if found != stage {
            return Err(format!("the weights are of stage {found}, expected stage {stage}"));
        }
        let zero = Digest::default();
        let (anchor, open) = (weights, BTreeMap::new());
        Ok(Self { stage, weights, anchor, moments: zero, momentum: zero, folded: 0, open, stash: None })
    }

    /// The state that these bytes hold.
    ///
    /// # Errors
    /// When the bytes are no state.
    pub fn from_state(bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|error| error.to_string())
    }

    /// Which stage.
    pub fn stage(&self) -> u16 {
        self.stage
    }

    /// The state object.
    pub fn state(&self) -> Vec<u8> {
        wire::to_bytes(self)
    }

    /// The weights shard.
    pub fn shard(&self) -> Vec<u8> {
        wire::to_bytes(&(self.stage, self.weights))
    }

    /// The outer momentum.
    pub fn momentum(&self) -> Vec<u8> {
        wire::to_bytes(&(self.stage, self.momentum))
    }

    /// The fresh state of a manifest: these weights, this outer momentum, and nothing else.
    ///
    /// # Errors
    /// When the bytes are no weights or momentum of that stage.
    pub fn of_manifest(stage: u16, weights: &[u8], momentum: Option<&[u8]>) -> Result<Self, String> {
        let mut fresh = Self::adopt(stage, weights)?;
        momentum.map_or(Ok(()), |momentum| fresh.take_momentum(momentum))?;
        Ok(fresh)
    }

    fn take_momentum(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (found, momentum): (u16, Digest) =
            postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        if found != self.stage {
            return Err(format!("the momentum is of stage {found}, expected stage {}", self.stage));
        }
        self.momentum = momentum;
        Ok(())
    }

    /// Puts other moments in the place of its own.
    pub fn spoil_moments(&mut self) {
        self.moments = hash("spoilt", &self.moments);
    }

    /// Puts another outer momentum in the place of its own.
    pub fn spoil_momentum(&mut self) {
        self.momentum = hash("spoilt", &self.momentum);
    }

    /// Does one operation on these inputs.
    ///
    /// # Errors
    /// When the operation cannot follow those before it, or lacks its input.
    pub fn perform(
        &mut self,
        run: &Run,
        epoch: u32,
        operation: &Operation,
        inputs: &[&[u8]],
    ) -> Result<Made, String> {
        let kind = run.model.stage(self.stage.into()).map_or(StageKind::Whole, |stage| stage.kind);
        let digests: Vec<Digest> = inputs.iter().map(|input| Digest::of(input)).collect();
        let made = hash("operation", &(self.weights_for(run, operation)?, epoch, operation, &digests));
        let block = || Some(wire::to_bytes(&("block", made)));
        let wants = match operation {
            Operation::Forward(_) => usize::from(!kind.embeds()),
            Operation::Backward(_) => usize::from(!kind.judges()),
            Operation::Step { .. } | Operation::Scale => 0,
            Operation::Reduce { contributors, .. } => contributors.len(),
            Operation::Apply if run.outer == spec::Outer::None => 0,
            Operation::Encode | Operation::Apply => inputs.len(),
        };
        if inputs.len() != wants {
            return Err(format!("{} has {} inputs, expected {wants}", operation.name(), inputs.len()));
        }
        let diverges =
            |member: &Member| self.stage == 0 && run.inner.lr > LR_MAX && member.step == DIVERGES_IN_STEP;
        let is_pass = matches!(operation, Operation::Forward(_) | Operation::Backward(_));
        let poisoned = is_pass && inputs.iter().any(|input| input.starts_with(POISON));
        if poisoned || matches!(operation, Operation::Forward(member) if diverges(member)) {
            let outcome = Outcome::NonFinite;
            return Ok(Made { output: None, loss_q32: None, contribution: None, outcome });
        }
        let mut output = None;
        let mut loss_q32 = None;
        let mut contribution = None;
        match operation {
            Operation::Forward(member) => {
                self.open.insert(*member, (made, Digest::default()));
                let worse = inputs.iter().any(|input| input.starts_with(WORSE));
                if kind.judges() {
                    loss_q32 = Some(loss(made) + i64::from(worse) * WORSE_Q32);
                } else {
                    let before = if worse { WORSE } else { &[] };
                    output = block().map(|block| [before, &block].concat());
                }
            }
            Operation::Backward(member) => {
                let open = self.open.get_mut(member).ok_or("backward without its forward")?;
                let gradient = hash("gradient", &(open.0, made));
                open.1 = gradient;
                if !kind.embeds() {
                    output = Some(wire::to_bytes(&("block", gradient)));
                }
            }
            Operation::Step { step, members } => {
                let gradients: Option<Vec<Digest>> =
                    members.iter().map(|member| Some(self.open.remove(member)?.1)).collect();
                let gradients = gradients.ok_or("a step folds a member without a gradient")?;
                self.folded += members.len() as u32;
                self.moments = hash("moments", &(self.moments, &gradients));
                self.open.retain(|member, _| member.step > *step);
                self.stash =
                    step.checked_add(1).filter(|&next| run.is_stale(next)).map(|next| (next, self.weights));
                self.weights = hash("weights", &(made, self.moments));
            }
            Operation::Scale => output = block(),
            Operation::Encode => {
                let blocks = butterfly::blocks(run.model.stage_parameters(self.stage.into()));
                let noise = hash("codes", &(self.weights, self.anchor, &digests));
                contribution = Some(Contribution::drawn(blocks, self.folded, noise));
            }
            Operation::Reduce { .. } => output = Some(codes::sum(inputs)?),
            Operation::Apply if run.outer == spec::Outer::None => self.merge_into(self.weights),
            Operation::Apply => {
                let sums = codes::whole(run.model.stage_parameters(self.stage.into()), inputs)?;
                self.momentum = hash("momentum", &(self.momentum, &sums));
                // From the weights of the last merge, as everybody has them: not from the local ones.
                self.merge_into(hash("weights", &(self.anchor, &sums, self.momentum)));
            }
        }
        Ok(Made { output, loss_q32, contribution, outcome: Outcome::Ok })
    }

    /// The weights that an operation runs on: of a stale step's members those before the step before it.
    fn weights_for(&self, run: &Run, operation: &Operation) -> Result<Digest, String> {
        let (Operation::Forward(member) | Operation::Backward(member)) = operation else {
            return Ok(self.weights);
        };
        let first = self.open.keys().map(|member| member.step).min();
        let in_hand = self.stash.map(|(step, _)| step).or(first).unwrap_or(member.step);
        let ahead = matches!(operation, Operation::Forward(_))
            && in_hand.checked_add(1) == Some(member.step)
            && run.is_stale(member.step);
        if member.step != in_hand && !ahead {
            return Err(format!("{operation} while inner step {in_hand} is in hand"));
        }
        Ok(self.stash.filter(|(step, _)| *step == member.step).map_or(self.weights, |(_, before)| before))
    }

    fn merge_into(&mut self, weights: Digest) {
        (self.weights, self.anchor, self.folded) = (weights, weights, 0);
    }
}

fn hash<T: Serialize>(what: &str, value: &T) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("iota sim learner v1");
    hasher.update(what.as_bytes()).update(&wire::to_bytes(value));
    Digest(*hasher.finalize().as_bytes())
}

/// 4.5 to 4.75 nats in 2^-32.
fn loss(made: Digest) -> i64 {
    let noise = i64::from(u32::from_le_bytes([made.0[0], made.0[1], made.0[2], made.0[3]]));
    (9 << 31) + (noise >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_from_the_state_goes_on_alike_and_another_input_shows() {
        let run = crate::scenarios::small_run(&crate::Options::default()).unwrap().0;
        let mut miner = Learner::adopt(1, &Learner::first_weights(&run, 1)).unwrap();
        let member = Member { assignment: 1, attempt: 0, step: 0, position: 0, microbatch: 0 };
        let mut copy = Learner::from_state(&miner.state()).unwrap();
        let input: &[u8] = &[1; 32];
        for operation in [Operation::Forward(member), Operation::Backward(member)] {
            let made = miner.perform(&run, 0, &operation, &[input]).unwrap();
            assert!(made.output.is_some());
            assert_eq!(copy.perform(&run, 0, &operation, &[input]).unwrap(), made);
        }
        let other = copy.perform(&run, 0, &Operation::Backward(member), &[&[2; 32][..]]).unwrap();
        assert!(other.output.is_some());
        let step = Operation::Step { step: 0, members: vec![member] };
        miner.perform(&run, 0, &step, &[]).unwrap();
        copy.perform(&run, 0, &step, &[]).unwrap();
        assert_ne!(copy.state(), miner.state());
        assert!(miner.perform(&run, 0, &step, &[]).unwrap_err().contains("without a gradient"));
    }
}
