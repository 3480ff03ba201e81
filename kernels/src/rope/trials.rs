//! The room's ops as a CUDA device runs them. The tables are made on the host.

use super::cuda;
use crate::catalogue::Case;
use crate::device::trials::{OnDevice, Trial};
use crate::device::{CudaDevice, DeviceError, ViewMut};

/// `rope.forward`.
pub static FORWARD: Trial = Trial {
    op: "rope.forward",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let [mut y] = outputs.floats(["y"]);
        rotate(device, way, case, inputs, false, &mut y.view())
    },
};

/// `rope.backward`.
pub static BACKWARD: Trial = Trial {
    op: "rope.backward",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let [mut dx] = outputs.floats(["dx"]);
        rotate(device, way, case, inputs, true, &mut dx.view())
    },
};

const WAYS: &[&str] = &["chosen", "1 block", "3 blocks"];

/// Rows that take a block's threads more than once around.
fn edges() -> Vec<Case> {
    let dims = [("batch", 1), ("seq", 3), ("heads", 40), ("head_dim", 64)];
    vec![Case::new("wide", &dims), Case::edge("edge vectors", &dims)]
}

fn rotate(
    device: &CudaDevice,
    way: usize,
    case: &Case,
    inputs: &OnDevice,
    backward: bool,
    y: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let [batch, seq, heads, head_dim] = ["batch", "seq", "heads", "head_dim"].map(|name| case.dim(name));
    let [cos, sin, x] = ["cos", "sin", "x"].map(|name| inputs.view(name));
    let args = cuda::Rope { rows: batch * seq, seq, heads, head_dim, cos: &cos, sin: &sin, x: &x };
    match (way, backward) {
        (0, false) => cuda::forward(device, &args, y),
        (0, true) => cuda::backward(device, &args, y),
        (way, backward) => cuda::rotate_on(device, [1, 3][way - 1], &args, backward, y),
    }
}
