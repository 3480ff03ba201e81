//! The room's op as a CUDA device runs it.

use super::{cases, cuda};
use crate::device::trials::{STRIDING_WAYS, Trial, striding_grid};

/// `adamw.step`.
pub static STEP: Trial = Trial {
    op: "adamw.step",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| {
        let constants = cases::StepOp::constants(case);
        let g = inputs.view("g");
        let args = cuda::Step { constants, g: &g, clip: None };
        let [mut p, mut m, mut v] = outputs.floats(["p", "m", "v"]);
        let (mut p, mut m, mut v) = (p.view(), m.view(), v.view());
        match striding_grid(way) {
            None => cuda::step(device, &args, &mut p, &mut m, &mut v),
            Some(grid) => cuda::step_on(device, grid, &args, &mut p, &mut m, &mut v),
        }
    },
};
