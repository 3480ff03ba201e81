//! The room's ops as a CUDA device runs them.

use super::{cases, cuda};
use crate::catalogue::Case;
use crate::device::trials::{STRIDING_WAYS, Trial, striding_grid};

/// `philox.uniform`.
pub static UNIFORM: Trial = Trial {
    op: "philox.uniform",
    ways: STRIDING_WAYS,
    more_cases: edges,
    run: |device, way, case, _, outputs| {
        let first = case.dim("first") as u64;
        let [mut x] = outputs.floats(["x"]);
        match striding_grid(way) {
            None => cuda::uniform(device, &cases::STREAM, first, &mut x.view()),
            Some(grid) => cuda::uniform_on(device, grid, &cases::STREAM, first, &mut x.view()),
        }
    },
};

/// `philox.normal`.
pub static NORMAL: Trial = Trial {
    op: "philox.normal",
    ways: STRIDING_WAYS,
    more_cases: edges,
    run: |device, way, case, _, outputs| {
        let first = case.dim("first") as u64;
        let [mut x] = outputs.floats(["x"]);
        match striding_grid(way) {
            None => cuda::normal(device, &cases::STREAM, first, cases::STD, &mut x.view()),
            Some(grid) => cuda::normal_on(device, grid, &cases::STREAM, first, cases::STD, &mut x.view()),
        }
    },
};

/// Whole blocks with a tail.
fn edges() -> Vec<Case> {
    vec![Case::new("vectors", &[("first", 8), ("count", 1022)])]
}
