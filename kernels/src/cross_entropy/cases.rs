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
    bench = Case::new("2048 x 4096", &[("rows", 2048), ("vocab", 4096)]);
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
    /// `cross_entropy.mean_q32`: loss to mean; i64::MIN where there is none.
    MeanOp = "cross_entropy.mean_q32";
    cases = vec![
        Case::new("one", &[("count", 1)]),
        Case::new("many", &[("count", 1001)]),
        Case::edge("edge", &[("count", 77)]),
    ];
    bench = Case::new("1 M", &[("count", 1 << 20)]);
    inputs(case) = [case.values("loss", &[case.dim("count")])];
    outputs(_) = [Buffer::new("mean", &[1], Data::I64(vec![0]))];
    cpu(_, _, inputs, outputs) = {
        let [mean] = outputs.i64_mut(["mean"]);
        mean[0] = super::mean_q32(inputs.f32("loss")).unwrap_or(i64::MIN);
    };
    reference(_, inputs, outputs) = {
        let [mean] = outputs.i64_mut(["mean"]);
        mean[0] = reference::mean_q32(inputs.f32("loss")).unwrap_or(i64::MIN);
    };
    cost(case) = Cost { bytes: 4 * case.dim("count") as u64, flops: 2 * case.dim("count") as u64 };
    rows = &[];
}
