//! The room's ops as a CUDA device runs them.

use super::{cases, cuda};
use crate::catalogue::Case;
use crate::device::trials::Trial;

/// `attention.forward`.
pub static FORWARD: Trial = Trial {
    op: "attention.forward",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let [q, k, v] = ["q", "k", "v"].map(|name| inputs.view(name));
        let args = cuda::Forward { shape: cases::shape(case), q: &q, k: &k, v: &v };
        let [mut o, mut m, mut l] = outputs.floats(["o", "m", "l"]);
        let (mut o, mut m, mut l) = (o.view(), m.view(), l.view());
        match way {
            0 => cuda::forward(device, &args, &mut o, &mut m, &mut l),
            _ => cuda::forward_on(device, cuda::Rung::Head128, &args, &mut o, &mut m, &mut l),
        }
    },
};

/// `attention.backward`.
pub static BACKWARD: Trial = Trial {
    op: "attention.backward",
    ways: WAYS,
    more_cases: edges,
    run: |device, way, case, inputs, outputs| {
        let [q, k, v, o, m, l, dout] = ["q", "k", "v", "o", "m", "l", "dout"].map(|name| inputs.view(name));
        let shape = cases::shape(case);
        let args = cuda::Backward { shape, q: &q, k: &k, v: &v, o: &o, m: &m, l: &l, dout: &dout };
        let [mut dq, mut dk, mut dv] = outputs.floats(["dq", "dk", "dv"]);
        let (mut dq, mut dk, mut dv) = (dq.view(), dk.view(), dv.view());
        let mut workspace = device.scratch(cuda::workspace_len(&shape))?;
        let mut workspace = workspace.view_mut();
        match way {
            0 => cuda::backward(device, &args, &mut dq, &mut dk, &mut dv, &mut workspace),
            _ => {
                let rung = cuda::Rung::Head128;
                cuda::backward_on(device, rung, &args, &mut dq, &mut dk, &mut dv, &mut workspace)
            }
        }
    },
};

const WAYS: &[&str] = &["chosen", "heads of 128"];

/// Heads that only the longer kernels hold, heads that end within a stage, a group of three, several tiles.
fn edges() -> Vec<Case> {
    vec![
        cases::case("long heads", [1, 66, 3, 1, 128]),
        cases::case("odd long heads", [1, 7, 2, 2, 99]),
        cases::case("tiles", [1, 200, 2, 1, 24]),
    ]
}
