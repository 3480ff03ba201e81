//! The lengths and inputs on which the room is judged.

use super::{Backward, Forward, cpu, reference};
use crate::{
    SimdPath,
    catalogue::{Buffers, Case, Cost, Op},
};

fn cases() -> Vec<Case> {
    vec![
        Case::new("one", &[("rows", 1)]),
        Case::new("short", &[("rows", 21)]),
        Case::new("several tasks", &[("rows", 20_001)]),
        Case::edge("edge", &[("rows", 1003)]),
    ]
}

fn bench_cases() -> Vec<Case> {
    vec![Case::new("2048 x 1376", &[("rows", 2048 * 1376)])]
}

/// `swiglu.forward`: g, u to h.
pub struct ForwardOp;

impl Op for ForwardOp {
    fn name(&self) -> &'static str {
        "swiglu.forward"
    }
    fn cases(&self) -> Vec<Case> {
        cases()
    }
    fn bench_cases(&self) -> Vec<Case> {
        bench_cases()
    }
    fn inputs(&self, case: &Case) -> Buffers {
        let shape = [case.dim("rows")];
        [case.values("g", &shape), case.values("u", &shape)].into_iter().collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        [case.unwritten("h", &[case.dim("rows")])].into_iter().collect()
    }
    fn cpu(&self, path: SimdPath, _: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [h] = outputs.f32_mut(["h"]);
        cpu::forward(path, &Forward { g: inputs.f32("g"), u: inputs.f32("u") }, h);
    }
    fn reference(&self, _: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [h] = outputs.f32_mut(["h"]);
        reference::forward(&Forward { g: inputs.f32("g"), u: inputs.f32("u") }, h);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::forward_cost(case.dim("rows"))
    }
    fn row_buffers(&self) -> &'static [&'static str] {
        &["g", "u", "h"]
    }
}

/// `swiglu.backward`: g, u, dh to dg, du.
pub struct BackwardOp;

impl BackwardOp {
    fn args(inputs: &Buffers) -> Backward<'_> {
        Backward { g: inputs.f32("g"), u: inputs.f32("u"), dh: inputs.f32("dh") }
    }
}

impl Op for BackwardOp {
    fn name(&self) -> &'static str {
        "swiglu.backward"
    }
    fn cases(&self) -> Vec<Case> {
        cases()
    }
    fn bench_cases(&self) -> Vec<Case> {
        bench_cases()
    }
    fn inputs(&self, case: &Case) -> Buffers {
        let shape = [case.dim("rows")];
        ["g", "u", "dh"].map(|name| case.values(name, &shape)).into_iter().collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        ["dg", "du"].map(|name| case.unwritten(name, &[case.dim("rows")])).into_iter().collect()
    }
    fn cpu(&self, path: SimdPath, _: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [dg, du] = outputs.f32_mut(["dg", "du"]);
        cpu::backward(path, &Self::args(inputs), dg, du);
    }
    fn reference(&self, _: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [dg, du] = outputs.f32_mut(["dg", "du"]);
        reference::backward(&Self::args(inputs), dg, du);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::backward_cost(case.dim("rows"))
    }
    fn row_buffers(&self) -> &'static [&'static str] {
        &["g", "u", "dh", "dg", "du"]
    }
}
