//! What the trials share: small runs, and their stages driven as a swarm drives them.

use engine::data::{TextTokenizer, TokenShard, Width, shard_bytes};
use engine::state::StageState;
use engine::{Device, Done, perform};
use spec::{
    Admission, Audit, BoundaryCodec, Data, Epoch, Inner, Member, Mode, Model, Operation, Outcome, Outer, Run,
    Tokenizer,
};

/// Text with enough regularity to be learned in a few steps.
pub fn shard() -> TokenShard {
    let text = "the quick brown fox jumps over the lazy dog; ".repeat(60);
    let tokens = TextTokenizer::bytes().encode(&text).unwrap();
    TokenShard::from_bytes(shard_bytes(&tokens, Width::One).unwrap()).unwrap()
}

/// A run cut into `stages`. Sides are no multiples of tiles, and kv heads are fewer than heads.
pub fn run(stages: &[u32]) -> Run {
    let shard = shard();
    let run = Run {
        name: "cuda".into(),
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
        data: Data {
            tokenizer: Tokenizer::Bytes,
            train: shard.digest(),
            train_tokens: shard.count(),
            validation: shard.digest(),
            validation_tokens: shard.count(),
            sequences: 2,
        },
        inner: Inner {
            lr: 1e-2,
            lr_final: 1e-3,
            warmup_steps: 2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
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

/// All stages of a run on one device, head first.
pub struct Chain {
    pub run: Run,
    pub shard: TokenShard,
    pub stages: Vec<StageState>,
}

impl Chain {
    pub fn new(run: &Run, device: &Device) -> Self {
        let stages = 0..run.model.stage_count();
        let stages = stages.map(|i| StageState::initial(run, i).unwrap().to_device(device).unwrap());
        Self { run: run.clone(), shard: shard(), stages: stages.collect() }
    }

    pub fn member(&self, step: u32, position: u16) -> Member {
        let microbatch = u64::from(step) * u64::from(self.run.inner.members) + u64::from(position);
        Member { assignment: microbatch, attempt: 0, step, position, microbatch }
    }

    pub fn perform(&mut self, stage: usize, epoch: u32, operation: &Operation, input: Option<&[u8]>) -> Done {
        perform(&mut self.stages[stage], Some(&self.shard), epoch, operation, input.as_slice()).unwrap()
    }

    /// All members forward, all back, and the step in every stage: everything that was yielded on the way.
    pub fn step(&mut self, epoch: u32, step: u32) -> Vec<Done> {
        let members: Vec<Member> =
            (0..self.run.inner.members).map(|position| self.member(step, position)).collect();
        let mut yielded = Vec::new();
        let count = self.stages.len();
        for &member in &members {
            let mut payload: Option<Vec<u8>> = None;
            for stage in 0..count {
                let done = self.perform(stage, epoch, &Operation::Forward(member), payload.as_deref());
                payload = done.output.clone();
                yielded.push(done);
            }
        }
        for &member in &members {
            let mut payload: Option<Vec<u8>> = None;
            for stage in (0..count).rev() {
                let done = self.perform(stage, epoch, &Operation::Backward(member), payload.as_deref());
                payload = done.output.clone();
                yielded.push(done);
            }
        }
        let operation = Operation::Step { step, members };
        yielded.extend((0..count).map(|stage| self.perform(stage, epoch, &operation, None)));
        assert!(yielded.iter().all(|done| done.outcome == Outcome::Ok));
        yielded
    }
}
