//! Which parameters a stage holds, in canonical order, under which names.
//!
//! Canonical order: `embed_tokens`; per block, ascending, `input_layernorm`, `q_proj`, `k_proj`, `v_proj`, `o_proj`,
//! `post_attention_layernorm`, `gate_proj`, `up_proj`, `down_proj`; `norm`; `lm_head`. A stage holds a contiguous part of
//! that list, so the stages' parameters one after another are the whole model's. Names are Hugging Face's with the
//! block's index in the whole model; matrices are [out, in], row-major.

use spec::{Model, StageShape};
use std::ops::Range;

/// One parameter tensor of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Hugging Face name.
    pub name: String,
    /// Extents: [out, in], or [dim] for the weight of a norm.
    pub shape: Vec<usize>,
    /// Where the values stand in the stage's flat array.
    pub range: Range<usize>,
    /// The tensor's number for Philox; does not depend on the stage cut.
    pub id: u32,
    /// What the tensor is for.
    pub role: Role,
}

/// What a parameter tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Token table, [vocab, dim].
    Embedding,
    /// Weight of the norm before attention, [dim].
    AttentionNorm,
    /// Query projection, [dim, dim].
    Query,
    /// Key projection, [kv_heads * head_dim, dim].
    Key,
    /// Value projection, [kv_heads * head_dim, dim].
    Value,
    /// Output projection of attention, [dim, dim].
    AttentionOut,
    /// Weight of the norm before the feed-forward layer, [dim].
    FeedForwardNorm,
    /// Gate projection, [ffn, dim].
    Gate,
    /// Up projection, [ffn, dim].
    Up,
    /// Down projection, [dim, ffn].
    Down,
    /// Weight of the last norm, [dim].
    FinalNorm,
    /// Output projection, [vocab, dim].
    Logits,
}

/// A stage's parameters in canonical order; together they fill one flat array without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
}

/// Roles of one block, in canonical order.
pub const BLOCK_ROLES: [Role; 9] = [
    Role::AttentionNorm,
    Role::Query,
    Role::Key,
    Role::Value,
    Role::AttentionOut,
    Role::FeedForwardNorm,
    Role::Gate,
    Role::Up,
    Role::Down,
];

impl Layout {
    /// The layout of a stage.
    pub fn new(model: &Model, stage: &StageShape) -> Self {
        let mut layout = Self { entries: Vec::new() };
        if stage.kind.embeds() {
            layout.push(model, Role::Embedding, None);
        }
        for block in stage.first_block..stage.first_block + stage.blocks {
            for role in BLOCK_ROLES {
                layout.push(model, role, Some(block));
            }
        }
        if stage.kind.judges() {
            layout.push(model, Role::FinalNorm, None);
            layout.push(model, Role::Logits, None);
        }
        layout
    }

    /// The parameters, in canonical order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of values of all parameters.
    pub fn values(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.range.end)
    }

    fn push(&mut self, model: &Model, role: Role, block: Option<u32>) {
        let shape = role.shape(model);
        let start = self.values();
        let range = start..start + shape.iter().product::<usize>();
        let name = match block {
            Some(block) => format!("model.layers.{block}.{}.weight", role.name()),
            None => format!("{}.weight", role.name()),
        };
        self.entries.push(Entry { name, shape, range, id: role.id(block), role });
    }
}

impl Role {
    /// The middle of the Hugging Face name.
    fn name(self) -> &'static str {
        match self {
            Self::Embedding => "model.embed_tokens",
            Self::AttentionNorm => "input_layernorm",
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::AttentionOut => "self_attn.o_proj",
            Self::FeedForwardNorm => "post_attention_layernorm",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
            Self::FinalNorm => "model.norm",
            Self::Logits => "lm_head",
        }
    }

    fn shape(self, model: &Model) -> Vec<usize> {
        let (dim, ffn, vocab) = (model.dim as usize, model.ffn as usize, model.vocab as usize);
        let kv = (model.kv_heads * model.head_dim()) as usize;
        match self {
            Self::Embedding | Self::Logits => vec![vocab, dim],
            Self::AttentionNorm | Self::FeedForwardNorm | Self::FinalNorm => vec![dim],
            Self::Query | Self::AttentionOut => vec![dim, dim],
            Self::Key | Self::Value => vec![kv, dim],
            Self::Gate | Self::Up => vec![ffn, dim],
            Self::Down => vec![dim, ffn],
        }
    }

    /// Sixteen numbers per block; those before the first block's belong to the tensors outside of blocks.
    fn id(self, block: Option<u32>) -> u32 {
        let place = self as u32;
        block.map_or(place, |block| 16 * (block + 1) + place)
    }
}
