//! A training run without a story: a whole model of a named size on random tokens, or a stage of one among random
//! neighbours, for whoever has a clock.

mod stage;

pub use stage::SyntheticStage;

pub use kernels::probe;

use crate::checkpoint::CheckpointError;
use crate::data::{DataError, TokenShard, Width, shard_bytes};
use crate::state::StageState;
use crate::work::{Done, WorkError, perform};
use kernels::philox::{self, Stream};
use spec::{
    Admission, Audit, BoundaryCodec, Data, Epoch, Inner, Member, Mode, Model, Operation, Outcome, Outer, Run,
    Tokenizer,
};

/// Steps before the sequence of microbatches repeats.
const MICROBATCHES: u32 = 4;

/// A model's size and what a step of it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// What it is called.
    pub name: &'static str,
    /// Width of the residual stream.
    pub dim: u32,
    /// Blocks.
    pub blocks: u32,
    /// Attention heads, as many of keys.
    pub heads: u32,
    /// Width of the feed-forward layer.
    pub ffn: u32,
    /// Number of token ids.
    pub vocab: u32,
    /// Tokens of a sequence.
    pub seq: u32,
    /// Sequences of a step.
    pub batch: u32,
}

/// The sizes that are measured.
pub const SIZES: [Size; 2] = [
    Size { name: "S", dim: 256, blocks: 4, heads: 4, ffn: 688, vocab: 256, seq: 256, batch: 8 },
    Size { name: "M", dim: 512, blocks: 8, heads: 8, ffn: 1376, vocab: 4096, seq: 512, batch: 4 },
];

/// A model in training: one stage, one microbatch a step.
#[derive(Debug)]
pub struct Synthetic {
    state: StageState,
    shard: TokenShard,
    step: u32,
    /// Room for the list of a step's members.
    members: Vec<Member>,
}

/// A run that cannot be made or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// The weights cannot be made.
    #[error(transparent)]
    State(#[from] CheckpointError),
    /// The tokens cannot be made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A step's operation is impossible.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The model has left the numbers.
    #[error("step {step} of random training is not finite")]
    NonFinite {
        /// The step, from 0.
        step: u32,
    },
    /// The threads cannot be had.
    #[error("{threads} threads cannot be started: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the system says.
        reason: String,
    },
}

impl Size {
    /// The size of that name.
    pub fn named(name: &str) -> Option<Self> {
        SIZES.into_iter().find(|size| size.name == name)
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> u64 {
        u64::from(self.seq) * u64::from(self.batch)
    }

    /// FLOPs of a step as peers count them: six for every weight of a matrix product and token, attention as half the
    /// square, nothing that is computed twice.
    pub fn step_flops(&self) -> u64 {
        let [dim, blocks, ffn, vocab, seq] =
            [self.dim, self.blocks, self.ffn, self.vocab, self.seq].map(u64::from);
        let weights = blocks * (4 * dim * dim + 3 * dim * ffn) + dim * vocab;
        self.tokens() * (6 * weights + 6 * blocks * seq * dim)
    }
}

impl Synthetic {
    /// The model at its start.
    ///
    /// # Errors
    /// The size is none that a model can have.
    pub fn new(size: &Size) -> Result<Self, SyntheticError> {
        let shard = shard(size)?;
        let state = StageState::initial(&run(size, &shard, &[size.blocks]), 0)?;
        Ok(Self { state, shard, step: 0, members: Vec::new() })
    }

    /// The model's parameters.
    pub fn parameters(&self) -> usize {
        self.state.parameters()
    }

    /// First part of a step; the mean loss in nats.
    ///
    /// # Errors
    /// The loss is no number, or the parts come out of order; likewise below.
    pub fn forward(&mut self) -> Result<f64, SyntheticError> {
        let done = self.perform(&Operation::Forward(self.member()))?;
        Ok(done.loss_q32.unwrap_or_default() as f64 / 4_294_967_296.0)
    }

    /// Second part.
    ///
    /// # Errors
    /// As [`Synthetic::forward`].
    pub fn backward(&mut self) -> Result<(), SyntheticError> {
        self.perform(&Operation::Backward(self.member())).map(drop)
    }

    /// Third part.
    ///
    /// # Errors
    /// As [`Synthetic::forward`].
    pub fn update(&mut self) -> Result<(), SyntheticError> {
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        members.push(self.member());
        let operation = Operation::Step { step: self.step, members };
        self.perform(&operation)?;
        if let Operation::Step { members, .. } = operation {
            self.members = members;
        }
        self.step += 1;
        Ok(())
    }

    fn member(&self) -> Member {
        let microbatch = u64::from(self.step % MICROBATCHES);
        Member { assignment: u64::from(self.step), attempt: 0, step: self.step, position: 0, microbatch }
    }

    fn perform(&mut self, operation: &Operation) -> Result<Done, SyntheticError> {
        let done = perform(&mut self.state, Some(&self.shard), 0, operation, &[])?;
        if done.outcome == Outcome::Ok {
            Ok(done)
        } else {
            Err(SyntheticError::NonFinite { step: self.step })
        }
    }
}

/// Runs `f` on a pool of `threads` threads of its own, of which it takes one.
///
/// # Errors
/// The system has no such threads.
pub fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> Result<R, SyntheticError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| SyntheticError::Threads { threads, reason: error.to_string() })?;
    Ok(pool.install(f))
}

/// Random tokens for a few microbatches.
fn shard(size: &Size) -> Result<TokenShard, DataError> {
    let values = uniform((u64::from(MICROBATCHES) * size.tokens() + 1) as usize);
    let tokens: Vec<u32> = values.iter().map(|value| (value * size.vocab as f32) as u32).collect();
    TokenShard::from_bytes(shard_bytes(&tokens, Width::Four)?)
}

/// Random numbers in [0, 1).
fn uniform(count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    philox::uniform(&Stream { seed: 1, tensor: 0, step: 0, purpose: 0 }, 0, &mut values);
    values
}

fn run(size: &Size, shard: &TokenShard, stages: &[u32]) -> Run {
    Run {
        name: "synthetic".into(),
        mode: Mode::Portable,
        seed: 1,
        miners_per_stage: 1,
        model: Model {
            dim: size.dim,
            heads: size.heads,
            kv_heads: size.heads,
            ffn: size.ffn,
            vocab: size.vocab,
            context: size.seq,
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
            sequences: size.batch,
        },
        inner: Inner {
            lr: 3e-4,
            lr_final: 3e-4,
            warmup_steps: 0,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            members: 1,
            staleness: 0,
        },
        outer: Outer::None,
        epoch: Epoch { steps: u32::MAX, count: 1, digest_every: u32::MAX },
        boundary: BoundaryCodec::F32,
        audit: Audit { windows: 0, lag: 1 },
        admission: Admission::Invitation,
    }
}
