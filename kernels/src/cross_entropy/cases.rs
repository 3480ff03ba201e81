//! The shapes and inputs on which the room is judged.

use super::{Forward, cpu, reference};
use crate::catalogue::{Buffer, Buffers, Case, Cost, Data, op};

/// Factor of the gradient in all cases.
pub(super) const WEIGHT: f32 = 1.0 / 64.0;

fn args<'a>(case: &Case, inputs: &'a Buffers) -> Forward<'a> {
    Forward {
        rows: case.dim("rows"),
        vocab: case.dim("vocab"),
        logits: inputs.f32("logits"),
        targets: inputs.u32("targets"),
        weight: WEIGHT,
    }
}

op! {
    /// `cross_entropy.forward`: logits, targets to loss, dlogits. The weight is 1/64.
    ForwardOp = "cross_entropy.forward";
    cases = vec![
        Case::new("one logit", &[("rows", 1), ("vocab", 1)]),
        Case::new("bytes", &[("rows", 9), ("vocab", 256)]),
        Case::new("odd", &[("rows", 5), ("vocab", 1003)]),
        Case::new("three chunks", &[("rows", 3), ("vocab", 2 * super::VOCAB_CHUNK + 77)]),
        Case::edge("edge", &[("rows", 6), ("vocab", 300)]),
    ];
    inputs(case) = {
        let (rows, vocab) = (case.dim("rows"), case.dim("vocab"));
        [case.values("logits", &[rows, vocab]), case.below("targets", &[rows], vocab as u32)]
    };
    outputs(case) = {
        let (rows, vocab) = (case.dim("rows"), case.dim("vocab"));
        [case.unwritten("loss", &[rows]), case.unwritten("dlogits", &[rows, vocab])]
    };
    cpu(path, case, inputs, outputs) = {
        let [loss, dlogits] = outputs.f32_mut(["loss", "dlogits"]);
        cpu::forward(path, &args(case, inputs), loss, dlogits);
    };
    reference(case, inputs, outputs) = {
        let [loss, dlogits] = outputs.f32_mut(["loss", "dlogits"]);
        reference::forward(&args(case, inputs), loss, dlogits);
    };
    cost(case) = super::cost(case.dim("rows"), case.dim("vocab"));
    rows = &["logits", "targets", "loss", "dlogits"];
}

op! {
    /// `cross_entropy.mean_loss`: loss to mean.
    MeanOp = "cross_entropy.mean_loss";
    cases = vec![
        Case::new("one", &[("count", 1)]),
        Case::new("many", &[("count", 1001)]),
        Case::edge("edge", &[("count", 77)]),
    ];
    inputs(case) = [case.values("loss", &[case.dim("count")])];
    outputs(_) = [Buffer::new("mean", &[1], Data::F32(vec![f32::NAN]))];
    cpu(_, _, inputs, outputs) = {
        let [mean] = outputs.f32_mut(["mean"]);
        mean[0] = super::mean_loss(inputs.f32("loss"));
    };
    reference(_, inputs, outputs) = {
        let [mean] = outputs.f32_mut(["mean"]);
        mean[0] = reference::mean_loss(inputs.f32("loss"));
    };
    cost(case) = Cost { bytes: 4 * case.dim("count") as u64, flops: 2 * case.dim("count") as u64 };
    rows = &[];
}
