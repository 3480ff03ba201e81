//! A GGUF file (version 3) of the architecture `llama`.
//!
//! Integers are little-endian; a string is its length (u64) and its bytes.
//!
//! ```text
//! "GGUF" | version u32 = 3 | tensors u64 | pairs u64
//! per pair    key string | type u32 | value
//! per tensor  name string | dimensions u32 | extents u64 each, innermost first | type u32 | offset u64
//! padding to 32 bytes | values, each tensor padded to 32 bytes
//! ```

use super::vocabulary::{self, Lists};
use crate::failure::{Failure, Result};
use crate::weights::Weights;
use crate::whole::trouble;
use engine::StageState;
use engine::model::{Entry, Role, scaling};
use kernels::rope::{Scaling, frequencies};
use spec::Model;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const ALIGNMENT: usize = 32;
/// Kinds of token in the list of types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Type of the matrices; weights of norms are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Element {
    F32,
    F16,
}

/// A tensor of the file.
struct Tensor<'a> {
    name: String,
    /// Extents, outermost first.
    shape: &'a [usize],
    element: Element,
    source: Source<'a>,
}

enum Source<'a> {
    /// A parameter, its rows in the order of llama.cpp.
    Parameter(&'a [f32], &'a Entry),
    /// By what every pair's rotary frequency is divided.
    Frequencies(&'a [f32]),
}

/// Writes it to `path`.
pub fn write(weights: &Weights, states: &[StageState], element: Element, path: &Path) -> Result<()> {
    let model = &weights.run.model;
    let lists = vocabulary::lists(&weights.tokenizer, model.vocab)?;
    let divisors = frequency_divisors(model);
    let shape = [divisors.len()];
    let mut tensors: Vec<Tensor<'_>> = states.iter().flat_map(|state| parameters(state, element)).collect();
    if model.rope_scaling.is_some() {
        let source = Source::Frequencies(&divisors);
        tensors.push(Tensor {
            name: "rope_freqs.weight".into(),
            shape: &shape,
            element: Element::F32,
            source,
        });
    }
    let failed = |e: std::io::Error| trouble(path, &e);
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    file.write_all(&head(weights, &tensors, element, &lists)).map_err(failed)?;
    for tensor in &tensors {
        let values = match tensor.source {
            Source::Parameter(values, entry) => interleaved(entry, values, model.head_dim() as usize),
            Source::Frequencies(values) => values.to_vec(),
        };
        let mut bytes = Vec::with_capacity(4 * values.len());
        for value in values {
            if tensor.element == Element::F32 {
                bytes.extend_from_slice(&value.to_le_bytes());
                continue;
            }
            let short = half::f16::from_f32(value);
            if !short.is_finite() {
                let name = &tensor.name;
                return Err(Failure::input(format!(
                    "--type f16: {name} holds {value}, which f16 cannot; use f32"
                )));
            }
            bytes.extend_from_slice(&short.to_le_bytes());
        }
        pad(&mut bytes);
        file.write_all(&bytes).map_err(failed)?;
    }
    file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
}

fn parameters(state: &StageState, element: Element) -> impl Iterator<Item = Tensor<'_>> {
    state.stage().layout().entries().iter().map(move |entry| Tensor {
        name: name(entry),
        shape: &entry.shape,
        element: if entry.shape.len() == 1 { Element::F32 } else { element },
        source: Source::Parameter(&state.weights()[entry.range.clone()], entry),
    })
}

/// What llama.cpp divides the plain rotary frequencies by.
fn frequency_divisors(model: &Model) -> Vec<f32> {
    let of = |scaling: Option<&Scaling>| frequencies(model.head_dim() as usize, model.rope_theta, scaling);
    let pairs = of(None).into_iter().zip(of(scaling(model).as_ref()));
    pairs.map(|(plain, scaled)| (plain / scaled) as f32).collect()
}

