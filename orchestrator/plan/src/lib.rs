//! What a model costs on a fleet: whether its stages fit, time of an inner step, what limits it; pure.
//!
//! *Napkin.* A stage of `P` multiplied parameters spends `2P` FLOPs a token forward and twice that backward. A
//! boundary moves `d` values a token each way. So, with bf16 as the uncompressed form, a link takes
//! `d*F / (P*B*c)` times as long as the forward pass before it ([`link_ratio`]), whatever batch and sequence.
//! A step of `A` microbatches through `p` equal stages idles `(p-1)/(A+p-1)` of the time; with staleness 1 the pipeline drains
//! once a window, so that `k` steps idle `(p-1)/(k*A+p-1)` of it, as long as `A` microbatches keep `p` stages busy (`A >= p`).

mod proving;

pub use proving::{Proving, proving};

use serde::{Deserialize, Serialize};
use spec::{BoundaryCodec, Model, Outer, Run};

/// The machine of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it achieves, in FLOP/s.
    pub flops_per_s: f64,
    /// What it has for the stage, in bytes.
    pub memory_bytes: u64,
    /// The lesser of upload and download, in bytes/s.
    pub bandwidth_bytes_per_s: f64,
}

/// What sets the pace of a step, or forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// The stage does not fit.
    Memory,
    /// Arithmetic takes longest.
    Compute,
    /// Moving boundary tensors takes longest.
    Link,
}

/// One stage of a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StageForecast {
    /// What the stage takes of its node, in bytes, as the caller says.
    pub memory_bytes: u64,
    /// Forward and backward of one microbatch, in seconds.
    pub compute_s: f64,
    /// One microbatch's busier direction of the node's link, in seconds.
    pub link_s: f64,
}

/// What a step will take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Head first.
    pub stages: Vec<StageForecast>,
    /// One inner step, in seconds.
    pub step_s: f64,
    /// Share of the slowest stage's time in a step that it idles, in [0, 1).
    pub bubble: f64,
    /// The stage that limits.
    pub limiting_stage: usize,
    /// By what.
    pub limit: Resource,
}

/// Link time over forward time at a boundary: `d*F / (P*B*c)`.
///
/// `dim` is the boundary's width, `flops_per_s` what the node achieves, `parameters` those of its stage,
/// `bandwidth_bytes_per_s` its link, `compression` against bf16. At 1 or below the link hides behind compute;
/// the value at `compression = 1` is the compression that is needed for that.
pub fn link_ratio(
    dim: u32,
    flops_per_s: f64,
    parameters: u64,
    bandwidth_bytes_per_s: f64,
    compression: f64,
) -> f64 {
    f64::from(dim) * flops_per_s / (parameters as f64 * bandwidth_bytes_per_s * compression)
}

/// FLOPs of stage `index` for one token, forward: two for each parameter of a matrix product, and causal
/// attention over half the context on average.
pub fn forward_flops(model: &Model, index: usize) -> f64 {
    let Some(stage) = model.stage(index) else { return 0.0 };
    let (dim, context) = (f64::from(model.dim), f64::from(model.context));
    let block = 2.0 * (model.block_parameters() as f64 - 2.0 * dim) + 2.0 * context * dim;
    let logits = if stage.kind.judges() { 2.0 * f64::from(model.vocab) * dim } else { 0.0 };
    f64::from(stage.blocks) * block + logits
}

/// Bytes of one boundary tensor as it is named in receipts, before lossless packing.
pub fn boundary_bytes(run: &Run) -> u64 {
    let (rows, dim) = (run.microbatch_tokens(), u64::from(run.model.dim));
    match run.boundary {
        BoundaryCodec::F32 => 4 * rows * dim,
        BoundaryCodec::Bf16 => 2 * rows * dim,
        // Codes, and one exponent for each row and 128 channels.
        BoundaryCodec::Int8 => rows * (dim + dim.div_ceil(128)),
    }
}

