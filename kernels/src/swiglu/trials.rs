//! The room's ops as a CUDA device runs them.

use super::cuda;
use crate::device::trials::{STRIDING_WAYS, Trial, striding_grid};

/// `swiglu.forward`.
pub static FORWARD: Trial = Trial {
    op: "swiglu.forward",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let (g, u) = (inputs.view("g"), inputs.view("u"));
        let args = cuda::Forward { g: &g, u: &u };
        let [mut h] = outputs.floats(["h"]);
        match striding_grid(way) {
            None => cuda::forward(device, &args, &mut h.view()),
            Some(grid) => cuda::forward_on(device, grid, &args, &mut h.view()),
        }
    },
};

/// `swiglu.backward`.
pub static BACKWARD: Trial = Trial {
    op: "swiglu.backward",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let [g, u, dh] = ["g", "u", "dh"].map(|name| inputs.view(name));
        let args = cuda::Backward { g: &g, u: &u, dh: &dh };
        let [mut dg, mut du] = outputs.floats(["dg", "du"]);
        let (mut dg, mut du) = (dg.view(), du.view());
        match striding_grid(way) {
            None => cuda::backward(device, &args, &mut dg, &mut du),
            Some(grid) => cuda::backward_on(device, grid, &args, &mut dg, &mut du),
        }
    },
};
