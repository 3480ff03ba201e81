//! The room's ops as a CUDA device runs them.

use super::cuda;
use crate::catalogue::Case;
use crate::device::trials::Trial;

/// `embedding.forward`.
pub static FORWARD: Trial = Trial {
    op: "embedding.forward",
    ways: &["chosen", "1 block", "7 blocks"],
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let (tokens, table) = (inputs.view("tokens"), inputs.view("table"));
        let args =
            cuda::Forward { vocab: case.dim("vocab"), dim: case.dim("dim"), tokens: &tokens, table: &table };
        let [mut y] = outputs.floats(["y"]);
        match way {
            0 => cuda::forward(device, &args, &mut y.view()),
            way => cuda::forward_on(device, [1, 7][way - 1], &args, &mut y.view()),
        }
    },
};

/// `embedding.backward`.
pub static BACKWARD: Trial = Trial {
    op: "embedding.backward",
    ways: &["chosen", "32 threads", "64 threads"],
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let (tokens, dy) = (inputs.view("tokens"), inputs.view("dy"));
        let args =
            cuda::Backward { vocab: case.dim("vocab"), dim: case.dim("dim"), tokens: &tokens, dy: &dy };
        let [mut dtable] = outputs.floats(["dtable"]);
        let mut workspace = device.scratch(cuda::workspace_len(tokens.len()))?;
        let mut workspace = workspace.view_mut();
        match way {
            0 => cuda::backward(device, &args, &mut dtable.view(), &mut workspace),
            way => {
                let threads = [32, 64][way - 1];
                cuda::backward_on(device, threads, &args, &mut dtable.view(), &mut workspace)
            }
        }
    },
};

/// Rows in vectors, some of more than one block of columns.
fn edges() -> Vec<Case> {
    let dims = |rows, vocab, dim| [("rows", rows), ("vocab", vocab), ("dim", dim)];
    vec![
        Case::new("vectors", &dims(300, 17, 36)),
        Case::new("wide vectors", &dims(5, 2, 1028)),
        Case::edge("edge vectors", &dims(600, 2, 8)),
    ]
}