/// Forecasts an inner step with one node a stage, head first; `None` when `fleet` is not that long. `memory_bytes` are what
/// the stages take, head first: the engine keeps the account of that.
///
/// Compute and link overlap, so a stage takes the longer of the two for each microbatch; a step fills the
/// pipeline once (with staleness 1 once a window, and a step its share of that) and then runs at the pace of the slowest stage.
pub fn forecast(run: &Run, memory_bytes: &[u64], fleet: &[Node]) -> Option<Forecast> {
    let count = run.model.stage_count();
    if fleet.len() != count || memory_bytes.len() != count || count == 0 {
        return None;
    }
    let tokens = run.microbatch_tokens() as f64;
    let stage = |(index, node): (usize, &Node)| {
        // A tensor each way over each boundary that the stage has.
        let tensors = u32::from(index > 0) + u32::from(index + 1 < count);
        StageForecast {
            memory_bytes: memory_bytes[index],
            compute_s: 3.0 * forward_flops(&run.model, index) * tokens / node.flops_per_s,
            link_s: f64::from(tensors) * boundary_bytes(run) as f64 / node.bandwidth_bytes_per_s,
        }
    };
    let stages: Vec<StageForecast> = fleet.iter().enumerate().map(stage).collect();
    let pace = |stage: &StageForecast| stage.compute_s.max(stage.link_s);
    let slowest = (0..count).max_by(|&a, &b| pace(&stages[a]).total_cmp(&pace(&stages[b])))?;
    let busy_s = pace(&stages[slowest]) * f64::from(run.inner.members);
    let fill_s = stages.iter().map(pace).sum::<f64>() - pace(&stages[slowest]);
    let step_s = busy_s + fill_s * f64::from(run.fills()) / f64::from(run.epoch.steps);
    let too_big = (0..count).find(|&index| stages[index].memory_bytes > fleet[index].memory_bytes);
    let (limiting_stage, limit) = match too_big {
        Some(index) => (index, Resource::Memory),
        None if stages[slowest].link_s > stages[slowest].compute_s => (slowest, Resource::Link),
        None => (slowest, Resource::Compute),
    };
    Some(Forecast { bubble: 1.0 - busy_s / step_s, stages, step_s, limiting_stage, limit })
}

/// A machine on which a whole swarm runs, every role of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// What one process trains on all its cores, in tokens/s of the run's model: boundary codec and steps included.
    pub tokens_per_s: f64,
    /// Its cores.
    pub cores: f64,
}

/// What a swarm on one machine will do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HostForecast {
    /// Forward, backward and steps of an epoch, in seconds.
    pub compute_s: f64,
    /// Packing, encrypting and relaying an epoch's boundary tensors.
    pub wire_s: f64,
    /// State digests, audits and their objects, in an epoch.
    pub proof_s: f64,
    /// The merge that ends an epoch.
    pub merge_s: f64,
    /// Tokens a second, all of that included.
    pub tokens_per_s: f64,
}

/// CPU seconds for a byte of a boundary tensor: encoded, packed, sent, unpacked, hashed on both sides.
const WIRE_S_PER_BYTE: f64 = 12e-9;
/// CPU seconds to hash a byte of state.
const DIGEST_S_PER_BYTE: f64 = 0.6e-9;
/// CPU seconds for a byte that goes through the store: sent, hashed twice, written, read back.
const STORE_S_PER_BYTE: f64 = 6e-9;
/// CPU seconds for a parameter of a merge, for each miner: scales, codes, pieces, sums, the outer step.
const MERGE_S_PER_PARAMETER: f64 = 60e-9;
/// Seconds of an epoch's conversation besides: rounds of a merge, grants, the commit.
const EPOCH_S: f64 = 0.05;

