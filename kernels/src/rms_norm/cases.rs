//! The shapes and inputs on which the room is judged.

use super::{Backward, Forward, cpu, reference};
use crate::{
    SimdPath,
    catalogue::{Buffers, Case, Cost, Op},
};

/// Added to the mean square in all cases.
pub const EPS: f32 = 1e-5;

/// Rows around the gradient's blocks of 64, widths around vectors and the 128 accumulators, a row of two chunks.
fn cases() -> Vec<Case> {
    vec![
        Case::new("one element", &[("rows", 1), ("dim", 1)]),
        Case::new("narrow", &[("rows", 5), ("dim", 7)]),
        Case::new("whole", &[("rows", 64), ("dim", 128)]),
        Case::new("odd", &[("rows", 67), ("dim", 257)]),
        Case::new("three blocks", &[("rows", 130), ("dim", 528)]),
        Case::new("two chunks", &[("rows", 3), ("dim", 16_384 + 37)]),
        Case::edge("edge", &[("rows", 66), ("dim", 131)]),
    ]
}

fn bench_cases() -> Vec<Case> {
    vec![
        Case::new("2048 x 512", &[("rows", 2048), ("dim", 512)]),
        Case::new("8192 x 2048", &[("rows", 8192), ("dim", 2048)]),
    ]
}

/// `rms_norm.forward`: x, w to y, r.
pub struct ForwardOp;

impl ForwardOp {
    fn args<'a>(case: &Case, inputs: &'a Buffers) -> Forward<'a> {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        Forward { rows, dim, eps: EPS, x: inputs.f32("x"), w: inputs.f32("w") }
    }
}

impl Op for ForwardOp {
    fn name(&self) -> &'static str {
        "rms_norm.forward"
    }
    fn cases(&self) -> Vec<Case> {
        cases()
    }
    fn bench_cases(&self) -> Vec<Case> {
        bench_cases()
    }
    fn inputs(&self, case: &Case) -> Buffers {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        [case.values("x", &[rows, dim]), case.values("w", &[dim])].into_iter().collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        [case.unwritten("y", &[rows, dim]), case.unwritten("r", &[rows])].into_iter().collect()
    }
    fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [y, r] = outputs.f32_mut(["y", "r"]);
        cpu::forward(path, &Self::args(case, inputs), y, r);
    }
    fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [y, r] = outputs.f32_mut(["y", "r"]);
        reference::forward(&Self::args(case, inputs), y, r);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::forward_cost(case.dim("rows"), case.dim("dim"))
    }
    fn row_buffers(&self) -> &'static [&'static str] {
        &["x", "y", "r"]
    }
}

/// `rms_norm.backward`: x, w, r, dy to dx, dw.
pub struct BackwardOp;

impl BackwardOp {
    fn args<'a>(case: &Case, inputs: &'a Buffers) -> Backward<'a> {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        let [x, w, r, dy] = ["x", "w", "r", "dy"].map(|name| inputs.f32(name));
        Backward { rows, dim, x, w, r, dy }
    }
}

impl Op for BackwardOp {
    fn name(&self) -> &'static str {
        "rms_norm.backward"
    }
    fn cases(&self) -> Vec<Case> {
        cases()
    }
    fn bench_cases(&self) -> Vec<Case> {
        bench_cases()
    }
    fn inputs(&self, case: &Case) -> Buffers {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        [
            case.values("x", &[rows, dim]),
            case.values("w", &[dim]),
            case.between("r", &[rows], 0.5, 2.0),
            case.values("dy", &[rows, dim]),
        ]
        .into_iter()
        .collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        [case.unwritten("dx", &[rows, dim]), case.values("dw", &[dim])].into_iter().collect()
    }
    fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [dx, dw] = outputs.f32_mut(["dx", "dw"]);
        cpu::backward(path, &Self::args(case, inputs), dx, dw);
    }
    fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [dx, dw] = outputs.f32_mut(["dx", "dw"]);
        reference::backward(&Self::args(case, inputs), dx, dw);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::backward_cost(case.dim("rows"), case.dim("dim"))
    }
    fn row_buffers(&self) -> &'static [&'static str] {
        &["x", "r", "dy", "dx"]
    }
}
