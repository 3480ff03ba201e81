//! The room's ops as a CUDA device runs them.

use super::cuda;
use crate::catalogue::Case;
use crate::device::trials::{OnDevice, Trial};
use crate::device::{Base, CudaDevice, DeviceError, ViewMut};

/// `matmul.nn`.
pub static NN: Trial = Trial {
    op: "matmul.nn",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        product(device, way, case, inputs, outputs, cuda::Layout::Nn, cuda::nn)
    },
};

/// `matmul.nt`.
pub static NT: Trial = Trial {
    op: "matmul.nt",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        product(device, way, case, inputs, outputs, cuda::Layout::Nt, cuda::nt)
    },
};

/// `matmul.tn`.
pub static TN: Trial = Trial {
    op: "matmul.tn",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        product(device, way, case, inputs, outputs, cuda::Layout::Tn, cuda::tn)
    },
};

const WAYS: &[&str] = &["chosen", "tiles of 128", "tiles of 64", "any shape"];

/// Whole tiles, tails in every direction, more than one band of tiles, empty sums.
fn edges() -> Vec<Case> {
    let of = |label, m, n, k| Case::new(label, &[("rows", m), ("n", n), ("k", k)]);
    vec![
        of("vectors, no k", 4, 8, 0),
        of("whole tile of 64", 64, 64, 64),
        of("whole tile of 128", 128, 128, 8),
        of("tails in vectors", 132, 68, 20),
        of("tails in elements", 65, 129, 17),
        of("several tiles", 260, 260, 12),
        of("two bands", 1100, 140, 4),
        Case::edge("edge vectors", &[("rows", 20), ("n", 36), ("k", 64)]),
        // Chains that underflow to -0: padding of k must leave the sign alone.
        Case::edge("underflow", &[("rows", 8), ("n", 12), ("k", 1)]),
        Case::edge("underflow, vectors", &[("rows", 260), ("n", 260), ("k", 4)]),
    ]
}

type Product = fn(&CudaDevice, &cuda::Matmul<'_>, &mut ViewMut<'_, f32>) -> Result<(), DeviceError>;

fn product(
    device: &CudaDevice,
    way: usize,
    case: &Case,
    inputs: &OnDevice,
    outputs: &mut OnDevice,
    layout: cuda::Layout,
    chosen: Product,
) -> Result<(), DeviceError> {
    use cuda::Rung::{Any, Tile64, Tile128};
    let (m, n, k) = (case.dim("rows"), case.dim("n"), case.dim("k"));
    let (a, b) = (inputs.view("a"), inputs.view("b"));
    let args = cuda::Matmul { m, n, k, a: &a, b: &b };
    let [mut c] = outputs.floats(["c"]);
    match way {
        0 => chosen(device, &args, &mut c.view()),
        way => {
            let rung = [Tile128, Tile64, Any][way - 1];
            cuda::product_on(device, rung, layout, &args, &Base::Nothing, &mut c.view())
        }
    }
}