/// Forecasts a run whose whole swarm shares one machine: nothing overlaps with anything, for the cores are busy
/// either way. The constants are those of one x86 core with AVX-512.
pub fn on_one_host(run: &Run, host: &Host) -> HostForecast {
    let lanes = f64::from(run.miners_per_stage);
    let microbatches = lanes * f64::from(run.inner.members) * f64::from(run.epoch.steps);
    let tokens = microbatches * run.microbatch_tokens() as f64;
    let tensors = microbatches * 2.0 * (run.model.stage_count() - 1) as f64;
    let parameters = lanes * run.model.parameters() as f64;
    // Weights and both moments; with an outer step also its residual and momentum.
    let state_bytes = parameters * 4.0 * if run.outer == Outer::None { 3.0 } else { 5.0 };
    let digests = f64::from(run.epoch.steps / run.epoch.digest_every.max(1)) + 1.0;
    let windows = run.audit_draws() as f64;
    // A window is steps done again, from a state that the miner uploads.
    let window = f64::from(run.epoch.digest_every.min(run.epoch.steps)) / f64::from(run.epoch.steps);
    let again_s = windows * window * tokens / host.tokens_per_s;
    let proof = digests * state_bytes * DIGEST_S_PER_BYTE + windows * state_bytes * STORE_S_PER_BYTE;
    // New weights and momentum go to the store once, and to every miner.
    let merge = parameters * MERGE_S_PER_PARAMETER + 2.0 * 4.0 * parameters * STORE_S_PER_BYTE;
    let compute_s = tokens / host.tokens_per_s;
    let wire_s = tensors * boundary_bytes(run) as f64 * WIRE_S_PER_BYTE / host.cores;
    let (proof_s, merge_s) = (again_s + proof / host.cores, EPOCH_S + merge / host.cores);
    HostForecast {
        compute_s,
        wire_s,
        proof_s,
        merge_s,
        tokens_per_s: tokens / (compute_s + wire_s + proof_s + merge_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = include_str!("tests/run.toml");

    /// Of every stage: a GiB and a byte.
    const MEMORY_BYTES: [u64; 4] = [(1 << 30) + 1; 4];

    fn fleet(flops_per_s: f64, memory_bytes: u64, bandwidth_bytes_per_s: f64) -> Vec<Node> {
        vec![Node { flops_per_s, memory_bytes, bandwidth_bytes_per_s }; 4]
    }

    #[test]
    fn the_law_gives_the_compression_that_hides_a_link() {
        let needed = |flops_per_s| link_ratio(2048, flops_per_s, 1_000_000_000, 100e6 / 8.0, 1.0);
        assert_eq!(needed(165e12).round(), 27.0);
        assert_eq!(needed(800e12).round(), 131.0);
        assert_eq!(link_ratio(2048, 165e12, 1_000_000_000, 100e6 / 8.0, needed(165e12)), 1.0);
    }

    #[test]
    fn the_law_agrees_with_the_forecast() {
        let run = Run::from_toml(RUN).unwrap();
        let forecast = forecast(&run, &MEMORY_BYTES, &fleet(1e12, u64::MAX, 1e6)).unwrap();
        // One tensor of a body's two, against the third of its time that is forward.
        let measured = forecast.stages[1].link_s / 2.0 / (forecast.stages[1].compute_s / 3.0);
        let compression =
            2.0 * (run.microbatch_tokens() * u64::from(run.model.dim)) as f64 / boundary_bytes(&run) as f64;
        let multiplied = (forward_flops(&run.model, 1) / 2.0) as u64;
        let law = link_ratio(run.model.dim, 1e12, multiplied, 1e6, compression);
        assert!((measured / law - 1.0).abs() < 1e-9, "{measured} {law}");
    }

    #[test]
    fn what_is_scarce_is_named() {
        let run = Run::from_toml(RUN).unwrap();
        let limit = |fleet: &[Node]| {
            let forecast = forecast(&run, &MEMORY_BYTES, fleet).unwrap();
            (forecast.limiting_stage, forecast.limit)
        };
        assert_eq!(limit(&fleet(1e9, 1 << 40, 1e12)), (3, Resource::Compute)); // the tail has the logits
        let mut slow_link = fleet(1e15, 1 << 40, 1e9);
        slow_link[1].bandwidth_bytes_per_s = 1e3;
        assert_eq!(limit(&slow_link), (1, Resource::Link));
        let mut small = fleet(1e9, 1 << 40, 1e12);
        small[2].memory_bytes = 1 << 30;
        assert_eq!(limit(&small), (2, Resource::Memory));
        assert_eq!(forecast(&run, &MEMORY_BYTES, &[]), None);
        assert_eq!(forecast(&run, &[], &small), None);
    }

    #[test]
    fn the_bubble_of_equal_stages_is_the_textbook_one() {
        let mut run = Run::from_toml(RUN).unwrap();
        run.inner.members = 12;
        // Links so slow that they alone count, and the ends made as slow as the bodies.
        let mut nodes = fleet(1e15, u64::MAX, 2e3);
        nodes[0].bandwidth_bytes_per_s = 1e3;
        nodes[3].bandwidth_bytes_per_s = 1e3;
        let bubble = forecast(&run, &MEMORY_BYTES, &nodes).unwrap().bubble;
        assert!((bubble - 3.0 / 15.0).abs() < 1e-12, "{bubble}");
        // The pipeline drains once in three steps.
        (run.inner.staleness, run.epoch.steps, run.epoch.digest_every) = (1, 12, 3);
        let bubble = forecast(&run, &MEMORY_BYTES, &nodes).unwrap().bubble;
        assert!((bubble - 3.0 / 39.0).abs() < 1e-12, "{bubble}");
    }

    #[test]
    fn what_a_swarm_does_besides_training_slows_it_down() {
        let run = Run::from_toml(RUN).unwrap();
        let host = Host { tokens_per_s: 10_000.0, cores: 2.0 };
        let forecast = on_one_host(&run, &host);
        assert!(forecast.tokens_per_s < host.tokens_per_s && forecast.tokens_per_s > 0.0);
        let tokens = run.microbatch_tokens() * u64::from(run.inner.members) * u64::from(run.epoch.steps);
        assert!((forecast.compute_s - tokens as f64 / 10_000.0).abs() < 1e-9);
        // Longer epochs merge less often, more cores carry what is not compute.
        let mut longer = run.clone();
        longer.epoch.steps *= 10;
        longer.epoch.digest_every *= 10;
        assert!(on_one_host(&longer, &host).tokens_per_s > forecast.tokens_per_s);
        assert!(on_one_host(&run, &Host { cores: 16.0, ..host }).tokens_per_s > forecast.tokens_per_s);
        let mut quiet = run;
        quiet.audit.windows = 0;
        assert!(on_one_host(&quiet, &host).proof_s < forecast.proof_s);
    }
}
