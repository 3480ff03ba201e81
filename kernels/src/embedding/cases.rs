//! The shapes and inputs on which the room is judged.

use super::{Backward, Forward, cpu, reference};
use crate::catalogue::{Buffers, Case, op};

/// A vocabulary larger than the text, one much smaller (several chunks of 256 positions per token), one of one token.
fn cases() -> Vec<Case> {
    let dims = |rows, vocab, dim| [("rows", rows), ("vocab", vocab), ("dim", dim)];
    vec![
        Case::new("one", &dims(1, 1, 1)),
        Case::new("sparse", &dims(20, 300, 33)),
        Case::new("dense", &dims(1500, 3, 50)),
        Case::edge("edge", &dims(700, 2, 9)),
    ]
}

op! {
    /// `embedding.forward`: tokens, table to y.
    ForwardOp = "embedding.forward";
    cases = cases();
    bench = Case::new("2048 tokens of 4096 x 512", &[("rows", 2048), ("vocab", 4096), ("dim", 512)]);
    inputs(case) = {
        let (vocab, dim) = (case.dim("vocab"), case.dim("dim"));
        [case.below("tokens", &[case.dim("rows")], vocab as u32), case.values("table", &[vocab, dim])]
    };
    outputs(case) = [case.unwritten("y", &[case.dim("rows"), case.dim("dim")])];
    cpu(_, case, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        cpu::forward(&forward_args(case, inputs), y);
    };
    reference(case, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        reference::forward(&forward_args(case, inputs), y);
    };
    cost(case) = super::cost(case.dim("rows"), case.dim("dim"));
    rows = &["tokens", "y"];
}

op! {
    /// `embedding.backward`: tokens, dy to dtable, which accumulates.
    BackwardOp = "embedding.backward";
    cases = cases();
    bench = Case::new("2048 tokens of 4096 x 512", &[("rows", 2048), ("vocab", 4096), ("dim", 512)]);
    inputs(case) = {
        let (rows, dim) = (case.dim("rows"), case.dim("dim"));
        [case.below("tokens", &[rows], case.dim("vocab") as u32), case.values("dy", &[rows, dim])]
    };
    outputs(case) = [case.values("dtable", &[case.dim("vocab"), case.dim("dim")])];
    cpu(_, case, inputs, outputs) = {
        let [dtable] = outputs.f32_mut(["dtable"]);
        cpu::backward(&backward_args(case, inputs), dtable);
    };
    reference(case, inputs, outputs) = {
        let [dtable] = outputs.f32_mut(["dtable"]);
        reference::backward(&backward_args(case, inputs), dtable);
    };
    cost(case) = super::cost(case.dim("rows"), case.dim("dim"));
    rows = &[];
}

fn forward_args<'a>(case: &Case, inputs: &'a Buffers) -> Forward<'a> {
    let (tokens, table) = (inputs.u32("tokens"), inputs.f32("table"));
    Forward { vocab: case.dim("vocab"), dim: case.dim("dim"), tokens, table }
}

fn backward_args<'a>(case: &Case, inputs: &'a Buffers) -> Backward<'a> {
    let (tokens, dy) = (inputs.u32("tokens"), inputs.f32("dy"));
    Backward { vocab: case.dim("vocab"), dim: case.dim("dim"), tokens, dy }
}
