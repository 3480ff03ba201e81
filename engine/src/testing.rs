//! What trials of several modules share, those of `tests/cuda` among them: a tiny run, its text, and all stages of it
//! driven in one process.

use crate::contribution::{Committed, Contribution};
use crate::data::{self, TokenShard, Width};
use crate::state::StageState;
use crate::work::{Done, perform};
use kernels::device::Device;
use spec::{
    Admission, Audit, BoundaryCodec, Data, Epoch, Inner, Member, Mode, Model, Operation, Outcome, Outer, Run,
    Tokenizer,
};

/// Text with enough regularity to be learned in a few steps.
pub fn shard() -> TokenShard {
    let text = "the quick brown fox jumps over the lazy dog; ".repeat(12);
    let tokens = data::TextTokenizer::bytes().encode(&text).unwrap();
    TokenShard::from_bytes(data::shard_bytes(&tokens, Width::One).unwrap()).unwrap()
}

/// A run on [`shard`], cut into `stages`. The clip is out of reach, so that its share per stage does not tell cuts apart.
pub fn run(stages: &[u32]) -> Run {
    let shard = shard();
    let data = Data {
        tokenizer: Tokenizer::Bytes,
        train: shard.digest(),
        train_tokens: shard.count(),
        validation: shard.digest(),
        validation_tokens: shard.count(),
        sequences: 2,
    };
    let run = Run {
        name: "tiny".into(),
        mode: Mode::Portable,
        seed: 0x1234_5678_9ABC_DEF0,
        miners_per_stage: 1,
        model: Model {
            dim: 24,
            heads: 4,
            kv_heads: 2,
            ffn: 40,
            vocab: 256,
            context: 12,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            stages: stages.to_vec(),
            rope_scaling: None,
        },
        data,
        inner: Inner {
            lr: 1e-2,
            lr_final: 1e-3,
            warmup_steps: 2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1e6,
            members: 3,
            staleness: 0,
        },
        outer: Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 },
        epoch: Epoch { steps: 4, count: 10, digest_every: 2 },
        boundary: BoundaryCodec::F32,
        audit: Audit { windows: 1, lag: 2 },
        admission: Admission::Invitation,
    };
    run.check().unwrap();
    run
}

/// Member `position` of inner step `step`, each with a microbatch of its own.
pub fn member(run: &Run, step: u32, position: u16) -> Member {
    let microbatch = u64::from(step) * u64::from(run.inner.members) + u64::from(position);
    Member { assignment: microbatch, attempt: 0, step, position, microbatch }
}

/// All stages of a run, head first.
pub struct Pipeline {
    pub run: Run,
    pub shard: TokenShard,
    pub stages: Vec<StageState>,
}

impl Pipeline {
    pub fn new(run: &Run) -> Self {
        Self::on(run, &Device::Cpu)
    }

    /// All on one device.
    pub fn on(run: &Run, device: &Device) -> Self {
        let stage = |index| StageState::initial(run, index).unwrap().to_device(device).unwrap();
        let stages = (0..run.model.stage_count()).map(stage).collect();
        Self { run: run.clone(), shard: shard(), stages }
    }

    pub fn references(&self) -> Vec<&StageState> {
        self.stages.iter().collect()
    }

    /// All weights, in canonical order of the whole model.
    pub fn weights(&self) -> Vec<u32> {
        self.stages.iter().flat_map(StageState::weights).map(|w| w.to_bits()).collect()
    }

    pub fn perform(&mut self, stage: usize, epoch: u32, operation: &Operation, inputs: &[&[u8]]) -> Done {
        perform(&mut self.stages[stage], Some(&self.shard), epoch, operation, inputs).unwrap()
    }

    /// Forward through all stages: what each yielded.
    pub fn forward_through(&mut self, epoch: u32, member: Member) -> Vec<Done> {
        self.through(epoch, &Operation::Forward(member), 0..self.stages.len())
    }

