//! The room's ops as a CUDA device runs them.

use super::{cases, cuda};
use crate::catalogue::Case;
use crate::device::Base;
use crate::device::trials::Trial;

/// `rms_norm.forward`.
pub static FORWARD: Trial = Trial {
    op: "rms_norm.forward",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        let (x, w) = (inputs.view("x"), inputs.view("w"));
        let args = cuda::Forward { rows, dim, eps: cases::EPS, x: &x, w: &w };
        let [mut y, mut r] = outputs.floats(["y", "r"]);
        match rung(way) {
            None => cuda::forward(device, &args, &mut y.view(), &mut r.view()),
            Some((rung, warps)) => cuda::forward_on(device, rung, warps, &args, &mut y.view(), &mut r.view()),
        }
    },
};

/// `rms_norm.backward`.
pub static BACKWARD: Trial = Trial {
    op: "rms_norm.backward",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        let [x, w, r, dy] = ["x", "w", "r", "dy"].map(|name| inputs.view(name));
        let args = cuda::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy };
        let [mut dx, mut dw] = outputs.floats(["dx", "dw"]);
        let (mut dx, mut dw) = (dx.view(), dw.view());
        let mut workspace = device.scratch(cuda::workspace_len(rows, dim))?;
        let mut workspace = workspace.view_mut();
        match rung(way) {
            None => cuda::backward(device, &args, &mut dx, &mut dw, &mut workspace),
            Some((rung, warps)) => {
                let base = &Base::Nothing;
                cuda::backward_on(device, rung, warps, &args, base, &mut dx, &mut dw, &mut workspace)
            }
        }
    },
};

const WAYS: &[&str] = &["chosen", "held short, 1 warp", "held long, 8 warps", "any, 1 warp", "any, 8 warps"];

fn rung(way: usize) -> Option<(cuda::Rung, u32)> {
    use cuda::Rung::{Any, HeldLong, HeldShort};
    [None, Some((HeldShort, 1)), Some((HeldLong, 8)), Some((Any, 1)), Some((Any, 8))][way]
}

/// The longest rows of each rung, and the next longer ones.
fn edges() -> Vec<Case> {
    let of = |label, rows, dim| Case::new(label, &[("rows", rows), ("dim", dim)]);
    vec![
        of("vectors", 9, 132),
        of("longest short", 2, 1024),
        of("shortest long", 2, 1028),
        of("longest long backward", 1, 2048),
        of("beyond long backward", 1, 2052),
        of("longest long forward", 1, 4096),
        of("beyond long forward", 1, 4100),
        Case::edge("edge vectors", &[("rows", 66), ("dim", 136)]),
    ]
}
