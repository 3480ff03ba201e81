//! The room's op as a CUDA device runs it.

use super::cuda;
use crate::device::trials::{Raw, Trial};

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
