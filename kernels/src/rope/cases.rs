//! The shapes and inputs on which the room is judged.

use super::{Rope, Scaling, Tables, cpu, reference, tables};
use crate::catalogue::{Buffer, Buffers, Case, Cost, Data, op};

fn cases() -> Vec<Case> {
    let dims = |batch, seq, heads, head_dim| {
        [("batch", batch), ("seq", seq), ("heads", heads), ("head_dim", head_dim)]
    };
    vec![
        Case::new("one pair", &dims(1, 1, 1, 2)),
        Case::new("odd", &dims(2, 7, 3, 22)),
        Case::new("several tasks", &dims(2, 130, 2, 128)),
        Case::edge("edge", &dims(1, 9, 2, 48)),
    ]
}

fn shape(case: &Case) -> [usize; 4] {
    ["batch", "seq", "heads", "head_dim"].map(|name| case.dim(name))
}

fn inputs(case: &Case) -> Vec<Buffer> {
    let [_, seq, _, head_dim] = shape(case);
    let angles = tables(seq, head_dim, 10_000.0, None);
    vec![
        case.values("x", &shape(case)),
        Buffer::new("cos", &[seq, head_dim / 2], Data::F32(angles.cos)),
        Buffer::new("sin", &[seq, head_dim / 2], Data::F32(angles.sin)),
    ]
}

fn args<'a>(case: &Case, inputs: &'a Buffers) -> Rope<'a> {
    let [batch, seq, heads, head_dim] = shape(case);
    let [cos, sin, x] = ["cos", "sin", "x"].map(|name| inputs.f32(name));
    Rope { rows: batch * seq, seq, heads, head_dim, cos, sin, x }
}

fn tables_of(case: &Case) -> Tables {
    let original = case.dims.iter().find(|(name, _)| *name == "original");
    let scaling = original.map(|&(_, context)| Scaling {
        factor: 8.0,
        low_frequency: 1.0,
        high_frequency: 4.0,
        original_context: context as f64,
    });
    tables(case.dim("seq"), case.dim("head_dim"), case.dim("theta") as f64, scaling.as_ref())
}

op! {
    /// `rope.tables`: nothing to cos, sin. With a dimension `original`, scaled by 8 between 1 and 4 turns of that context.
    TablesOp = "rope.tables";
    cases = vec![
        Case::new("small", &[("seq", 5), ("head_dim", 6), ("theta", 10_000)]),
        Case::new("long", &[("seq", 700), ("head_dim", 64), ("theta", 500_000)]),
        Case::edge("one position", &[("seq", 1), ("head_dim", 2), ("theta", 2)]),
        // Slow, middling and fast pairs.
        Case::new("scaled", &[("seq", 300), ("head_dim", 64), ("theta", 500_000), ("original", 256)]),
    ];
    bench = Case::new("4096 of 128", &[("seq", 4096), ("head_dim", 128), ("theta", 10_000)]);
    inputs(_) = [];
    outputs(case) = {
        ["cos", "sin"].map(|name| case.unwritten(name, &[case.dim("seq"), case.dim("head_dim") / 2]))
    };
    cpu(_, case, _inputs, outputs) = {
        let angles = tables_of(case);
        let [cos, sin] = outputs.f32_mut(["cos", "sin"]);
        cos.copy_from_slice(&angles.cos);
        sin.copy_from_slice(&angles.sin);
    };
    reference(case, _inputs, outputs) = {
        // One implementation serves all: the tables are model constants, judged by accuracy in the room's tests.
        let angles = tables_of(case);
        let [cos, sin] = outputs.f32_mut(["cos", "sin"]);
        cos.copy_from_slice(&angles.cos);
        sin.copy_from_slice(&angles.sin);
    };
    cost(case) = Cost { bytes: 4 * (case.dim("seq") * case.dim("head_dim")) as u64, flops: 0 };
    rows = &[];
}

op! {
    /// `rope.forward`: x, cos, sin to y.
    ForwardOp = "rope.forward";
    cases = cases();
    bench = Case::new("4 x 512, 8 heads of 64", &[("batch", 4), ("seq", 512), ("heads", 8), ("head_dim", 64)]);
    inputs(case) = inputs(case);
    outputs(case) = [case.unwritten("y", &shape(case))];
    cpu(path, case, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        cpu::forward(path, &args(case, inputs), y);
    };
    reference(case, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        reference::forward(&args(case, inputs), y);
    };
    cost(case) = super::cost(shape(case).iter().product());
    rows = &[];
}

op! {
    /// `rope.backward`: x (the gradient), cos, sin to dx.
    BackwardOp = "rope.backward";
    cases = cases();
    bench = Case::new("4 x 512, 8 heads of 64", &[("batch", 4), ("seq", 512), ("heads", 8), ("head_dim", 64)]);
    inputs(case) = inputs(case);
    outputs(case) = [case.unwritten("dx", &shape(case))];
    cpu(path, case, inputs, outputs) = {
        let [dx] = outputs.f32_mut(["dx"]);
        cpu::backward(path, &args(case, inputs), dx);
    };
    reference(case, inputs, outputs) = {
        let [dx] = outputs.f32_mut(["dx"]);
        reference::backward(&args(case, inputs), dx);
    };
    cost(case) = super::cost(shape(case).iter().product());
    rows = &[];
}
