//! The room's ops as a CUDA device runs it.

use super::cases::{FACTOR, bound};
use super::cuda;
use crate::device::trials::{Raw, STRIDING_WAYS, Trial, striding_grid};

/// `reduce.sum_squares`.
pub static SUM_SQUARES: Trial = Trial {
    op: "reduce.sum_squares",
    ways: &["chosen", "1 warp", "3 warps"],
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let g = inputs.view("g");
        let [mut sum] = outputs.all(["sum"]).map(Raw::of);
        let mut workspace = device.scratch(cuda::workspace_len(g.len()))?;
        let mut workspace = workspace.view_mut();
        match way {
            0 => cuda::sum_squares(device, &g, &mut sum.view(), &mut workspace),
            way => cuda::sum_squares_on(device, [1, 3][way - 1], &g, &mut sum.view(), &mut workspace),
        }
    },
};

/// `reduce.scale`.
pub static SCALE: Trial = Trial {
    op: "reduce.scale",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, _, outputs| {
        let [mut g] = outputs.floats(["g"]);
        match striding_grid(way) {
            None => cuda::scale(device, &mut g.view(), FACTOR),
            Some(grid) => cuda::scale_on(device, grid, &mut g.view(), FACTOR),
        }
    },
};

/// `reduce.first_beyond`.
pub static FIRST_BEYOND: Trial = Trial {
    op: "reduce.first_beyond",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| {
        let x = inputs.view("x");
        let [mut place] = outputs.all(["place"]).map(Raw::of);
        match striding_grid(way) {
            None => cuda::first_beyond(device, &x, bound(case), &mut place.view()),
            Some(grid) => cuda::first_beyond_on(device, grid, &x, bound(case), &mut place.view()),
        }
    },
};
