//! What a window's program is: its ops in order, and what each reads.

use crate::payload;
use kernels::adamw::Constants;
use kernels::attention::Shape;
use spec::Digest;

/// An op with all that its arithmetic depends on besides what it reads; sizes are called as in the formulas of its room.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Kind {
    /// A payload becomes a tensor.
    Decode(payload::Expected),
    /// A tensor becomes a payload.
    Encode(payload::Expected),
    /// Rows of a table by token.
    Embedding { vocab: usize, dim: usize },
    /// The gradient of a table, added to what was there.
    EmbeddingBack { vocab: usize, dim: usize },
    /// Rows over their root mean square times a weight, and the reciprocal roots.
    Norm { dim: usize, eps: f32 },
    /// The gradients of a norm's input, added to what was there if `adds`, and of its weight, added.
    NormBack { dim: usize, adds: bool },
    /// `a * b^T`, added to a base if `adds`: [m, n] of [m, k] and [n, k].
    ProductNt { n: usize, k: usize, adds: bool },
    /// `a * b`, added to what was there if `adds`: [m, n] of [m, k] and [k, n].
    ProductNn { n: usize, k: usize, adds: bool },
    /// `a^T * b`, added to what was there: [m, n] of [k, m] and [k, n].
    ProductTn { m: usize, n: usize, k: usize },
    /// Heads turned by the angles of their positions, or back.
    Rope { seq: usize, heads: usize, head_dim: usize, back: bool },
    /// Causal attention, its maxima and sums.
    Attention(Shape),
    /// The gradients of queries, keys and values.
    AttentionBack(Shape),
    /// `silu(g) * u`.
    SwiGlu,
    /// The gradients of `g` and `u`.
    SwiGluBack,
    /// Losses of rows, and the gradient of their mean.
    Loss { vocab: usize, weight: f32 },
    /// The mean of losses in units of 2^-32 nats.
    Mean,
    /// `sum + x`.
    Accumulate,
    /// Values times a factor.
    Scale { factor: f32 },
    /// Sums of the squares of a tensor, one for each block.
    Squares,
    /// The norm over all tensors, of the sums of their blocks.
    GlobalNorm,
    /// AdamW; the factor of the gradient in the constants counts for nothing, it follows from the norm.
    AdamW(Constants),
    /// The file of a stage's state.
    State { header: Vec<u8> },
}

impl Kind {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Decode(_) => "decoding of a payload",
            Self::Encode(_) => "encoding of a payload",
            Self::Embedding { .. } => "embedding",
            Self::EmbeddingBack { .. } => "gradient of the embedding",
            Self::Norm { .. } => "RMSNorm",
            Self::NormBack { .. } => "gradient of an RMSNorm",
            Self::ProductNt { .. } => "product A B^T",
            Self::ProductNn { .. } => "product A B",
            Self::ProductTn { .. } => "product A^T B",
            Self::Rope { back: false, .. } => "rotary embedding",
            Self::Rope { back: true, .. } => "gradient of a rotary embedding",
            Self::Attention(_) => "attention",
            Self::AttentionBack(_) => "gradient of an attention",
            Self::SwiGlu => "SwiGLU",
            Self::SwiGluBack => "gradient of a SwiGLU",
            Self::Loss { .. } => "cross-entropy",
            Self::Mean => "mean of losses",
            Self::Accumulate => "sum of gradients",
            Self::Scale { .. } => "scaling of gradients",
            Self::Squares => "squares of gradients",
            Self::GlobalNorm => "norm of gradients",
            Self::AdamW(_) => "AdamW",
            Self::State { .. } => "state file",
        }
    }

    /// Whether a receipt has the digest of its output.
    pub fn is_bound(&self) -> bool {
        matches!(self, Self::Encode(_) | Self::Mean | Self::State { .. })
    }
}

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The training shard.
    Shard,
    /// Nowhere: they are zero.
    Zeros,
    /// The state file before the window.
    State,
    /// The payload that came in for an operation.
    Payload(u32),
    /// An output of an op before, by its number among all outputs.
    Value(u32),
}

/// A stretch of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Of what.
    pub source: Source,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// What an op reads: pieces one after another.
pub type Input = Vec<Piece>;

/// One op.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// The operation of the window that it belongs to.
    pub operation: u32,
    /// What it does.
    pub kind: Kind,
    /// What it reads. Tokens are not among it: those of its operation's microbatch.
    pub inputs: Vec<Input>,
    /// The number of its first output.
    pub first: u32,
    /// Bytes of its outputs.
    pub outputs: Vec<u64>,
}

/// The ops of a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// In the order in which they are performed.
    pub ops: Vec<Op>,
}

impl Program {
    /// Number of outputs of all ops.
    pub fn values(&self) -> u32 {
        self.ops.last().map_or(0, |op| op.first + op.outputs.len() as u32)
    }

    /// The op that makes output `value`, and its place among the op's outputs.
    pub fn maker(&self, value: u32) -> Option<(usize, usize)> {
        let at = self.ops.partition_point(|op| op.first <= value).checked_sub(1)?;
        let output = (value - self.ops[at].first) as usize;
        (output < self.ops[at].outputs.len()).then_some((at, output))
    }
}

/// What the receipt of an operation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Which.
    pub operation: spec::Operation,
    /// The payload that came in.
    pub input: Option<Digest>,
    /// The payload that went out.
    pub output: Option<Digest>,
    /// The loss, in units of 2^-32 nats.
    pub loss_q32: Option<i64>,
    /// The state after it.
    pub state: Option<Digest>,
    /// How it ended.
    pub outcome: spec::Outcome,
}

impl Said {
    /// The digest that it binds the output of an op of `kind` to.
    pub fn bound(&self, kind: &Kind) -> Option<Digest> {
        match kind {
            Kind::Encode(_) => self.output,
            Kind::Mean => self.loss_q32.map(|loss| Digest::of(&loss.to_le_bytes())),
            Kind::State { .. } => self.state,
            _ => None,
        }
    }
}
