//! The lengths and offsets on which the room is judged.

use super::{Stream, cpu, reference};
use crate::catalogue::{Buffers, Case, Cost, op};

/// The stream of all cases.
pub(super) const STREAM: Stream = Stream { seed: 20_26, tensor: 7, step: 3, purpose: 1 };

/// The deviation of the normals.
pub(super) const STD: f32 = 0.02;

/// Whole and broken blocks, an offset whose block index needs the high counter word.
fn cases() -> Vec<Case> {
    vec![
        Case::new("one", &[("first", 0), ("count", 1)]),
        Case::new("inside a block", &[("first", 3), ("count", 6)]),
        Case::new("several tasks", &[("first", 5), ("count", 9001)]),
        Case::edge("beyond 2^34", &[("first", (1 << 34) + 2), ("count", 41)]),
    ]
}

op! {
    /// `philox.uniform`: nothing to x.
    UniformOp = "philox.uniform";
    cases = cases();
    bench = Case::new("1 M", &[("first", 0), ("count", 1 << 20)]);
    inputs(_) = [];
    outputs(case) = [case.unwritten("x", &[case.dim("count")])];
    cpu(_, case, _inputs, outputs) = {
        let [x] = outputs.f32_mut(["x"]);
        cpu::uniform(&STREAM, case.dim("first") as u64, x);
    };
    reference(case, _inputs, outputs) = {
        let [x] = outputs.f32_mut(["x"]);
        reference::uniform(&STREAM, case.dim("first") as u64, x);
    };
    cost(case) = super::cost(case.dim("count"));
    rows = &[];
}

op! {
    /// `philox.normal`: nothing to x; the deviation is 0.02.
    NormalOp = "philox.normal";
    cases = cases();
    bench = Case::new("1 M", &[("first", 0), ("count", 1 << 20)]);
    inputs(_) = [];
    outputs(case) = [case.unwritten("x", &[case.dim("count")])];
    cpu(_, case, _inputs, outputs) = {
        let [x] = outputs.f32_mut(["x"]);
        cpu::normal(&STREAM, case.dim("first") as u64, STD, x);
    };
    reference(case, _inputs, outputs) = {
        let [x] = outputs.f32_mut(["x"]);
        reference::normal(&STREAM, case.dim("first") as u64, STD, x);
    };
    cost(case) = Cost { flops: 14 * case.dim("count") as u64, ..super::cost(case.dim("count")) };
    rows = &[];
}
