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

/// What a case multiplies by.
pub(crate) const FACTOR: f32 = 1.0 / 3.0;

op! {
    /// `reduce.scale`: g, in place, by a third.
    ScaleOp = "reduce.scale";
    cases = vec![
        Case::new("one", &[("rows", 1)]),
        Case::new("several tasks", &[("rows", 70_001)]),
        Case::edge("edge", &[("rows", 333)]),
    ];
    bench = Case::new("4 M", &[("rows", 1 << 22)]);
    inputs(_) = [];
    outputs(case) = [case.values("g", &[case.dim("rows")])];
    cpu(_, _, _inputs, outputs) = {
        let [g] = outputs.f32_mut(["g"]);
        cpu::scale(g, FACTOR);
    };
    reference(_, _inputs, outputs) = {
        let [g] = outputs.f32_mut(["g"]);
        reference::scale(g, FACTOR);
    };
    cost(case) = super::scale_cost(case.dim("rows"));
    rows = &["g"];
}

/// The bound of a case, from thousandths; 0 stands for infinity.
pub(crate) fn bound(case: &Case) -> f32 {
    match case.dim("bound") {
        0 => f32::INFINITY,
        thousandths => thousandths as f32 / 1000.0,
    }
}

/// An answer as an element of a buffer.
fn place(found: Option<usize>) -> u32 {
    found.map_or(u32::MAX, |place| place as u32)
}

op! {
    /// `reduce.first_beyond`: x to place, its index or the largest u32.
    FirstBeyondOp = "reduce.first_beyond";
    cases = vec![
        Case::new("none of none", &[("count", 0), ("bound", 0)]),
        Case::new("one", &[("count", 1), ("bound", 0)]),
        Case::new("none", &[("count", 4099), ("bound", 0)]),
        Case::new("late", &[("count", 70_001), ("bound", 4200)]),
        Case::new("early", &[("count", 70_001), ("bound", 2000)]),
        Case::edge("edge", &[("count", 501), ("bound", 0)]),
        Case::edge("beyond the edge", &[("count", 501), ("bound", 1)]),
    ];
    bench = Case::new("4 M", &[("count", 1 << 22), ("bound", 0)]);
    inputs(case) = [case.values("x", &[case.dim("count")])];
    outputs(_) = [Buffer::new("place", &[1], Data::U32(vec![u32::MAX]))];
    cpu(_, case, inputs, outputs) = {
        let [found] = outputs.u32_mut(["place"]);
        found[0] = place(cpu::first_beyond(inputs.f32("x"), bound(case)));
    };
    reference(case, inputs, outputs) = {
        let [found] = outputs.u32_mut(["place"]);
        found[0] = place(reference::first_beyond(inputs.f32("x"), bound(case)));
    };
    cost(case) = super::first_beyond_cost(case.dim("count"));
    rows = &[];
}
