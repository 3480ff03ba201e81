//! The shapes and inputs on which the room is judged.

use super::{Backward, Forward, Shape, cpu, reference};
use crate::{
    SimdPath,
    catalogue::{Buffer, Buffers, Case, Cost, Data, Op},
};

pub(super) fn case(label: &'static str, [batch, seq, heads, kv_heads, head_dim]: [usize; 5]) -> Case {
    let dims =
        [("batch", batch), ("seq", seq), ("heads", heads), ("kv_heads", kv_heads), ("head_dim", head_dim)];
    Case::new(label, &dims)
}

/// One token, around the blocks of 64, head widths around vectors, grouped queries.
fn cases() -> Vec<Case> {
    let mut edge = case("edge", [1, 70, 2, 1, 16]);
    edge.values = crate::catalogue::Values::Edge;
    vec![
        case("one token", [1, 1, 1, 1, 1]),
        case("short", [2, 5, 2, 1, 6]),
        case("one block", [1, 64, 2, 2, 32]),
        case("block and one", [1, 65, 4, 2, 20]),
        case("three blocks", [2, 150, 2, 1, 64]),
        edge,
    ]
}

fn bench_cases() -> Vec<Case> {
    vec![
        case("4 x 256, 4 heads of 64", [4, 256, 4, 4, 64]),
        case("1 x 512, 4 heads of 64", [1, 512, 4, 4, 64]),
    ]
}

pub(super) fn shape(case: &Case) -> Shape {
    let [batch, seq, heads, kv_heads, head_dim] =
        ["batch", "seq", "heads", "kv_heads", "head_dim"].map(|name| case.dim(name));
    Shape { batch, seq, heads, kv_heads, head_dim }
}

fn queries(shape: &Shape) -> [usize; 4] {
    [shape.batch, shape.seq, shape.heads, shape.head_dim]
}

fn keys(shape: &Shape) -> [usize; 4] {
    [shape.batch, shape.seq, shape.kv_heads, shape.head_dim]
}

fn stats(shape: &Shape) -> [usize; 3] {
    [shape.batch, shape.heads, shape.seq]
}

/// Queries and keys, not so large that the softmax becomes a plain choice.
fn qkv(case: &Case) -> [Buffer; 3] {
    let shape = shape(case);
    [case.values("q", &queries(&shape)), case.values("k", &keys(&shape)), case.values("v", &keys(&shape))]
}

/// `attention.forward`: q, k, v to o, m, l.
pub struct ForwardOp;

impl ForwardOp {
    fn args<'a>(case: &Case, inputs: &'a Buffers) -> Forward<'a> {
        Forward { shape: shape(case), q: inputs.f32("q"), k: inputs.f32("k"), v: inputs.f32("v") }
    }
}

impl Op for ForwardOp {
    fn name(&self) -> &'static str {
        "attention.forward"
    }
    fn cases(&self) -> Vec<Case> {
        cases()
    }
    fn bench_cases(&self) -> Vec<Case> {
        bench_cases()
    }
    fn inputs(&self, case: &Case) -> Buffers {
        qkv(case).into_iter().collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        let shape = shape(case);
        [
            case.unwritten("o", &queries(&shape)),
            case.unwritten("m", &stats(&shape)),
            case.unwritten("l", &stats(&shape)),
        ]
        .into_iter()
        .collect()
    }
    fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [o, m, l] = outputs.f32_mut(["o", "m", "l"]);
        cpu::forward(path, &Self::args(case, inputs), o, m, l);
    }
    fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [o, m, l] = outputs.f32_mut(["o", "m", "l"]);
        reference::forward(&Self::args(case, inputs), o, m, l);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::forward_cost(&shape(case))
    }
}

/// `attention.backward`: q, k, v, o, m, l, dout to dq, dk, dv.
pub struct BackwardOp;

impl BackwardOp {
    fn args<'a>(case: &Case, inputs: &'a Buffers) -> Backward<'a> {
        let [q, k, v, o, m, l, dout] = ["q", "k", "v", "o", "m", "l", "dout"].map(|name| inputs.f32(name));
        Backward { shape: shape(case), q, k, v, o, m, l, dout }
    }
}

impl Op for BackwardOp {
    fn name(&self) -> &'static str {
        "attention.backward"
    }
    fn cases(&self) -> Vec<Case> {
        cases()
    }
    fn bench_cases(&self) -> Vec<Case> {
        bench_cases()
    }
    fn inputs(&self, case: &Case) -> Buffers {
        let shape = shape(case);
        let [q, k, v] = qkv(case);
        let mut o = vec![0.0; shape.query_len()];
        let (mut m, mut l) = (vec![0.0; shape.stat_len()], vec![0.0; shape.stat_len()]);
        let forward: Buffers = [q, k, v].into_iter().collect();
        // The forward pass has its own judges; here its output is an input like any other.
        cpu::forward(SimdPath::best(), &ForwardOp::args(case, &forward), &mut o, &mut m, &mut l);
        let saved = [
            Buffer::new("o", &queries(&shape), Data::F32(o)),
            Buffer::new("m", &stats(&shape), Data::F32(m)),
            Buffer::new("l", &stats(&shape), Data::F32(l)),
            case.values("dout", &queries(&shape)),
        ];
        forward.0.into_iter().chain(saved).collect()
    }
    fn outputs(&self, case: &Case) -> Buffers {
        let shape = shape(case);
        [
            case.unwritten("dq", &queries(&shape)),
            case.unwritten("dk", &keys(&shape)),
            case.unwritten("dv", &keys(&shape)),
        ]
        .into_iter()
        .collect()
    }
    fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [dq, dk, dv] = outputs.f32_mut(["dq", "dk", "dv"]);
        cpu::backward(path, &Self::args(case, inputs), dq, dk, dv);
    }
    fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
        let [dq, dk, dv] = outputs.f32_mut(["dq", "dk", "dv"]);
        reference::backward(&Self::args(case, inputs), dq, dk, dv);
    }
    fn cost(&self, case: &Case) -> Cost {
        super::backward_cost(&shape(case))
    }
}
