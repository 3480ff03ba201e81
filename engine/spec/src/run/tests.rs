//! What `run.toml` must hold, and the id that follows.

use super::*;
use crate::RopeScaling;

fn run() -> Run {
    Run {
        name: "tiny".into(),
        mode: Mode::Portable,
        seed: 1,
        miners_per_stage: 1,
        model: Model {
            dim: 64,
            heads: 4,
            kv_heads: 2,
            ffn: 172,
            vocab: 256,
            context: 64,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            stages: vec![1, 1, 1],
        },
        data: Data {
            tokenizer: Tokenizer::Bytes,
            train: Digest([1; 32]),
            train_tokens: 10_000,
            validation: Digest([2; 32]),
            validation_tokens: 1_000,
            sequences: 4,
        },
        inner: Inner {
            lr: 3e-3,
            lr_final: 3e-4,
            warmup_steps: 10,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            members: 4,
            staleness: 0,
        },
        outer: Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 },
        epoch: Epoch { steps: 20, count: 1, digest_every: 5 },
        boundary: BoundaryCodec::Int8,
        audit: Audit { windows: 1, lag: 2 },
        admission: Admission::Invitation,
    }
}

#[test]
fn toml_round_trips_and_keeps_the_id() {
    let run = run();
    let again = Run::from_toml(&run.to_toml()).unwrap();
    assert_eq!(again, run);
    assert_eq!(again.id(), run.id());
}

#[test]
fn the_id_is_frozen_and_every_field_counts() {
    assert_eq!(run().id().short(), GOLDEN_ID);
    let mut other = run();
    other.miners_per_stage += 1;
    assert_ne!(other.id(), run().id());
    assert_ne!(scaled().id(), run().id());
}

fn scaled() -> Run {
    let mut run = run();
    run.model.rope_scaling = Some(RopeScaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 32,
    });
    run
}

#[test]
fn scaling_of_rotary_frequencies_is_read_and_checked() {
    let run = scaled();
    assert_eq!(Run::from_toml(&run.to_toml()).unwrap(), run);
    assert_eq!(postcard::from_bytes::<Run>(&run.canonical_bytes()).unwrap(), run);
    let said = |change: &dyn Fn(&mut RopeScaling)| {
        let mut bad = scaled();
        bad.model.rope_scaling.iter_mut().for_each(change);
        bad.check().unwrap_err().to_string()
    };
    assert!(said(&|s| s.factor = 0.5).contains("model.rope_scaling.factor is 0.5, expected a number of"));
    assert!(said(&|s| s.high_freq_factor = 1.0).contains("high_freq_factor is 1, expected a number above"));
    assert!(said(&|s| s.low_freq_factor = f64::NAN).contains("low_freq_factor is NaN"));
    assert!(said(&|s| s.original_max_position = 0).contains("original_max_position is 0"));
}
// A change here is a new format: bump the context of `Run::id`.
const GOLDEN_ID: &str = "c81322f8";

#[test]
fn bad_values_are_named_with_what_was_expected() {
    let mut bad = run();
    bad.model.kv_heads = 3;
    let text = bad.check().unwrap_err().to_string();
    assert_eq!(text, "run.toml: model.kv_heads is 3, expected a divisor of model.heads");
    let mut stale = run();
    stale.inner.staleness = 2;
    assert_eq!(stale.check().unwrap_err().to_string(), "run.toml: inner.staleness is 2, expected 0 or 1");
    (stale.inner.staleness, stale.epoch.digest_every) = (1, 1);
    assert!(
        stale
            .check()
            .unwrap_err()
            .to_string()
            .contains("inner.staleness is 1, expected 0, or epoch.digest_every above 1")
    );
    let mut alone = run();
    (alone.miners_per_stage, alone.outer) = (2, Outer::None);
    assert!(alone.check().unwrap_err().to_string().starts_with("run.toml: outer is none, expected nesterov"));
    let silent = run().to_toml().replace("miners_per_stage = 1\n", "");
    assert_eq!(Run::from_toml(&silent).unwrap(), run());
    let unknown = run().to_toml() + "\n[surprise]\nx = 1\n";
    assert!(Run::from_toml(&unknown).unwrap_err().to_string().contains("surprise"));
}

#[test]
fn a_tokenizer_file_is_named_by_its_digest_and_its_ids_must_fit() {
    let mut run = run();
    run.data.tokenizer = Tokenizer::Bpe { file: Digest([3; 32]), vocab: 4096 };
    assert_eq!(
        run.check().unwrap_err().to_string(),
        "run.toml: model.vocab is 256, expected at least the 4096 ids of data.tokenizer"
    );
    run.model.vocab = 4096;
    assert_eq!(Run::from_toml(&run.to_toml()).unwrap(), run);
    assert_eq!(run.data.shard_bytes(10), 16 + 2 * 10);
    let widths = [256, 257, 65_536, 65_537]
        .map(|vocab| Tokenizer::Bpe { file: Digest::default(), vocab }.bytes_per_token());
    assert_eq!(widths, [1, 2, 2, 4]);
}

#[test]
fn windows_reach_from_one_bound_state_to_the_next() {
    let mut run = run();
    assert_eq!(run.audit_candidates(), [0, 5, 10, 15]);
    assert_eq!(run.audit_draws(), 1);
    let bound: Vec<u32> = (0..20).filter(|&s| run.digests_after(s)).collect();
    assert_eq!(bound, [4, 9, 14, 19]);
    run.epoch.steps = 12;
    // The last is shorter; what a stand-in does beyond the end are windows of one step.
    assert_eq!([0, 4, 5, 11, 12, 13].map(|step| run.window_start(step)), [0, 0, 5, 10, 12, 13]);
    let bound: Vec<u32> = (0..14).filter(|&s| run.digests_after(s)).collect();
    assert_eq!(bound, [4, 9, 11, 12, 13]);
}

#[test]
fn only_steps_within_a_window_are_stale() {
    let mut run = run();
    assert!((0..25).all(|step| !run.is_stale(step)));
    run.inner.staleness = 1;
    run.epoch.steps = 12;
    run.check().unwrap();
    let fresh: Vec<u32> = (0..15).filter(|&step| !run.is_stale(step)).collect();
    // Windows of five steps, the last of two; beyond the epoch's end each step is one.
    assert_eq!(fresh, [0, 5, 10, 12, 13, 14]);
    assert_eq!((run.fills(), run.steps_ahead()), (3, 3));
    run.inner.staleness = 0;
    assert_eq!((run.fills(), run.steps_ahead()), (12, 2));
}
