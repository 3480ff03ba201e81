//! `run.toml`: everything a run is, and the run id.

use crate::{Digest, Model, NodeId};
use serde::{Deserialize, Serialize};

/// The specification of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// A word for people; part of the id like everything else.
    pub name: String,
    /// Numeric mode of the matrix products.
    pub mode: Mode,
    /// Seed of initial weights and of the sample order.
    pub seed: u64,
    /// Miners that hold each stage, and go through an epoch beside one another. 1 where `run.toml` does not say.
    #[serde(default = "one")]
    pub miners_per_stage: u16,
    /// The model and its stage cut.
    pub model: Model,
    /// The training text.
    pub data: Data,
    /// The inner optimizer.
    pub inner: Inner,
    /// The outer optimizer.
    pub outer: Outer,
    /// What an epoch is.
    pub epoch: Epoch,
    /// How activations and gradients cross a stage boundary.
    pub boundary: BoundaryCodec,
    /// How much is audited.
    pub audit: Audit,
    /// Who may join.
    pub admission: Admission,
}

/// Numeric mode: see `kernels/ARITHMETIC.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// f32, ascending-k FMA chains: the same bits on every CPU with FMA and every GPU.
    Portable,
}

/// How text became tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenizer {
    /// One token per byte.
    Bytes,
    /// The tokenizer of a `tokenizer.json`, such as byte-level BPE.
    Bpe {
        /// Digest of the `tokenizer.json`.
        file: Digest,
        /// Number of its token ids.
        vocab: u32,
    },
}

impl Tokenizer {
    /// Number of token ids.
    pub fn vocab(self) -> u32 {
        match self {
            Self::Bytes => 256,
            Self::Bpe { vocab, .. } => vocab,
        }
    }

    /// Bytes of one token in a token shard's file: the fewest of 1, 2 and 4 that hold every id.
    pub fn bytes_per_token(self) -> u64 {
        match self.vocab() {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        }
    }
}

/// The token shard and how it is cut into microbatches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// How text became tokens.
    pub tokenizer: Tokenizer,
    /// Digest of the training shard's file.
    pub train: Digest,
    /// Length of the training shard, in tokens.
    pub train_tokens: u64,
    /// Digest of the validation shard's file.
    pub validation: Digest,
    /// Length of the validation shard, in tokens.
    pub validation_tokens: u64,
    /// Sequences in a microbatch.
    pub sequences: u32,
}

impl Data {
    /// Bytes before the tokens of a token shard's file.
    pub const SHARD_HEADER_BYTES: u64 = 16;

    /// Length of the file of a token shard, in bytes.
    pub fn shard_bytes(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.tokenizer.bytes_per_token()).saturating_add(Self::SHARD_HEADER_BYTES)
    }
}

/// AdamW with warm-up and cosine decay, per miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    /// Highest learning rate.
    pub lr: f64,
    /// Learning rate at the end of the cosine.
    pub lr_final: f64,
    /// Steps of linear warm-up, counted over the run.
    pub warmup_steps: u32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// AdamW's epsilon.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Bound of the gradient norm over all parameters; a stage gets its share.
    pub clip: f64,
    /// Microbatches in an inner step.
    pub members: u16,
    /// By how many steps the weights of forward and backward lag within a window: 0 or 1, see [`Run::is_stale`].
    pub staleness: u8,
}

/// What happens to the merged change at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outer {
    /// The local weights stand; only where `miners_per_stage` is 1.
    None,
    /// Nesterov momentum on the merged integer codes.
    Nesterov {
        /// Outer learning rate.
        lr: f32,
        /// Outer momentum.
        momentum: f32,
        /// Bits of a contribution's codes.
        bits: u8,
    },
}

/// What an epoch is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Inner steps of each miner in an epoch.
    pub steps: u32,
    /// Epochs in the run.
    pub count: u32,
    /// The full state is digested before every step that this divides (but the first).
    pub digest_every: u32,
}

/// Lossy codec of boundary tensors: arithmetic, hence inside every digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoundaryCodec {
    /// f32 as it is.
    F32,
    /// bf16, round to nearest even.
    Bf16,
    /// int8 codes on power-of-two scales per row and 128 channels.
    Int8,
}

/// How much of the work is replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Windows drawn per miner and epoch; 0 turns audits off.
    pub windows: u32,
    /// Epochs after which a committed epoch must be audited.
    pub lag: u32,
}

/// Who may join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Admission {
    /// Whoever presents the token of an invitation.
    Invitation,
    /// These keys alone.
    Keys(Vec<NodeId>),
    /// Anyone. Miners that are neither founders nor bring an invitation's token are on probation: they work and earn, but
    /// weigh nothing in merges until a window of theirs was replayed and found equal.
    Open {
        /// Keys that are never on probation.
        founders: Vec<NodeId>,
    },
}

