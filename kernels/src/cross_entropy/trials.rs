//! The room's ops as a CUDA device runs them.

use super::{cases, cuda};
use crate::catalogue::Case;
use crate::device::trials::Trial;

/// `cross_entropy.forward`.
pub static FORWARD: Trial = Trial {
    op: "cross_entropy.forward",
    ways: &[
        "chosen",
        "block",
        "vectors",
        "any",
        "in place",
        "block, in place",
        "vectors, in place",
        "any, in place",
    ],
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        use cuda::Rung::{Any, Block, Vectors, Warp};
        let (logits, targets) = (inputs.view("logits"), inputs.view("targets"));
        let (rows, vocab, weight) = (case.dim("rows"), case.dim("vocab"), cases::WEIGHT);
        let [mut loss, mut dlogits] = outputs.floats(["loss", "dlogits"]);
        let (mut loss, mut dlogits) = (loss.view(), dlogits.view());
        let rung = [Warp, Block, Vectors, Any][way % 4];
        if way >= 4 {
            device.copy(&logits, &mut dlogits)?;
            let args = cuda::Rows { rows, vocab, targets: &targets, weight };
            return cuda::forward_in_place_on(device, rung, &args, &mut loss, &mut dlogits);
        }
        let args = cuda::Forward { rows, vocab, logits: &logits, targets: &targets, weight };
        match way {
            0 => cuda::forward(device, &args, &mut loss, &mut dlogits),
            _ => cuda::forward_on(device, rung, &args, &mut loss, &mut dlogits),
        }
    },
};

/// `cross_entropy.mean_q32`.
pub static MEAN: Trial = Trial {
    op: "cross_entropy.mean_q32",
    ways: &["chosen", "32 threads"],
    more_cases: || vec![Case::new("none", &[("count", 0)]), Case::new("around twice", &[("count", 2050)])],
    run: |device, way, _, inputs, outputs| {
        let loss = inputs.view("loss");
        let [mean] = outputs.all(["mean"]);
        let mut mean = mean.of();
        match way {
            0 => cuda::mean_q32(device, &loss, &mut mean.view()),
            _ => cuda::mean_q32_on(device, 32, &loss, &mut mean.view()),
        }
    },
};

/// The longest rows of each rung, and the next longer ones.
fn edges() -> Vec<Case> {
    let of = |label, rows, vocab| Case::new(label, &[("rows", rows), ("vocab", vocab)]);
    vec![
        of("longest warp", 9, 1024),
        of("shortest block", 2, 1028),
        of("two whole chunks", 2, 8192),
        of("chunks and some", 2, 8196),
        of("longest block", 1, 32_768),
        of("beyond block", 1, 36_868),
        Case::edge("edge vectors", &[("rows", 5), ("vocab", 4104)]),
    ]
}
