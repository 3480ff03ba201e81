//! What proving work costs beside doing it.
//!
//! *Napkin*, of one x86 core with AVX-512 (`cargo xtask audits` measures it): work runs at 85 GFLOP/s, BLAKE3 at 4.6 GB/s, a copy into
//! memory that held an earlier window at 10 GB/s (6.5 where the memory is new); a receipt takes 0.2 ms to be signed and verified twice. A window ends with the digest and a copy of weights
//! and moments (12 bytes a parameter, for residual and outer momentum do not change within an epoch): 3.8 ns a
//! parameter, the work of some fifty tokens at any width. So narrow stages and short windows prove dearly.

use crate::{boundary_bytes, forward_flops};
use spec::Run;

const FLOPS_PER_S: f64 = 85e9;
const HASH_S_PER_BYTE: f64 = 1.0 / 4.6e9;
const COPY_S_PER_BYTE: f64 = 1.0 / 10e9;
const RECEIPT_S: f64 = 0.2e-3;

/// What proving costs beside the work of a stage, as shares of its inner steps' time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proving {
    /// Digests of what comes in and goes out.
    pub payloads: f64,
    /// Receipts, signed by one and verified by two.
    pub receipts: f64,
    /// The state at the end of each window, digested and kept.
    pub states: f64,
}

impl Proving {
    /// All of it.
    pub fn share(&self) -> f64 {
        self.payloads + self.receipts + self.states
    }
}

/// What proving costs in the stage where that is most, with windows as long as the run says.
pub fn proving(run: &Run) -> Proving {
    let stages = (0..run.model.stage_count()).map(|stage| of_stage(run, stage));
    let nothing = Proving { payloads: 0.0, receipts: 0.0, states: 0.0 };
    stages.fold(nothing, |most, stage| if stage.share() > most.share() { stage } else { most })
}

fn of_stage(run: &Run, stage: usize) -> Proving {
    let parameters = run.model.stage_parameters(stage) as f64;
    let work_s = 3.0 * forward_flops(&run.model, stage) * run.microbatch_tokens() as f64 / FLOPS_PER_S;
    // In and out, of a forward and a backward.
    let boundaries = u32::from(stage > 0) + u32::from(stage + 1 < run.model.stage_count());
    let payload_s = 2.0 * f64::from(boundaries) * boundary_bytes(run) as f64 * HASH_S_PER_BYTE;
    let members = f64::from(run.inner.members);
    let window_s = work_s * members * f64::from(run.epoch.digest_every);
    let state_s = 12.0 * parameters * (HASH_S_PER_BYTE + COPY_S_PER_BYTE);
    Proving {
        payloads: payload_s / work_s,
        receipts: RECEIPT_S * (2.0 + 1.0 / members) / work_s,
        states: state_s / window_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dim: u32, sequences: u32, digest_every: u32) -> Run {
        let mut run = Run::from_toml(include_str!("tests/run.toml")).unwrap();
        (run.model.dim, run.model.ffn) = (dim, dim * 11 / 4);
        (run.data.sequences, run.epoch.digest_every) = (sequences, digest_every);
        run
    }

    #[test]
    fn wider_stages_and_longer_windows_prove_for_less() {
        let share = |dim, every| proving(&run(dim, 16, every)).share();
        assert!(share(256, 2) > share(256, 8) && share(256, 2) > share(512, 2));
        let Proving { states, .. } = proving(&run(512, 16, 2));
        // 2048 tokens a microbatch, four of them a step: the work of some fifty tokens in a window of 16 384.
        assert!((states * 16_384.0 / 50.0 - 1.0).abs() < 0.25, "{states}");
    }
}