/// Everything before the values.
fn head(weights: &Weights, tensors: &[Tensor<'_>], element: Element, lists: &Lists) -> Vec<u8> {
    let pairs = pairs(weights, element, lists);
    let mut head = b"GGUF".to_vec();
    head.extend_from_slice(&3u32.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
    for (key, value) in &pairs {
        string(&mut head, key);
        head.extend_from_slice(&value.kind().to_le_bytes());
        value.write(&mut head);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        string(&mut head, &tensor.name);
        head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for &extent in tensor.shape.iter().rev() {
            head.extend_from_slice(&(extent as u64).to_le_bytes());
        }
        let (kind, width) = match tensor.element {
            Element::F32 => (0u32, 4),
            Element::F16 => (1, 2),
        };
        head.extend_from_slice(&kind.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset += ((tensor.shape.iter().product::<usize>() * width).next_multiple_of(ALIGNMENT)) as u64;
    }
    pad(&mut head);
    head
}

fn pairs(weights: &Weights, element: Element, lists: &Lists) -> Vec<(&'static str, Value)> {
    let model = &weights.run.model;
    let kinds = lists.special.iter().map(|&special| if special { CONTROL } else { NORMAL });
    let mut pairs = vec![
        ("general.architecture", Value::Text("llama".into())),
        ("general.name", Value::Text(weights.run.name.clone())),
        ("general.alignment", Value::Number(ALIGNMENT as u32)),
        ("general.file_type", Value::Number(if element == Element::F16 { 1 } else { 0 })),
        ("llama.context_length", Value::Number(model.context)),
        ("llama.embedding_length", Value::Number(model.dim)),
        ("llama.block_count", Value::Number(model.blocks())),
        ("llama.feed_forward_length", Value::Number(model.ffn)),
        ("llama.attention.head_count", Value::Number(model.heads)),
        ("llama.attention.head_count_kv", Value::Number(model.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(model.norm_eps)),
        ("llama.rope.dimension_count", Value::Number(model.head_dim())),
        ("llama.rope.freq_base", Value::Float(model.rope_theta as f32)),
        ("llama.vocab_size", Value::Number(model.vocab)),
        ("tokenizer.ggml.model", Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Value::Text("gpt-2".into())),
        ("tokenizer.ggml.tokens", Value::Texts(lists.tokens.clone())),
        ("tokenizer.ggml.token_type", Value::Integers(kinds.collect())),
        ("tokenizer.ggml.merges", Value::Texts(lists.merges.clone())),
        ("tokenizer.ggml.add_bos_token", Value::Flag(false)),
    ];
    if let Some(end) = weights.tokenizer.end_of_text() {
        pairs.push(("tokenizer.ggml.eos_token_id", Value::Number(end)));
    }
    pairs
}

enum Value {
    Number(u32),
    Float(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
}

impl Value {
    fn kind(&self) -> u32 {
        match self {
            Self::Number(_) => 4,
            Self::Float(_) => 6,
            Self::Flag(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::Integers(_) => 9,
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Number(value) => to.extend_from_slice(&value.to_le_bytes()),
            Self::Float(value) => to.extend_from_slice(&value.to_le_bytes()),
            Self::Flag(value) => to.push(u8::from(*value)),
            Self::Text(value) => string(to, value),
            Self::Texts(values) => {
                to.extend_from_slice(&8u32.to_le_bytes());
                to.extend_from_slice(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| string(to, value));
            }
            Self::Integers(values) => {
                to.extend_from_slice(&5u32.to_le_bytes());
                to.extend_from_slice(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| to.extend_from_slice(&value.to_le_bytes()));
            }
        }
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u64).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// The name that llama.cpp gives a tensor.
fn name(entry: &Entry) -> String {
    let middle = match entry.role {
        Role::Embedding => "token_embd",
        Role::AttentionNorm => "attn_norm",
        Role::Query => "attn_q",
        Role::Key => "attn_k",
        Role::Value => "attn_v",
        Role::AttentionOut => "attn_output",
        Role::FeedForwardNorm => "ffn_norm",
        Role::Gate => "ffn_gate",
        Role::Up => "ffn_up",
        Role::Down => "ffn_down",
        Role::FinalNorm => "output_norm",
        Role::Logits => "output",
    };
    let block = entry.name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    block.map_or_else(|| format!("{middle}.weight"), |block| format!("blk.{block}.{middle}.weight"))
}

/// The values with the rows of queries and keys in the order of llama.cpp, which rotates neighbours where we rotate
/// halves: within a head, row `i` of the first half and row `i` of the second stand beside each other.
fn interleaved(entry: &Entry, values: &[f32], head_dim: usize) -> Vec<f32> {
    if !matches!(entry.role, Role::Query | Role::Key) {
        return values.to_vec();
    }
    let (columns, half) = (entry.shape[1], head_dim / 2);
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * columns) {
        for i in 0..half {
            for row in [i, half + i] {
                out.extend_from_slice(&head[row * columns..][..columns]);
            }
        }
    }
    out
}
