//! Initial weights: a function of (run seed, tensor id, element), whatever the stage cut.
//!
//! Norm weights are 1 and the token table is normal with deviation 1, so the residual stream starts at unit size. Matrices
//! are normal with deviation `1/sqrt(in)`, those that write into the residual stream divided by `sqrt(2 * blocks)` on top.
//! (A table of deviation 0.02, common in larger models, cost 0.2 nats after 60 steps of a 1 M model.)

use super::layout::{Entry, Layout, Role};
use kernels::philox::{self, Stream};
use spec::Model;

/// Philox `purpose` of initial weights.
const PURPOSE: u32 = 1;
/// Deviation of the token table.
const EMBEDDING_STD: f32 = 1.0;

/// The flat array of a stage's initial weights.
pub fn initial(model: &Model, layout: &Layout, seed: u64) -> Vec<f32> {
    let mut weights = vec![0.0; layout.values()];
    for entry in layout.entries() {
        let values = &mut weights[entry.range.clone()];
        match deviation(model, entry) {
            None => values.fill(1.0),
            Some(std) => {
                let (low, high) = (seed as u32, (seed >> 32) as u32);
                let stream = Stream { seed: low, tensor: entry.id, step: high, purpose: PURPOSE };
                philox::normal(&stream, 0, std, values);
            }
        }
    }
    weights
}

fn deviation(model: &Model, entry: &Entry) -> Option<f32> {
    let by_inputs = || (1.0 / f64::from(entry.shape[1] as u32)).sqrt();
    match entry.role {
        Role::AttentionNorm | Role::FeedForwardNorm | Role::FinalNorm => None,
        Role::Embedding => Some(EMBEDDING_STD),
        Role::AttentionOut | Role::Down => {
            Some((by_inputs() / (2.0 * f64::from(model.blocks())).sqrt()) as f32)
        }
        Role::Query | Role::Key | Role::Value | Role::Gate | Role::Up | Role::Logits => {
            Some(by_inputs() as f32)
        }
    }
}
