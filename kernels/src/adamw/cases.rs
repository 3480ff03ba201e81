//! The lengths and inputs on which the room is judged.

use super::{BiasCorrection, Constants, Hyper, Step, cpu, reference};
use crate::{
    SimdPath,
    catalogue::{Buffers, Case, Cost, Data, Op},
};

/// `adamw.step`: g to p, m, v, all in place. The dimension `step` is the number of the step.
pub struct StepOp;

const HYPER: Hyper = Hyper { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

impl StepOp {
    /// The constants of a case's step.
    pub fn constants(case: &Case) -> Constants {
        let bias = BiasCorrection::after(&HYPER, case.dim("step") as u64);
        Constants::new(&HYPER, &bias, 0.75)
    }
}

impl Op for StepOp {
    fn name(&self) -> &'static str {
        "adamw.step"
    }
    fn cases(&self) -> Vec<Case> {
        vec![
            Case::new("one", &[("rows", 1), ("step", 1)]),
            Case::new("short", &[("rows", 13), ("step", 2)]),
            Case::new("vectors", &[("rows", 64), ("step", 15)]),
            Case::new("several tasks", &[("rows", 70_003), ("step", 100)]),
            Case::edge("edge", &[("rows", 501), ("step", 3)]),
        ]
    }
    fn bench_cases(&self) -> Vec<Case> {
        vec![Case::new("8 M", &[("rows", 1 << 23), ("step", 10)])]
    }
    fn inputs(&self, case: &Case) -> Buffers {
        [case.values("g", &[case.dim("rows")])].into_iter().collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        let shape = [case.dim("rows")];
        let mut v = case.values("v", &shape);
        if let Data::F32(v) = &mut v.data {
            v.iter_mut().for_each(|v| *v = v.abs());
        }
        [case.values("p", &shape), case.values("m", &shape), v].into_iter().collect::<Buffers>()
    }
    fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [p, m, v] = outputs.f32_mut(["p", "m", "v"]);
        cpu::step(path, &Step { constants: Self::constants(case), g: inputs.f32("g") }, p, m, v);
    }
    fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [p, m, v] = outputs.f32_mut(["p", "m", "v"]);
        reference::step(&Step { constants: Self::constants(case), g: inputs.f32("g") }, p, m, v);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::cost(case.dim("rows"))
    }
    fn row_buffers(&self) -> &'static [&'static str] {
        &["g", "p", "m", "v"]
    }
}
