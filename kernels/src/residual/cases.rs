//! The lengths and inputs on which the room is judged.

use super::{cpu, reference};
use crate::catalogue::{Buffers, Case, op};

fn cases() -> Vec<Case> {
    vec![
        Case::new("one", &[("rows", 1)]),
        Case::new("several tasks", &[("rows", 70_001)]),
        Case::edge("edge", &[("rows", 333)]),
    ]
}

op! {
    /// `residual.add`: a, b to y.
    AddOp = "residual.add";
    cases = cases();
    bench = Case::new("2048 x 512", &[("rows", 2048 * 512)]);
    inputs(case) = ["a", "b"].map(|name| case.values(name, &[case.dim("rows")]));
    outputs(case) = [case.unwritten("y", &[case.dim("rows")])];
    cpu(_, _, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        cpu::add(inputs.f32("a"), inputs.f32("b"), y);
    };
    reference(_, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        reference::add(inputs.f32("a"), inputs.f32("b"), y);
    };
    cost(case) = super::cost(case.dim("rows"));
    rows = &["a", "b", "y"];
}

op! {
    /// `residual.accumulate`: x to sum, which accumulates.
    AccumulateOp = "residual.accumulate";
    cases = cases();
    bench = Case::new("2048 x 512", &[("rows", 2048 * 512)]);
    inputs(case) = [case.values("x", &[case.dim("rows")])];
    outputs(case) = [case.values("sum", &[case.dim("rows")])];
    cpu(_, _, inputs, outputs) = {
        let [sum] = outputs.f32_mut(["sum"]);
        cpu::accumulate(sum, inputs.f32("x"));
    };
    reference(_, inputs, outputs) = {
        let [sum] = outputs.f32_mut(["sum"]);
        reference::accumulate(sum, inputs.f32("x"));
    };
    cost(case) = super::cost(case.dim("rows"));
    rows = &["x", "sum"];
}
