//! The room's ops as a CUDA device runs them.

use super::cuda;
use crate::device::trials::{STRIDING_WAYS, Trial, striding_grid};

/// `residual.add`.
pub static ADD: Trial = Trial {
    op: "residual.add",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let (a, b) = (inputs.view("a"), inputs.view("b"));
        let [mut y] = outputs.floats(["y"]);
        match striding_grid(way) {
            None => cuda::add(device, &a, &b, &mut y.view()),
            Some(grid) => cuda::add_on(device, grid, &a, &b, &mut y.view()),
        }
    },
};

/// `residual.accumulate`.
pub static ACCUMULATE: Trial = Trial {
    op: "residual.accumulate",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let x = inputs.view("x");
        let [mut sum] = outputs.floats(["sum"]);
        match striding_grid(way) {
            None => cuda::accumulate(device, &mut sum.view(), &x),
            Some(grid) => cuda::accumulate_on(device, grid, &mut sum.view(), &x),
        }
    },
};