/// A run specification that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// The text is not the TOML this version reads.
    #[error("run.toml cannot be read: {0}")]
    Toml(String),
    /// A value is outside its range.
    #[error("run.toml: {key} is {found}, expected {expected}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// What stood there.
        found: String,
        /// What would be legal.
        expected: String,
    },
}

impl Run {
    /// Reads and checks `run.toml`.
    ///
    /// # Errors
    /// Unknown or missing keys, values of the wrong type, and values outside their range.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let run: Self = toml::from_str(text).map_err(|e| SpecError::Toml(e.to_string()))?;
        run.check()?;
        Ok(run)
    }

    /// The text of `run.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a run holds no value that TOML cannot say")
    }

    /// The canonical bytes: postcard of the fields in the order of this file.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a run serialises into memory")
    }

    /// The run id: BLAKE3 of the canonical bytes under the context `iota run v3`.
    pub fn id(&self) -> Digest {
        Digest(blake3::derive_key("iota run v3", &self.canonical_bytes()))
    }

    /// Rows of a boundary tensor: tokens of a microbatch.
    pub fn microbatch_tokens(&self) -> u64 {
        u64::from(self.data.sequences) * u64::from(self.model.context)
    }

    /// Inner steps of one miner over the whole run.
    pub fn total_steps(&self) -> u64 {
        u64::from(self.epoch.steps) * u64::from(self.epoch.count)
    }

    /// The first inner step of the window that `step` is in. Windows reach from one bound state to the next: `digest_every`
    /// steps, fewer at the epoch's end. A step beyond it, of a miner that stands in for others, is a window of its own.
    pub fn window_start(&self, step: u32) -> u32 {
        if step >= self.epoch.steps { step } else { step - step % self.epoch.digest_every }
    }

    /// Whether the receipt of inner step `step` binds the state after it: where a window ends.
    pub fn digests_after(&self, step: u32) -> bool {
        step.checked_add(1).is_none_or(|next| self.window_start(next) == next)
    }

    /// Whether the members of inner step `step` run, forward and backward, on the weights from before the step before it, so
    /// that their forwards need not wait for that: with staleness 1 every step but a window's first. So nothing crosses the
    /// border of a window.
    pub fn is_stale(&self, step: u32) -> bool {
        self.inner.staleness > 0 && self.window_start(step) < step
    }

    /// How often a pipeline of stages fills and drains in an epoch: with every inner step, or with staleness 1 with every window.
    pub fn fills(&self) -> u32 {
        if self.inner.staleness == 0 {
            self.epoch.steps
        } else {
            self.epoch.steps.div_ceil(self.epoch.digest_every)
        }
    }

    /// Inner steps handed out at a time: the one in work and the one that fills the pipeline after it, and with staleness 1 one
    /// more, for the forwards of the second run while the first is in work.
    pub fn steps_ahead(&self) -> u32 {
        2 + u32::from(self.inner.staleness)
    }

    /// The first steps of the windows that an audit may draw, in order.
    pub fn audit_candidates(&self) -> Vec<u32> {
        if self.audit.windows == 0 {
            return Vec::new();
        }
        (0..self.epoch.steps).filter(|&step| self.window_start(step) == step).collect()
    }

    /// Windows drawn per miner and epoch.
    pub fn audit_draws(&self) -> usize {
        self.audit_candidates().len().min(self.audit.windows as usize)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first value found outside its range, by its dotted key.
    pub fn check(&self) -> Result<(), SpecError> {
        let m = &self.model;
        require(m.dim > 0, "model.dim", m.dim, "a positive number")?;
        require(
            m.heads > 0 && m.dim.is_multiple_of(m.heads) && (m.dim / m.heads).is_multiple_of(2),
            "model.heads",
            m.heads,
            "a divisor of model.dim that leaves an even head width",
        )?;
        require(
            m.kv_heads > 0 && m.heads.is_multiple_of(m.kv_heads),
            "model.kv_heads",
            m.kv_heads,
            "a divisor of model.heads",
        )?;
        require(m.ffn > 0, "model.ffn", m.ffn, "a positive number")?;
        require(m.context > 0, "model.context", m.context, "a positive number")?;
        require(
            match self.data.tokenizer {
                Tokenizer::Bytes => m.vocab == 256,
                // A few ids more are legal: tables are padded to a round number.
                Tokenizer::Bpe { vocab, .. } => vocab >= 2 && m.vocab >= vocab,
            },
            "model.vocab",
            m.vocab,
            match self.data.tokenizer {
                Tokenizer::Bytes => "256, the ids of the tokenizer `bytes`".into(),
                Tokenizer::Bpe { vocab, .. } => {
                    format!("at least the {} ids of data.tokenizer", vocab.max(2))
                }
            },
        )?;
        require(
            m.norm_eps.is_finite() && m.norm_eps > 0.0,
            "model.norm_eps",
            m.norm_eps,
            "a small positive number",
        )?;
        require(
            m.rope_theta.is_finite() && m.rope_theta > 1.0,
            "model.rope_theta",
            m.rope_theta,
            "a number above 1",
        )?;
        require(
            !m.stages.is_empty() && m.stages.len() <= 256 && m.stages.iter().all(|&n| n > 0),
            "model.stages",
            format!("{:?}", m.stages),
            "1 to 256 stages of at least one block each",
        )?;
        if let Some(scaling) = &m.rope_scaling {
            let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
            let positive = |x: f64| x.is_finite() && x > 0.0;
            require(
                scaling.factor.is_finite() && scaling.factor >= 1.0,
                "model.rope_scaling.factor",
                scaling.factor,
                "a number of at least 1",
            )?;
            require(positive(low), "model.rope_scaling.low_freq_factor", low, "a positive number")?;
            require(
                positive(high) && high > low,
                "model.rope_scaling.high_freq_factor",
                high,
                "a number above model.rope_scaling.low_freq_factor",
            )?;
            require(
                scaling.original_max_position > 0,
                "model.rope_scaling.original_max_position",
                scaling.original_max_position,
                "a positive number",
            )?;
        }
        let d = &self.data;
        require(d.sequences > 0, "data.sequences", d.sequences, "a positive number")?;
        require(
            d.train_tokens > u64::from(m.context),
            "data.train_tokens",
            d.train_tokens,
            "more tokens than model.context",
        )?;
        let i = &self.inner;
        require(i.lr.is_finite() && i.lr > 0.0, "inner.lr", i.lr, "a positive number")?;
        require(
            i.lr_final.is_finite() && (0.0..=i.lr).contains(&i.lr_final),
            "inner.lr_final",
            i.lr_final,
            "between 0 and inner.lr",
        )?;
        require((0.0..1.0).contains(&i.beta1), "inner.beta1", i.beta1, "in [0, 1)")?;
        require((0.0..1.0).contains(&i.beta2), "inner.beta2", i.beta2, "in [0, 1)")?;
        require(i.eps.is_finite() && i.eps > 0.0, "inner.eps", i.eps, "a small positive number")?;
        require((0.0..1.0).contains(&i.weight_decay), "inner.weight_decay", i.weight_decay, "in [0, 1)")?;
        require(i.clip.is_finite() && i.clip > 0.0, "inner.clip", i.clip, "a positive number")?;
        require(i.members > 0, "inner.members", i.members, "a positive number")?;
        require(i.staleness <= 1, "inner.staleness", i.staleness, "0 or 1")?;
        if let Outer::Nesterov { lr, momentum, bits } = self.outer {
            require(lr.is_finite() && lr > 0.0, "outer.nesterov.lr", lr, "a positive number")?;
            require((0.0..1.0).contains(&momentum), "outer.nesterov.momentum", momentum, "in [0, 1)")?;
            require((2..=8).contains(&bits), "outer.nesterov.bits", bits, "2 to 8")?;
        }
        require(
            (1..=MINERS_PER_STAGE_MAX).contains(&self.miners_per_stage),
            "miners_per_stage",
            self.miners_per_stage,
            format!("1 to {MINERS_PER_STAGE_MAX}"),
        )?;
        require(
            self.miners_per_stage == 1 || self.outer != Outer::None,
            "outer",
            "none",
            "nesterov, because several miners of a stage must be merged",
        )?;
        let e = &self.epoch;
        require(e.steps > 0, "epoch.steps", e.steps, "a positive number")?;
        require(e.count > 0, "epoch.count", e.count, "a positive number")?;
        require(e.digest_every > 0, "epoch.digest_every", e.digest_every, "a positive number")?;
        require(
            self.audit.windows == 0 || e.digest_every <= e.steps,
            "epoch.digest_every",
            e.digest_every,
            "at most epoch.steps: an audit replays so many steps at a time",
        )?;
        require(
            i.staleness == 0 || e.digest_every > 1,
            "inner.staleness",
            i.staleness,
            "0, or epoch.digest_every above 1: weights are stale within a window alone",
        )
    }
}

/// More would make one merge's messages longer than they may be.
const MINERS_PER_STAGE_MAX: u16 = 256;

fn one() -> u16 {
    1
}

fn require(
    holds: bool,
    key: &'static str,
    found: impl ToString,
    expected: impl ToString,
) -> Result<(), SpecError> {
    if holds {
        return Ok(());
    }
    Err(SpecError::Value { key, found: found.to_string(), expected: expected.to_string() })
}

#[cfg(test)]
mod tests;