    /// Forward through all stages; the loss.
    pub fn forward(&mut self, epoch: u32, member: Member) -> i64 {
        self.forward_through(epoch, member).last().unwrap().loss_q32.unwrap()
    }

    /// Backward through all stages: what each yielded.
    pub fn backward(&mut self, epoch: u32, member: Member) -> Vec<Done> {
        self.through(epoch, &Operation::Backward(member), (0..self.stages.len()).rev())
    }

    fn through(
        &mut self,
        epoch: u32,
        operation: &Operation,
        stages: impl Iterator<Item = usize>,
    ) -> Vec<Done> {
        let mut yielded: Vec<Done> = Vec::new();
        for stage in stages {
            let payload = yielded.last().and_then(|done| done.output.clone());
            let done = self.perform(stage, epoch, operation, payload.as_deref().as_slice());
            assert_eq!(done.outcome, Outcome::Ok);
            yielded.push(done);
        }
        assert_eq!(yielded.last().unwrap().output, None);
        yielded
    }

    /// A whole inner step: everything that was yielded on the way.
    pub fn step_through(&mut self, epoch: u32, step: u32) -> Vec<Done> {
        let mut yielded = self.forwards(epoch, step);
        yielded.extend(self.backwards(epoch, step));
        yielded
    }

    /// Inner steps where the members of the next go forward before those of this one come back, if they may.
    pub fn steps_ahead(&mut self, epoch: u32, steps: std::ops::Range<u32>) -> Vec<Done> {
        let (mut yielded, mut forward) = (Vec::new(), steps.start);
        for step in steps.clone() {
            while forward < steps.end
                && (forward == step || forward == step + 1 && self.run.is_stale(forward))
            {
                yielded.extend(self.forwards(epoch, forward));
                forward += 1;
            }
            yielded.extend(self.backwards(epoch, step));
        }
        yielded
    }

    fn members(&self, step: u32) -> Vec<Member> {
        (0..self.run.inner.members).map(|position| member(&self.run, step, position)).collect()
    }

    /// All members of a step forward.
    fn forwards(&mut self, epoch: u32, step: u32) -> Vec<Done> {
        let members = self.members(step);
        members.into_iter().flat_map(|member| self.forward_through(epoch, member)).collect()
    }

    /// All members of a step back, and the step.
    fn backwards(&mut self, epoch: u32, step: u32) -> Vec<Done> {
        let (members, mut yielded) = (self.members(step), Vec::new());
        members.iter().for_each(|&member| yielded.extend(self.backward(epoch, member)));
        let operation = Operation::Step { step, members };
        for stage in 0..self.stages.len() {
            let done = self.perform(stage, epoch, &operation, &[]);
            assert_eq!(done.outcome, Outcome::Ok);
            yielded.push(done);
        }
        yielded
    }

    /// A whole inner step; the losses of its members, in units of 2^-32 nats.
    pub fn step(&mut self, epoch: u32, step: u32) -> Vec<i64> {
        self.step_through(epoch, step).into_iter().filter_map(|done| done.loss_q32).collect()
    }

    /// Encode, reduce and apply in every stage, each with one replica.
    pub fn merge(&mut self, epoch: u32) {
        for stage in 0..self.stages.len() {
            let contribution = self.perform(stage, epoch, &Operation::Encode, &[]).output.unwrap();
            let who = spec::NodeId::default();
            let piece = whole_piece(&self.stages[stage], &contribution, who);
            let reduce = Operation::Reduce { shard: 0, contributors: vec![who] };
            let sum = self.perform(stage, epoch, &reduce, &[&piece]).output.unwrap();
            assert_eq!(self.perform(stage, epoch, &Operation::Apply, &[&sum]).outcome, Outcome::Ok);
        }
    }
}

/// All of a contribution as one piece.
pub fn whole_piece(state: &StageState, contribution: &[u8], who: spec::NodeId) -> Vec<u8> {
    let contribution = Contribution::from_bytes(8, state.weights().len(), contribution).unwrap();
    let committed = Committed::new(contribution, who);
    committed.piece(&(0..committed.leaves())).unwrap()
}
