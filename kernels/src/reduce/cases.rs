//! The lengths and inputs on which the room is judged.

use super::{cpu, reference};
use crate::catalogue::{Buffer, Buffers, Case, Data, op};

op! {
    /// `reduce.sum_squares`: g to sum, an f64.
    SumSquaresOp = "reduce.sum_squares";
    cases = vec![
        Case::new("none", &[("count", 0)]),
        Case::new("one", &[("count", 1)]),
        Case::new("odd", &[("count", 4097)]),
        Case::new("several tasks", &[("count", 140_001)]),
        Case::edge("edge", &[("count", 5000)]),
    ];
    bench = Case::new("4 M", &[("count", 1 << 22)]);
    inputs(case) = [case.values("g", &[case.dim("count")])];
    outputs(_) = [Buffer::new("sum", &[1], Data::F64(vec![f64::NAN]))];
    cpu(path, _, inputs, outputs) = {
        let [sum] = outputs.f64_mut(["sum"]);
        sum[0] = cpu::sum_squares(path, inputs.f32("g"));
    };
    reference(_, inputs, outputs) = {
        let [sum] = outputs.f64_mut(["sum"]);
        sum[0] = reference::sum_squares(inputs.f32("g"));
    };
    cost(case) = super::cost(case.dim("count"));
    rows = &[];
}
