//! The model's shape and its cut into stages.

use serde::{Deserialize, Serialize};

/// A Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, untied output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Width of the residual stream.
    pub dim: u32,
    /// Attention heads; `dim / heads` is the head's width and must be even.
    pub heads: u32,
    /// Key/value heads; divides `heads`.
    pub kv_heads: u32,
    /// Width of the feed-forward layer.
    pub ffn: u32,
    /// Number of token ids.
    pub vocab: u32,
    /// Tokens in a training sequence.
    pub context: u32,
    /// RMSNorm's epsilon.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Blocks in each stage, head first. The list of length one is the whole model in one stage.
    pub stages: Vec<u32>,
    /// Llama 3's scaling of the rotary frequencies; none where a model's context is the one it was made for.
    pub rope_scaling: Option<RopeScaling>,
}

/// Llama 3's scaling of rotary frequencies: a pair that turns less than `low_freq_factor` times within the original context
/// turns `factor` times slower, one that turns more than `high_freq_factor` times as before, one between in between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    /// By what slow pairs are slowed down.
    pub factor: f64,
    /// Turns below which a pair is slow.
    pub low_freq_factor: f64,
    /// Turns above which a pair is fast.
    pub high_freq_factor: f64,
    /// Tokens of the original context.
    pub original_max_position: u32,
}

/// What a stage holds besides its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageKind {
    /// Embedding and the first blocks.
    Head,
    /// Blocks only.
    Body,
    /// The last blocks, final norm, output projection and loss.
    Tail,
    /// Everything: a model cut into one stage.
    Whole,
}

impl StageKind {
    /// Whether the stage looks tokens up in the embedding.
    pub fn embeds(self) -> bool {
        matches!(self, Self::Head | Self::Whole)
    }

    /// Whether the stage computes the loss.
    pub fn judges(self) -> bool {
        matches!(self, Self::Tail | Self::Whole)
    }

    /// The word a person reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Tail => "tail",
            Self::Whole => "whole",
        }
    }
}

/// One stage of the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageShape {
    /// Position in the pipeline, head = 0.
    pub index: usize,
    /// What the stage holds besides its blocks.
    pub kind: StageKind,
    /// Index of the stage's first block in the model.
    pub first_block: u32,
    /// Number of blocks.
    pub blocks: u32,
}

impl Model {
    /// Number of stages.
    pub fn stage_count(&self) -> usize {
        self.stages.len()
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> u32 {
        self.dim / self.heads
    }

    /// Number of blocks over all stages.
    pub fn blocks(&self) -> u32 {
        self.stages.iter().sum()
    }

    /// The shape of stage `index`, or `None` past the tail.
    pub fn stage(&self, index: usize) -> Option<StageShape> {
        let blocks = *self.stages.get(index)?;
        let kind = match (index, index + 1 == self.stages.len()) {
            (0, true) => StageKind::Whole,
            (0, false) => StageKind::Head,
            (_, false) => StageKind::Body,
            (_, true) => StageKind::Tail,
        };
        let first_block = self.stages[..index].iter().sum();
        Some(StageShape { index, kind, first_block, blocks })
    }

    /// Parameters of one block.
    pub fn block_parameters(&self) -> u64 {
        let (d, f) = (u64::from(self.dim), u64::from(self.ffn));
        let kv = u64::from(self.kv_heads) * u64::from(self.head_dim());
        2 * d * d + 2 * d * kv + 3 * d * f + 2 * d
    }

    /// Parameters of stage `index`; 0 past the tail.
    pub fn stage_parameters(&self, index: usize) -> u64 {
        let Some(stage) = self.stage(index) else { return 0 };
        let table = u64::from(self.vocab) * u64::from(self.dim);
        let head = if stage.kind.embeds() { table } else { 0 };
        let tail = if stage.kind.judges() { table + u64::from(self.dim) } else { 0 };
        u64::from(stage.blocks) * self.block_parameters() + head + tail
    }

    /// Parameters of the whole model.
    pub fn parameters(&self) -> u64 {
        (0..self.stage_count()).map(|index| self.stage_parameters(index)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(stages: &[u32]) -> Model {
        Model {
            dim: 64,
            heads: 4,
            kv_heads: 2,
            ffn: 172,
            vocab: 256,
            context: 64,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            stages: stages.to_vec(),
            rope_scaling: None,
        }
    }

    #[test]
    fn a_cut_keeps_every_block_and_parameter() {
        let (whole, cut) = (model(&[6]), model(&[1, 2, 2, 1]));
        assert_eq!(whole.stage(0).unwrap().kind, StageKind::Whole);
        let kinds: Vec<_> = (0..4).map(|i| cut.stage(i).unwrap().kind).collect();
        assert_eq!(kinds, [StageKind::Head, StageKind::Body, StageKind::Body, StageKind::Tail]);
        assert_eq!(cut.stage(3).unwrap().first_block, 5);
        assert_eq!(cut.stage(4), None);
        assert_eq!(whole.parameters(), cut.parameters());
    }
}
